//! `trictl set`: common changes of workloads and services, without writing a patch.

mod env;
mod subject;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

pub use self::env::EnvArgs;
use self::subject::SubjectArgs;
use super::change::difference;
use super::errors::{CtlError, Result};
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{self, Mode};
use super::session::Session;
use super::targets::{self, Selection, Target};

/// What to set.
#[derive(Debug, Clone, Subcommand)]
pub enum Set {
    /// Update environment variables on a pod template
    Env(Box<EnvArgs>),
    /// Update the image of a pod template
    Image(Box<ImageArgs>),
    /// Update resource requests/limits on objects with pod templates
    Resources(Box<ResourcesArgs>),
    /// Set the selector on a resource
    Selector(Box<SelectorArgs>),
    /// Update the service account of a resource
    #[command(name = "serviceaccount", visible_alias = "sa")]
    ServiceAccount(Box<AccountArgs>),
    /// Update the user, group, or service account in a role binding or cluster role binding
    Subject(Box<SubjectArgs>),
}

/// Which objects.
#[derive(Debug, Clone, Default, Args)]
pub struct On {
    /// TYPE NAME... or TYPE/NAME..., then the changes
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
    /// All objects of the types
    #[arg(long)]
    pub all: bool,
    /// Do not contact the server: change what the files hold and print it
    #[arg(long)]
    pub local: bool,
}

/// `set image`
#[derive(Debug, Clone, Default, Args)]
pub struct ImageArgs {
    #[command(flatten)]
    pub on: On,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
}

/// `set resources`
#[derive(Debug, Clone, Default, Args)]
pub struct ResourcesArgs {
    #[command(flatten)]
    pub on: On,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// The containers to change; * is a wildcard
    #[arg(short, long, default_value = "*")]
    pub containers: String,
    /// cpu=100m,memory=256Mi
    #[arg(long, default_value = "", hide_default_value = true)]
    pub limits: String,
    /// cpu=100m,memory=256Mi
    #[arg(long, default_value = "", hide_default_value = true)]
    pub requests: String,
}

/// `set selector`
#[derive(Debug, Clone, Default, Args)]
pub struct SelectorArgs {
    #[command(flatten)]
    pub on: On,
    /// Only change this version of the object
    #[arg(long)]
    pub resource_version: Option<String>,
}

/// `set serviceaccount`
#[derive(Debug, Clone, Default, Args)]
pub struct AccountArgs {
    #[command(flatten)]
    pub on: On,
}

/// Runs the verb.
pub async fn run(session: &Session, verb: &Set) -> Result<()> {
    match verb {
        Set::Env(args) => env::run(session, args).await,
        Set::Image(args) => image(session, args).await,
        Set::Resources(args) => resources(session, args).await,
        Set::Selector(args) => selector(session, args).await,
        Set::ServiceAccount(args) => account(session, args).await,
        Set::Subject(args) => subject::run(session, args).await,
    }
}

/// The objects that words or files mean.
async fn find(
    session: &Session,
    on: &On,
    words: &[String],
    selector: Option<&String>,
) -> Result<(Vec<Target>, Vec<CtlError>)> {
    if on.local {
        return targets::offline(session, &on.files);
    }
    let selection = Selection { labels: selector.cloned(), all: on.all, ..Selection::default() };
    targets::resolve(session, words, &on.files, &selection).await
}

/// Changes one object; nothing is said of one that stays as it is.
async fn change(
    session: &Session,
    on: &On,
    target: &Target,
    word: &str,
    edit: impl Fn(&mut Value) -> Result<()>,
) -> Result<()> {
    let printer = on.mode.printer()?;
    let before = match on.local {
        true => target.object.clone().unwrap_or_default(),
        false => target.fetch(session).await?,
    };
    let mut after = before.clone();
    edit(&mut after)?;
    if on.local {
        return show_result(target, &after, &printer, word);
    }
    let (patch, content_type) = difference(target, &before, &after)?;
    if patch.as_object().is_some_and(Map::is_empty) {
        return Ok(());
    }
    let result = match on.mode.client_only() {
        true => after,
        false => mutate::patch(session, target, content_type, &patch, &on.mode, "kubectl-set").await?,
    };
    show_result(target, &result, &printer, &on.mode.done(word))
}

/// The pod's spec inside an object that has one.
fn pod_spec<'a>(object: &'a mut Value, target: &Target) -> Result<&'a mut Value> {
    let path = if object["kind"] == "Pod" { "/spec" } else { "/spec/template/spec" };
    object.pointer_mut(path).ok_or_else(|| {
        let (resource, name) = (&target.resource, &target.name);
        let (plural, kind) = (&resource.plural, format!("*{}.{}", resource.version, resource.kind));
        CtlError::plain(format!("{plural}/{name} the object is not a pod or does not have a pod template: {kind}"))
    })
}

/// All containers of a pod's spec, by name or wildcard.
fn containers<'a>(spec: &'a mut Value, wanted: &str) -> Vec<&'a mut Value> {
    let Some(map) = spec.as_object_mut() else { return Vec::new() };
    map.iter_mut()
        .filter(|(field, _)| matches!(field.as_str(), "containers" | "initContainers"))
        .flat_map(|(_, list)| list.as_array_mut().into_iter().flatten())
        .filter(|container| matches(wanted, container["name"].as_str().unwrap_or_default()))
        .collect()
}

