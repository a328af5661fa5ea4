//! From a merged kubeconfig and command-line overrides to what a connection needs.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Cluster, Kubeconfig, KubeconfigError, NamedCluster, NamedUser, User};
use crate::masters::{MastersConfig, Timing};
use crate::tls::{Identity, Trust};

/// Command-line values that win over the kubeconfig.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--context`
    pub context: Option<String>,
    /// `--cluster`
    pub cluster: Option<String>,
    /// `--user`
    pub user: Option<String>,
    /// `--server`; the masters of the extension are then not used.
    pub server: Option<String>,
    /// `--namespace`
    pub namespace: Option<String>,
    /// `--token`
    pub token: Option<String>,
    /// `--certificate-authority`
    pub certificate_authority: Option<PathBuf>,
    /// `--client-certificate`
    pub client_certificate: Option<PathBuf>,
    /// `--client-key`
    pub client_key: Option<PathBuf>,
    /// `--tls-server-name`
    pub tls_server_name: Option<String>,
    /// `--insecure-skip-tls-verify`
    pub insecure_skip_tls_verify: bool,
}

/// A context, resolved.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What [`crate::masters::connect`] takes.
    pub masters: MastersConfig,
    /// Namespace for requests that give none.
    pub namespace: String,
    /// Name of the context in use, if any.
    pub context: Option<String>,
    /// Name of the cluster in use, if any.
    pub cluster: Option<String>,
}

impl Kubeconfig {
    /// Chooses context, cluster and user, and loads what they refer to.
    pub fn resolve(&self, overrides: &Overrides) -> Result<Resolved, KubeconfigError> {
        let name = overrides.context.clone().or_else(|| self.current_context.clone()).filter(|name| !name.is_empty());
        let context = match &name {
            Some(name) => match self.contexts.iter().find(|entry| entry.name == *name) {
                Some(entry) => Some(&entry.context),
                None => return Err(KubeconfigError::NoContext(name.clone())),
            },
            None => None,
        };
        let of_context = name.clone().unwrap_or_default();
        let cluster_name = overrides.cluster.clone().or_else(|| context.map(|context| context.cluster.clone()));
        let cluster = self.find_cluster(cluster_name.as_deref(), &of_context)?;
        let user_name = overrides.user.clone().or_else(|| context.map(|context| context.user.clone()));
        let user = self.find_user(user_name.as_deref(), &of_context)?;
        let namespace = overrides
            .namespace
            .clone()
            .or_else(|| context.and_then(|context| context.namespace.clone()))
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        let masters = MastersConfig {
            urls: urls(cluster, overrides)?,
            trust: trust(cluster, overrides)?,
            identity: identity(user, overrides)?,
            token: token(user, overrides)?,
            server_name: overrides
                .tls_server_name
                .clone()
                .or_else(|| cluster.and_then(|entry| entry.cluster.tls_server_name.clone())),
            shuffle: false,
            default_namespace: namespace.clone(),
            timing: Timing::default(),
        };
        Ok(Resolved { masters, namespace, context: name, cluster: cluster_name })
    }

    fn find_cluster(&self, name: Option<&str>, context: &str) -> Result<Option<&NamedCluster>, KubeconfigError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        let found = self.clusters.iter().find(|entry| entry.name == name);
        found.map(Some).ok_or_else(|| KubeconfigError::NoCluster { context: context.to_owned(), name: name.to_owned() })
    }

    fn find_user(&self, name: Option<&str>, context: &str) -> Result<Option<&NamedUser>, KubeconfigError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        let found = self.users.iter().find(|entry| entry.name == name);
        found.map(Some).ok_or_else(|| KubeconfigError::NoUser { context: context.to_owned(), name: name.to_owned() })
    }
}

fn urls(cluster: Option<&NamedCluster>, overrides: &Overrides) -> Result<Vec<String>, KubeconfigError> {
    if let Some(server) = &overrides.server {
        return Ok(vec![server.clone()]);
    }
    let entry = cluster.ok_or(KubeconfigError::Nothing)?;
    let urls = entry.cluster.masters();
    if urls.is_empty() {
        return Err(field(&entry.origin, &cluster_field(&entry.name, "server"), "is empty"));
    }
    Ok(urls)
}

