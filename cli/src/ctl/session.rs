//! What all verbs share: global flags, the connection, and the server's resources.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use trireme_client::kubeconfig::{Kubeconfig, KubeconfigError, Overrides, Resolved};
use trireme_client::masters::{self, Masters};

use super::api::Api;
use super::discovery::Discovery;
use super::errors::{CtlError, Result};
use super::time;

/// Whom kubectl asks where no kubeconfig names a cluster.
const NO_CLUSTER: &str = "http://localhost:8080";

/// Flags that every verb takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Path to the kubeconfig file to use
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The name of the kubeconfig context to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The name of the kubeconfig cluster to use
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The name of the kubeconfig user to use
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// The address of one master (the others are then not used)
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// The namespace scope for this request
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Bearer token for authentication
    #[arg(long, global = true, value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Path to a CA file
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// Path to a client certificate file
    #[arg(long, global = true, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,
    /// Path to a client key file
    #[arg(long, global = true, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Server name to verify certificates for
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Do not verify the server's certificate
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// Username to impersonate for the operation
    #[arg(long = "as", global = true, value_name = "NAME")]
    pub impersonate: Option<String>,
    /// UID to impersonate for the operation
    #[arg(long, global = true, value_name = "UID")]
    pub as_uid: Option<String>,
    /// Group to impersonate for the operation, any number of times
    #[arg(long, global = true, value_name = "GROUP")]
    pub as_group: Vec<String>,
    /// Not used: nothing is kept between calls
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Not used: requests are not compressed
    #[arg(long, global = true)]
    pub disable_compression: bool,
    /// Require the server's version to match the client's
    #[arg(long, global = true)]
    pub match_server_version: bool,
    /// Username for basic authentication (which no Kubernetes serves any more)
    #[arg(long, global = true, value_name = "NAME")]
    pub username: Option<String>,
    /// Password for basic authentication
    #[arg(long, global = true, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Not used: there is no profiler
    #[arg(long, global = true, hide = true)]
    pub profile: Option<String>,
    /// Not used: there is no profiler
    #[arg(long, global = true, hide = true)]
    pub profile_output: Option<PathBuf>,
    /// Not used: logs are written at once
    #[arg(long, global = true, hide = true)]
    pub log_flush_frequency: Option<String>,
    /// Not used: use -v
    #[arg(long, global = true, hide = true)]
    pub vmodule: Option<String>,
    /// Treat warnings received from the server as errors and exit with a non-zero exit code
    #[arg(long, global = true)]
    pub warnings_as_errors: bool,
    /// How long to wait for a single request's answer (1s, 2m); 0 is without limit
    #[arg(long, global = true, value_name = "DURATION", default_value = "0")]
    pub request_timeout: String,
    /// Log verbosity; from 6 on connections are logged to standard error
    #[arg(short = 'v', long = "v", global = true, value_name = "LEVEL", default_value_t = 0)]
    pub verbosity: i64,
}

impl Global {
    /// As overrides of a kubeconfig.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
            server: self.server.clone(),
            namespace: self.namespace.clone(),
            token: self.token.clone(),
            certificate_authority: self.certificate_authority.clone(),
            client_certificate: self.client_certificate.clone(),
            client_key: self.client_key.clone(),
            tls_server_name: self.tls_server_name.clone(),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify,
        }
    }
}

/// A connection to a cluster.
pub struct Session {
    /// Requests.
    pub api: Api,
    /// Namespace for objects that name none.
    pub namespace: String,
    /// Whether `-n` was given.
    pub namespace_given: bool,
    /// The masters beneath.
    pub masters: Masters,
    discovery: tokio::sync::OnceCell<Arc<Discovery>>,
}

impl Session {
    /// Reads kubeconfigs and prepares a connection; nothing is contacted yet.
    pub fn open(global: &Global) -> Result<Session> {
        let resolved = resolve(global)?;
        let timeout = request_timeout(&global.request_timeout)?;
        let impersonation = impersonation(global, &resolved)?;
        let namespace = resolved.namespace.clone();
        let (client, masters) =
            masters::connect(resolved.masters).map_err(|error| CtlError::plain(error.to_string()))?;
        Ok(Session {
            api: Api::new(client, Some(timeout).filter(|timeout| !timeout.is_zero()), impersonation),
            namespace,
            namespace_given: global.namespace.is_some(),
            masters,
            discovery: tokio::sync::OnceCell::new(),
        })
    }

