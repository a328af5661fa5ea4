//! `trictl auth`: what one may do, who one is, and roles and bindings as they are meant to be.

mod reconcile;
mod rules;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use self::reconcile::ReconcileArgs;
use super::api::Call;
use super::errors::{CtlError, Result};
use super::get::emit_document;
use super::print::table::aligned;
use super::print::{Formats, PrintFlags, emit};
use super::session::Session;

/// What to find out.
#[derive(Debug, Clone, Subcommand)]
pub enum Auth {
    /// Check whether an action is allowed
    #[command(name = "can-i")]
    CanI(CanIArgs),
    /// Reconcile rules for roles and bindings from files
    Reconcile(Box<ReconcileArgs>),
    /// Check self subject attributes
    #[command(name = "whoami")]
    WhoAmI(WhoAmIArgs),
}

/// Check whether an action is allowed.
#[derive(Debug, Clone, Default, Args)]
pub struct CanIArgs {
    /// VERB and TYPE, TYPE/NAME or /PATH
    pub words: Vec<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Print all allowed actions
    #[arg(long)]
    pub list: bool,
    /// With --list, do not print heads
    #[arg(long)]
    pub no_headers: bool,
    /// No output; the exit code tells
    #[arg(short, long)]
    pub quiet: bool,
    /// Sub-resource such as log or scale
    #[arg(long, default_value = "", hide_default_value = true)]
    pub subresource: String,
}

/// Check self subject attributes.
#[derive(Debug, Clone, Default, Args)]
pub struct WhoAmIArgs {
    /// Ignored
    #[arg(hide = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub print: PrintFlags,
}

/// The verbs that a resource may be asked about without a warning.
const RESOURCE_VERBS: &str =
    "get list watch create update patch delete deletecollection use bind impersonate * approve sign escalate";
const PATH_VERBS: [&str; 8] = ["get", "put", "post", "head", "options", "delete", "patch", "*"];

/// Runs the verb.
pub async fn run(session: &Session, verb: &Auth) -> Result<()> {
    match verb {
        Auth::CanI(args) => can_i(session, args).await,
        Auth::Reconcile(args) => reconcile::run(session, args).await,
        Auth::WhoAmI(args) => whoami(session, args).await,
    }
}

/// A warning as kubectl prints it here: with an empty line.
fn warn(text: String) {
    super::api::warn(&format!("{text}\n"));
}

async fn can_i(session: &Session, args: &CanIArgs) -> Result<()> {
    if args.list {
        return list(session, args).await;
    }
    let [verb, object] = args.words.as_slice() else {
        return Err(CtlError::plain(
            "you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'trictl auth can-i -h' \
             for help and examples.",
        ));
    };
    let spec = match object.starts_with('/') {
        true => path(args, verb, object)?,
        false => resource(session, args, verb, object).await?,
    };
    if args.no_headers {
        return Err(CtlError::plain("--no-headers cannot be set without --list specified"));
    }
    let status = review(session, "SelfSubjectAccessReview", "selfsubjectaccessreviews", spec).await?;
    let allowed = status["allowed"] == true;
    if !args.quiet {
        let mut answer = if allowed { "yes".to_owned() } else { "no".to_owned() };
        for why in ["reason", "evaluationError"] {
            if let Some(text) = status[why].as_str().filter(|text| !allowed && !text.is_empty()) {
                answer.push_str(&format!(" - {text}"));
            }
        }
        emit(&format!("{answer}\n"))?;
    }
    if allowed { Ok(()) } else { Err(CtlError::Exit(1)) }
}

fn path(args: &CanIArgs, verb: &str, path: &str) -> Result<Value> {
    if !args.subresource.is_empty() {
        return Err(CtlError::plain("--subresource can not be used with NonResourceURL"));
    }
    if !PATH_VERBS.contains(&verb) {
        warn(format!("verb '{verb}' is not a known verb"));
    }
    Ok(json!({"nonResourceAttributes": {"verb": verb, "path": path}}))
}

async fn resource(session: &Session, args: &CanIArgs, verb: &str, object: &str) -> Result<Value> {
    let (kind, name) = object.split_once('/').unwrap_or((object, ""));
    let (mut group, mut plural) = (String::new(), kind.to_owned());
    if kind != "*" {
        let lower = kind.to_lowercase();
        match session.discovery().await?.find(&lower) {
            Some(found) => {
                (group, plural) = (found.group.clone(), found.plural.clone());
                let within = if group.is_empty() { String::new() } else { format!(" in group '{group}'") };
                if !found.namespaced && !args.all_namespaces {
                    warn(format!("resource '{plural}' is not namespace scoped{within}"));
                }
            }
            None if lower == "users" || lower == "groups" => {}
            None => warn(match lower.split_once('.') {
                Some((resource, group)) => {
                    format!("the server doesn't have a resource type '{resource}' in group '{group}'")
                }
                None => format!("the server doesn't have a resource type '{lower}'"),
            }),
        }
    }
    if !args.all_namespaces && !RESOURCE_VERBS.split(' ').any(|known| known == verb) && verb != "attest" {
        warn(format!("verb '{verb}' is not a known verb"));
    }
    let namespace = if args.all_namespaces { "" } else { &session.namespace };
    let fields = [
        ("namespace", namespace),
        ("verb", verb),
        ("group", &group),
        ("resource", &plural),
        ("subresource", &args.subresource),
        ("name", name),
    ];
    let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
    let attributes: Map<String, Value> = given.map(|(field, value)| (field.to_owned(), json!(value))).collect();
    Ok(json!({"resourceAttributes": attributes}))
}

