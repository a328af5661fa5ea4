//! Config maps and secrets from flags.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::super::create::How;
use super::super::errors::{CtlError, Result};
use super::super::print::{os_reason, sorted};
use super::{name, pair, typed};

/// Where the entries come from.
#[derive(Debug, Clone, Args)]
pub struct Sources {
    /// A file, key=file, or a folder of files
    #[arg(long)]
    pub from_file: Vec<String>,
    /// key=value
    #[arg(long)]
    pub from_literal: Vec<String>,
    /// A file of key=value lines
    #[arg(long)]
    pub from_env_file: Vec<String>,
    /// Append a hash of the contents to the name
    #[arg(long)]
    pub append_hash: bool,
}

/// A config map from flags.
#[derive(Debug, Clone, Args)]
pub struct ConfigMapArgs {
    /// NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub sources: Sources,
    #[command(flatten)]
    pub how: How,
}

/// A secret from flags.
#[derive(Debug, Clone, Args)]
pub struct SecretArgs {
    /// NAME
    pub words: Vec<String>,
    #[command(flatten)]
    pub sources: Sources,
    /// The type of secret to create
    #[arg(long, default_value = "")]
    pub r#type: String,
    #[command(flatten)]
    pub how: How,
}

/// A certificate with its key.
#[derive(Debug, Clone, Args)]
pub struct TlsArgs {
    /// NAME
    pub words: Vec<String>,
    /// Path to PEM encoded public key certificate
    #[arg(long, default_value = "")]
    pub cert: String,
    /// Path to private key associated with given certificate
    #[arg(long, default_value = "")]
    pub key: String,
    /// Append a hash of the secret to its name
    #[arg(long)]
    pub append_hash: bool,
    #[command(flatten)]
    pub how: How,
}

/// Credentials for a registry.
#[derive(Debug, Clone, Args)]
pub struct DockerArgs {
    /// NAME
    pub words: Vec<String>,
    /// Username for Docker registry authentication
    #[arg(long, default_value = "")]
    pub docker_username: String,
    /// Password for Docker registry authentication
    #[arg(long, default_value = "")]
    pub docker_password: String,
    /// Email for Docker registry
    #[arg(long, default_value = "")]
    pub docker_email: String,
    /// Server location for Docker registry
    #[arg(long, default_value = "https://index.docker.io/v1/")]
    pub docker_server: String,
    /// A file, or key=file
    #[arg(long)]
    pub from_file: Vec<String>,
    /// Append a hash of the secret to its name
    #[arg(long)]
    pub append_hash: bool,
    #[command(flatten)]
    pub how: How,
}

impl ConfigMapArgs {
    /// The config map.
    pub fn object(&self) -> Result<Value> {
        let name = name(&self.words)?;
        let (mut data, mut binary) = (Map::new(), Map::new());
        for (key, bytes) in self.sources.read("a ConfigMap")? {
            if data.contains_key(&key) || binary.contains_key(&key) {
                return Err(CtlError::plain(format!(
                    "cannot add key {key:?}, another key by that name already exists in Data for ConfigMap {name:?}"
                )));
            }
            match String::from_utf8(bytes) {
                Ok(text) => data.insert(key, Value::from(text)),
                Err(error) => binary.insert(key, Value::from(STANDARD.encode(error.as_bytes()))),
            };
        }
        let mut object = typed("v1", "ConfigMap", name);
        if !data.is_empty() {
            object["data"] = Value::Object(data);
        }
        if !binary.is_empty() {
            object["binaryData"] = Value::Object(binary);
        }
        if self.sources.append_hash {
            append_hash(&mut object);
        }
        Ok(object)
    }
}

