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
        let mut due = Due::default();
        loop {
            members.mark_unchanged();
            let mut pause = self.until_due();
            if let Err(error) = self.tend(&mut due) {
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
    fn tend(&self, due: &mut Due) -> anyhow::Result<()> {
        let signed = self.pki.refresh(&self.identity)?;
        let mut urls = vec![self.url.clone()];
        let mut others: Vec<String> = self.store.status().members.into_iter().map(|m| m.client_address).collect();
        others.sort();
        others.retain(|url| *url != self.url);
        urls.extend(others);
        due.settle(signed, urls, || self.show(), |urls| write_kubeconfig(&self.kubeconfig, urls, &self.pki))
    }

    /// Shows the present certificates to clients, agents and the other masters.
    fn show(&self) -> anyhow::Result<()> {
        let peer = self.pki.peer();
        let to_clients = self.server.reload_certificates();
        self.store.replace_certificate(&PeerTls {
            ca_pem: self.pki.peer_ca_pem().into(),
            cert_pem: peer.cert_pem.into(),
            key_pem: peer.key_pem.into(),
        })?;
        Ok(to_clients?)
    }

    fn until_due(&self) -> Duration {
        let own = self.pki.certificates().into_iter().filter(|c| !matches!(c.name.as_str(), "ca" | "peer-ca"));
        let left = own.map(|c| c.renewal() - Timestamp::now().as_second()).min().unwrap_or_default();
        // The second in which it is due has to be over.
        Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1).min(LOOK)
    }
}

/// What remains to be done.
#[derive(Default)]
struct Due {
    /// Something was signed that is not in use everywhere yet.
    dirty: bool,
    /// The masters in the kubeconfig.
    written: Vec<String>,
}

impl Due {
    /// Puts into use what was signed, now or before an earlier failure.
    fn settle(
        &mut self,
        signed: bool,
        urls: Vec<String>,
        show: impl FnOnce() -> anyhow::Result<()>,
        write: impl FnOnce(&[String]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.dirty |= signed;
        let shown = if self.dirty { show() } else { Ok(()) };
        if self.dirty || self.written != urls {
            write(&urls)?;
            self.written = urls;
        }
        shown?;
        self.dirty = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn what_fails_after_signing_is_made_good() {
        let done = RefCell::new(String::new());
        let mut due = Due::default();
        // Which steps are taken, when some of them fail.
        let mut settle = |signed: bool, urls: &[&str], failing: &str| {
            let step = |name: &str| {
                done.borrow_mut().push_str(name);
                if failing.contains(name) { Err(anyhow::anyhow!("no {name}")) } else { Ok(()) }
            };
            let urls = urls.iter().map(|url| (*url).to_owned()).collect();
            let ok = due.settle(signed, urls, || step("s"), |_| step("w")).is_ok();
            (ok, done.take())
        };
        let mut expect = |signed, urls: &[&str], failing, ok, steps: &str| {
            assert_eq!(settle(signed, urls, failing), (ok, steps.to_owned()), "{signed} {urls:?} {failing:?}");
        };
        expect(false, &["a"], "", true, "w");
        expect(false, &["a"], "", true, "");
        expect(true, &["a"], "s", false, "sw");
        expect(false, &["a"], "w", false, "sw");
        expect(false, &["a"], "", true, "sw");
        expect(false, &["a"], "", true, "");
        expect(false, &["a", "b"], "w", false, "w");
        expect(false, &["a", "b"], "", true, "w");
    }
}
