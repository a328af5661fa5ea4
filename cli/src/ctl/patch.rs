//! `trictl patch`.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::api::Call;
use super::change::patched;
use super::discovery::Resource;
use super::errors::{CtlError, Result};
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{JSON_PATCH, MERGE, Mode, STRATEGIC};
use super::print::os_reason;
use super::session::Session;
use super::targets::{self, Selection, Target};

/// Change fields of objects with a patch.
#[derive(Debug, Clone, Default, Args)]
pub struct PatchArgs {
    /// TYPE NAME or TYPE/NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
    /// The patch, in JSON or YAML
    #[arg(short, long)]
    pub patch: Option<String>,
    /// A file with the patch
    #[arg(long)]
    pub patch_file: Option<String>,
    /// Kind of patch: json, merge or strategic
    #[arg(long, default_value = "strategic")]
    pub r#type: String,
    /// Do not contact the server: change what the files hold and print it
    #[arg(long)]
    pub local: bool,
    /// Patch this subresource instead
    #[arg(long)]
    pub subresource: Option<String>,
}

/// Runs `patch`.
pub async fn patch(session: &Session, args: &PatchArgs) -> Result<()> {
    let text = match (&args.patch, &args.patch_file) {
        (Some(_), Some(_)) => return Err(CtlError::plain("cannot specify --patch and --patch-file together")),
        (Some(patch), None) => patch.clone(),
        (None, Some(path)) => std::fs::read_to_string(path).map_err(|error| {
            CtlError::plain(format!("unable to read patch file: open {path}: {}", os_reason(&error)))
        })?,
        (None, None) => {
            return Err(CtlError::plain("must specify --patch or --patch-file containing the contents of the patch"));
        }
    };
    let content_type = match args.r#type.as_str() {
        "json" => JSON_PATCH,
        "merge" => MERGE,
        "strategic" => STRATEGIC,
        other => return Err(CtlError::plain(format!("--type must be one of [json merge strategic], not {other:?}"))),
    };
    let body = Body::read(text)?;
    let (found, mut failures) = match args.local {
        true if args.files.is_empty() => return Err(CtlError::plain("--local requires files: -f FILENAME")),
        true => targets::offline(session, &args.files)?,
        false => targets::resolve(session, &args.words, &args.files, &Selection::default()).await?,
    };
    for target in found {
        failures.extend(patch_one(session, args, &target, content_type, &body).await.err());
    }
    CtlError::gather(failures)
}

/// The patch as it is sent. What looks like JSON goes as it stands, so that the server says what is wrong with it.
struct Body(String);

impl Body {
    fn read(text: String) -> Result<Body> {
        if text.trim_start().starts_with('{') {
            return Ok(Body(text));
        }
        let value: Value = serde_norway::from_str(&text)
            .map_err(|error| CtlError::plain(format!("unable to parse {text:?}: yaml: {error}")))?;
        Ok(Body(value.to_string()))
    }

    fn value(&self) -> Result<Value> {
        serde_json::from_str(&self.0).map_err(|error| CtlError::plain(format!("unable to parse {:?}: {error}", self.0)))
    }
}

async fn patch_one(
    session: &Session,
    args: &PatchArgs,
    target: &Target,
    kind: &'static str,
    body: &Body,
) -> Result<()> {
    let printer = args.mode.printer()?;
    if args.local {
        let result = patched(target, target.object.as_ref().unwrap_or(&Value::Null), kind, &body.value()?)?;
        return show_result(target, &result, &printer, "patched");
    }
    let path = match &args.subresource {
        Some(subresource) => format!("{}/{subresource}", target.path()),
        None => target.path(),
    };
    let current = session.api.json(&Call::get(path.clone())).await?;
    let result = if args.mode.client_only() {
        patched(target, &current, kind, &body.value()?)?
    } else {
        let call = Call::new(Method::PATCH, path)
            .query("fieldManager", args.mode.manager("kubectl-patch"))
            .body_text(kind, &body.0);
        session.api.json(&args.mode.mark(call)).await?
    };
    let word = if result == current { "patched (no change)" } else { "patched" };
    show_result(&of_kind(target, &result), &result, &printer, word)
}

/// A subresource may answer with another kind, which is then what was patched.
fn of_kind(target: &Target, result: &Value) -> Target {
    let kind = result["kind"].as_str().unwrap_or_default();
    if kind.is_empty() || kind == target.resource.kind {
        return target.clone();
    }
    let version = result["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        singular: kind.to_lowercase(),
        ..Resource::default()
    };
    Target { resource: resource.into(), ..target.clone() }
}
