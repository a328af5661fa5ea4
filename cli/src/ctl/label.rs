//! `trictl label` and `trictl annotate`.

use clap::Args;
use serde_json::{Map, Value, json};

use super::change::merge;
use super::errors::{CtlError, Result};
use super::get::show_result;
use super::manifest::Files;
use super::mutate::{self, MERGE, Mode};
use super::print::emit;
use super::session::Session;
use super::targets::{self, Selection, Target};

/// Update the labels or annotations of objects.
#[derive(Debug, Clone, Default, Args)]
pub struct PairsArgs {
    /// TYPE NAME... or TYPE/NAME..., then KEY=VALUE to set and KEY- to remove
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub mode: Mode,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Field selector
    #[arg(long)]
    pub field_selector: Option<String>,
    /// All objects of the types
    #[arg(long)]
    pub all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Replace values that are there
    #[arg(long)]
    pub overwrite: bool,
    /// Only show what is there
    #[arg(long)]
    pub list: bool,
    /// Do not contact the server: change what the files hold and print it
    #[arg(long)]
    pub local: bool,
    /// Only change this version of the object
    #[arg(long)]
    pub resource_version: Option<String>,
}

/// Which of the two verbs runs.
#[derive(Clone, Copy, PartialEq)]
pub enum Pairs {
    /// `label`
    Labels,
    /// `annotate`
    Annotations,
}

impl Pairs {
    fn field(self) -> &'static str {
        if self == Pairs::Labels { "labels" } else { "annotations" }
    }

    fn one(self) -> &'static str {
        if self == Pairs::Labels { "label" } else { "annotation" }
    }

    fn done(self, before: &Value, after: &Value) -> &'static str {
        let length = |value: &Value| if value.is_null() { 0 } else { value.to_string().len() };
        match self {
            Pairs::Annotations => "annotated",
            Pairs::Labels if before == after => "not labeled",
            // kubectl goes by which of the two is longer.
            Pairs::Labels if length(after) < length(before) => "unlabeled",
            Pairs::Labels => "labeled",
        }
    }
}

/// Runs `label` or `annotate`.
pub async fn pairs(session: &Session, args: &PairsArgs, what: Pairs) -> Result<()> {
    let (words, changes) = mutate::split_pairs(&args.words)?;
    if words.is_empty() && args.files.is_empty() {
        return Err(CtlError::plain(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>",
        ));
    }
    if changes.is_empty() && !args.list {
        return Err(CtlError::plain(format!("at least one {} update is required", what.one())));
    }
    let changes = read(&changes, what)?;
    if args.local {
        return local(session, args, what, &words, &changes).await;
    }
    let selection = Selection {
        labels: args.selector.clone(),
        fields: args.field_selector.clone(),
        all_namespaces: args.all_namespaces,
        all: args.all,
        ..Selection::default()
    };
    let (found, mut failures) = targets::resolve(session, &words, &args.files, &selection).await?;
    if args.resource_version.is_some() && found.len() > 1 {
        return Err(CtlError::plain("--resource-version may only be used with a single resource"));
    }
    let several = found.len() > 1;
    for target in found {
        let outcome = match args.list {
            true => list(session, what, &target, several).await,
            false => change(session, args, what, &target, &changes).await,
        };
        failures.extend(outcome.err());
    }
    CtlError::gather(failures)
}

/// Changes as they stand: a value, or null to remove.
type Changes = Vec<(String, Value)>;

fn read(changes: &[String], what: Pairs) -> Result<Changes> {
    let mut read: Changes = Vec::new();
    for change in changes {
        if what == Pairs::Labels && change.matches('=').count() > 1 {
            return Err(CtlError::plain(format!("invalid label spec: {change}")));
        }
        let (key, value) = match change.split_once('=') {
            Some((key, value)) => (key, Value::from(value)),
            None => (change.trim_end_matches('-'), Value::Null),
        };
        if what == Pairs::Labels
            && let Some(text) = value.as_str()
        {
            let reasons = trireme_api::names::label_value(text);
            if !reasons.is_empty() {
                return Err(CtlError::plain(format!("invalid label value: {change:?}: {}", reasons.join(";"))));
            }
        }
        match read.iter_mut().find(|(known, _)| known == key) {
            Some((_, before)) if before.is_null() != value.is_null() => {
                let article = if what == Pairs::Labels { "a" } else { "an" };
                return Err(CtlError::plain(format!(
                    "can not both modify and remove {article} {} in the same command",
                    what.one()
                )));
            }
            // The last of several counts.
            Some((_, before)) => *before = value,
            None => read.push((key.to_owned(), value)),
        }
    }
    Ok(read)
}

