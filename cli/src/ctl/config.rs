//! `trictl config`: looking at and changing kubeconfigs.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use trireme_client::kubeconfig::{Context, Kubeconfig, NamedContext};

use super::errors::{CtlError, Result};
use super::print::table::aligned;
use super::print::{Format, emit};
use super::session::{Global, load};

/// Modify kubeconfig files.
#[derive(Debug, Clone, Subcommand)]
pub enum Config {
    /// Show the merged kubeconfig; secrets are left out
    View(ViewArgs),
    /// Show the current context
    CurrentContext,
    /// Set the current context
    #[command(visible_alias = "use")]
    UseContext {
        /// Name of the context
        name: String,
    },
    /// Show one or all contexts
    GetContexts(ContextsArgs),
    /// Show all clusters
    GetClusters,
    /// Show all users
    GetUsers,
    /// Create or change a context (with --cluster, --user, --namespace)
    SetContext {
        /// Name of the context
        name: Option<String>,
        /// Change the current context
        #[arg(long)]
        current: bool,
    },
    /// Delete a context
    DeleteContext {
        /// Name of the context
        name: String,
    },
}

/// `config view`
#[derive(Debug, Clone, Default, Args)]
pub struct ViewArgs {
    /// Output format: yaml, json, jsonpath=...
    #[arg(short, long)]
    pub output: Option<String>,
    /// Only what the current context uses
    #[arg(long)]
    pub minify: bool,
    /// Show certificates and secrets too
    #[arg(long)]
    pub raw: bool,
}

/// `config get-contexts`
#[derive(Debug, Clone, Default, Args)]
pub struct ContextsArgs {
    /// Only this context
    pub name: Option<String>,
    /// Output format: name
    #[arg(short, long)]
    pub output: Option<String>,
    /// Do not print heads
    #[arg(long)]
    pub no_headers: bool,
}

/// Runs the verb.
pub fn run(global: &Global, verb: &Config) -> Result<()> {
    let config = load(global)?;
    match verb {
        Config::View(args) => view(global, config, args),
        Config::CurrentContext => match config.current_context.filter(|name| !name.is_empty()) {
            Some(name) => emit(&format!("{name}\n")),
            None => Err(CtlError::plain("current-context is not set")),
        },
        Config::UseContext { name } => {
            if !config.contexts.iter().any(|entry| entry.name == *name) {
                return Err(CtlError::plain(format!("no context exists with the name: {name:?}")));
            }
            change(global, None, |file| file.current_context = Some(name.clone()))?;
            emit(&format!("Switched to context {name:?}.\n"))
        }
        Config::GetContexts(args) => contexts(&config, args),
        Config::GetClusters => {
            let names = config.clusters.iter().map(|entry| entry.name.clone() + "\n");
            emit(&("NAME\n".to_owned() + &names.collect::<String>()))
        }
        Config::GetUsers => {
            let names = config.users.iter().map(|entry| entry.name.clone() + "\n");
            emit(&("NAME\n".to_owned() + &names.collect::<String>()))
        }
        Config::SetContext { name, current } => set_context(global, &config, name.as_deref(), *current),
        Config::DeleteContext { name } => {
            if !config.contexts.iter().any(|entry| entry.name == *name) {
                return Err(CtlError::plain(format!("cannot delete context {name}, not in the kubeconfig")));
            }
            change(global, Some(name), |file| file.contexts.retain(|entry| entry.name != *name))?;
            emit(&format!("deleted context {name}\n"))
        }
    }
}

fn view(global: &Global, mut config: Kubeconfig, args: &ViewArgs) -> Result<()> {
    if args.minify {
        let name = global.context.clone().or(config.current_context.clone()).unwrap_or_default();
        config.contexts.retain(|entry| entry.name == name);
        let Some(context) = config.contexts.first().map(|entry| entry.context.clone()) else {
            return Err(CtlError::plain("current-context must exist in order to minify"));
        };
        config.clusters.retain(|entry| entry.name == context.cluster);
        config.users.retain(|entry| entry.name == context.user);
        config.current_context = Some(name);
    }
    let mut value = serde_json::to_value(&config).map_err(|error| CtlError::plain(error.to_string()))?;
    value["apiVersion"] = json!("v1");
    value["kind"] = json!("Config");
    if !args.raw {
        redact(&mut value);
    }
    let format = Format::parse(Some(args.output.as_deref().unwrap_or("yaml")))?;
    emit(&format.render(&value, "config")?)
}

