//! Kubeconfigs: reading, merging, resolving to a connection, and writing.
//!
//! A cluster written by Trireme lists every master in the extension `trireme.io/masters`
//! (`{"urls": ["https://…", …]}`); `server` comes first, so that other programs reach one master as usual.

mod resolve;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::resolve::{Overrides, Resolved};

/// Name of the cluster extension that lists all masters.
pub const MASTERS_EXTENSION: &str = "trireme.io/masters";

/// What can be wrong with kubeconfigs; each text names file and field as far as they are known.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a kubeconfig; the parser's text names field and line.
    #[error("error loading config file \"{}\": {reason}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The chosen context is in none of the files.
    #[error("context \"{0}\" does not exist")]
    NoContext(String),
    /// The context names a cluster that is in none of the files.
    #[error("context \"{context}\": cluster \"{name}\" does not exist")]
    NoCluster {
        /// The context that was chosen.
        context: String,
        /// The cluster that it names.
        name: String,
    },
    /// The context names a user that is in none of the files.
    #[error("context \"{context}\": user \"{name}\" does not exist")]
    NoUser {
        /// The context that was chosen.
        context: String,
        /// The user that it names.
        name: String,
    },
    /// Nothing says where the API is.
    #[error("no kubeconfig names a cluster: set KUBECONFIG, or give --kubeconfig or --server")]
    Nothing,
    /// A field that cannot be used.
    #[error("{field}{}: {reason}", origin(.path))]
    Field {
        /// File the entry came from.
        path: Option<PathBuf>,
        /// The field, such as `users[admin].user.client-key-data`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn origin(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!(" in {}", path.display())).unwrap_or_default()
}

/// A kubeconfig file. Fields that are not used here are kept as they are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    /// Always `v1`.
    #[serde(rename = "apiVersion", default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Always `Config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Clusters by name.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub clusters: Vec<NamedCluster>,
    /// Contexts by name.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub contexts: Vec<NamedContext>,
    /// The context in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_context: Option<String>,
    /// Users by name.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub users: Vec<NamedUser>,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

/// A cluster with its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedCluster {
    /// Name that contexts refer to.
    pub name: String,
    /// The cluster.
    pub cluster: Cluster,
    /// File the entry was read from.
    #[serde(skip)]
    pub origin: Option<PathBuf>,
}

/// Where a cluster's API is and how to verify it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cluster {
    /// URL of the first master.
    #[serde(default)]
    pub server: String,
    /// File with the CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    /// The CA itself, base64 of PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority_data: Option<String>,
    /// Believe any server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_tls_verify: Option<bool>,
    /// Name to verify certificates for, instead of the URL's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// Named extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Vec<NamedExtension>>,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// An extension with its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedExtension {
    /// Which extension.
    pub name: String,
    /// Its content.
    #[serde(default)]
    pub extension: Value,
}

/// A context with its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedContext {
    /// Name that `current-context` refers to.
    pub name: String,
    /// The context.
    pub context: Context,
    /// File the entry was read from.
    #[serde(skip)]
    pub origin: Option<PathBuf>,
}

/// A cluster, a user, and a namespace.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Context {
    /// Name of the cluster.
    #[serde(default)]
    pub cluster: String,
    /// Name of the user.
    #[serde(default)]
    pub user: String,
    /// Namespace for requests that give none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A user with its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedUser {
    /// Name that contexts refer to.
    pub name: String,
    /// The credentials.
    #[serde(default)]
    pub user: User,
    /// File the entry was read from.
    #[serde(skip)]
    pub origin: Option<PathBuf>,
}

