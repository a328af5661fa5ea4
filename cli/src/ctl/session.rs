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
    /// How long to wait for a single request's answer (1s, 2m); 0 is without limit
    #[arg(long, global = true, value_name = "DURATION", default_value = "0")]
    pub request_timeout: String,
    /// Log verbosity; from 6 on connections are logged to standard error
    #[arg(short = 'v', long = "v", global = true, value_name = "LEVEL", default_value_t = 0)]
    pub verbosity: u8,
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
        let timeout = time::duration(&global.request_timeout)
            .or_else(|error| global.request_timeout.parse().map(std::time::Duration::from_secs).map_err(|_| error))
            .map_err(|error| CtlError::Usage(format!("invalid argument for \"--request-timeout\": {error}")))?;
        let namespace = resolved.namespace.clone();
        let (client, masters) =
            masters::connect(resolved.masters).map_err(|error| CtlError::plain(error.to_string()))?;
        Ok(Session {
            api: Api::new(client, Some(timeout).filter(|timeout| !timeout.is_zero())),
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

/// The context in use, resolved.
pub fn resolve(global: &Global) -> Result<Resolved> {
    let config = load(global)?;
    config.resolve(&global.overrides()).map_err(|error| match error {
        // What people without a kubeconfig see from kubectl.
        KubeconfigError::Nothing => CtlError::plain(
            "no kubeconfig names a cluster: set KUBECONFIG, or give --kubeconfig or --server".to_owned(),
        ),
        other => CtlError::plain(other.to_string()),
    })
}

/// The merged kubeconfigs.
pub fn load(global: &Global) -> Result<Kubeconfig> {
    Kubeconfig::load(global.kubeconfig.as_deref()).map_err(|error| CtlError::plain(error.to_string()))
}
