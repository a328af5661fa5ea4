//! `trictl config`: looking at and changing kubeconfigs.

mod file;
mod set;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use trireme_client::kubeconfig::{Kubeconfig, NamedContext};

use self::file::{default_path, load, ordered};
pub use self::set::{ClusterArgs, CredentialsArgs};
use super::errors::{CtlError, Result};
use super::print::table::aligned;
use super::print::{Format, Formats, PrintFlags, emit};
use super::session::Global;

/// Modify kubeconfig files.
#[derive(Debug, Clone, Subcommand)]
pub enum Config {
    /// Display the current-context
    CurrentContext(Words),
    /// Delete the specified cluster from the kubeconfig
    DeleteCluster(Words),
    /// Delete the specified context from the kubeconfig
    DeleteContext(Words),
    /// Delete the specified user from the kubeconfig
    DeleteUser(Words),
    /// Display clusters defined in the kubeconfig
    GetClusters(Words),
    /// Describe one or many contexts
    GetContexts(ContextsArgs),
    /// Display users defined in the kubeconfig
    GetUsers(Words),
    /// Rename a context from the kubeconfig file
    RenameContext(Words),
    /// Set an individual value in a kubeconfig file
    Set(SetArgs),
    /// Set a cluster entry in kubeconfig (with --server, --certificate-authority …)
    SetCluster(ClusterArgs),
    /// Set a context entry in kubeconfig (with --cluster, --user, --namespace)
    SetContext(ContextArgs),
    /// Set a user entry in kubeconfig (with --token, --client-certificate …)
    SetCredentials(CredentialsArgs),
    /// Unset an individual value in a kubeconfig file
    Unset(Words),
    /// Set the current-context in a kubeconfig file
    #[command(visible_alias = "use")]
    UseContext(Words),
    /// Display merged kubeconfig settings or a specified kubeconfig file
    View(ViewArgs),
}

/// Plain words.
#[derive(Debug, Clone, Default, Args)]
pub struct Words {
    /// Names
    pub words: Vec<String>,
}

/// `config set`
#[derive(Debug, Clone, Default, Args)]
pub struct SetArgs {
    /// PROPERTY_NAME PROPERTY_VALUE
    pub words: Vec<String>,
    /// Write the bytes as given, without taking them for base64
    #[arg(long)]
    pub set_raw_bytes: bool,
}

/// `config set-context`
#[derive(Debug, Clone, Default, Args)]
pub struct ContextArgs {
    /// NAME
    pub words: Vec<String>,
    /// Modify the current context
    #[arg(long)]
    pub current: bool,
}

/// `config view`
#[derive(Debug, Clone, Default, Args)]
pub struct ViewArgs {
    #[command(flatten)]
    pub print: PrintFlags,
    /// Only what the current context uses
    #[arg(long)]
    pub minify: bool,
    /// Put what files hold into the configuration
    #[arg(long)]
    pub flatten: bool,
    /// Merge the full hierarchy of kubeconfig files
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub merge: bool,
    /// Show certificates and secrets too
    #[arg(long)]
    pub raw: bool,
    /// None is expected
    #[arg(hide = true)]
    pub words: Vec<String>,
}

/// `config get-contexts`
#[derive(Debug, Clone, Default, Args)]
pub struct ContextsArgs {
    /// Only these contexts
    pub words: Vec<String>,
    /// Output format: name
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub output: String,
    /// Do not print heads
    #[arg(long)]
    pub no_headers: bool,
}

