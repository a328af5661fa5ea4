//! TLS between members. Whoever holds a certificate of the peers' CA is a peer, whatever name is in it: members are
//! told apart by the id in each request, and the CA signs members only.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::PeerTls;
use crate::types::StoreError;

/// Both sides of a member's TLS.
#[derive(Clone)]
pub(crate) struct PeerTlsConfig {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) own: Arc<OwnCertificate>,
}

/// The certificate that this member shows. It can be replaced at any time; connections made from then on show the new one.
#[derive(Debug)]
pub(crate) struct OwnCertificate(RwLock<Arc<CertifiedKey>>);

impl OwnCertificate {
    fn read(tls: &PeerTls) -> Result<Arc<CertifiedKey>, StoreError> {
        let chain = certificates("certificate", &tls.cert_pem)?;
        let key = PrivateKeyDer::from_pem_slice(&tls.key_pem).map_err(|e| invalid("key", e))?;
        let pair = CertifiedKey::from_der(chain, key, &ring::default_provider());
        pair.map(Arc::new).map_err(|e| invalid("certificate", e))
    }

    pub(crate) fn replace(&self, tls: &PeerTls) -> Result<(), StoreError> {
        *self.0.write() = Self::read(tls)?;
        Ok(())
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn invalid(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Invalid(format!("peer TLS: {what}: {error}"))
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| invalid(what, e))?;
    if found.is_empty() { Err(invalid(what, "no certificate")) } else { Ok(found) }
}

impl PeerTlsConfig {
    pub(crate) fn new(tls: &PeerTls) -> Result<Self, StoreError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates("CA", &tls.ca_pem)? {
            roots.add(certificate).map_err(|e| invalid("CA", e))?;
        }
        let roots = Arc::new(roots);
        let own = Arc::new(OwnCertificate(RwLock::new(OwnCertificate::read(tls)?)));
        let versions = [&rustls::version::TLS13];

        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let clients = clients.build().map_err(|e| invalid("CA", e))?;
        let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions);
        let server = server.map_err(|e| invalid("protocol", e))?.with_client_cert_verifier(clients);
        let mut server = server.with_cert_resolver(own.clone());
        server.alpn_protocols = vec![b"h2".to_vec()];

        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        let servers = Arc::new(AnyMember(servers.build().map_err(|e| invalid("CA", e))?));
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions);
        let client = client.map_err(|e| invalid("protocol", e))?;
        let client = client.dangerous().with_custom_certificate_verifier(servers);
        let mut client = client.with_client_cert_resolver(own.clone());
        client.alpn_protocols = vec![b"h2".to_vec()];
        // A session that is resumed shows the certificates with which it began, even if they were replaced since.
        client.resumption = Resumption::disabled();
        Ok(Self { server: Arc::new(server), client: Arc::new(client), own })
    }
}

/// Accepts any certificate that the CA signed for servers; only the name in it does not matter.
#[derive(Debug)]
struct AnyMember(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyMember {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is compared last, after signatures, validity and usage.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::store::tests_tls::Ca;

    /// A connection between two members: the certificates of server and client as the other side saw them.
    async fn shown(server: &PeerTlsConfig, client: &PeerTlsConfig) -> [CertificateDer<'static>; 2] {
        let (near, far) = tokio::io::duplex(64 << 10);
        let accept = async {
            let mut stream = TlsAcceptor::from(server.server.clone()).accept(near).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            stream.flush().await.unwrap();
            stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
        };
        let connect = async {
            let name = ServerName::try_from("anything").unwrap();
            let mut stream = TlsConnector::from(client.client.clone()).connect(name, far).await.unwrap();
            // What could be used to resume the session has come when this has.
            stream.read_exact(&mut [0]).await.unwrap();
            stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
        };
        let (of_client, of_server) = tokio::join!(accept, connect);
        [of_server, of_client]
    }

    fn leaf(tls: &PeerTls) -> CertificateDer<'static> {
        certificates("certificate", &tls.cert_pem).unwrap().remove(0)
    }

    #[tokio::test]
    async fn new_connections_show_the_certificate_that_replaced_another() {
        let ca = Ca::new();
        let (a, b) = (ca.member("a"), ca.member("b"));
        let (server, client) = (PeerTlsConfig::new(&a).unwrap(), PeerTlsConfig::new(&b).unwrap());
        assert_eq!(shown(&server, &client).await, [leaf(&a), leaf(&b)]);
        let (new_a, new_b) = (ca.member("a"), ca.member("b"));
        server.own.replace(&new_a).unwrap();
        client.own.replace(&new_b).unwrap();
        assert_eq!(shown(&server, &client).await, [leaf(&new_a), leaf(&new_b)]);
        // What cannot be used replaces nothing.
        let other_key = PeerTls { key_pem: a.key_pem.clone(), ..new_b.clone() };
        assert!(client.own.replace(&other_key).is_err());
        assert!(server.own.replace(&PeerTls { cert_pem: Vec::new(), ..new_a.clone() }).is_err());
        assert_eq!(shown(&server, &client).await, [leaf(&new_a), leaf(&new_b)]);
    }
}