async fn list(session: &Session, args: &CanIArgs) -> Result<()> {
    if !args.words.is_empty() {
        return Err(CtlError::plain("list option must be specified with no arguments"));
    }
    if args.quiet || args.all_namespaces || !args.subresource.is_empty() {
        return Err(CtlError::plain(
            "list option can't be specified with neither quiet, all-namespaces nor subresource options",
        ));
    }
    let spec = json!({"namespace": session.namespace});
    let status = review(session, "SelfSubjectRulesReview", "selfsubjectrulesreviews", spec).await?;
    if status["incomplete"] == true {
        let why = status["evaluationError"].as_str().unwrap_or_default();
        super::api::warn(&format!("the list may be incomplete: {why}"));
    }
    emit(&rules::table(&status, !args.no_headers))
}

/// Asks the server about this user; the answer is the review's status.
async fn review(session: &Session, kind: &str, plural: &str, spec: Value) -> Result<Value> {
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "metadata": {}, "spec": spec});
    let call = Call::new(Method::POST, format!("/apis/authorization.k8s.io/v1/{plural}")).body(&body);
    Ok(session.api.json(&call).await?["status"].take())
}

async fn whoami(session: &Session, args: &WhoAmIArgs) -> Result<()> {
    let printer = args.print.printer(Formats::Objects)?.in_order();
    let mut answer = Err(CtlError::plain(""));
    for version in ["v1", "v1beta1", "v1alpha1"] {
        let api = format!("authentication.k8s.io/{version}");
        let body = json!({"apiVersion": api, "kind": "SelfSubjectReview"});
        answer =
            session.api.json(&Call::new(Method::POST, format!("/apis/{api}/selfsubjectreviews")).body(&body)).await;
        if !answer.as_ref().is_err_and(CtlError::is_not_found) {
            break;
        }
    }
    let review = answer.map_err(|error| match error.reason() {
        "Forbidden" => CtlError::plain(
            "the selfsubjectreviews API is not enabled in the cluster or you do not have permission to call it",
        ),
        "NotFound" => CtlError::plain(
            "the selfsubjectreviews API is not enabled in the cluster\nenable APISelfSubjectReview feature gate and \
             authentication.k8s.io/v1alpha1 or authentication.k8s.io/v1beta1 API",
        ),
        _ => error,
    })?;
    if !printer.is_table() {
        let created = review["metadata"]["creationTimestamp"].clone();
        let document = json!({
            "kind": "SelfSubjectReview", "apiVersion": review["apiVersion"],
            "metadata": {"creationTimestamp": created}, "status": review["status"],
        });
        return emit_document(&printer, &document, "selfsubjectreview.authentication.k8s.io");
    }
    emit(&aligned(&attributes(&review["status"]["userInfo"])))
}

/// The rows of `whoami`.
fn attributes(user: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![("ATTRIBUTE".to_owned(), "VALUE".to_owned())];
    for (head, field) in [("Username", "username"), ("UID", "uid")] {
        if let Some(text) = user[field].as_str().filter(|text| !text.is_empty()) {
            rows.push((head.to_owned(), text.to_owned()));
        }
    }
    if user["groups"].as_array().is_some_and(|groups| !groups.is_empty()) {
        rows.push(("Groups".to_owned(), rules::words(&user["groups"])));
    }
    let extra: std::collections::BTreeMap<&String, &Value> = user["extra"].as_object().into_iter().flatten().collect();
    rows.extend(extra.into_iter().map(|(key, values)| (format!("Extra: {key}"), rules::words(values))));
    rows.into_iter().map(|(head, value)| vec![head, value]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_shown() {
        let user = json!({"username": "u", "groups": ["a", "b"], "extra": {"z": ["1"], "k": ["2", "3"]}});
        let shown = aligned(&attributes(&user));
        assert_eq!(shown, "ATTRIBUTE   VALUE\nUsername    u\nGroups      [a b]\nExtra: k    [2 3]\nExtra: z    [1]\n");
    }
}