    /// The server's resources, asked for once.
    pub async fn discovery(&self) -> Result<Arc<Discovery>> {
        let fetch = || async { Discovery::fetch(&self.api).await.map(Arc::new) };
        self.discovery.get_or_try_init(fetch).await.cloned()
    }
}

/// `--request-timeout`: a duration, or seconds.
pub fn request_timeout(text: &str) -> Result<std::time::Duration> {
    time::duration(text).or_else(|_| text.parse().map(std::time::Duration::from_secs)).map_err(|_| {
        CtlError::plain(
            "Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a \
             corresponding time unit (e.g. 1s | 2m | 3h)",
        )
    })
}

/// The headers of `--as` and its companions.
fn impersonation(global: &Global, resolved: &Resolved) -> Result<Vec<(&'static str, String)>> {
    let mut headers = Vec::new();
    headers.extend(global.impersonate.iter().map(|name| ("Impersonate-User", name.clone())));
    headers.extend(global.as_uid.iter().map(|uid| ("Impersonate-Uid", uid.clone())));
    headers.extend(global.as_group.iter().map(|group| ("Impersonate-Group", group.clone())));
    if global.impersonate.is_none() && !headers.is_empty() {
        let context = load(global)?.contexts.into_iter().find(|entry| Some(&entry.name) == resolved.context.as_ref());
        let user = global.user.clone().or(context.map(|entry| entry.context.user)).unwrap_or_default();
        return Err(CtlError::bare(format!(
            "Error in configuration: requesting uid, groups or user-extra for {} without impersonating a user",
            user
        )));
    }
    Ok(headers)
}

/// The context in use, resolved.
pub fn resolve(global: &Global) -> Result<Resolved> {
    if let Some(path) = global.kubeconfig.as_deref().filter(|path| !path.exists()) {
        return Err(CtlError::plain(format!("stat {}: no such file or directory", path.display())));
    }
    let config = load(global)?;
    files_exist(global, &config)?;
    let mut overrides = global.overrides();
    let mut resolved = config.resolve(&overrides);
    if matches!(resolved, Err(KubeconfigError::Nothing)) {
        overrides.server = Some(NO_CLUSTER.to_owned());
        resolved = config.resolve(&overrides);
    }
    resolved.map_err(|error| match error {
        KubeconfigError::NoCluster { name, .. } => CtlError::plain(format!("cluster {name:?} does not exist")),
        KubeconfigError::NoUser { name, .. } => CtlError::plain(format!("auth info {name:?} does not exist")),
        other => CtlError::plain(other.to_string()),
    })
}

/// Files that flags name have to be there.
fn files_exist(global: &Global, config: &Kubeconfig) -> Result<()> {
    let context = global.context.as_ref().or(config.current_context.as_ref());
    let context = config.contexts.iter().find(|entry| Some(&entry.name) == context);
    let cluster = global.cluster.clone().or(context.map(|entry| entry.context.cluster.clone())).unwrap_or_default();
    let user = global.user.clone().or(context.map(|entry| entry.context.user.clone())).unwrap_or_default();
    let files = [
        ("certificate-authority", &global.certificate_authority, &cluster),
        ("client-cert", &global.client_certificate, &user),
        ("client-key", &global.client_key, &user),
    ];
    for (name, path, of) in files {
        if let Some(path) = path.as_ref().filter(|path| !path.exists()) {
            let path = path.display();
            return Err(CtlError::bare(format!(
                "Error in configuration: unable to read {name} {path} for {of} due to open {path}: no such file or directory"
            )));
        }
    }
    Ok(())
}

/// The merged kubeconfigs.
pub fn load(global: &Global) -> Result<Kubeconfig> {
    Kubeconfig::load(global.kubeconfig.as_deref()).map_err(|error| kubeconfig_error(&error))
}

/// What is wrong with a kubeconfig, as kubectl says it.
pub fn kubeconfig_error(error: &KubeconfigError) -> CtlError {
    let of = |path: &std::path::Path, reason: &str| {
        CtlError::plain(format!("error loading config file \"{}\": {reason}", path.display()))
    };
    match error {
        KubeconfigError::Read { path, source } if source.kind() == std::io::ErrorKind::IsADirectory => {
            of(path, &format!("read {}: is a directory", path.display()))
        }
        KubeconfigError::Read { path, source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            of(path, &format!("open {}: permission denied", path.display()))
        }
        KubeconfigError::Parse { path, reason } if reason.starts_with("did not find expected") => {
            of(path, &super::manifest::yaml_reason(reason))
        }
        other => CtlError::plain(other.to_string()),
    }
}
