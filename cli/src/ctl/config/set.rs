//! The parts of `trictl config` that change files.

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::errors::{CtlError, Result};
use super::super::flags::boolean;
use super::super::print::emit;
use super::super::session::{Global, load};
use super::file::{change_default, change_entry, default_path, remove_entry};
use super::{ContextArgs, unexpected};

/// `config set-cluster`; the rest comes from the global flags.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterArgs {
    /// NAME
    pub words: Vec<String>,
    /// Put the CA's certificate into the kubeconfig
    #[arg(long)]
    pub embed_certs: bool,
    /// URL of a proxy
    #[arg(long)]
    pub proxy_url: Option<String>,
}

/// `config set-credentials`; the rest comes from the global flags.
#[derive(Debug, Clone, Default, Args)]
pub struct CredentialsArgs {
    /// NAME
    pub words: Vec<String>,
    /// Put certificate and key into the kubeconfig
    #[arg(long)]
    pub embed_certs: bool,
    /// Auth provider
    #[arg(long)]
    pub auth_provider: Option<String>,
    /// key=value arguments for the auth provider
    #[arg(long)]
    pub auth_provider_arg: Vec<String>,
    /// Command that gets credentials
    #[arg(long)]
    pub exec_command: Option<String>,
    /// API version of that command
    #[arg(long)]
    pub exec_api_version: Option<String>,
    /// Arguments of that command
    #[arg(long)]
    pub exec_arg: Vec<String>,
    /// key=value environment of that command
    #[arg(long)]
    pub exec_env: Vec<String>,
    /// Never, IfAvailable or Always
    #[arg(long)]
    pub exec_interactive_mode: Option<String>,
    /// Tell that command about the cluster
    #[arg(long)]
    pub exec_provide_cluster_info: bool,
}

fn named<'a>(words: &'a [String], complaint: &str) -> Result<&'a str> {
    match words {
        [name] => Ok(name),
        other => Err(CtlError::plain(format!("{complaint}: [{}]", other.join(" ")))),
    }
}

/// `use-context`
pub fn use_context(global: &Global, name: &str) -> Result<()> {
    if !load(global)?.contexts.iter().any(|entry| entry.name == name) {
        return Err(CtlError::plain(format!("no context exists with the name: {name:?}")));
    }
    change_default(global, |file| file["current-context"] = json!(name))?;
    emit(&format!("Switched to context {name:?}.\n"))
}

/// `set-context`
pub fn context(global: &Global, args: &ContextArgs) -> Result<()> {
    let name = match (args.words.as_slice(), args.current) {
        ([name], false) => name.clone(),
        ([], true) => load(global)?
            .current_context
            .filter(|name| !name.is_empty())
            .ok_or_else(|| CtlError::plain("no current context is set"))?,
        ([_], true) => return Err(CtlError::plain("you cannot specify both a context name and --current")),
        ([], false) => return Err(CtlError::plain("you must specify a non-empty context name or --current")),
        (other, _) => return Err(unexpected(other)),
    };
    let known = change_entry(global, "contexts", &name, |entry| {
        for (field, value) in [("cluster", &global.cluster), ("user", &global.user), ("namespace", &global.namespace)] {
            if let Some(value) = value {
                entry.insert(field.to_owned(), json!(value));
            }
        }
        for field in ["cluster", "user"] {
            entry.entry(field).or_insert(json!(""));
        }
    })?;
    emit(&format!("Context {name:?} {}.\n", if known { "modified" } else { "created" }))
}

/// What a file flag puts into an entry: the path, or with `embed` its contents.
fn put_file(entry: &mut Map<String, Value>, field: &str, path: Option<&std::path::PathBuf>, embed: bool) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let data = format!("{field}-data");
    if embed {
        let bytes = std::fs::read(path).map_err(|error| {
            CtlError::plain(format!(
                "could not stat {field} file {0}: stat {0}: {1}",
                path.display(),
                super::super::print::os_reason(&error)
            ))
        })?;
        use base64::Engine;
        entry.insert(data, json!(base64::engine::general_purpose::STANDARD.encode(bytes)));
        entry.remove(field);
    } else {
        let path = std::path::absolute(path)?;
        entry.insert(field.to_owned(), json!(path.display().to_string()));
        entry.remove(&data);
    }
    Ok(())
}