/// Runs the verb.
pub fn run(global: &Global, verb: &Config) -> Result<()> {
    match verb {
        Config::View(args) => view(global, args),
        Config::CurrentContext(_) => match load(global)?.current_context.filter(|name| !name.is_empty()) {
            Some(name) => emit(&format!("{name}\n")),
            None => Err(CtlError::plain("current-context is not set")),
        },
        Config::UseContext(args) => set::use_context(global, one(&args.words)?),
        Config::GetContexts(args) => contexts(&load(global)?, args),
        Config::GetClusters(_) => names(load(global)?.clusters.into_iter().map(|entry| entry.name).collect()),
        Config::GetUsers(_) => names(load(global)?.users.into_iter().map(|entry| entry.name).collect()),
        Config::SetContext(args) => set::context(global, args),
        Config::SetCluster(args) => set::cluster(global, args),
        Config::SetCredentials(args) => set::credentials(global, args),
        Config::Set(args) => match args.words.as_slice() {
            [property, value] => set::property(global, property, Some(value), args.set_raw_bytes),
            other => Err(unexpected(other)),
        },
        Config::Unset(args) => set::property(global, one(&args.words)?, None, false),
        Config::RenameContext(args) => match args.words.as_slice() {
            [from, to] => set::rename(global, from, to),
            other => Err(unexpected(other)),
        },
        Config::DeleteContext(args) => set::delete(global, "context", one(&args.words)?),
        Config::DeleteCluster(args) => set::delete(global, "cluster", one(&args.words)?),
        Config::DeleteUser(args) => match args.words.as_slice() {
            [name] => set::delete(global, "user", name),
            _ => Err(CtlError::usage("user to delete is required")),
        },
    }
}

fn unexpected(words: &[String]) -> CtlError {
    CtlError::plain(format!("Unexpected args: [{}]", words.join(" ")))
}

fn one(words: &[String]) -> Result<&str> {
    match words {
        [word] => Ok(word),
        other => Err(unexpected(other)),
    }
}

fn names(mut names: Vec<String>) -> Result<()> {
    names.sort();
    emit(&("NAME\n".to_owned() + &names.iter().map(|name| format!("{name}\n")).collect::<String>()))
}

fn view(global: &Global, args: &ViewArgs) -> Result<()> {
    super::cluster::no_words(&args.words)?;
    if !args.merge && global.kubeconfig.is_none() {
        return Err(CtlError::plain("if merge==false a precise file must be specified"));
    }
    let mut config = load(global)?;
    // What kubeconfigs do not have is not shown.
    config.other.retain(|field, _| matches!(field.as_str(), "preferences" | "extensions"));
    let mut flags = args.print.clone();
    if flags.output.is_none() && flags.template.is_none() {
        flags.output = Some("yaml".to_owned());
    }
    let printer = flags.printer(Formats::Objects)?.in_order();
    if args.minify {
        minify(global, &mut config)?;
    }
    let mut value = serde_json::to_value(&config).map_err(|error| CtlError::plain(error.to_string()))?;
    value["apiVersion"] = json!("v1");
    value["kind"] = json!("Config");
    if args.flatten {
        file::flatten(&mut value, &default_path(global))?;
    }
    if !args.raw {
        redact(&mut value);
    }
    if matches!(printer.format, Format::Name) {
        return emit("config/<unknown>\n");
    }
    emit(&printer.render(&ordered(value), "config")?)
}

fn minify(global: &Global, config: &mut Kubeconfig) -> Result<()> {
    let name = global.context.clone().or(config.current_context.clone()).unwrap_or_default();
    if name.is_empty() {
        return Err(CtlError::plain("current-context must exist in order to minify"));
    }
    config.contexts.retain(|entry| entry.name == name);
    let Some(context) = config.contexts.first().map(|entry| entry.context.clone()) else {
        return Err(CtlError::plain(format!("cannot locate context {name}")));
    };
    config.clusters.retain(|entry| entry.name == context.cluster);
    config.users.retain(|entry| entry.name == context.user);
    config.current_context = Some(name);
    Ok(())
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
    if !matches!(args.output.as_str(), "" | "name") {
        return Err(CtlError::plain(format!(
            "--output {} is not available in kubectl config get-contexts; resetting to default output format",
            args.output
        )));
    }
    let mut entries: Vec<&NamedContext> = config.contexts.iter().collect();
    let mut failures = Vec::new();
    if !args.words.is_empty() {
        entries.retain(|entry| args.words.contains(&entry.name));
        let missing = args.words.iter().filter(|word| !config.contexts.iter().any(|entry| entry.name == **word));
        failures.extend(missing.map(|word| CtlError::plain(format!("context {word} not found"))));
        failures.sort_by_key(CtlError::text);
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    if args.output == "name" {
        emit(&entries.iter().map(|entry| entry.name.clone() + "\n").collect::<String>())?;
        return CtlError::gather_bare(failures);
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
    emit(&aligned(&rows))?;
    CtlError::gather_bare(failures)
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