/// Credentials.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct User {
    /// File with the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// The client certificate itself, base64 of PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_data: Option<String>,
    /// File with the client key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    /// The client key itself, base64 of PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key_data: Option<String>,
    /// Bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// File with a bearer token.
    #[serde(rename = "tokenFile", default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Kubeconfig {
    /// The files that count: `explicit` alone, else the list in `KUBECONFIG`, else `~/.kube/config`.
    pub fn paths(explicit: Option<&Path>) -> Vec<PathBuf> {
        if let Some(path) = explicit {
            return vec![path.to_owned()];
        }
        let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
            .map(|list| std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        if !listed.is_empty() {
            return listed;
        }
        std::env::home_dir().map(|home| vec![home.join(".kube").join("config")]).unwrap_or_default()
    }

    /// Reads and merges [`Kubeconfig::paths`]. Missing files are errors only where one was named explicitly.
    pub fn load(explicit: Option<&Path>) -> Result<Kubeconfig, KubeconfigError> {
        let mut merged = Kubeconfig::default();
        for path in Kubeconfig::paths(explicit) {
            match Kubeconfig::read(&path) {
                Ok(config) => merged.merge(config),
                Err(KubeconfigError::Read { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(merged)
    }

    /// Reads one file.
    pub fn read(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })?;
        let mut config =
            Kubeconfig::parse(&text).map_err(|reason| KubeconfigError::Parse { path: path.to_owned(), reason })?;
        let origin = Some(path.to_owned());
        config.clusters.iter_mut().for_each(|entry| entry.origin = origin.clone());
        config.contexts.iter_mut().for_each(|entry| entry.origin = origin.clone());
        config.users.iter_mut().for_each(|entry| entry.origin = origin.clone());
        Ok(config)
    }

    /// Parses YAML or JSON; an empty document is an empty config.
    pub fn parse(text: &str) -> Result<Kubeconfig, String> {
        if text.trim().is_empty() {
            return Ok(Kubeconfig::default());
        }
        let value: Value = serde_norway::from_str(text).map_err(|error| error.to_string())?;
        if value.is_null() {
            return Ok(Kubeconfig::default());
        }
        if let Some(kind) = value.get("kind").and_then(Value::as_str)
            && kind != "Config"
        {
            return Err(format!("kind is {kind:?}, not \"Config\""));
        }
        // From the text again: its errors carry the field and the line.
        serde_norway::from_str(text).map_err(|error| error.to_string())
    }

    /// Adds what `self` does not have yet: the first file wins, as with kubectl.
    pub fn merge(&mut self, other: Kubeconfig) {
        for entry in other.clusters {
            if !self.clusters.iter().any(|known| known.name == entry.name) {
                self.clusters.push(entry);
            }
        }
        for entry in other.contexts {
            if !self.contexts.iter().any(|known| known.name == entry.name) {
                self.contexts.push(entry);
            }
        }
        for entry in other.users {
            if !self.users.iter().any(|known| known.name == entry.name) {
                self.users.push(entry);
            }
        }
        if self.current_context.as_deref().unwrap_or_default().is_empty() {
            self.current_context = other.current_context;
        }
        for (key, value) in other.other {
            self.other.entry(key).or_insert(value);
        }
    }

    /// A config for one cluster with embedded certificates. `urls` lists all masters, the preferred first.
    pub fn for_cluster(name: &str, user: &str, urls: &[String], ca_pem: &[u8], cert: &[u8], key: &[u8]) -> Kubeconfig {
        let mut cluster = Cluster {
            server: urls.first().cloned().unwrap_or_default(),
            certificate_authority_data: Some(STANDARD.encode(ca_pem)),
            ..Cluster::default()
        };
        cluster.set_masters(urls);
        let user_entry = User {
            client_certificate_data: Some(STANDARD.encode(cert)),
            client_key_data: Some(STANDARD.encode(key)),
            ..User::default()
        };
        let context = Context { cluster: name.to_owned(), user: user.to_owned(), ..Context::default() };
        Kubeconfig {
            api_version: Some("v1".to_owned()),
            kind: Some("Config".to_owned()),
            clusters: vec![NamedCluster { name: name.to_owned(), cluster, origin: None }],
            contexts: vec![NamedContext { name: name.to_owned(), context, origin: None }],
            current_context: Some(name.to_owned()),
            users: vec![NamedUser { name: user.to_owned(), user: user_entry, origin: None }],
            other: BTreeMap::new(),
        }
    }

    /// The config as YAML.
    pub fn to_yaml(&self) -> String {
        // Plain strings, lists and maps always serialize.
        serde_norway::to_string(self).unwrap_or_default()
    }

    /// Writes the config so that only its owner can read it, replacing an old file atomically.
    pub fn write(&self, path: &Path) -> Result<(), KubeconfigError> {
        write_private(path, self.to_yaml().as_bytes())
            .map_err(|source| KubeconfigError::Write { path: path.to_owned(), source })
    }
}

impl Cluster {
    /// All masters: `server` first, then those of the extension.
    pub fn masters(&self) -> Vec<String> {
        let mut urls = Vec::new();
        let listed = self.extensions.iter().flatten().filter(|entry| entry.name == MASTERS_EXTENSION);
        let listed = listed.filter_map(|entry| entry.extension.get("urls")?.as_array()).flatten();
        let listed = listed.filter_map(Value::as_str).map(str::to_owned);
        for url in std::iter::once(self.server.clone()).chain(listed) {
            let url = url.trim_end_matches('/').to_owned();
            if !url.is_empty() && !urls.contains(&url) {
                urls.push(url);
            }
        }
        urls
    }

    /// Replaces the list of masters in the extension; a single one needs no extension.
    pub fn set_masters(&mut self, urls: &[String]) {
        let extensions = self.extensions.get_or_insert_default();
        extensions.retain(|entry| entry.name != MASTERS_EXTENSION);
        if urls.len() > 1 {
            let extension = serde_json::json!({ "urls": urls });
            extensions.push(NamedExtension { name: MASTERS_EXTENSION.to_owned(), extension });
        }
        if extensions.is_empty() {
            self.extensions = None;
        }
    }
}

fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let result = (|| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}
