//! TLS configurations, and what can be read off a certificate.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertificateInfo, Pair, PkiError, issue};

fn tls_error<E: std::error::Error + Send + Sync + 'static>(error: E) -> PkiError {
    PkiError::Tls(Box::new(error))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(tls_error)
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(tls_error)
}

fn roots(ca_pem: &str) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots.add(certificate).map_err(tls_error)?;
    }
    Ok(roots)
}

pub(super) fn server_config(pair: &Pair, client_ca_pem: &str) -> Result<Arc<ServerConfig>, PkiError> {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_ca_pem)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(tls_error)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&pair.cert_pem)?, key(&pair.key_pem)?)
        .map_err(tls_error)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A session taken up again would not have the client's certificate verified again: it may have expired.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

pub(super) fn client_config(pair: &Pair, ca_pem: &str) -> Result<Arc<ClientConfig>, PkiError> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?
        .with_root_certificates(roots(ca_pem)?)
        .with_client_auth_cert(certificates(&pair.cert_pem)?, key(&pair.key_pem)?)
        .map_err(tls_error)?;
    Ok(Arc::new(config))
}

fn first(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    certificates(pem)?.into_iter().next().ok_or_else(|| PkiError::Request("no certificate in the PEM text".into()))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|error| PkiError::Request(error.to_string()))
}

/// SHA-256 over the public key of the first certificate, hex.
pub(super) fn spki_sha256(cert_pem: &str) -> Result<String, PkiError> {
    let der = first(cert_pem)?;
    Ok(issue::hex(&Sha256::digest(parse(&der)?.public_key().raw)))
}

/// What a certificate says about itself.
pub(super) fn describe(name: &str, cert_pem: &str) -> Result<CertificateInfo, PkiError> {
    let der = first(cert_pem)?;
    let certificate = parse(&der)?;
    let validity = certificate.validity();
    Ok(CertificateInfo {
        name: name.to_owned(),
        subject: certificate.subject().to_string(),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}

/// Whether the certificate runs out soon, is valid for longer than certificates shall be now, or does not cover one of
/// the names.
pub(super) fn is_due(cert_pem: &str, names: &[String], life: Duration) -> Result<bool, PkiError> {
    let now = x509_parser::time::ASN1Time::now().timestamp();
    let info = describe("", cert_pem)?;
    // An hour more is what clocks may differ by.
    let longest = i64::try_from(life.as_secs()).unwrap_or(i64::MAX).saturating_add(3600);
    if now >= info.renewal() || info.not_after - now > longest {
        return Ok(true);
    }
    let der = first(cert_pem)?;
    let covered = parse(&der)?
        .subject_alternative_name()
        .map_err(|error| PkiError::Request(error.to_string()))?
        .map(|san| san.value.general_names.iter().filter_map(general_name).collect::<Vec<_>>())
        .unwrap_or_default();
    Ok(names.iter().any(|name| !covered.contains(name)))
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}
