//! A master signs its own certificates anew before they run out, and keeps the administrator's kubeconfig up to date.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use trireme_apiserver::ApiServer;
use trireme_apiserver::pki::{MasterIdentity, Pki};
use trireme_raftstore::{PeerTls, Store};

use super::identity::write_kubeconfig;

/// The longest sleep: clocks are set, machines are suspended.
const LOOK: Duration = Duration::from_secs(600);
/// After a failure.
const RETRY: Duration = Duration::from_secs(10);

/// What a renewal needs.
pub struct Renewal {
    /// The keys.
    pub pki: Pki,
    /// Whom they are for.
    pub identity: MasterIdentity,
    /// Shows them to clients and agents.
    pub server: ApiServer,
    /// Shows them to the other masters.
    pub store: Store,
    /// URL of this master.
    pub url: String,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
}

impl Renewal {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut members = self.store.members_changed();
        let mut written = Vec::new();
        loop {
            members.mark_unchanged();
            let mut pause = self.until_due();
            if let Err(error) = self.tend(&mut written) {
                tracing::warn!(error = format!("{error:#}"), "certificates are not renewed yet");
                pause = RETRY;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                changed = members.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Renews what is due; writes the kubeconfig if that or the masters have changed.
    fn tend(&self, written: &mut Vec<String>) -> anyhow::Result<()> {
        let renewed = self.pki.refresh(&self.identity)?;
        if renewed {
            self.server.reload_certificates()?;
            let peer = self.pki.peer();
            self.store.replace_certificate(&PeerTls {
                ca_pem: self.pki.peer_ca_pem().into(),
                cert_pem: peer.cert_pem.into(),
                key_pem: peer.key_pem.into(),
            })?;
        }
        let mut urls = vec![self.url.clone()];
        let mut others: Vec<String> = self.store.status().members.into_iter().map(|m| m.client_address).collect();
        others.sort();
        others.retain(|url| *url != self.url);
        urls.extend(others);
        if renewed || *written != urls {
            write_kubeconfig(&self.kubeconfig, &urls, &self.pki)?;
            *written = urls;
        }
        Ok(())
    }

    fn until_due(&self) -> Duration {
        let own = self.pki.certificates().into_iter().filter(|c| !matches!(c.name.as_str(), "ca" | "peer-ca"));
        let left = own.map(|c| c.renewal() - Timestamp::now().as_second()).min().unwrap_or_default();
        // The second in which it is due has to be over.
        Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1).min(LOOK)
    }
}
