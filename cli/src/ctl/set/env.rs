//! `trictl set env`.

use clap::Args;
use serde_json::{Value, json};

use super::super::api::Call;
use super::super::errors::{CtlError, Result};
use super::super::generate::contents::{self, check_variable};
use super::super::print::emit;
use super::super::session::Session;
use super::super::targets::{self, Target};
use super::{On, change, containers, find, pod_spec};

/// Update environment variables on a pod template.
#[derive(Debug, Clone, Default, Args)]
pub struct EnvArgs {
    #[command(flatten)]
    pub on: On,
    /// Label selector
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// The containers to change; * is a wildcard
    #[arg(short, long, default_value = "*")]
    pub containers: String,
    /// KEY=VALUE, any number of times
    #[arg(short, long)]
    pub env: Vec<String>,
    /// A config map or secret whose entries become variables
    #[arg(long)]
    pub from: Option<String>,
    /// Only these entries
    #[arg(long, value_delimiter = ',')]
    pub keys: Vec<String>,
    /// What the variables' names begin with
    #[arg(long, default_value = "", hide_default_value = true)]
    pub prefix: String,
    /// Only show what is there
    #[arg(long)]
    pub list: bool,
    /// With --list, show values that come from elsewhere
    #[arg(long)]
    pub resolve: bool,
    /// Replace variables that are there
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub overwrite: bool,
}

/// Variables to set, as the API has them, and names to remove.
#[derive(Debug, Default)]
struct Plan {
    set: Vec<Value>,
    remove: Vec<String>,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &EnvArgs) -> Result<()> {
    let is_change = |word: &&String| word.contains('=') || word.ends_with('-');
    let words: Vec<String> = args.on.words.iter().filter(|word| !is_change(word)).cloned().collect();
    if words.is_empty() && args.on.files.is_empty() {
        return Err(CtlError::plain(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>",
        ));
    }
    let mut plan = Plan::default();
    for change in args.on.words.iter().filter(is_change).chain(&args.env) {
        match change.split_once('=') {
            Some((name, value)) => {
                check_variable(name)?;
                plan.set.push(json!({"name": name, "value": value}));
            }
            None if change == "-" => {
                let text = std::io::read_to_string(std::io::stdin())?;
                let mut read = Vec::new();
                contents::lines(&text, &mut read)?;
                let value = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                plan.set.extend(read.into_iter().map(|(name, bytes)| json!({"name": name, "value": value(bytes)})));
            }
            None => plan.remove.push(change.trim_end_matches('-').to_owned()),
        }
    }
    if plan.set.iter().any(|variable| plan.remove.iter().any(|name| variable["name"] == name.as_str())) {
        return Err(CtlError::plain(
            "can not both modify and remove the same environment variable in the same command",
        ));
    }
    if let Some(from) = &args.from {
        plan.set.extend(imported(session, args, from).await?);
    }
    let (found, mut failures) = find(session, &args.on, &words, args.selector.as_ref()).await?;
    for target in found {
        let outcome = match args.list {
            true => list(session, args, &target).await,
            false => {
                change(session, &args.on, &target, "env updated", |object| {
                    let found = containers(pod_spec(object, &target)?, &args.containers);
                    if found.is_empty() {
                        let (kind, name) = (&target.resource.kind, &target.name);
                        let wanted = &args.containers;
                        let warning = format!("{kind}/{name} does not have any containers matching {wanted:?}");
                        super::super::api::warn(&warning);
                    }
                    for container in found {
                        apply(container, &plan, args.overwrite)?;
                    }
                    Ok(())
                })
                .await
            }
        };
        failures.extend(outcome.err());
    }
    CtlError::gather(failures)
}

