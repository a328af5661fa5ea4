//! `trictl wait`.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::errors::{CtlError, Result};
use super::manifest::Files;
use super::print::emit;
use super::print::jsonpath::{Path, text_of};
use super::session::Session;
use super::targets::{self, Selection, Target};
use super::time;

/// Wait for a condition of objects.
#[derive(Debug, Clone, Default, Args)]
pub struct WaitArgs {
    /// TYPE NAME... or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// delete, create, condition=NAME[=VALUE] or jsonpath='{PATH}'[=VALUE]
    #[arg(long = "for")]
    pub condition: String,
    /// How long to wait; 0 checks once, negative is a week
    #[arg(long, default_value = "30s", allow_hyphen_values = true)]
    pub timeout: String,
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
}

/// What is waited for.
#[derive(Debug)]
enum Goal {
    Deleted,
    Created,
    Condition(String, String),
    Path(Path, Option<String>),
}

impl Goal {
    fn parse(text: &str) -> Result<Goal> {
        match text.split_once('=').unwrap_or((text, "")) {
            ("delete", _) => Ok(Goal::Deleted),
            ("create", _) => Ok(Goal::Created),
            ("condition", rest) if !rest.is_empty() => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
                Ok(Goal::Condition(name.to_owned(), value.to_owned()))
            }
            ("jsonpath", rest) if !rest.is_empty() => {
                let end = rest.rfind('}').map_or(rest.len(), |at| at + 1);
                let (path, value) = rest.split_at(end);
                let value = value.strip_prefix('=').map(|value| value.trim_matches(['"', '\'']).to_owned());
                Ok(Goal::Path(Path::relaxed(path.trim_matches(['"', '\'']))?, value))
            }
            _ => Err(CtlError::plain(format!("unrecognized condition: {text:?}"))),
        }
    }

    /// Whether an object, or its absence, is what is waited for.
    fn reached(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Goal::Deleted, object) => object.is_none(),
            (_, None) => false,
            (Goal::Created, Some(_)) => true,
            (Goal::Condition(name, value), Some(object)) => {
                let stale = object["status"]["observedGeneration"].as_i64() < object["metadata"]["generation"].as_i64()
                    && object["status"]["observedGeneration"].is_i64();
                let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                !stale
                    && conditions.any(|condition| {
                        let is = |field: &str, text: &str| {
                            condition[field].as_str().is_some_and(|known| known.eq_ignore_ascii_case(text))
                        };
                        is("type", name) && is("status", value)
                    })
            }
            (Goal::Path(path, value), Some(object)) => {
                let found = path.find(object);
                match value {
                    Some(value) => found.first().is_some_and(|first| text_of(first) == *value),
                    None => !found.is_empty(),
                }
            }
        }
    }
}

/// Runs the verb.
pub async fn run(session: &Session, args: &WaitArgs) -> Result<()> {
    let goal = Goal::parse(&args.condition)?;
    let timeout = match args.timeout.strip_prefix('-') {
        Some(_) => Duration::from_secs(7 * 24 * 3600),
        None => time::duration(&args.timeout).map_err(CtlError::Usage)?,
    };
    let deadline = Instant::now() + timeout;
    let selection = Selection {
        labels: args.selector.clone(),
        fields: args.field_selector.clone(),
        all_namespaces: args.all_namespaces,
        all: args.all,
    };
    let (found, mut failures) = targets::resolve(session, &args.words, &args.files, &selection).await?;
    if found.is_empty() && failures.is_empty() {
        return Err(CtlError::plain("no matching resources found"));
    }
    for target in found {
        if let Err(error) = wait_one(session, &goal, &target, deadline).await {
            failures.push(error);
        }
    }
    CtlError::gather(failures)
}

async fn wait_one(session: &Session, goal: &Goal, target: &Target, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(50);
    loop {
        let object = match target.fetch(session).await {
            Ok(object) => Some(object),
            Err(error) if error.is_not_found() && matches!(goal, Goal::Deleted | Goal::Created) => None,
            Err(error) => return Err(error),
        };
        if goal.reached(object.as_ref()) {
            return emit(&format!("{} condition met\n", target.label()));
        }
        if Instant::now() + pause > deadline {
            return Err(CtlError::plain(format!(
                "timed out waiting for the condition on {}/{}",
                target.resource.plural, target.name
            )));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(400));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn goals() {
        let pod = json!({"metadata": {}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let reached = |text: &str| Goal::parse(text).unwrap().reached(Some(&pod));
        assert!(reached("condition=Ready") && reached("condition=ready=True") && !reached("condition=Ready=false"));
        assert!(reached("jsonpath={.status.phase}=Running") && reached("jsonpath='{.status.phase}'"));
        assert!(!reached("jsonpath={.status.phase}=Failed") && !reached("delete") && reached("create"));
        assert!(Goal::parse("delete").unwrap().reached(None));
        assert!(Goal::parse("foo").is_err());
    }
}