fn redact(value: &mut Value) {
    let hidden = |field: &str| match field {
        "certificate-authority-data" => Some("DATA+OMITTED"),
        "client-certificate-data" | "client-key-data" => Some("DATA+OMITTED"),
        "token" | "password" => Some("REDACTED"),
        _ => None,
    };
    match value {
        Value::Object(map) => {
            for (field, value) in map {
                match hidden(field) {
                    Some(text) if value.is_string() => *value = Value::from(text),
                    _ => redact(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn contexts(config: &Kubeconfig, args: &ContextsArgs) -> Result<()> {
    let mut entries: Vec<&NamedContext> = config.contexts.iter().collect();
    if let Some(name) = &args.name {
        entries.retain(|entry| entry.name == *name);
        if entries.is_empty() {
            return Err(CtlError::plain(format!("context {name} not found")));
        }
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    if args.output.as_deref() == Some("name") {
        return emit(&entries.iter().map(|entry| entry.name.clone() + "\n").collect::<String>());
    }
    let mut rows = Vec::new();
    if !args.no_headers {
        rows.push(["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"].map(str::to_owned).to_vec());
    }
    for entry in entries {
        let current = config.current_context.as_deref() == Some(&entry.name);
        rows.push(vec![
            if current { "*" } else { "" }.to_owned(),
            entry.name.clone(),
            entry.context.cluster.clone(),
            entry.context.user.clone(),
            entry.context.namespace.clone().unwrap_or_default(),
        ]);
    }
    emit(&aligned(&rows))
}

fn set_context(global: &Global, config: &Kubeconfig, name: Option<&str>, current: bool) -> Result<()> {
    let name = match (name, current) {
        (Some(name), false) => name.to_owned(),
        (None, true) => config.current_context.clone().ok_or_else(|| CtlError::plain("no current context is set"))?,
        _ => return Err(CtlError::Usage("give either a NAME or --current".to_owned())),
    };
    let known = config.contexts.iter().any(|entry| entry.name == name);
    change(global, Some(&name), |file| {
        if !file.contexts.iter().any(|entry| entry.name == name) {
            file.contexts.push(NamedContext { name: name.clone(), context: Context::default(), origin: None });
        }
        for entry in file.contexts.iter_mut().filter(|entry| entry.name == name) {
            if let Some(cluster) = &global.cluster {
                entry.context.cluster = cluster.clone();
            }
            if let Some(user) = &global.user {
                entry.context.user = user.clone();
            }
            if let Some(namespace) = &global.namespace {
                entry.context.namespace = Some(namespace.clone());
            }
        }
    })?;
    emit(&format!("Context {name:?} {}.\n", if known { "modified" } else { "created" }))
}

/// Changes the file that holds the context, or the first file.
fn change(global: &Global, context: Option<&str>, edit: impl FnOnce(&mut Kubeconfig)) -> Result<()> {
    let merged = load(global)?;
    let holder = context.and_then(|name| merged.contexts.iter().find(|entry| entry.name == name)?.origin.clone());
    let first = || Kubeconfig::paths(global.kubeconfig.as_deref()).into_iter().next();
    let path = holder.or_else(first).ok_or_else(|| CtlError::plain("no kubeconfig file is known"))?;
    let mut file = if path.exists() {
        Kubeconfig::read(&path).map_err(|error| CtlError::plain(error.to_string()))?
    } else {
        Kubeconfig { api_version: Some("v1".into()), kind: Some("Config".into()), ..Kubeconfig::default() }
    };
    edit(&mut file);
    file.write(&path).map_err(|error| CtlError::plain(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out() {
        let mut value = json!({"users": [{"user": {"token": "t", "client-key-data": "k", "client-key": "file"}}]});
        redact(&mut value);
        assert_eq!(
            value,
            json!({"users": [{"user": {"token": "REDACTED", "client-key-data": "DATA+OMITTED", "client-key": "file"}}]})
        );
    }
}
