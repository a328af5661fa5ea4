//! Making keys and signing certificates. ECDSA P-256 throughout.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use sha2::{Digest, Sha256};

use super::{MasterIdentity, Pair, PkiError, SharedKeys};

const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long certificates of machines and users are valid unless told otherwise; upstream's default.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates are valid from a little before now, for machines whose clocks are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// A fresh key and a request for a certificate for it.
pub struct KeyAndCsr {
    /// PKCS#8 key, PEM. Never leaves the machine.
    pub key_pem: String,
    /// PKCS#10 request, PEM.
    pub csr_pem: String,
}

/// What a certificate is made out to. The signer decides; what the request says about it is ignored.
#[derive(Clone, Debug)]
pub struct CsrSubject {
    /// Common name: the Kubernetes user.
    pub user: String,
    /// Organizations: the Kubernetes groups.
    pub groups: Vec<String>,
    /// Host names and addresses.
    pub names: Vec<String>,
    /// May be used as a client.
    pub client: bool,
    /// May be used as a server.
    pub server: bool,
    /// How long it is valid.
    pub life: Duration,
}

/// The two authorities, ready to sign.
pub(super) struct Signer {
    pub(super) ca: Issuer<'static, KeyPair>,
    pub(super) peer_ca: Issuer<'static, KeyPair>,
    ca_pem: String,
    /// How long what it signs is valid.
    pub(super) life: Duration,
}

impl Signer {
    pub(super) fn new(shared: &SharedKeys, life: Duration) -> Result<Self, PkiError> {
        Ok(Signer {
            life,
            ca: issuer(&shared.ca_crt, &shared.ca_key)?,
            peer_ca: issuer(&shared.peer_ca_crt, &shared.peer_ca_key)?,
            ca_pem: shared.ca_crt.clone(),
        })
    }

    pub(super) fn master_server(&self, csr_pem: &str, identity: &MasterIdentity) -> Result<String, PkiError> {
        let leaf = sign(
            &self.ca,
            csr_pem,
            &CsrSubject {
                user: "kube-apiserver".into(),
                groups: Vec::new(),
                names: identity.server_names(),
                client: false,
                server: true,
                life: self.life,
            },
        )?;
        // A joining machine knows the authority by its hash alone, so the chain has to carry it.
        Ok(format!("{leaf}{}", self.ca_pem))
    }

    pub(super) fn master_peer(&self, csr_pem: &str, identity: &MasterIdentity) -> Result<String, PkiError> {
        sign(
            &self.peer_ca,
            csr_pem,
            &CsrSubject {
                user: identity.name.clone(),
                groups: vec!["trireme:peers".into()],
                names: vec![identity.name.clone(), identity.address.to_string()],
                client: true,
                server: true,
                life: self.life,
            },
        )
    }

    pub(super) fn client(&self, user: &str, groups: &[&str], life: Duration) -> Result<Pair, PkiError> {
        let request = key_and_csr()?;
        let subject = CsrSubject {
            user: user.into(),
            groups: groups.iter().map(ToString::to_string).collect(),
            names: Vec::new(),
            client: true,
            server: false,
            life,
        };
        let cert_pem = sign(&self.ca, &request.csr_pem, &subject)?;
        Ok(Pair { cert_pem, key_pem: request.key_pem })
    }
}

fn issuer(cert_pem: &str, key_pem: &str) -> Result<Issuer<'static, KeyPair>, PkiError> {
    let key = KeyPair::from_pem(key_pem)?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes())
        .map_err(|error| PkiError::Request(format!("not a PEM certificate: {error}")))?;
    let cert = pem.parse_x509().map_err(|error| PkiError::Request(format!("not an X.509 certificate: {error}")))?;
    if cert.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(PkiError::Request("the authority's certificate and key do not belong together".into()));
    }
    Ok(Issuer::from_ca_cert_pem(cert_pem, key)?)
}

/// Keys that all masters of a new cluster share.
pub(super) fn new_cluster() -> Result<SharedKeys, PkiError> {
    let (ca_crt, ca_key) = authority("trireme-ca")?;
    let (peer_ca_crt, peer_ca_key) = authority("trireme-peer-ca")?;
    let sa = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(SharedKeys { ca_crt, ca_key, peer_ca_crt, peer_ca_key, sa_key: sa.serialize_pem(), sa_pub: sa.public_key_pem() })
}

fn authority(name: &str) -> Result<(String, String), PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = validity(CertificateParams::new(Vec::new())?, CA_LIFE);
    // Two clusters' authorities must differ in name too: some clients pick the issuer by name alone.
    let tag = hex(&Sha256::digest(key.public_key_raw())[..6]);
    params.distinguished_name = distinguished_name(&format!("{name}-{tag}"), &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Makes a key and a request for it.
///
/// # Errors
/// When the random number generator fails.
pub fn key_and_csr() -> Result<KeyAndCsr, PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(KeyAndCsr { csr_pem: csr(&key)?, key_pem: key.serialize_pem() })
}

/// A request for a key that is there already.
///
/// # Errors
/// When the text is no key.
pub fn csr_of_key(key_pem: &str) -> Result<String, PkiError> {
    csr(&KeyPair::from_pem(key_pem)?)
}

fn csr(key: &KeyPair) -> Result<String, PkiError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.pem()?)
}

/// The public key that a request is for, after checking that the requester holds its private half.
///
/// # Errors
/// When the text is no PKCS#10 request or its signature is wrong.
pub fn public_key_of_csr(csr_pem: &str) -> Result<Vec<u8>, PkiError> {
    use rcgen::PublicKeyData;
    Ok(parse(csr_pem)?.public_key.der_bytes().to_vec())
}

fn parse(csr_pem: &str) -> Result<CertificateSigningRequestParams, PkiError> {
    CertificateSigningRequestParams::from_pem(csr_pem).map_err(|error| PkiError::Request(error.to_string()))
}

/// Signs the key of a request. Only the key is taken from it.
pub(super) fn sign(issuer: &Issuer<'static, KeyPair>, csr_pem: &str, subject: &CsrSubject) -> Result<String, PkiError> {
    let request = parse(csr_pem)?;
    Ok(params(subject)?.signed_by(&request.public_key, issuer)?.pem())
}

fn params(subject: &CsrSubject) -> Result<CertificateParams, PkiError> {
    let mut params = validity(CertificateParams::new(subject.names.clone())?, subject.life);
    params.distinguished_name = distinguished_name(&subject.user, &subject.groups);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if subject.client {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    if subject.server {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    Ok(params)
}

fn validity(mut params: CertificateParams, life: Duration) -> CertificateParams {
    let now = x509_parser::time::ASN1Time::now().to_datetime();
    params.not_before = now - CLOCK_SKEW.min(life / 10);
    params.not_after = now + life;
    let mut serial: [u8; 16] = rand::random();
    // Positive and without leading zeros, as DER wants integers.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn distinguished_name(user: &str, groups: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for group in groups {
        name.push(DnType::OrganizationName, group.as_str());
    }
    name.push(DnType::CommonName, user);
    name
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
