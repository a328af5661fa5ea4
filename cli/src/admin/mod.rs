//! Commands of an administrator: tokens, members and snapshots, through the API with a kubeconfig.

pub mod kubeconfig;
pub mod member;
pub mod snapshot;
pub mod store;
pub mod table;
pub mod token;

use std::path::PathBuf;

use anyhow::{Context, bail};
use trireme_client::kubeconfig::{Kubeconfig, Overrides};
use trireme_client::masters::{self, MastersConfig, MastersError};
use trireme_client::tls::{CaPin, Trust};

/// How to reach the cluster.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct Connection {
    /// Kubeconfig of an administrator [default: $KUBECONFIG, then ~/.kube/config].
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

impl Connection {
    /// Reads the kubeconfig.
    pub(crate) fn resolve(&self) -> anyhow::Result<MastersConfig> {
        let config = Kubeconfig::load(self.kubeconfig.as_deref())?;
        let resolved = config.resolve(&Overrides::default()).context(
            "no cluster to talk to; give the kubeconfig of an administrator with --kubeconfig or $KUBECONFIG",
        )?;
        Ok(resolved.masters)
    }

    /// A client, and the hash of the cluster's CA.
    pub(crate) fn connect(&self) -> anyhow::Result<(kube::Client, CaPin)> {
        let config = self.resolve()?;
        let pin = match &config.trust {
            Trust::Ca(pem) => CaPin::of_pem(pem)?,
            Trust::Pinned(pin) => *pin,
            Trust::System(_) | Trust::Anyone => {
                bail!("the kubeconfig does not verify the cluster's certificate; that is refused here")
            }
        };
        let (client, _) = masters::connect(config)?;
        Ok((client, pin))
    }
}

/// An API error as a sentence of its own.
pub(crate) fn api_error(error: kube::Error) -> anyhow::Error {
    if let Some(cause) = MastersError::of(&error) {
        return anyhow::anyhow!("{cause}");
    }
    match error {
        kube::Error::Api(status) if status.code == 503 => anyhow::anyhow!(
            "{} (503); \"trireme store status\" shows which masters answer and what to do",
            status.message
        ),
        kube::Error::Api(status) if status.code >= 500 => anyhow::anyhow!("{} ({})", status.message, status.code),
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => anyhow::Error::new(other),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    #[test]
    fn errors_are_sentences() {
        let told = |message: &str, code: u16| {
            let status = Status::failure(message, "").with_code(code);
            super::api_error(kube::Error::Api(Box::new(status))).to_string()
        };
        assert_eq!(told("there is no master \"x\"", 404), "there is no master \"x\"");
        assert_eq!(told("broken", 500), "broken (500)");
        assert!(told("no quorum", 503).contains("trireme store status"));
    }
}
