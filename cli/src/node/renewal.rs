//! The node's certificate is renewed before it runs out: asked for with the present one, without a restart.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::Request;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use trireme_apiserver::join::wire::{NodeRequest, NodeResponse, RENEW_PATH};
use trireme_apiserver::pki::csr_of_key;
use trireme_client::masters::Masters;
use trireme_client::tls::Identity;
use trireme_nodeagent::NodeCertificate;

use crate::admin::api_error;

/// The longest sleep: clocks are set, machines are suspended.
const LOOK: Duration = Duration::from_secs(600);
/// Pauses between attempts that fail.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The longest that a certificate in need of renewal is left alone because it is new.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What a renewal needs.
pub struct Renewal {
    /// Where the certificate is kept.
    pub data_dir: PathBuf,
    /// The node's name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The certificate in use.
    pub certificate: Arc<NodeCertificate>,
    /// Its key, which stays.
    pub key_pem: Vec<u8>,
    /// The API, with the present certificate.
    pub client: kube::Client,
    /// What is beneath that client.
    pub masters: Masters,
}

impl Renewal {
    /// Renews again and again, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let work = async {
            let (mut issued, mut pause) = (None, Duration::ZERO);
            loop {
                let (not_before, not_after) = self.certificate.validity();
                let waiting = async {
                    tokio::time::sleep(pause).await;
                    // Not at the same time as all the others.
                    wait_until(due(not_before, not_after, rand::random())).await;
                };
                tokio::select! {
                    biased;
                    () = keep(&self.data_dir, issued.as_deref()) => {}
                    () = waiting => {}
                }
                issued = Some(self.renew_patiently(not_after).await);
                pause = rest(self.certificate.validity());
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Returns the new certificate, which is in use already.
    async fn renew_patiently(&self, not_after: i64) -> Vec<u8> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.renew().await {
                Ok(issued) => return issued,
                Err(error) => error,
            };
            self.certificate.renewal_failed();
            let left = not_after - Timestamp::now().as_second();
            tracing::warn!(error = format!("{error:#}"), left, "the node's certificate is not renewed yet");
            // More often as the end comes near.
            let near = Duration::from_secs(u64::try_from(left / 10).unwrap_or(0)).max(FIRST_PAUSE);
            tokio::time::sleep(pause.min(near)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn renew(&self) -> anyhow::Result<Vec<u8>> {
        let key = std::str::from_utf8(&self.key_pem).context("the node's key")?;
        let body = NodeRequest { name: self.name.clone(), address: self.address.to_string(), csr: csr_of_key(key)? };
        let request = Request::post(RENEW_PATH)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(&body)?)?;
        let answer: NodeResponse = self.client.request(request).await.map_err(api_error)?;
        self.certificate.replace(answer.crt.as_bytes(), &self.key_pem)?;
        let identity = Identity { cert_pem: answer.crt.into_bytes(), key_pem: self.key_pem.clone() };
        self.masters.set_identity(&identity)?;
        let (_, not_after) = self.certificate.validity();
        let until = Timestamp::from_second(not_after).map(|time| time.to_string()).unwrap_or_default();
        tracing::info!(until, "the node's certificate is renewed");
        Ok(identity.cert_pem)
    }
}

/// Puts the certificate on disk, for the next start; then does nothing for as long as it is polled.
async fn keep(data_dir: &Path, issued: Option<&[u8]>) {
    let mut pause = FIRST_PAUSE;
    while let Some(pem) = issued
        && let Err(error) = super::write(data_dir, super::CERT, pem)
    {
        tracing::warn!(error = format!("{error:#}"), "the node's new certificate is in use but not on disk yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    std::future::pending().await
}

/// How long to leave a new certificate alone, even if it seems to be due: the clocks here and there may differ.
fn rest((not_before, not_after): (i64, i64)) -> Duration {
    let life = u64::try_from(not_after - not_before).unwrap_or(0);
    Duration::from_secs(life / 10).clamp(FIRST_PAUSE, LONGEST_REST)
}

/// When to renew: somewhere between 70 and 90 % of the life, as kubelets do. `dice` is between 0 and 1.
fn due(not_before: i64, not_after: i64, dice: f64) -> i64 {
    let life = (not_after - not_before).max(0) as f64;
    not_before + (life * (0.7 + 0.2 * dice)).round() as i64
}

async fn wait_until(at: i64) {
    loop {
        let left = at - Timestamp::now().as_second();
        let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else { return };
        tokio::time::sleep(Duration::from_secs(left).min(LOOK)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_certificate_rests() {
        assert_eq!(rest((0, 86_400)), Duration::from_secs(60));
        assert_eq!(rest((1000, 1200)), Duration::from_secs(20));
        assert_eq!(rest((1000, 1000)), FIRST_PAUSE);
        assert_eq!(rest((1000, 0)), FIRST_PAUSE);
    }

    #[tokio::test]
    async fn the_certificate_is_written_as_soon_as_that_works() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(super::super::CERT);
        let mut keeping = Box::pin(keep(dir.path(), Some(b"new")));
        // The folder is missing.
        assert!(futures::poll!(&mut keeping).is_pending());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let written = async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = keeping => unreachable!("it waits for the next one"),
            written = tokio::time::timeout(Duration::from_secs(20), written) => written.unwrap(),
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn renewal_is_between_seven_and_nine_tenths() {
        assert_eq!(due(1000, 2000, 0.0), 1700);
        assert_eq!(due(1000, 2000, 1.0), 1900);
        assert_eq!(due(1000, 1000, 0.5), 1000);
    }
}