/// `set-cluster`
pub fn cluster(global: &Global, args: &ClusterArgs) -> Result<()> {
    let name = named(&args.words, "Unexpected args")?;
    if args.embed_certs && global.certificate_authority.is_none() {
        return Err(CtlError::plain("you must specify a --certificate-authority to embed"));
    }
    let mut files = Map::new();
    put_file(&mut files, "certificate-authority", global.certificate_authority.as_ref(), args.embed_certs)?;
    change_entry(global, "clusters", name, |entry| {
        let texts =
            [("server", &global.server), ("tls-server-name", &global.tls_server_name), ("proxy-url", &args.proxy_url)];
        for (field, value) in texts {
            if let Some(value) = value {
                entry.insert(field.to_owned(), json!(value));
            }
        }
        if global.insecure_skip_tls_verify || !files.is_empty() {
            entry.remove("certificate-authority");
            entry.remove("certificate-authority-data");
            entry.remove("insecure-skip-tls-verify");
        }
        if global.insecure_skip_tls_verify {
            entry.insert("insecure-skip-tls-verify".to_owned(), json!(true));
        }
        entry.extend(files);
        entry.entry("server").or_insert(json!(""));
    })?;
    emit(&format!("Cluster {name:?} set.\n"))
}

/// `set-credentials`
pub fn credentials(global: &Global, args: &CredentialsArgs) -> Result<()> {
    let name = named(&args.words, "unexpected args")?;
    let basic = global.username.is_some() || global.password.is_some();
    if global.token.is_some() && basic {
        return Err(CtlError::plain(
            "you cannot specify more than one authentication method at the same time: --token, --username/--password",
        ));
    }
    if args.embed_certs && global.client_certificate.is_none() && global.client_key.is_none() {
        return Err(CtlError::plain("you must specify a --client-certificate or --client-key to embed"));
    }
    let mut files = Map::new();
    put_file(&mut files, "client-certificate", global.client_certificate.as_ref(), args.embed_certs)?;
    put_file(&mut files, "client-key", global.client_key.as_ref(), args.embed_certs)?;
    change_entry(global, "users", name, |entry| {
        for field in files.keys() {
            let other = field.strip_suffix("-data").map_or_else(|| format!("{field}-data"), str::to_owned);
            entry.remove(&other);
        }
        entry.extend(files.clone());
        if let Some(token) = &global.token {
            ["username", "password", "tokenFile"].iter().for_each(|field| drop(entry.remove(*field)));
            entry.insert("token".to_owned(), json!(token));
        }
        if basic {
            ["token", "tokenFile"].iter().for_each(|field| drop(entry.remove(*field)));
        }
        for (field, value) in [("username", &global.username), ("password", &global.password)] {
            if let Some(value) = value {
                entry.insert(field.to_owned(), json!(value));
            }
        }
        provider(entry, args);
        exec(entry, args);
    })?;
    emit(&format!("User {name:?} set.\n"))
}

fn provider(entry: &mut Map<String, Value>, args: &CredentialsArgs) {
    let Some(name) = &args.auth_provider else { return };
    let mut config = entry.get("auth-provider").map(|provider| provider["config"].clone()).unwrap_or_default();
    for argument in &args.auth_provider_arg {
        match argument.split_once('=') {
            Some((key, value)) => config[key] = json!(value),
            None => drop(config.as_object_mut().and_then(|map| map.remove(argument.trim_end_matches('-')))),
        }
    }
    entry.insert("auth-provider".to_owned(), json!({"config": config, "name": name}));
}

