//! `trictl create` and `trictl replace`.

use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use serde_json::Value;

use super::api::Call;
use super::apply::with_last_applied;
use super::errors::{CtlError, Result};
use super::flags;
use super::generate::{self, Generator};
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{Mode, Validate};
use super::session::Session;
use super::targets::{self, Target};

/// Create objects from a file, from standard input, or from flags.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CreateArgs {
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub how: How,
    /// Edit the objects before creating them
    #[arg(long)]
    pub edit: bool,
    /// Raw URI to POST the file to
    #[arg(long)]
    pub raw: Option<String>,
    /// Label selector: create only objects with these labels
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Only relevant if --edit: the editor gets the line ends of Windows
    #[arg(long)]
    pub windows_line_endings: bool,
    /// A kind to create from flags
    #[command(subcommand)]
    pub kind: Option<Generator>,
}

/// Flags of every creation.
#[derive(Debug, Clone, Default, Args)]
pub struct How {
    #[command(flatten)]
    pub mode: Mode,
    #[command(flatten)]
    pub validate: Validate,
    /// Keep the configuration in an annotation, for a later apply
    #[arg(long)]
    pub save_config: bool,
}

/// Replace objects by file or standard input.
#[derive(Debug, Clone, Default, Args)]
pub struct ReplaceArgs {
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub how: How,
    /// Delete and create anew
    #[arg(long)]
    pub force: bool,
    /// What becomes of dependents with --force: background, foreground or orphan
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "background", default_value = "background")]
    pub cascade: String,
    /// Grace period of deletions with --force
    #[arg(long, default_value_t = -1, hide_default_value = true)]
    pub grace_period: i64,
    /// How long to wait for deletions with --force; 0 is without limit
    #[arg(long, default_value = "0s", value_parser = flags::seconds)]
    pub timeout: f64,
    /// With --force, wait until the objects are gone
    #[arg(long)]
    pub wait: bool,
    /// Raw URI to PUT the file to
    #[arg(long)]
    pub raw: Option<String>,
    /// Replace this subresource instead
    #[arg(long)]
    pub subresource: Option<String>,
}

/// Runs `create`.
pub async fn run(session: &Session, args: &CreateArgs) -> Result<()> {
    match &args.kind {
        Some(Generator::Token(args)) => return super::token::run(session, args).await,
        Some(generator) => {
            let made = generate::made(session, generator).await?;
            let making = Making { manager: "kubectl-create", done: "created", refusal: &made.refusal };
            return create_generated(session, made.object, made.how, &making).await;
        }
        None => {}
    }
    if args.files.is_empty() {
        return Err(CtlError::plain("must specify one of -f and -k"));
    }
    if let Some(path) = &args.raw {
        return raw(session, Method::POST, path, &args.files).await;
    }
    if args.edit {
        return super::edit::create(session, args).await;
    }
    args.how.validate.level()?;
    let (found, mut failures) = targets::from_files(session, &args.files).await?;
    let mut seen = false;
    for target in found {
        if !selected(args.selector.as_deref(), &target)? {
            continue;
        }
        seen = true;
        if let Err(error) = create_one(session, &target, &args.how, &Making::CREATE).await {
            failures.push(error.during("creating", target.source.as_deref()));
        }
    }
    if !seen && failures.is_empty() {
        return Err(CtlError::plain("no objects passed to create"));
    }
    CtlError::gather(failures)
}

/// Whether a file's object has the labels that were asked for.
pub fn selected(selector: Option<&str>, target: &Target) -> Result<bool> {
    let Some(text) = selector else { return Ok(true) };
    let selector =
        trireme_api::selector::LabelSelector::parse(text).map_err(|error| CtlError::plain(error.to_string()))?;
    Ok(target.object.as_ref().is_some_and(|object| selector.matches_object(object)))
}

/// Sends a file as it stands to a path.
pub async fn raw(session: &Session, method: Method, path: &str, files: &Files) -> Result<()> {
    let [file] = files.filename.as_slice() else {
        return Err(CtlError::plain("--raw can only use a single local file or stdin"));
    };
    let text = match file.as_str() {
        "-" => std::io::read_to_string(std::io::stdin())?,
        file => std::fs::read_to_string(file)
            .map_err(|error| CtlError::plain(format!("open {file}: {}", super::print::os_reason(&error))))?,
    };
    let bytes = session.api.bytes(&Call::new(method, path).body_text("application/json", &text)).await?;
    super::print::emit(&String::from_utf8_lossy(&bytes))
}

/// How an object that was made here comes to be.
pub struct Making<'a> {
    /// Who manages its fields.
    pub manager: &'a str,
    /// `created`, `exposed`.
    pub done: &'a str,
    /// What comes before the server's refusal; nothing leaves it as the server's.
    pub refusal: &'a str,
}

