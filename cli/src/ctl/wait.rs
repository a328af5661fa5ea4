//! `trictl wait`.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::errors::{CtlError, Result};
use super::flags;
use super::get::show_result;
use super::manifest::Files;
use super::print::jsonpath::{Path, text_of};
use super::print::{Formats, PrintFlags};
use super::session::Session;
use super::targets::{self, Selection, Target};

/// Wait for a condition of objects.
#[derive(Debug, Clone, Default, Args)]
pub struct WaitArgs {
    /// TYPE NAME... or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// delete, create, condition=NAME[=VALUE] or jsonpath='{PATH}'[=VALUE]
    #[arg(long = "for", default_value = "", hide_default_value = true)]
    pub condition: String,
    /// How long to wait; 0 checks once, negative is a week
    #[arg(long, default_value = "30s", value_parser = flags::seconds)]
    pub timeout: f64,
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
    /// Not used: what is waited for is on the server
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub print: PrintFlags,
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
            ("jsonpath", rest) if !rest.is_empty() => Goal::path(rest),
            _ => Err(CtlError::plain(format!("unrecognized condition: {text:?}"))),
        }
    }

    /// `{.a.b}=value`, `.a.b=value` or a path alone.
    fn path(text: &str) -> Result<Goal> {
        let text = text.trim_matches('\'');
        let (path, value) = match text.rfind('}') {
            Some(end) => text.split_at(end + 1),
            None => text.split_once('=').map_or((text, ""), |(path, _)| text.split_at(path.len())),
        };
        let value = match value.trim_start_matches('\'') {
            "" => None,
            value => match value.strip_prefix('=').map(|value| value.trim_matches(['"', '\''])) {
                Some("") | None => return Err(CtlError::plain("jsonpath wait value cannot be empty")),
                Some(value) => Some(value.to_owned()),
            },
        };
        let path = path.trim_matches(['"', '\'']);
        if path.starts_with('{') != path.ends_with('}') {
            return Err(CtlError::plain(
                "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{name1.name2}' or '{.name1.name2}'",
            ));
        }
        Ok(Goal::Path(Path::relaxed(path)?, value))
    }

    /// Whether an object, or its absence, is what is waited for.
    fn reached(&self, object: Option<&Value>) -> Result<bool> {
        Ok(match (self, object) {
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
                match (value, found.as_slice()) {
                    (None, found) => !found.is_empty(),
                    (Some(_), []) => false,
                    (Some(value), [one]) => match one {
                        Value::Array(_) | Value::Object(_) => {
                            return Err(CtlError::plain(
                                "jsonpath leads to a nested object or list which is not supported",
                            ));
                        }
                        one => text_of(one) == *value,
                    },
                    _ => return Err(CtlError::plain("given jsonpath expression matches more than one value")),
                }
            }
        })
    }
}

/// Runs the verb.
pub async fn run(session: &Session, args: &WaitArgs) -> Result<()> {
    let printer = args.print.printer(Formats::Objects)?;
    let goal = Goal::parse(&args.condition)?;
    let deadline = match args.timeout {
        seconds if seconds < 0.0 => Instant::now() + Duration::from_secs(7 * 24 * 3600),
        seconds => Instant::now() + Duration::from_secs_f64(seconds),
    };
    let selection = Selection {
        labels: args.selector.clone(),
        fields: args.field_selector.clone(),
        all_namespaces: args.all_namespaces,
        all: args.all,
        ..Selection::default()
    };
    let once = args.timeout == 0.0;
    let mut found = find(session, args, &selection).await?;
    while found.is_empty() {
        match goal {
            Goal::Deleted => return Ok(()),
            // What is to be created may not match anything yet.
            Goal::Created if !once && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                found = find(session, args, &selection).await?;
            }
            Goal::Created => return Err(CtlError::plain("timed out waiting for the condition")),
            _ => return Err(CtlError::plain("no matching resources found")),
        }
    }
    let mut failures = Vec::new();
    for target in found {
        match wait_one(session, &goal, &target, deadline, once).await {
            Ok(Some(object)) => show_result(&target, &object, &printer, "condition met")?,
            Ok(None) => {}
            // One that is missing ends it all, as with kubectl.
            Err(error) if error.is_not_found() => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    CtlError::gather_bare(failures)
}

async fn find(session: &Session, args: &WaitArgs, selection: &Selection) -> Result<Vec<Target>> {
    let (found, failures) = targets::resolve(session, &args.words, &args.files, selection).await?;
    CtlError::gather(failures)?;
    Ok(found)
}

/// Waits for one object; nothing comes back for one that was gone from the beginning.
async fn wait_one(
    session: &Session,
    goal: &Goal,
    target: &Target,
    deadline: Instant,
    once: bool,
) -> Result<Option<Value>> {
    let mut pause = Duration::from_millis(50);
    let mut last = target.object.clone();
    loop {
        let object = match target.fetch(session).await {
            Ok(object) => Some(object),
            Err(error) if error.is_not_found() && matches!(goal, Goal::Deleted | Goal::Created) => None,
            // The connection broke; another master goes on.
            Err(error) if error.is_passing() && Instant::now() < deadline => {
                tokio::time::sleep(pause).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if goal.reached(object.as_ref())? {
            return Ok(object.or(last));
        }
        last = object.or(last);
        if once {
            let what = format!("{}/{}", target.resource.plural, target.name);
            return Err(CtlError::plain(format!("condition not met for {what}")));
        }
        if Instant::now() + pause > deadline {
            return Err(match goal {
                Goal::Created => CtlError::plain("timed out waiting for the condition"),
                _ => CtlError::plain(format!(
                    "timed out waiting for the condition on {}/{}",
                    target.resource.plural, target.name
                )),
            });
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
        let reached = |text: &str| Goal::parse(text).unwrap().reached(Some(&pod)).unwrap();
        assert!(reached("condition=Ready") && reached("condition=ready=True") && !reached("condition=Ready=false"));
        assert!(reached("jsonpath={.status.phase}=Running") && reached("jsonpath='{.status.phase}'"));
        assert!(reached("jsonpath=.status.phase=Running"));
        assert!(!reached("jsonpath={.status.phase}=Failed") && !reached("delete") && reached("create"));
        assert!(Goal::parse("delete").unwrap().reached(None).unwrap());
        for bad in ["foo", "", "jsonpath={.status", "jsonpath={.a}="] {
            assert!(Goal::parse(bad).is_err(), "{bad}");
        }
        let several = json!({"a": [{"b": 1}, {"b": 2}]});
        assert!(Goal::parse("jsonpath={.a[*].b}=1").unwrap().reached(Some(&several)).is_err());
    }
}
