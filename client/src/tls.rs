//! TLS for clients: PEM material, client configurations, and the verifier that pins a CA by its key's hash.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

/// What can be wrong with certificates, keys and pins.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM block that cannot be read.
    #[error("{what}: not valid PEM: {reason}")]
    Pem {
        /// Which input it was ("CA certificate", "client key" …).
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// PEM input without the expected kind of block.
    #[error("{what}: holds no {expected}")]
    Empty {
        /// Which input it was.
        what: &'static str,
        /// What was looked for.
        expected: &'static str,
    },
    /// A certificate that is not well-formed X.509.
    #[error("{what}: not a valid certificate: {reason}")]
    Certificate {
        /// Which input it was.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// A pin that is not `sha256:<64 hex digits>`.
    #[error("CA hash {0:?} is not of the form sha256:<64 hex digits>")]
    Pin(String),
    /// rustls refused the combination (a key that does not match its certificate, for example).
    #[error("TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A client certificate (leaf first) with its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Certificate chain, leaf first.
    pub cert_pem: Vec<u8>,
    /// PKCS#8, PKCS#1 or SEC1 private key.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// The one crypto provider of the project, given explicitly wherever rustls is configured.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Every certificate in `pem`; at least one.
pub fn load_certs(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem { what, reason: error.to_string() })?;
    if certs.is_empty() {
        return Err(TlsError::Empty { what, expected: "certificate" });
    }
    Ok(certs)
}

/// The first private key in `pem`.
pub fn load_key(pem: &[u8], what: &'static str) -> Result<PrivateKeyDer<'static>, TlsError> {
    match PrivateKeyDer::pem_slice_iter(pem).next() {
        Some(Ok(key)) => Ok(key),
        Some(Err(error)) => Err(TlsError::Pem { what, reason: error.to_string() }),
        None => Err(TlsError::Empty { what, expected: "private key" }),
    }
}

/// Trust in exactly the certificates of `ca_pem`.
pub fn roots(ca_pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for cert in load_certs(ca_pem, "CA certificate")? {
        store.add(cert).map_err(|error| TlsError::Certificate { what: "CA certificate", reason: error.to_string() })?;
    }
    Ok(store)
}

/// How a client decides whether to believe a server.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Only chains that end in one of these certificates (PEM).
    Ca(Vec<u8>),
    /// Only chains that end in one of the authorities of this machine (PEM); what cannot be read of them is left out.
    System(Vec<u8>),
    /// Only chains that hold a CA whose public key has this hash; used before the CA itself is known.
    Pinned(CaPin),
    /// Nobody is checked. Only for `insecure-skip-tls-verify` of kubeconfigs, and for probes of pods.
    Anyone,
}

/// A rustls client configuration for `trust`, without ALPN.
pub fn client_config(trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Ca(pem) => builder.with_root_certificates(roots(pem)?),
        Trust::System(pem) => {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
            builder.with_root_certificates(store)
        }
        Trust::Pinned(pin) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(PinnedCaVerifier::new(*pin)))
        }
        Trust::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyone(provider()))),
    };
    Ok(match identity {
        Some(identity) => builder.with_client_auth_cert(
            load_certs(&identity.cert_pem, "client certificate")?,
            load_key(&identity.key_pem, "client key")?,
        )?,
        None => builder.with_no_client_auth(),
    })
}

/// SHA-256 of a CA's SubjectPublicKeyInfo: what join tokens carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaPin([u8; 32]);

impl CaPin {
    /// The pin of one DER certificate.
    pub fn of_der(cert: &[u8]) -> Result<CaPin, TlsError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(cert)
            .map_err(|error| TlsError::Certificate { what: "certificate", reason: error.to_string() })?;
        Ok(CaPin(Sha256::digest(parsed.tbs_certificate.subject_pki.raw).into()))
    }

    /// The pin of the first certificate of a PEM file.
    pub fn of_pem(ca_pem: &[u8]) -> Result<CaPin, TlsError> {
        let certs = load_certs(ca_pem, "CA certificate")?;
        CaPin::of_der(&certs[0])
    }
}

impl std::fmt::Display for CaPin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for CaPin {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<CaPin, TlsError> {
        let bad = || TlsError::Pin(text.to_owned());
        let digits = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(bad());
        }
        let mut hash = [0u8; 32];
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).map_err(|_| bad())?;
        }
        Ok(CaPin(hash))
    }
}

/// Believes a server whose chain leads to a CA with the pinned key and whose leaf is valid for the host.
///
/// The server has to send its CA along with the leaf, since the client knows only the hash.
#[derive(Debug)]
pub struct PinnedCaVerifier {
    pin: CaPin,
    provider: Arc<CryptoProvider>,
}

impl PinnedCaVerifier {
    /// A verifier for one pin.
    pub fn new(pin: CaPin) -> PinnedCaVerifier {
        PinnedCaVerifier { pin, provider: provider() }
    }
}

impl ServerCertVerifier for PinnedCaVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates
            .iter()
            .find(|cert| CaPin::of_der(cert).is_ok_and(|pin| pin == self.pin))
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks signatures (so that the handshake is sound) but believes any certificate.
#[derive(Debug)]
struct AcceptAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    fn ca(name: &str) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        (cert.der().clone(), Issuer::new(params, key))
    }

    fn leaf(issuer: &Issuer<'static, KeyPair>, name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, issuer).unwrap().der().clone()
    }

    fn verdict(
        pin: CaPin,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        host: &'static str,
    ) -> Result<(), rustls::Error> {
        let name = ServerName::try_from(host).unwrap();
        PinnedCaVerifier::new(pin).verify_server_cert(leaf, chain, &name, &[], UnixTime::now()).map(|_| ())
    }

    #[test]
    fn pinned_chain_is_believed_only_for_its_host() {
        let (ca_der, issuer) = ca("right");
        let pin = CaPin::of_der(&ca_der).unwrap();
        let leaf = leaf(&issuer, "10.0.0.1");
        assert!(verdict(pin, &leaf, std::slice::from_ref(&ca_der), "10.0.0.1").is_ok());
        assert!(verdict(pin, &leaf, std::slice::from_ref(&ca_der), "10.0.0.2").is_err());
    }

    #[test]
    fn chain_without_the_pinned_ca_is_refused() {
        let (ca_der, issuer) = ca("right");
        let (other_der, other) = ca("wrong");
        let pin = CaPin::of_der(&ca_der).unwrap();
        let good = leaf(&issuer, "host");
        assert!(verdict(pin, &good, &[], "host").is_err());
        assert!(verdict(pin, &good, std::slice::from_ref(&other_der), "host").is_err());
        // The right CA beside a leaf that another CA signed must not help.
        let bad = leaf(&other, "host");
        assert!(verdict(pin, &bad, &[other_der, ca_der], "host").is_err());
    }

    #[test]
    fn pin_text_round_trips() {
        let (ca_der, _) = ca("x");
        let pin = CaPin::of_der(&ca_der).unwrap();
        assert_eq!(pin.to_string().parse::<CaPin>().unwrap(), pin);
        for bad in ["", "sha256:", "sha256:zz", "md5:00", &pin.to_string()[..60]] {
            assert!(bad.parse::<CaPin>().is_err(), "{bad}");
        }
    }
}
