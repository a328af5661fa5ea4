//! The node's certificate as its server shows it: it can be replaced while the server runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::server::tls::TlsError;

/// A certificate with its key, replaceable.
#[derive(Debug)]
pub struct NodeCertificate {
    state: RwLock<State>,
    failures: AtomicU64,
}

#[derive(Debug, Clone)]
struct State {
    key: Arc<CertifiedKey>,
    not_before: i64,
    not_after: i64,
}

impl State {
    fn read(cert_pem: &[u8], key_pem: &[u8]) -> Result<State, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert_pem).collect();
        let chain = chain.map_err(|error| TlsError::Pem("agent certificate", error))?;
        let validity =
            chain.first().and_then(|der| X509Certificate::from_der(der).ok()).map(|(_, c)| c.validity().clone());
        let validity = validity.ok_or(TlsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| TlsError::Pem("agent key", error))?;
        let key = Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider())?);
        Ok(State { key, not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
    }
}

impl NodeCertificate {
    /// Reads chain and key, PEM.
    ///
    /// # Errors
    /// When they cannot be read or do not belong together.
    pub fn new(cert_pem: &[u8], key_pem: &[u8]) -> Result<Arc<NodeCertificate>, TlsError> {
        let state = RwLock::new(State::read(cert_pem, key_pem)?);
        Ok(Arc::new(NodeCertificate { state, failures: AtomicU64::new(0) }))
    }

    /// Shows another one from now on; connections that are open stay.
    ///
    /// # Errors
    /// As [`NodeCertificate::new`]; the old one then stays.
    pub fn replace(&self, cert_pem: &[u8], key_pem: &[u8]) -> Result<(), TlsError> {
        let state = State::read(cert_pem, key_pem)?;
        *self.state.write() = state;
        Ok(())
    }

    /// From when until when it is valid, in seconds since the epoch.
    pub fn validity(&self) -> (i64, i64) {
        let state = self.state.read();
        (state.not_before, state.not_after)
    }

    /// Notes that it could not be renewed.
    pub fn renewal_failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub fn renewal_failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl ResolvesServerCert for NodeCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.state.read().key.clone())
    }
}
