//! `trictl cordon`, `uncordon` and `taint`.

use clap::Args;
use serde_json::{Value, json};

use super::errors::{CtlError, Result};
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{self, DryRun, Mode, STRATEGIC, Validate};
use super::session::Session;
use super::targets::{self, Selection, Target};

/// Mark nodes as unschedulable or schedulable.
#[derive(Debug, Clone, Default, Args)]
pub struct CordonArgs {
    /// NODE...
    pub words: Vec<String>,
    /// Only show what would happen: none, client or server
    #[arg(long, value_parser = DryRun::parse, num_args = 0..=1, require_equals = true, default_missing_value = "unchanged", default_value = "none")]
    pub dry_run: DryRun,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
}

/// Whether it is said which nodes are meant, in one way.
pub fn chosen(verb: &str, words: &[String], selector: Option<&String>) -> Result<()> {
    if words.is_empty() && selector.is_none() {
        return Err(CtlError::usage(format!("USAGE: {verb} NODE [flags]")));
    }
    if !words.is_empty() && selector.is_some_and(|selector| !selector.is_empty()) {
        return Err(CtlError::usage("cannot specify both a node name and a --selector option"));
    }
    Ok(())
}

/// Nodes by name or selector, as the server has them; the first that is not there ends this.
pub async fn fetch(session: &Session, words: &[String], selector: Option<&String>) -> Result<Vec<(Target, Value)>> {
    let by_name = words.iter().any(|word| word.contains('/'));
    let words: Vec<String> = match by_name {
        true => words.iter().map(|w| if w.contains('/') { w.clone() } else { format!("nodes/{w}") }).collect(),
        false => std::iter::once("nodes".to_owned()).chain(words.to_vec()).collect(),
    };
    // An empty selector is none: it must not stand for all nodes.
    let labels = selector.filter(|selector| !selector.is_empty()).cloned();
    if labels.is_none() && words.len() == 1 && !by_name {
        return Err(CtlError::plain(targets::NOTHING));
    }
    let selection = Selection { labels, ..Selection::default() };
    let (found, failures) = targets::resolve(session, &words, &Files::default(), &selection).await?;
    CtlError::gather(failures)?;
    let mut nodes = Vec::new();
    for target in found {
        let resource = &target.resource;
        if resource.kind != "Node" || !resource.group.is_empty() {
            return Err(CtlError::plain(format!(
                "expected resource of type node, got \"{}/{}, Resource={}\"",
                resource.group, resource.version, resource.plural
            )));
        }
        let node = target.fetch(session).await?;
        nodes.push((target, node));
    }
    Ok(nodes)
}

/// Makes a node schedulable or not, and says so. What the server refuses is told and no failure, as with kubectl.
pub async fn mark(session: &Session, target: &Target, node: &Value, unschedulable: bool, mode: &Mode) -> Result<()> {
    let word = if unschedulable { "cordoned" } else { "uncordoned" };
    let printer = mode.printer()?;
    if node["spec"]["unschedulable"].as_bool().unwrap_or_default() == unschedulable {
        return show_result(target, node, &printer, &mode.done(&format!("already {word}")));
    }
    let body = json!({"spec": {"unschedulable": if unschedulable { json!(true) } else { Value::Null }}});
    if !mode.client_only()
        && let Err(error) = mutate::patch(session, target, STRATEGIC, &body, mode, "kubectl-cordon").await
    {
        let verb = word.trim_end_matches("ed");
        eprintln!("error: unable to {verb} node {:?}: {}", target.name, error.reason_text());
        return Ok(());
    }
    show_result(target, node, &printer, &mode.done(word))
}

/// Runs `cordon` and `uncordon`.
pub async fn cordon(session: &Session, args: &CordonArgs, unschedulable: bool) -> Result<()> {
    let verb = if unschedulable { "cordon" } else { "uncordon" };
    chosen(verb, &args.words, args.selector.as_ref())?;
    let mode = Mode { dry_run: args.dry_run, ..Mode::default() };
    for (target, node) in fetch(session, &args.words, args.selector.as_ref()).await? {
        mark(session, &target, &node, unschedulable, &mode).await?;
    }
    Ok(())
}

/// Update the taints on nodes.
#[derive(Debug, Clone, Default, Args)]
pub struct TaintArgs {
    /// NODE NAME..., then KEY[=VALUE]:EFFECT to set, KEY[:EFFECT]- to remove
    pub words: Vec<String>,
    #[command(flatten)]
    pub mode: Mode,
    #[command(flatten)]
    pub validate: Validate,
    /// All nodes
    #[arg(long)]
    pub all: bool,
    /// Replace taints that are there
    #[arg(long)]
    pub overwrite: bool,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
}

/// What one word asks for.
#[derive(Debug, PartialEq)]
enum Change {
    Set { key: String, value: String, effect: String },
    Remove { key: String, effect: Option<String> },
}