impl Making<'_> {
    /// As `create -f` does it.
    pub const CREATE: Making<'static> = Making { manager: "kubectl-create", done: "created", refusal: "" };
}

/// Creates an object made from flags.
pub async fn create_generated(session: &Session, object: Value, how: &How, making: &Making<'_>) -> Result<()> {
    if how.mode.client_only() {
        return show_offline(session, object, how, making.done);
    }
    let discovery = session.discovery().await?;
    let target = targets::locate(session, &discovery, object, "flags")?;
    let target = Target { source: None, ..target };
    create_one(session, &target, how, making).await.map_err(|error| match error {
        CtlError::Status(_) if !making.refusal.is_empty() => {
            CtlError::plain(format!("{} {}", making.refusal, error.reason_text()))
        }
        other => other,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A dry run of the client needs no server, so that `create … -o yaml` works anywhere.
fn show_offline(session: &Session, mut object: Value, how: &How, done: &str) -> Result<()> {
    let resource = targets::guess(&object);
    if session.namespace_given
        && resource.namespaced
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.insert("namespace".to_owned(), Value::from(session.namespace.clone()));
    }
    let object = if how.save_config { with_last_applied(&object) } else { object };
    let target = targets::of_object(&resource.into(), object.clone());
    let printer = how.mode.printer()?.in_order();
    show_result(&target, &object, &printer, &how.mode.done(done))
}

async fn create_one(session: &Session, target: &Target, how: &How, making: &Making<'_>) -> Result<()> {
    let object = target.object.clone().unwrap_or_default();
    let object = if how.save_config { with_last_applied(&object) } else { object };
    let printer = how.mode.printer()?;
    if how.mode.client_only() {
        return show_result(target, &object, &printer, &how.mode.done(making.done));
    }
    let call = Call::new(Method::POST, target.collection())
        .query("fieldManager", how.mode.manager(making.manager))
        .query("fieldValidation", how.validate.level()?)
        .body(&object);
    let created = session.api.json(&how.mode.mark(call)).await?;
    let name = text(&created["metadata"]["name"]);
    show_result(&Target { name, ..target.clone() }, &created, &printer, &how.mode.done(making.done))
}

/// Runs `replace`.
pub async fn replace(session: &Session, args: &ReplaceArgs) -> Result<()> {
    if args.files.is_empty() {
        return Err(CtlError::plain("must specify one of -f and -k"));
    }
    if let Some(path) = &args.raw {
        return raw(session, Method::PUT, path, &args.files).await;
    }
    args.how.validate.level()?;
    let (found, mut failures) = targets::from_files(session, &args.files).await?;
    if found.is_empty() && failures.is_empty() {
        return Err(CtlError::plain("no objects passed to replace"));
    }
    for target in found {
        if let Err(error) = replace_one(session, &target, args).await {
            failures.push(error.during("replacing", target.source.as_deref()));
        }
    }
    CtlError::gather(failures)
}

async fn replace_one(session: &Session, target: &Target, args: &ReplaceArgs) -> Result<()> {
    let mode = &args.how.mode;
    let object = target.object.clone().unwrap_or_default();
    let object = if args.how.save_config { with_last_applied(&object) } else { object };
    let printer = mode.printer()?;
    if mode.client_only() {
        return show_result(target, &object, &printer, &mode.done("replaced"));
    }
    let call = if args.force {
        delete_first(session, target, args).await?;
        Call::new(Method::POST, target.collection())
    } else {
        let tail = args.subresource.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
        Call::new(Method::PUT, target.path() + &tail)
    };
    let call = call
        .query("fieldManager", mode.manager("kubectl-replace"))
        .query("fieldValidation", args.how.validate.level()?)
        .body(&object);
    let replaced = session.api.json(&mode.mark(call)).await?;
    show_result(target, &replaced, &printer, &mode.done("replaced"))
}

async fn delete_first(session: &Session, target: &Target, args: &ReplaceArgs) -> Result<()> {
    let options = super::delete::Options {
        grace_period: Some(if args.grace_period < 0 { 0 } else { args.grace_period }),
        propagation: super::delete::propagation(&args.cascade)?,
        dry_run: false,
    };
    let deadline = (args.timeout > 0.0).then(|| Instant::now() + Duration::from_secs_f64(args.timeout));
    match super::delete::remove(session, target, &options).await {
        Ok(uid) => {
            super::print::emit(&format!("{} {:?} deleted\n", target.resource.label(), target.name))?;
            super::delete::await_gone(session, target, &uid, deadline).await
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