fn trust(cluster: Option<&NamedCluster>, overrides: &Overrides) -> Result<Trust, KubeconfigError> {
    if let Some(path) = &overrides.certificate_authority {
        return Ok(Trust::Ca(read_file(path, &None, "--certificate-authority")?));
    }
    if overrides.insecure_skip_tls_verify {
        return Ok(Trust::Anyone);
    }
    let none = Cluster::default();
    let (entry, origin, name) = match cluster {
        Some(entry) => (&entry.cluster, &entry.origin, entry.name.as_str()),
        None => (&none, &None, ""),
    };
    if entry.insecure_skip_tls_verify == Some(true) {
        return Ok(Trust::Anyone);
    }
    let data = &entry.certificate_authority_data;
    let file = &entry.certificate_authority;
    match load(data, file, origin, &cluster_field(name, "certificate-authority"))? {
        Some(pem) => Ok(Trust::Ca(pem)),
        None => Err(field(
            origin,
            &cluster_field(name, "certificate-authority-data"),
            "is missing: the cluster's CA is needed to verify its masters",
        )),
    }
}

fn identity(user: Option<&NamedUser>, overrides: &Overrides) -> Result<Option<Identity>, KubeconfigError> {
    let none = User::default();
    let (entry, origin, name) = match user {
        Some(entry) => (&entry.user, &entry.origin, entry.name.as_str()),
        None => (&none, &None, ""),
    };
    for unsupported in ["exec", "auth-provider", "username"] {
        if entry.other.get(unsupported).is_some_and(|value| !value.is_null()) {
            return Err(field(origin, &user_field(name, unsupported), "this kind of credential is not supported"));
        }
    }
    let cert = match &overrides.client_certificate {
        Some(path) => Some(read_file(path, &None, "--client-certificate")?),
        None => load(
            &entry.client_certificate_data,
            &entry.client_certificate,
            origin,
            &user_field(name, "client-certificate"),
        )?,
    };
    let key = match &overrides.client_key {
        Some(path) => Some(read_file(path, &None, "--client-key")?),
        None => load(&entry.client_key_data, &entry.client_key, origin, &user_field(name, "client-key"))?,
    };
    match (cert, key) {
        (Some(cert_pem), Some(key_pem)) => Ok(Some(Identity { cert_pem, key_pem })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(field(origin, &user_field(name, "client-key-data"), "is missing")),
        (None, Some(_)) => Err(field(origin, &user_field(name, "client-certificate-data"), "is missing")),
    }
}

fn token(user: Option<&NamedUser>, overrides: &Overrides) -> Result<Option<String>, KubeconfigError> {
    if overrides.token.is_some() {
        return Ok(overrides.token.clone());
    }
    let Some(entry) = user else { return Ok(None) };
    match (&entry.user.token_file, &entry.user.token) {
        (Some(file), _) if !file.is_empty() => {
            let path = beside(&entry.origin, Path::new(file));
            let bytes = read_file(&path, &entry.origin, &user_field(&entry.name, "tokenFile"))?;
            Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
        }
        (_, Some(token)) if !token.is_empty() => Ok(Some(token.clone())),
        _ => Ok(None),
    }
}

/// Data wins over a file, as with kubectl.
fn load(
    data: &Option<String>,
    file: &Option<String>,
    origin: &Option<PathBuf>,
    name: &str,
) -> Result<Option<Vec<u8>>, KubeconfigError> {
    if let Some(data) = data.as_deref().filter(|data| !data.is_empty()) {
        let compact: String = data.split_whitespace().collect();
        let bytes = STANDARD
            .decode(compact)
            .map_err(|error| field(origin, &format!("{name}-data"), &format!("is not base64: {error}")))?;
        return Ok(Some(bytes));
    }
    match file.as_deref().filter(|file| !file.is_empty()) {
        Some(file) => read_file(&beside(origin, Path::new(file)), origin, name).map(Some),
        None => Ok(None),
    }
}

/// Relative paths count from the kubeconfig's own folder.
fn beside(origin: &Option<PathBuf>, path: &Path) -> PathBuf {
    match origin.as_deref().and_then(Path::parent) {
        Some(folder) if path.is_relative() => folder.join(path),
        _ => path.to_owned(),
    }
}

fn read_file(path: &Path, origin: &Option<PathBuf>, name: &str) -> Result<Vec<u8>, KubeconfigError> {
    std::fs::read(path).map_err(|error| field(origin, name, &format!("{}: {error}", path.display())))
}

fn field(origin: &Option<PathBuf>, field: &str, reason: &str) -> KubeconfigError {
    KubeconfigError::Field { path: origin.clone(), field: field.to_owned(), reason: reason.to_owned() }
}

fn cluster_field(name: &str, key: &str) -> String {
    format!("clusters[{name}].cluster.{key}")
}

fn user_field(name: &str, key: &str) -> String {
    format!("users[{name}].user.{key}")
}