/// `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name
            .strip_prefix(head)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| matches(tail, rest)))),
    }
}

async fn image(session: &Session, args: &ImageArgs) -> Result<()> {
    let (words, pairs) = mutate::split_pairs(&args.on.words)?;
    if words.is_empty() && args.on.files.is_empty() {
        return Err(CtlError::plain(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>",
        ));
    }
    if pairs.is_empty() {
        return Err(CtlError::plain("at least one image update is required"));
    }
    let pairs: Vec<(&str, &str)> = pairs.iter().filter_map(|pair| pair.split_once('=')).collect();
    let (found, mut failures) = find(session, &args.on, &words, args.selector.as_ref()).await?;
    for target in found {
        let edit = |object: &mut Value| {
            let spec = pod_spec(object, &target)?;
            for (name, image) in &pairs {
                let found = containers(spec, name);
                if found.is_empty() {
                    return Err(CtlError::plain(format!("unable to find container named {name:?}")));
                }
                found.into_iter().for_each(|container| container["image"] = json!(image));
            }
            Ok(())
        };
        failures.extend(change(session, &args.on, &target, "image updated", edit).await.err());
    }
    CtlError::gather(failures)
}

/// `cpu=1,memory=2Mi`
fn amounts(text: &str) -> Result<Map<String, Value>> {
    let mut amounts = Map::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let Some((name, amount)) = part.split_once('=') else {
            return Err(CtlError::plain(format!("Invalid argument syntax {part}, expected <resource>=<value>")));
        };
        trireme_api::quantity::Quantity::parse(amount).map_err(|error| CtlError::plain(error.to_string()))?;
        amounts.insert(name.to_owned(), json!(amount));
    }
    Ok(amounts)
}

async fn resources(session: &Session, args: &ResourcesArgs) -> Result<()> {
    if args.limits.is_empty() && args.requests.is_empty() {
        return Err(CtlError::plain(
            "you must specify an update to requests or limits (in the form of --requests/--limits)",
        ));
    }
    let wanted = [("limits", amounts(&args.limits)?), ("requests", amounts(&args.requests)?)];
    let (found, mut failures) = find(session, &args.on, &args.on.words, args.selector.as_ref()).await?;
    for target in found {
        let edit = |object: &mut Value| {
            let found = containers(pod_spec(object, &target)?, &args.containers);
            if found.is_empty() {
                return Err(CtlError::plain(format!("unable to find container named {}", args.containers)));
            }
            for container in found {
                for (field, amounts) in wanted.iter().filter(|(_, amounts)| !amounts.is_empty()) {
                    for (name, amount) in amounts {
                        container["resources"][*field][name] = amount.clone();
                    }
                }
            }
            Ok(())
        };
        failures.extend(change(session, &args.on, &target, "resource requirements updated", edit).await.err());
    }
    CtlError::gather(failures)
}

async fn selector(session: &Session, args: &SelectorArgs) -> Result<()> {
    let Some((expression, words)) = args.on.words.split_last() else {
        return Err(CtlError::plain(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>",
        ));
    };
    let pairs: Option<Map<String, Value>> = expression
        .split(',')
        .map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), json!(value.trim_start_matches('=')))))
        .collect();
    let pairs = pairs.ok_or_else(|| CtlError::plain(format!("invalid selector: {expression:?}")))?;
    let (found, mut failures) = find(session, &args.on, words, None).await?;
    for target in found {
        let edit = |object: &mut Value| {
            if target.resource.kind != "Service" {
                return Err(CtlError::plain("setting a selector is only supported for Services"));
            }
            object["spec"]["selector"] = Value::Object(pairs.clone());
            if let Some(version) = &args.resource_version {
                object["metadata"]["resourceVersion"] = json!(version);
            }
            Ok(())
        };
        failures.extend(change(session, &args.on, &target, "selector updated", edit).await.err());
    }
    CtlError::gather(failures)
}

async fn account(session: &Session, args: &AccountArgs) -> Result<()> {
    let Some((name, words)) = args.on.words.split_last() else {
        return Err(CtlError::plain("serviceaccount is required"));
    };
    let (found, mut failures) = find(session, &args.on, words, None).await?;
    for target in found {
        let edit = |object: &mut Value| {
            let spec = pod_spec(object, &target)?;
            spec["serviceAccountName"] = json!(name);
            // The old name of the same field.
            spec["serviceAccount"] = json!(name);
            Ok(())
        };
        failures.extend(change(session, &args.on, &target, "serviceaccount updated", edit).await.err());
    }
    CtlError::gather(failures)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn wildcards_and_amounts() {
        assert!(matches("*", "x") && matches("a*c", "abc") && matches("*b*", "abc") && !matches("a*d", "abc"));
        assert_eq!(amounts("cpu=1,memory=2Mi").unwrap()["memory"], "2Mi");
        assert_eq!(
            amounts("nope").unwrap_err().text(),
            "error: Invalid argument syntax nope, expected <resource>=<value>\n"
        );
        assert!(amounts("cpu=x").is_err());
    }

    #[test]
    fn containers_are_found() {
        let mut spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
        assert_eq!(containers(&mut spec, "*").len(), 3);
        assert_eq!(containers(&mut spec, "b").len(), 1);
    }
}