async fn list(session: &Session, what: Pairs, target: &Target, several: bool) -> Result<()> {
    let current = target.fetch(session).await?;
    let gap = if several { " " } else { "" };
    let mut lines: Vec<String> = current["metadata"][what.field()]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{gap}{key}={}\n", text(value)))
        .collect();
    lines.sort();
    if several {
        let (kind, group) = (&target.resource.kind, &target.resource.group);
        lines.insert(0, format!("Listing {} for {kind}.{group}/{}:\n", what.field(), target.name));
    }
    emit(&lines.concat())
}

async fn local(session: &Session, args: &PairsArgs, what: Pairs, words: &[String], changes: &Changes) -> Result<()> {
    if args.files.is_empty() || !words.is_empty() {
        return Err(CtlError::plain(
            "can only use local files by -f pod.yaml or --filename=pod.json when --local=true is set",
        ));
    }
    let (found, mut failures) = targets::offline(session, &args.files)?;
    let printer = args.mode.printer()?;
    for target in found {
        let current = target.object.clone().unwrap_or_default();
        match changed(&current, what, changes, args.overwrite) {
            Ok(result) => {
                let done = what.done(&current["metadata"][what.field()], &result["metadata"][what.field()]);
                show_result(&target, &result, &printer, done)?;
            }
            Err(error) => failures.push(error),
        }
    }
    CtlError::gather(failures)
}

async fn change(session: &Session, args: &PairsArgs, what: Pairs, target: &Target, changes: &Changes) -> Result<()> {
    let current = target.fetch(session).await?;
    let had = current["metadata"][what.field()].clone();
    let wanted = changed(&current, what, changes, args.overwrite)?;
    let after = &wanted["metadata"][what.field()];
    let printer = args.mode.printer()?;
    let done = what.done(&had, after);
    let done = match what {
        Pairs::Labels => args.mode.done(done),
        Pairs::Annotations => args.mode.done(done),
    };
    for (key, value) in changes.iter().filter(|_| what == Pairs::Labels) {
        if value.is_null() && had[key].is_null() {
            emit(&format!("label {key:?} not found.\n"))?;
        }
    }
    let same = had == *after || (had.is_null() && *after == json!({}));
    let result = if args.mode.client_only() || same && args.resource_version.is_none() {
        wanted
    } else {
        let mut metadata = json!({ what.field(): Map::from_iter(changes.iter().cloned()) });
        if let Some(version) = &args.resource_version {
            metadata["resourceVersion"] = Value::from(version.clone());
        }
        let manager = if what == Pairs::Labels { "kubectl-label" } else { "kubectl-annotate" };
        mutate::patch(session, target, MERGE, &json!({ "metadata": metadata }), &args.mode, manager).await?
    };
    show_result(target, &result, &printer, &done)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The object with the changes; a value in the way is an error.
fn changed(current: &Value, what: Pairs, changes: &Changes, overwrite: bool) -> Result<Value> {
    let had = &current["metadata"][what.field()];
    let in_the_way: Vec<String> = changes
        .iter()
        .filter(|(key, value)| !overwrite && !value.is_null() && !had[key].is_null() && had[key] != *value)
        .map(|(key, _)| format!("'{key}' already has a value ({})", text(&had[key])))
        .collect();
    if let Some(first) = in_the_way.first() {
        return Err(CtlError::plain(match what {
            Pairs::Labels => format!("{first}, and --overwrite is false"),
            Pairs::Annotations => format!(
                "--overwrite is false but found the following declared annotation(s): {}",
                in_the_way.join("; ")
            ),
        }));
    }
    let mut result = current.clone();
    merge(&mut result, &json!({"metadata": {what.field(): Map::from_iter(changes.iter().cloned())}}));
    Ok(result)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn changes_are_made_or_refused() {
        let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let change = |text: &str, overwrite| {
            changed(&object, Pairs::Labels, &read(&words(text), Pairs::Labels)?, overwrite)
                .map(|object| object["metadata"]["labels"].clone())
        };
        assert_eq!(change("a=1 b- c=x", false).unwrap(), json!({"a": "1", "c": "x"}));
        assert_eq!(change("c=1 c=2", false).unwrap()["c"], "2");
        assert_eq!(
            change("a=2", false).unwrap_err().text(),
            "error: 'a' already has a value (1), and --overwrite is false\n"
        );
        assert_eq!(change("a=2", true).unwrap()["a"], "2");
        assert_eq!(
            change("a=2 a-", true).unwrap_err().text(),
            "error: can not both modify and remove a label in the same command\n"
        );
        assert!(
            change("a=-", true).unwrap_err().text().starts_with("error: invalid label value: \"a=-\": a valid label")
        );
    }

    #[test]
    fn words_for_what_was_done() {
        let (none, one, two) = (Value::Null, json!({"a": "b"}), json!({"a": "b", "c": "d"}));
        let done = |before: &Value, after: &Value| Pairs::Labels.done(before, after);
        assert_eq!((done(&one, &two), done(&two, &one), done(&one, &one)), ("labeled", "unlabeled", "not labeled"));
        assert_eq!(done(&none, &json!({})), "labeled");
    }
}