fn parse(spec: &str) -> Result<Change> {
    let bad = |reason: String| CtlError::usage(format!("invalid taint spec: {spec}, {reason}"));
    let effect_of = |effect: &str| match effect {
        "NoSchedule" | "PreferNoSchedule" | "NoExecute" => Ok(effect.to_owned()),
        other => Err(CtlError::usage(format!("invalid taint effect: {other}, unsupported taint effect"))),
    };
    if let Some(rest) = spec.strip_suffix('-') {
        let (key, effect) = match rest.split_once(':') {
            Some((key, effect)) => (key, Some(effect_of(effect)?)),
            None => (rest, None),
        };
        let key = key.split('=').next().unwrap_or(key).to_owned();
        return Ok(Change::Remove { key, effect });
    }
    let (pair, effect) = spec.split_once(':').map_or((spec, None), |(pair, effect)| (pair, Some(effect)));
    let (key, value) = if effect.is_some() { pair.split_once('=').unwrap_or((pair, "")) } else { (pair, "") };
    let reasons = trireme_api::names::qualified_name(key);
    if !reasons.is_empty() {
        return Err(bad(reasons.join("; ")));
    }
    let reasons = trireme_api::names::label_value(value);
    if !reasons.is_empty() {
        return Err(bad(reasons.join("; ")));
    }
    let Some(effect) = effect else { return Err(CtlError::usage(format!("invalid taint spec: {spec}"))) };
    Ok(Change::Set { key: key.to_owned(), value: value.to_owned(), effect: effect_of(effect)? })
}

/// Runs `taint`.
pub async fn taint(session: &Session, args: &TaintArgs) -> Result<()> {
    let is_spec = |word: &String| word.contains('=') || word.contains(':') || word.ends_with('-');
    let first = args.words.iter().position(is_spec).unwrap_or(args.words.len());
    let (words, specs) = args.words.split_at(first);
    if words.is_empty() {
        return Err(CtlError::plain("one or more resources must be specified as <resource> <name>"));
    }
    if specs.is_empty() {
        return Err(CtlError::plain("at least one taint update is required"));
    }
    let changes = specs.iter().map(|spec| parse(spec)).collect::<Result<Vec<Change>>>()?;
    let removed = |key: &str| {
        changes.iter().any(|change| matches!(change, Change::Remove { key: gone, effect: None } if gone == key))
    };
    let both = changes.iter().find_map(|change| match change {
        Change::Set { key, .. } if removed(key) => Some(key),
        _ => None,
    });
    if let Some(key) = both {
        return Err(CtlError::plain(format!(
            "can not both modify and remove the following taint(s) in the same command: {key}="
        )));
    }
    let selection = Selection { labels: args.selector.clone(), all: args.all, ..Selection::default() };
    let (found, mut failures) = targets::resolve(session, words, &Files::default(), &selection).await?;
    for target in found {
        if target.resource.kind != "Node" {
            return Err(CtlError::plain(format!(
                "invalid resource type {}, only node types are supported",
                target.resource.plural
            )));
        }
        failures.extend(taint_one(session, args, &target, &changes).await.err());
    }
    CtlError::gather(failures)
}

async fn taint_one(session: &Session, args: &TaintArgs, target: &Target, changes: &[Change]) -> Result<()> {
    let node = target.fetch(session).await?;
    let had: Vec<Value> = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let (taints, word) = tainted(&had, changes, &target.name, args.overwrite)?;
    let body =
        json!({"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "spec": {"taints": taints}});
    let node = match args.mode.client_only() {
        true => node,
        false => mutate::patch(session, target, mutate::MERGE, &body, &args.mode, "kubectl-taint").await?,
    };
    show_result(target, &node, &args.mode.printer()?, word)
}

/// The taints after the changes, and what that is called.
fn tainted(had: &[Value], changes: &[Change], node: &str, overwrite: bool) -> Result<(Vec<Value>, &'static str)> {
    let mut taints = had.to_vec();
    let mut only_removed = true;
    for change in changes {
        match change {
            Change::Remove { key, effect } => {
                let matches = |taint: &Value| {
                    taint["key"] == key.as_str()
                        && effect.as_ref().is_none_or(|effect| taint["effect"] == effect.as_str())
                };
                if !taints.iter().any(matches) {
                    let shown = effect.as_ref().map(|effect| format!(":{effect}")).unwrap_or_default();
                    return Err(CtlError::plain(format!("taint \"{key}{shown}\" not found")));
                }
                taints.retain(|taint| !matches(taint));
            }
            Change::Set { key, value, effect } => {
                only_removed = false;
                let same = |taint: &Value| taint["key"] == key.as_str() && taint["effect"] == effect.as_str();
                if taints.iter().any(same) && !overwrite {
                    return Err(CtlError::plain(format!(
                        "node {node} already has {key} taint(s) with same effect(s) and --overwrite is false"
                    )));
                }
                let mut taint = json!({"effect": effect, "key": key});
                if !value.is_empty() {
                    taint["value"] = json!(value);
                }
                taints.retain(|taint| !same(taint));
                taints.push(taint);
            }
        }
    }
    Ok((
        taints,
        if only_removed {
            "untainted"
        } else if overwrite {
            "modified"
        } else {
            "tainted"
        },
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn taints_are_read_and_changed() {
        let change = |had: &[Value], spec: &str, overwrite| tainted(had, &[parse(spec)?], "n", overwrite);
        let (set, word) = change(&[], "a=b:NoSchedule", false).unwrap();
        assert_eq!((set.clone(), word), (vec![json!({"key": "a", "value": "b", "effect": "NoSchedule"})], "tainted"));
        assert!(change(&set, "a=c:NoSchedule", false).is_err());
        assert_eq!(change(&set, "a=c:NoSchedule", true).unwrap().1, "modified");
        assert_eq!(change(&set, "a-", false).unwrap(), (vec![], "untainted"));
        assert_eq!(change(&[], "a-", false).unwrap_err().text(), "error: taint \"a\" not found\n");
        assert!(change(&set, "a:NoExecute-", false).is_err());
        for bad in ["a=b", "a=b:Never", "a b:NoSchedule"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
