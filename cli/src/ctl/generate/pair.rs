//! A certificate and the key that is to be its own.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The kinds of the sections in a PEM text, in their order.
fn sections(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let begins = text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN "));
    begins.filter_map(|rest| rest.strip_suffix("-----")).map(str::to_owned).collect()
}

/// What is wrong with a certificate and its key, in the words of Go's library.
pub fn check(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let (of_certificate, of_key) = (sections(certificate), sections(key));
    if !of_certificate.iter().any(|kind| kind == "CERTIFICATE") {
        return Err(match of_certificate.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".to_owned(),
            [kind] if kind.ends_with("PRIVATE KEY") => {
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs \
                 may have been switched"
                    .to_owned()
            }
            kinds => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the \
                 following types: [{}]",
                kinds.join(" ")
            ),
        });
    }
    if !of_key.iter().any(|kind| kind.ends_with("PRIVATE KEY")) {
        return Err(match of_key.as_slice() {
            [] => "tls: failed to find any PEM data in key input".to_owned(),
            [kind] if kind == "CERTIFICATE" => {
                "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
            }
            kinds => format!(
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM \
                 blocks of the following types: [{}]",
                kinds.join(" ")
            ),
        });
    }
    fits(certificate, key)
}

fn fits(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("tls: failed to read the certificate: {error}"))?;
    let unreadable = || "tls: failed to parse private key".to_owned();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| unreadable())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = match provider.key_provider.load_private_key(key) {
        Ok(key) => key,
        // Small or unusual keys are the server's business.
        Err(_) => return Ok(()),
    };
    match CertifiedKey::new(chain, key).keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err("tls: private key does not match public key".to_owned())
        }
        Err(rustls::Error::InvalidCertificate(reason)) => Err(format!("x509: malformed certificate: {reason:?}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_no_pair_is_refused() {
        let own = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let said = |certificate: &str, key: &str| check(certificate.as_bytes(), key.as_bytes());
        assert_eq!(said(&certificate, &key), Ok(()));
        let mismatch = said(&certificate, &other.serialize_pem()).unwrap_err();
        assert_eq!(mismatch, "tls: private key does not match public key");
        assert!(said(&key, &certificate).unwrap_err().ends_with("may have been switched"));
        assert!(said("x", &key).unwrap_err().ends_with("any PEM data in certificate input"));
        assert!(said(&certificate, &certificate).unwrap_err().starts_with("tls: found a certificate rather"));
    }
}
