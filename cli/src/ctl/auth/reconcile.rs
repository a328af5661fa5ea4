//! `trictl auth reconcile`: roles allow at least what files say, bindings bind at least whom they name.

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};

use super::super::api::Call;
use super::super::errors::{CtlError, Result};
use super::super::get::show_result;
use super::super::manifest::Files;
use super::super::mutate::DryRun;
use super::super::print::{Formats, PrintFlags};
use super::super::session::Session;
use super::super::targets::{self, Target};
use super::rules::{notation, uncovered};

const GROUP: &str = "rbac.authorization.k8s.io";
/// How often an object may change beneath this before it gives up.
const ATTEMPTS: usize = 3;

/// Reconcile rules for roles and bindings from files.
#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    /// None is expected
    #[arg(hide = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub print: PrintFlags,
    /// Only show what would happen: none or client
    #[arg(long, value_parser = DryRun::parse, num_args = 0..=1, require_equals = true, default_missing_value = "unchanged", default_value = "none")]
    pub dry_run: DryRun,
    /// Remove what roles allow beyond the files
    #[arg(long)]
    pub remove_extra_permissions: bool,
    /// Remove whom bindings name beyond the files
    #[arg(long)]
    pub remove_extra_subjects: bool,
}

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Operation {
    None,
    Create,
    Update,
    Recreate,
}

/// What is to become of an object, and why.
#[derive(Debug)]
struct Plan {
    operation: Operation,
    object: Value,
    missing: Vec<Value>,
    extra: Vec<Value>,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &ReconcileArgs) -> Result<()> {
    if args.files.is_empty() {
        return Err(CtlError::plain("must specify one of -f and -k"));
    }
    if !args.words.is_empty() {
        return Err(CtlError::plain("no arguments are allowed"));
    }
    if args.dry_run == DryRun::Server {
        return Err(CtlError::plain("--dry-run=server for command reconcile is not supported yet"));
    }
    let (found, mut failures) = targets::from_files(session, &args.files).await?;
    for target in found.iter().filter(|target| target.resource.group == GROUP) {
        let version = &target.resource.version;
        let outcome = match version.as_str() {
            "v1" => reconcile(session, args, target).await,
            _ => {
                let kind = &target.resource.kind;
                Err(CtlError::plain(format!("only {GROUP}/v1 is supported: not *{version}.{kind}")))
            }
        };
        failures.extend(outcome.err());
    }
    CtlError::gather_bare(failures)
}

