//! The parts of `trictl config` that change files.

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::errors::{CtlError, Result};
use super::super::flags::boolean;
use super::super::print::emit;
use super::super::session::Global;
use super::file::{change_default, change_entry, default_path, load, remove_entry, remove_list};
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
    if name.is_empty() {
        return Err(CtlError::plain("empty context names are not allowed"));
    }
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
    if global.insecure_skip_tls_verify && global.certificate_authority.is_some() {
        return Err(CtlError::plain("you cannot specify a certificate authority and insecure mode at the same time"));
    }
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
    checked(args)?;
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

/// Whether the flags for providers and commands have the right form.
fn checked(args: &CredentialsArgs) -> Result<()> {
    let is_change = |word: &&String| !word.contains('=') && !word.ends_with('-');
    if let Some(word) = args.auth_provider_arg.iter().find(is_change) {
        return Err(CtlError::plain(format!("invalid auth-provider-arg format: {word}")));
    }
    if let Some(word) = args.exec_env.iter().find(is_change) {
        return Err(CtlError::plain(format!("invalid exec-env format: {word}")));
    }
    match args.exec_interactive_mode.as_deref() {
        None | Some("Never" | "IfAvailable" | "Always") => Ok(()),
        Some(_) => Err(CtlError::plain("invalid interactive mode type, can be only IfAvailable, Never, Always")),
    }
}

/// What `NAME=VALUE` and `NAME-` ask for: the names that go are first.
fn changes(words: &[String]) -> Vec<(&str, Option<&str>)> {
    let gone = words.iter().filter(|word| !word.contains('=')).map(|word| (word.trim_end_matches('-'), None));
    let set = words.iter().filter_map(|word| word.split_once('=')).map(|(name, value)| (name, Some(value)));
    gone.chain(set).collect()
}

fn provider(entry: &mut Map<String, Value>, args: &CredentialsArgs) {
    let Some(name) = &args.auth_provider else { return };
    let mut config = entry.get("auth-provider").map(|provider| provider["config"].clone()).unwrap_or_default();
    for (key, value) in changes(&args.auth_provider_arg) {
        match value {
            Some(value) => config[key] = json!(value),
            None => drop(config.as_object_mut().and_then(|map| map.remove(key))),
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
    for (key, value) in changes(&args.exec_env) {
        let mut list = exec["env"].as_array().cloned().unwrap_or_default();
        match (value, list.iter().position(|known| known["name"] == key)) {
            (None, at) => drop(at.map(|at| list.remove(at))),
            (Some(value), Some(at)) => list[at]["value"] = json!(value),
            (Some(value), None) => list.push(json!({"name": key, "value": value})),
        }
        exec["env"] = json!(list);
    }
}

/// `set` and `unset`
pub fn property(global: &Global, path: &str, value: Option<&str>, raw: bool) -> Result<()> {
    let parts: Vec<&str> = path.split('.').collect();
    match parts.as_slice() {
        [list @ ("clusters" | "contexts" | "users")] if value.is_none() => remove_list(global, list)?,
        ["current-context"] => {
            let name = value.unwrap_or_default();
            change_default(global, |file| file["current-context"] = json!(name))?;
        }
        [list @ ("clusters" | "contexts" | "users"), name] if value.is_none() => {
            remove_entry(global, list, name)?;
        }
        [list @ ("clusters" | "contexts" | "users"), name @ .., field] if !name.is_empty() => {
            let (value, name) = (typed(field, value, raw)?, name.join("."));
            if !is_field(list, field) {
                return Err(CtlError::plain(format!("unable to parse {path} after [{list} {name}] at api.Config")));
            }
            if value.is_none() && !is_known(global, list, &name)? {
                return Err(CtlError::plain(format!("current map key `{name}` is invalid")));
            }
            change_entry(global, list, &name, |entry| match value {
                Some(value) => drop(entry.insert((*field).to_owned(), value)),
                None => drop(entry.remove(*field)),
            })?;
        }
        ["preferences", field] => {
            let value = typed(field, value, raw)?;
            change_default(global, |file| file["preferences"][*field] = value.unwrap_or_default())?;
        }
        _ => return Err(CtlError::plain(format!("unable to parse {path} after [] at api.Config"))),
    }
    emit(&format!("Property {path:?} {}.\n", if value.is_some() { "set" } else { "unset" }))
}

/// Whether entries of a list have a field.
fn is_field(list: &str, field: &str) -> bool {
    let fields: &[&str] = match list {
        "clusters" => &[
            "server",
            "tls-server-name",
            "insecure-skip-tls-verify",
            "certificate-authority",
            "certificate-authority-data",
            "proxy-url",
            "disable-compression",
            "extensions",
        ],
        "contexts" => &["cluster", "user", "namespace", "extensions"],
        _ => &[
            "client-certificate",
            "client-certificate-data",
            "client-key",
            "client-key-data",
            "token",
            "tokenFile",
            "act-as",
            "act-as-uid",
            "act-as-groups",
            "username",
            "password",
            "auth-provider",
            "exec",
            "extensions",
        ],
    };
    fields.contains(&field)
}

fn is_known(global: &Global, list: &str, name: &str) -> Result<bool> {
    let config = load(global)?;
    Ok(match list {
        "clusters" => config.clusters.iter().any(|entry| entry.name == name),
        "contexts" => config.contexts.iter().any(|entry| entry.name == name),
        _ => config.users.iter().any(|entry| entry.name == name),
    })
}

/// Truths are written as such, and bytes as base64, which they are given in unless they are `raw`.
fn typed(field: &str, value: Option<&str>, raw: bool) -> Result<Option<Value>> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let Some(text) = value else { return Ok(None) };
    match field {
        field if field.ends_with("-data") => match STANDARD.decode(text) {
            _ if raw => Ok(Some(json!(STANDARD.encode(text)))),
            Ok(_) => Ok(Some(json!(text))),
            Err(error) => {
                let at = match error {
                    base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                    _ => text.len(),
                };
                Err(CtlError::plain(format!("error decoding input value: illegal base64 data at input byte {at}")))
            }
        },
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
    if !is_known(global, &format!("{what}s"), name)? {
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
