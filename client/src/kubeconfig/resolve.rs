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
        let urls = urls(cluster, overrides)?;
        // Nothing that proves who somebody is goes over plain HTTP.
        let plain = urls.iter().all(|url| url.starts_with("http://"));
        let masters = MastersConfig {
            trust: if plain { Trust::Anyone } else { trust(cluster, overrides)? },
            identity: if plain { None } else { identity(user, overrides)? },
            token: if plain { None } else { token(user, overrides)? },
            urls,
            plain_allowed: plain,
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
        return Ok(vec![with_scheme(server, cluster, overrides)]);
    }
    let entry = cluster.ok_or(KubeconfigError::Nothing)?;
    let urls = entry.cluster.masters();
    if urls.is_empty() {
        return Err(field(&entry.origin, &cluster_field(&entry.name, "server"), "is empty"));
    }
    Ok(urls.iter().map(|url| with_scheme(url, Some(entry), overrides)).collect())
}

/// A server without a scheme is asked over TLS where something is known about its certificate, else over plain HTTP.
fn with_scheme(url: &str, cluster: Option<&NamedCluster>, overrides: &Overrides) -> String {
    if url.contains("://") {
        return url.to_owned();
    }
    let of_flags = overrides.certificate_authority.is_some()
        || overrides.client_certificate.is_some()
        || overrides.insecure_skip_tls_verify;
    let of_cluster = cluster.map(|entry| &entry.cluster).is_some_and(|cluster| {
        cluster.certificate_authority.is_some()
            || cluster.certificate_authority_data.is_some()
            || cluster.insecure_skip_tls_verify == Some(true)
    });
    format!("{}://{url}", if of_flags || of_cluster { "https" } else { "http" })
}

/// Where systems keep the authorities that all programs trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn system() -> Option<Vec<u8>> {
    let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    file.into_iter().chain(SYSTEM.map(PathBuf::from)).find_map(|path| std::fs::read(path).ok())
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
        None => system().map(Trust::System).ok_or_else(|| {
            let why = "is missing, and this machine has no list of authorities: masters cannot be verified";
            field(origin, &cluster_field(name, "certificate-authority-data"), why)
        }),
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