async fn reconcile(session: &Session, args: &ReconcileArgs, target: &Target) -> Result<()> {
    let wanted = target.object.clone().unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let existing = match target.fetch(session).await {
            Ok(object) => Some(object),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let protected = existing.as_ref().is_some_and(|object| {
            object["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] == "false"
        });
        let mut plan = plan(args, existing.as_ref(), &wanted);
        if !protected && args.dry_run == DryRun::None {
            match carry_out(session, target, &plan, existing.as_ref()).await {
                Ok(object) => plan.object = object,
                // Somebody else was quicker.
                Err(error) if matches!(error.reason(), "AlreadyExists" | "NotFound" | "Conflict") => continue,
                Err(error) => return Err(error),
            }
        }
        let printer = args.print.printer(Formats::Objects)?;
        show_result(target, &plan.object, &printer, &args.dry_run.done("reconciled"))?;
        eprint!("{}", told(&plan, args, target.resource.kind.ends_with("Binding"), protected));
        return Ok(());
    }
    Err(CtlError::plain("exceeded maximum attempts"))
}

fn plan(args: &ReconcileArgs, existing: Option<&Value>, wanted: &Value) -> Plan {
    let binding = wanted["kind"].as_str().is_some_and(|kind| kind.ends_with("Binding"));
    let (field, remove) = match binding {
        true => ("subjects", args.remove_extra_subjects),
        false => ("rules", args.remove_extra_permissions),
    };
    let list = |object: &Value| object[field].as_array().cloned().unwrap_or_default();
    let Some(existing) = existing else {
        return Plan { operation: Operation::Create, object: wanted.clone(), missing: list(wanted), extra: Vec::new() };
    };
    if binding && existing["roleRef"] != wanted["roleRef"] {
        let (missing, extra) = (Vec::new(), Vec::new());
        return Plan { operation: Operation::Recreate, object: wanted.clone(), missing, extra };
    }
    let mut object = existing.clone();
    for map in ["labels", "annotations"] {
        merge(&mut object, map, wanted);
    }
    let (missing, mut extra) = match binding {
        true => (without(&list(wanted), &list(existing)), without(&list(existing), &list(wanted))),
        false => (uncovered(&list(existing), &list(wanted)), uncovered(&list(wanted), &list(existing))),
    };
    if !wanted["aggregationRule"].is_null() && !existing["aggregationRule"].is_null() {
        extra.clear();
    }
    if remove && !(missing.is_empty() && extra.is_empty()) {
        object[field] = wanted[field].clone();
    } else if !remove && !missing.is_empty() {
        object[field] = json!([list(existing), missing.clone()].concat());
    }
    if !binding {
        aggregate(&mut object, wanted, remove);
    }
    let operation = if object == *existing { Operation::None } else { Operation::Update };
    Plan { operation, object, missing, extra }
}

/// Adds labels or annotations that are not there; those that are, stay as they are.
fn merge(object: &mut Value, map: &str, wanted: &Value) {
    let Some(from) = wanted["metadata"][map].as_object().filter(|from| !from.is_empty()) else { return };
    let mut merged: Map<String, Value> = from.clone();
    merged.extend(object["metadata"][map].as_object().cloned().unwrap_or_default());
    if let Some(own) = object["metadata"][map].as_object_mut() {
        let new = merged.into_iter().filter(|(key, _)| !own.contains_key(key)).collect::<Vec<_>>();
        own.extend(new);
    } else {
        object["metadata"][map] = Value::Object(merged);
    }
}

/// Subjects of the first list that the second lacks, each once.
fn without(list: &[Value], other: &[Value]) -> Vec<Value> {
    let mut only: Vec<Value> = Vec::new();
    for item in list {
        if !other.contains(item) && !only.contains(item) {
            only.push(item.clone());
        }
    }
    only
}

/// The same for the selectors by which a cluster role takes in others.
fn aggregate(object: &mut Value, wanted: &Value, remove: bool) {
    let selectors = |role: &Value| role["aggregationRule"]["clusterRoleSelectors"].as_array().cloned();
    match (object.get("aggregationRule").is_some_and(|rule| !rule.is_null()), selectors(wanted)) {
        (true, None) => {
            object.as_object_mut().map(|fields| fields.remove("aggregationRule"));
        }
        (_, None) => {}
        (_, Some(wanted)) => {
            let own = selectors(object).unwrap_or_default();
            let missing = without(&wanted, &own);
            if remove && (!missing.is_empty() || !without(&own, &wanted).is_empty()) {
                object["aggregationRule"]["clusterRoleSelectors"] = json!(wanted);
            } else if !missing.is_empty() {
                object["aggregationRule"]["clusterRoleSelectors"] = json!([own, missing].concat());
            }
        }
    }
}

async fn carry_out(session: &Session, target: &Target, plan: &Plan, existing: Option<&Value>) -> Result<Value> {
    match plan.operation {
        Operation::None => return Ok(plan.object.clone()),
        Operation::Update => {
            return session.api.json(&Call::new(Method::PUT, target.path()).body(&plan.object)).await;
        }
        Operation::Recreate => {
            let uid = existing.map(|object| object["metadata"]["uid"].clone());
            let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}});
            session.api.json(&Call::new(Method::DELETE, target.path()).body(&body)).await?;
        }
        Operation::Create => {
            if let Some(namespace) = &target.namespace {
                ensure_namespace(session, namespace).await?;
            }
        }
    }
    session.api.json(&Call::new(Method::POST, target.collection()).body(&plan.object)).await
}

async fn ensure_namespace(session: &Session, name: &str) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    match session.api.json(&Call::new(Method::POST, "/api/v1/namespaces").body(&body)).await {
        Err(error) if error.reason() != "AlreadyExists" => Err(error),
        _ => Ok(()),
    }
}

/// What is said of what was done.
fn told(plan: &Plan, args: &ReconcileArgs, binding: bool, protected: bool) -> String {
    let caveat = match protected {
        true => ", but object opted out (rbac.authorization.kubernetes.io/autoupdate: false)",
        false => "",
    };
    let word = match plan.operation {
        Operation::None => return String::new(),
        Operation::Create => "create",
        Operation::Update => "update",
        Operation::Recreate => "recreate",
    };
    let mut text = format!("\treconciliation required {word}{caveat}\n");
    let (what, removes) = match binding {
        true => ("subjects", args.remove_extra_subjects),
        false => ("rules", args.remove_extra_permissions),
    };
    let show = |item: &Value| if binding { subject(item) } else { braces(item) };
    let mut list = |head: &str, items: &[Value]| {
        if !items.is_empty() {
            text.push_str(&format!("\t{head}:\n"));
            items.iter().for_each(|item| text.push_str(&format!("\t\t{}\n", show(item))));
        }
    };
    list(&format!("missing {what} added"), &plan.missing);
    if removes {
        list(&format!("extra {what} removed"), &plan.extra);
    }
    text
}