impl SecretArgs {
    /// The secret.
    pub fn object(&self) -> Result<Value> {
        let name = name(&self.words)?;
        let mut data = Map::new();
        for (key, bytes) in self.sources.read("a Secret")? {
            if data.contains_key(&key) {
                return Err(CtlError::plain(format!("cannot add key {key}, another key by that name already exists")));
            }
            data.insert(key, Value::from(STANDARD.encode(bytes)));
        }
        Ok(secret(name, &self.r#type, data, self.sources.append_hash))
    }
}

impl TlsArgs {
    /// The secret.
    pub fn object(&self) -> Result<Value> {
        let name = name(&self.words)?;
        if self.cert.is_empty() || self.key.is_empty() {
            return Err(CtlError::plain("key and cert must be specified"));
        }
        let read = |path: &str| {
            std::fs::read(path).map_err(|error| {
                CtlError::plain(format!("Cannot read file {path}, open {path}: {}", os_reason(&error)))
            })
        };
        let (cert, key) = (read(&self.cert)?, read(&self.key)?);
        pair::check(&cert, &key).map_err(CtlError::plain)?;
        let data = [("tls.crt", cert), ("tls.key", key)];
        let data = data.into_iter().map(|(key, bytes)| (key.to_owned(), Value::from(STANDARD.encode(bytes))));
        Ok(secret(name, "kubernetes.io/tls", data.collect(), self.append_hash))
    }
}

impl DockerArgs {
    /// The secret.
    pub fn object(&self) -> Result<Value> {
        let name = name(&self.words)?;
        let given = [&self.docker_username, &self.docker_password, &self.docker_server];
        if self.from_file.is_empty() && given.iter().any(|text| text.is_empty()) {
            return Err(CtlError::plain(
                "either --from-file or the combination of --docker-username, --docker-password and --docker-server is \
                 required",
            ));
        }
        let data = if self.from_file.is_empty() {
            let token = STANDARD.encode(format!("{}:{}", self.docker_username, self.docker_password));
            let mut entry = json!({"username": self.docker_username, "password": self.docker_password});
            if !self.docker_email.is_empty() {
                entry["email"] = json!(self.docker_email);
            }
            entry["auth"] = json!(token);
            let config = json!({"auths": {&self.docker_server: entry}});
            Map::from_iter([(".dockerconfigjson".to_owned(), json!(STANDARD.encode(config.to_string())))])
        } else {
            // There is one key that such a secret can have.
            let named = |file: &String| match file.contains('=') {
                true => file.clone(),
                false => format!(".dockerconfigjson={file}"),
            };
            let sources = Sources {
                from_file: self.from_file.iter().map(named).collect(),
                from_literal: Vec::new(),
                from_env_file: Vec::new(),
                append_hash: false,
            };
            let found = sources.read("a Secret")?;
            found.into_iter().map(|(key, bytes)| (key, Value::from(STANDARD.encode(bytes)))).collect()
        };
        Ok(secret(name, "kubernetes.io/dockerconfigjson", data, self.append_hash))
    }
}

fn secret(name: &str, kind: &str, data: Map<String, Value>, hash: bool) -> Value {
    let mut object = typed("v1", "Secret", name);
    if !data.is_empty() {
        object["data"] = Value::Object(data);
    }
    if !kind.is_empty() {
        object["type"] = json!(kind);
    }
    if hash {
        append_hash(&mut object);
    }
    object
}

/// The hash of a config map's or secret's contents, in letters that cannot spell words. kubectl hashes the name too,
/// kustomize an empty one.
pub fn content_hash(object: &Value, name: &str) -> String {
    let mut hashed = json!({"kind": object["kind"], "name": name, "data": object["data"]});
    if object["kind"] == "Secret" {
        hashed["type"] = json!(object["type"].as_str().unwrap_or_default());
        if hashed["data"].is_null() {
            hashed["data"] = json!({});
        }
    } else if !object["binaryData"].is_null() {
        hashed["binaryData"] = object["binaryData"].clone();
    }
    let digest = Sha256::digest(sorted(&hashed).to_string());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let letter = |c: char| match c {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    };
    hex.chars().take(10).map(letter).collect()
}

fn append_hash(object: &mut Value) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    object["metadata"]["name"] = json!(format!("{name}-{}", content_hash(object, name)));
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| CtlError::plain(format!("error reading {}: {}", path.display(), os_reason(&error))))
}

impl Sources {
    /// All entries, in the order of the flags.
    fn read(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let others = self.from_file.len() + self.from_literal.len();
        if !self.from_env_file.is_empty() && others > 0 {
            return Err(CtlError::plain("from-env-file cannot be combined with from-file or from-literal"));
        }
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for literal in &self.from_literal {
            let (key, value) = literal
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| CtlError::plain(format!("invalid literal source {literal}, expected key=value")))?;
            found.push((key.to_owned(), value.as_bytes().to_vec()));
        }
        for source in &self.from_file {
            files(source, &mut found)?;
        }
        for source in &self.from_env_file {
            variables(Path::new(source), &mut found)?;
        }
        for (key, _) in &found {
            let reasons = trireme_api::names::config_map_key(key);
            if !reasons.is_empty() {
                return Err(CtlError::plain(format!(
                    "{key:?} is not a valid key name for {kind}: {}",
                    reasons.join(",")
                )));
            }
        }
        Ok(found)
    }
}

/// What kubectl takes for the name of a variable; the server takes more.
const VARIABLE: &str = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and \
                        must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used \
                        for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')";

/// The lines of a file of variables.
fn variables(path: &Path, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if path.is_dir() {
        return Err(CtlError::plain("env config file cannot be a directory"));
    }
    lines(&String::from_utf8_lossy(&read(path)?), found)
}

/// Refuses what kubectl does not take for the name of a variable.
pub fn check_variable(name: &str) -> Result<()> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match name.is_empty() || !name.chars().all(is_word) || name.starts_with(|c: char| c.is_ascii_digit()) {
        true => Err(CtlError::plain(format!("{name:?} is not a valid key name: {VARIABLE}"))),
        false => Ok(()),
    }
}

/// Variables from lines of text; one without a value takes it from the environment.
pub fn lines(text: &str, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim_start);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, value.to_owned()),
            None => (line, std::env::var(line).unwrap_or_default()),
        };
        check_variable(key)?;
        found.push((key.to_owned(), value.into_bytes()));
    }
    Ok(())
}

fn files(source: &str, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    match source.split_once('=') {
        Some((_, path)) if path.contains('=') => {
            return Err(CtlError::plain("key names or file paths cannot contain '='"));
        }
        Some(("", path)) => return Err(CtlError::plain(format!("key name for file path {path} missing"))),
        Some((key, "")) => return Err(CtlError::plain(format!("file path for key name {key} missing"))),
        _ => {}
    }
    let (key, path) = match source.split_once('=') {
        Some((key, path)) => (Some(key.to_owned()), Path::new(path)),
        None => (None, Path::new(source)),
    };
    if !path.is_dir() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        found.push((key.unwrap_or(name), read(path)?));
        return Ok(());
    }
    if key.is_some() {
        return Err(CtlError::plain("cannot give a key name for a directory path"));
    }
    let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries.into_iter().filter(|entry| entry.path().is_file()) {
        found.push((entry.file_name().to_string_lossy().into_owned(), read(&entry.path())?));
    }
    Ok(())
}