fn apply(container: &mut Value, plan: &Plan, overwrite: bool) -> Result<()> {
    let mut env: Vec<Value> = container["env"].as_array().cloned().unwrap_or_default();
    for variable in &plan.set {
        match env.iter_mut().find(|known| known["name"] == variable["name"]) {
            Some(_) if !overwrite => {
                let name = variable["name"].as_str().unwrap_or_default();
                return Err(CtlError::plain(format!("'{name}' already has a value, and --overwrite is false")));
            }
            Some(known) => *known = variable.clone(),
            None => env.push(variable.clone()),
        }
    }
    env.retain(|variable| !plan.remove.iter().any(|name| variable["name"] == name.as_str()));
    match (env.is_empty(), container.as_object_mut()) {
        (true, Some(map)) => drop(map.remove("env")),
        (_, Some(map)) => drop(map.insert("env".to_owned(), json!(env))),
        _ => {}
    }
    Ok(())
}

/// References to a config map's or secret's entries.
async fn imported(session: &Session, args: &EnvArgs, from: &str) -> Result<Vec<Value>> {
    let discovery = session.discovery().await?;
    let (queries, _) = targets::parse(&discovery, &[from.to_owned()])?;
    let Some(targets::Query::Named(resource, names)) = queries.into_iter().next() else {
        return Err(CtlError::plain("--from must be in the form of configmap/NAME or secret/NAME"));
    };
    let field = match resource.kind.as_str() {
        "ConfigMap" => "configMapKeyRef",
        "Secret" => "secretKeyRef",
        kind => return Err(CtlError::plain(format!("unsupported resource specified in --from: {kind}"))),
    };
    let name = names.first().map(String::as_str).unwrap_or_default();
    let source = session.api.json(&Call::get(resource.object_path(Some(&session.namespace), name))).await?;
    let mut keys: Vec<&String> = source["data"].as_object().into_iter().flatten().map(|(key, _)| key).collect();
    keys.sort();
    let wanted = |key: &&&String| args.keys.is_empty() || args.keys.contains(key);
    Ok(keys
        .iter()
        .filter(wanted)
        .map(|key| {
            let upper: String =
                key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
            if upper != **key {
                super::super::api::warn(&format!("key {key} transferred to {upper}"));
            }
            json!({"name": format!("{}{upper}", args.prefix), "valueFrom": {field: {"key": key, "name": name}}})
        })
        .collect())
}

async fn list(session: &Session, args: &EnvArgs, target: &Target) -> Result<()> {
    let mut object = match args.on.local {
        true => target.object.clone().unwrap_or_default(),
        false => target.fetch(session).await?,
    };
    let mut text = String::new();
    for container in containers(pod_spec(&mut object, target)?, &args.containers) {
        let kind = format!("{} {}", target.resource.kind, target.name);
        text.push_str(&format!("# {kind}, container {}\n", container["name"].as_str().unwrap_or_default()));
        for variable in container["env"].as_array().into_iter().flatten() {
            text.push_str(&shown(variable));
        }
    }
    emit(&text)
}

fn shown(variable: &Value) -> String {
    let name = variable["name"].as_str().unwrap_or_default();
    let from = &variable["valueFrom"];
    let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = if from["configMapKeyRef"].is_object() {
        let of = &from["configMapKeyRef"];
        format!("configmap {}, key {}", part(&of["name"]), part(&of["key"]))
    } else if from["secretKeyRef"].is_object() {
        let of = &from["secretKeyRef"];
        format!("secret {}, key {}", part(&of["name"]), part(&of["key"]))
    } else if from["fieldRef"].is_object() {
        format!("field path {}", part(&from["fieldRef"]["fieldPath"]))
    } else if from["resourceFieldRef"].is_object() {
        format!("resource field {}", part(&from["resourceFieldRef"]["resource"]))
    } else {
        return format!("{name}={}\n", part(&variable["value"]));
    };
    format!("# {name} from {about}\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn variables_are_set_and_removed() {
        let mut container = json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
        let plan = Plan { set: vec![json!({"name": "A", "value": "x"})], remove: vec!["B".into()] };
        assert!(apply(&mut container.clone(), &plan, false).is_err());
        apply(&mut container, &plan, true).unwrap();
        assert_eq!(container, json!({"env": [{"name": "A", "value": "x"}]}));
        assert_eq!(shown(&json!({"name": "A", "value": "x"})), "A=x\n");
        let from = json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}});
        assert_eq!(shown(&from), "# A from secret s, key k\n");
    }
}