/// A rule as Go prints a struct: `{Verbs:[get] APIGroups:[] …}`.
fn braces(rule: &Value) -> String {
    let text = notation(rule);
    let inner = text.trim_start_matches("&PolicyRule{").trim_end_matches(",}");
    format!("{{{}}}", inner.replace("],", "] "))
}

fn subject(subject: &Value) -> String {
    let text = |field: &str| subject[field].as_str().unwrap_or_default();
    let (kind, group) = (text("kind"), text("apiGroup"));
    format!("{{Kind:{kind} APIGroup:{group} Name:{} Namespace:{}}}", text("name"), text("namespace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(remove: bool) -> ReconcileArgs {
        ReconcileArgs {
            words: Vec::new(),
            files: Files::default(),
            print: PrintFlags::default(),
            dry_run: DryRun::None,
            remove_extra_permissions: remove,
            remove_extra_subjects: remove,
        }
    }

    fn role(verbs: &[&str]) -> Value {
        json!({"kind": "Role", "metadata": {"name": "r", "labels": {"a": "b"}},
               "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]})
    }

    #[test]
    fn roles_gain_what_they_lack_and_lose_only_on_request() {
        let new = plan(&args(false), None, &role(&["get"]));
        assert_eq!((new.operation, new.missing.len()), (Operation::Create, 1));
        let same = plan(&args(true), Some(&role(&["get", "list"])), &role(&["list", "get"]));
        assert_eq!(same.operation, Operation::None);
        let more = plan(&args(false), Some(&role(&["get"])), &role(&["list"]));
        assert_eq!((more.operation, more.object["rules"].as_array().map(Vec::len)), (Operation::Update, Some(2)));
        let stomped = plan(&args(true), Some(&role(&["get"])), &role(&["list"]));
        assert_eq!(stomped.object["rules"], role(&["list"])["rules"]);
        let text = told(&stomped, &args(true), false, false);
        assert_eq!(
            text,
            "\treconciliation required update\n\tmissing rules added:\n\t\t{Verbs:[list] APIGroups:[] Resources:[pods] \
             ResourceNames:[] NonResourceURLs:[]}\n\textra rules removed:\n\t\t{Verbs:[get] APIGroups:[] \
             Resources:[pods] ResourceNames:[] NonResourceURLs:[]}\n"
        );
        let mut labelled = role(&["get"]);
        labelled["metadata"]["labels"] = json!({"a": "mine", "c": "d"});
        let kept = plan(&args(false), Some(&role(&["get"])), &labelled);
        assert_eq!(kept.object["metadata"]["labels"], json!({"a": "b", "c": "d"}));
    }

    #[test]
    fn bindings_to_another_role_are_made_anew() {
        let binding = |role: &str, users: &[&str]| {
            let subjects: Vec<Value> = users.iter().map(|name| json!({"kind": "User", "name": name})).collect();
            json!({"kind": "RoleBinding", "metadata": {"name": "b"}, "roleRef": {"name": role}, "subjects": subjects})
        };
        let other = plan(&args(false), Some(&binding("x", &["a"])), &binding("y", &["a"]));
        assert_eq!(other.operation, Operation::Recreate);
        let more = plan(&args(false), Some(&binding("x", &["a"])), &binding("x", &["b"]));
        assert_eq!(more.object["subjects"], binding("x", &["a", "b"])["subjects"]);
        assert!(told(&more, &args(false), true, true).contains("opted out"));
    }

    #[test]
    fn aggregation_follows_too() {
        let role = |labels: &[&str]| {
            let selectors: Vec<Value> = labels.iter().map(|key| json!({"matchLabels": {*key: "true"}})).collect();
            json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [],
                   "aggregationRule": {"clusterRoleSelectors": selectors}})
        };
        let more = plan(&args(false), Some(&role(&["a"])), &role(&["b"]));
        assert_eq!(more.object["aggregationRule"], role(&["a", "b"])["aggregationRule"]);
        let exact = plan(&args(true), Some(&role(&["a"])), &role(&["b"]));
        assert_eq!(exact.object["aggregationRule"], role(&["b"])["aggregationRule"]);
        let mut none = role(&[]);
        none.as_object_mut().map(|fields| fields.remove("aggregationRule"));
        assert!(plan(&args(false), Some(&role(&["a"])), &none).object.get("aggregationRule").is_none());
    }
}