fn exec(entry: &mut Map<String, Value>, args: &CredentialsArgs) {
    let there = entry.contains_key("exec");
    if args.exec_command.is_none() && !there {
        return;
    }
    let exec = entry.entry("exec").or_insert_with(|| json!({"provideClusterInfo": false}));
    let texts = [
        ("command", &args.exec_command),
        ("apiVersion", &args.exec_api_version),
        ("interactiveMode", &args.exec_interactive_mode),
    ];
    for (field, value) in texts {
        if let Some(value) = value {
            exec[field] = json!(value);
        }
    }
    if args.exec_provide_cluster_info {
        exec["provideClusterInfo"] = json!(true);
    }
    if !args.exec_arg.is_empty() {
        exec["args"] = json!(args.exec_arg);
    }
    for field in ["args", "env"] {
        if exec.get(field).is_none() {
            exec[field] = Value::Null;
        }
    }
    for variable in &args.exec_env {
        let mut list = exec["env"].as_array().cloned().unwrap_or_default();
        let (key, value) = match variable.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (variable.trim_end_matches('-'), None),
        };
        list.retain(|known| known["name"] != key);
        list.extend(value.map(|value| json!({"name": key, "value": value})));
        exec["env"] = json!(list);
    }
}

/// `set` and `unset`
pub fn property(global: &Global, path: &str, value: Option<&str>) -> Result<()> {
    let parts: Vec<&str> = path.split('.').collect();
    match parts.as_slice() {
        ["current-context"] => {
            let name = value.unwrap_or_default();
            change_default(global, |file| file["current-context"] = json!(name))?;
        }
        [list @ ("clusters" | "contexts" | "users"), name] if value.is_none() => {
            remove_entry(global, list, name)?;
        }
        [list @ ("clusters" | "contexts" | "users"), name @ .., field] if !name.is_empty() => {
            let value = typed(field, value)?;
            change_entry(global, list, &name.join("."), |entry| match value {
                Some(value) => drop(entry.insert((*field).to_owned(), value)),
                None => drop(entry.remove(*field)),
            })?;
        }
        ["preferences", field] => {
            let value = typed(field, value)?;
            change_default(global, |file| file["preferences"][*field] = value.unwrap_or_default())?;
        }
        _ => return Err(CtlError::plain(format!("unable to parse {} after [] at api.Config", parts[0]))),
    }
    emit(&format!("Property {path:?} {}.\n", if value.is_some() { "set" } else { "unset" }))
}

/// Values of flags that are truths are written as such.
fn typed(field: &str, value: Option<&str>) -> Result<Option<Value>> {
    let Some(text) = value else { return Ok(None) };
    match field {
        "insecure-skip-tls-verify" | "disable-compression" | "colors" => {
            boolean(text).map(|value| Some(json!(value))).map_err(CtlError::plain)
        }
        _ => Ok(Some(json!(text))),
    }
}

/// `rename-context`
pub fn rename(global: &Global, from: &str, to: &str) -> Result<()> {
    let config = load(global)?;
    let file = default_path(global);
    let Some(entry) = config.contexts.iter().find(|entry| entry.name == from) else {
        return Err(CtlError::plain(format!("cannot rename the context {from:?}, it's not in {}", file.display())));
    };
    if config.contexts.iter().any(|entry| entry.name == to) {
        return Err(CtlError::plain(format!(
            "cannot rename the context {from:?}, the context {to:?} already exists in {}",
            file.display()
        )));
    }
    let context = serde_json::to_value(&entry.context).map_err(|error| CtlError::plain(error.to_string()))?;
    remove_entry(global, "contexts", from)?;
    change_entry(global, "contexts", to, |entry| entry.extend(context.as_object().cloned().unwrap_or_default()))?;
    if config.current_context.as_deref() == Some(from) {
        change_default(global, |file| file["current-context"] = json!(to))?;
    }
    emit(&format!("Context {from:?} renamed to {to:?}.\n"))
}

/// `delete-context`, `delete-cluster`, `delete-user`
pub fn delete(global: &Global, what: &str, name: &str) -> Result<()> {
    let config = load(global)?;
    let known = match what {
        "context" => config.contexts.iter().any(|entry| entry.name == name),
        "cluster" => config.clusters.iter().any(|entry| entry.name == name),
        _ => config.users.iter().any(|entry| entry.name == name),
    };
    if !known {
        let file = default_path(global);
        return Err(CtlError::plain(format!("cannot delete {what} {name}, not in {}", file.display())));
    }
    let file = remove_entry(global, &format!("{what}s"), name)?;
    if what == "context" && config.current_context.as_deref() == Some(name) {
        eprintln!(
            "warning: this removed your active context, use \"trictl config use-context\" to select a different one"
        );
    }
    emit(&format!("deleted {what} {name} from {}\n", file.display()))
}
