//! TLS of the agent: who may connect to it, and the connections of HTTPS probes.

use std::sync::{Arc, OnceLock};

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use trireme_client::tls::{Trust, client_config, provider};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::AgentTls;

/// Why the given certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text holds no certificate or key, or a broken one.
    #[error("{0}: {1}")]
    Pem(&'static str, rustls_pki_types::pem::Error),
    /// What is in the PEM text is not a certificate.
    #[error("the agent's certificate cannot be read")]
    Certificate,
    /// rustls refuses them.
    #[error("the agent's certificates")]
    Rustls(#[from] rustls::Error),
    /// The authority is of no use for checking clients.
    #[error("the authority for client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// An acceptor that lets in only clients with a certificate of the authority.
pub(crate) fn acceptor(tls: &AgentTls) -> Result<TlsAcceptor, TlsError> {
    let provider = provider();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&tls.ca_pem) {
        roots.add(certificate.map_err(|error| TlsError::Pem("CA certificate", error))?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(tls.certificate.clone());
    // Upgrades to WebSocket need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// User (CN) and groups (O) of a certificate.
pub(crate) fn subject(der: &CertificateDer<'_>) -> Option<(String, Vec<String>)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|group| Some(group.as_str().ok()?.to_owned())).collect();
    Some((name, groups))
}

/// TLS to a pod for an HTTPS probe. As upstream, probes do not check certificates.
pub(crate) async fn connect_unchecked(host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = match CONFIG.get() {
        Some(config) => config.clone(),
        None => {
            let config = client_config(&Trust::Anyone, None).map_err(|error| error.to_string())?;
            CONFIG.get_or_init(|| Arc::new(config)).clone()
        }
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())
}
