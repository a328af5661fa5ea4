//! Keys and certificates of a cluster.
//!
//! Every master holds the whole folder: two certificate authorities (`ca` for the API's clients and servers, `peer-ca`
//! for the traffic among masters), the key that signs service account tokens, and leaf certificates of its own. A
//! folder that exists is reused and never replaced: losing a CA key would lock every machine out of the cluster.

mod files;
mod issue;
mod tls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use issue::{CsrSubject, KeyAndCsr, LEAF_LIFE, csr_of_key, key_and_csr, public_key_of_csr};

/// Name of the folder inside a master's data directory.
pub const DIRECTORY: &str = "pki";
/// Group whose members may do everything.
pub const MASTERS_GROUP: &str = "system:masters";
/// Group of the node agents.
pub const NODES_GROUP: &str = "system:nodes";
/// User name under which a master talks to node agents.
pub const KUBELET_CLIENT_USER: &str = "kube-apiserver-kubelet-client";
/// User name of the administrator's certificate.
pub const ADMIN_USER: &str = "kubernetes-admin";

/// Why keys or certificates could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The folder is there but not usable; it is never replaced by the program.
    #[error("the key folder {} is not usable: {reason}; restore it from a copy, or remove the whole data directory and \
             join again", dir.display())]
    Unusable {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Signing or key generation failed.
    #[error("cannot make a certificate")]
    Issue(#[from] rcgen::Error),
    /// A certificate signing request cannot be accepted.
    #[error("the certificate signing request is not acceptable: {0}")]
    Request(String),
    /// The TLS library refused keys or certificates.
    #[error("TLS configuration")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A certificate chain (leaf first) and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    /// Certificate chain, leaf first.
    pub cert_pem: String,
    /// PKCS#8 key.
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("cert_pem", &self.cert_pem).field("key_pem", &"(secret)").finish()
    }
}

/// A certificate as status pages show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateInfo {
    /// What it is used for: `ca`, `server`, `peer` …
    pub name: String,
    /// Whom it is made out to.
    pub subject: String,
    /// Valid from, seconds since the epoch.
    pub not_before: i64,
    /// Valid until, seconds since the epoch.
    pub not_after: i64,
}

impl CertificateInfo {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn of_pem(name: &str, cert_pem: &str) -> Result<CertificateInfo, PkiError> {
        tls::describe(name, cert_pem)
    }

    /// From when on it is time for a new one: two thirds of its life.
    pub fn renewal(&self) -> i64 {
        self.not_before + (self.not_after - self.not_before) * 2 / 3
    }
}

/// What a master's certificates are made out to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterIdentity {
    /// Name of the master.
    pub name: String,
    /// Address others reach it at.
    pub address: IpAddr,
    /// Address of the service `kubernetes.default`, the first one of the service network.
    pub service_ip: IpAddr,
    /// DNS domain of the cluster, `cluster.local`.
    pub cluster_domain: String,
}

impl MasterIdentity {
    /// Names and addresses that the API server's certificate has to cover.
    pub fn server_names(&self) -> Vec<String> {
        let mut names = vec![
            self.name.clone(),
            "localhost".into(),
            "kubernetes".into(),
            "kubernetes.default".into(),
            "kubernetes.default.svc".into(),
            format!("kubernetes.default.svc.{}", self.cluster_domain),
            self.address.to_string(),
            "127.0.0.1".into(),
            self.service_ip.to_string(),
        ];
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }
}

/// What a master hands to a new master, besides the certificates signed from the new master's own keys.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedKeys {
    /// Certificate of the API's authority.
    pub ca_crt: String,
    /// Its key.
    pub ca_key: String,
    /// Certificate of the authority for peers.
    pub peer_ca_crt: String,
    /// Its key.
    pub peer_ca_key: String,
    /// Key that signs service account tokens.
    pub sa_key: String,
    /// Its public half.
    pub sa_pub: String,
}

/// The keys and certificates of one master. Cheap to clone.
#[derive(Clone)]
pub struct Pki {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    shared: SharedKeys,
    signer: Mutex<Arc<issue::Signer>>,
    leaves: ArcSwap<Leaves>,
    pin: String,
}

/// The certificates that are signed anew from time to time.
struct Leaves {
    server: Pair,
    peer: Pair,
    kubelet_client: Pair,
    admin: Pair,
}

impl Leaves {
    fn read(dir: &Path) -> Result<Leaves, PkiError> {
        Ok(Leaves {
            server: files::read_pair(dir, files::SERVER)?,
            peer: files::read_pair(dir, files::PEER)?,
            kubelet_client: files::read_pair(dir, files::KUBELET_CLIENT)?,
            admin: files::read_pair(dir, files::ADMIN)?,
        })
    }

    fn named(&self) -> [(&'static str, &Pair); 4] {
        [
            (files::SERVER, &self.server),
            (files::PEER, &self.peer),
            (files::KUBELET_CLIENT, &self.kubelet_client),
            (files::ADMIN, &self.admin),
        ]
    }
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("dir", &self.inner.dir).field("pin", &self.inner.pin).finish_non_exhaustive()
    }
}

impl Pki {
    /// Whether the folder exists, usable or not.
    pub fn exists(dir: &Path) -> bool {
        dir.symlink_metadata().is_ok()
    }

    /// Makes the keys of a new cluster in `dir`, or loads them if the folder is there already. Appears as a whole or
    /// not at all.
    ///
    /// # Errors
    /// When the folder cannot be written, or is there and not usable.
    pub fn create(dir: &Path, identity: &MasterIdentity) -> Result<Pki, PkiError> {
        if !Self::exists(dir) {
            let shared = issue::new_cluster()?;
            let server = issue::key_and_csr()?;
            let peer = issue::key_and_csr()?;
            let signer = issue::Signer::new(&shared, LEAF_LIFE)?;
            let server_crt = signer.master_server(&server.csr_pem, identity)?;
            let peer_crt = signer.master_peer(&peer.csr_pem, identity)?;
            Self::write(
                dir,
                &shared,
                &Pair { cert_pem: server_crt, key_pem: server.key_pem },
                &Pair { cert_pem: peer_crt, key_pem: peer.key_pem },
            )?;
        }
        let pki = Self::load(dir)?;
        pki.refresh(identity)?;
        Ok(pki)
    }

    /// Stores what a join brought. A folder of the same cluster (an earlier attempt that did not get further) gets the
    /// new leaf certificates; one of another cluster is refused.
    ///
    /// # Errors
    /// When the folder cannot be written, belongs to another cluster, or what was received does not fit together.
    pub fn install(dir: &Path, shared: &SharedKeys, server: &Pair, peer: &Pair) -> Result<Pki, PkiError> {
        if Self::exists(dir) {
            let existing = Self::load(dir)?;
            if existing.ca_spki_sha256() != tls::spki_sha256(&shared.ca_crt)? {
                return Err(PkiError::Unusable {
                    dir: dir.to_path_buf(),
                    reason: "it belongs to another cluster".into(),
                });
            }
            files::write_pair(dir, files::SERVER, server)?;
            files::write_pair(dir, files::PEER, peer)?;
        } else {
            Self::write(dir, shared, server, peer)?;
        }
        Self::load(dir)
    }

    fn write(dir: &Path, shared: &SharedKeys, server: &Pair, peer: &Pair) -> Result<(), PkiError> {
        let signer = issue::Signer::new(shared, LEAF_LIFE)?;
        let kubelet_client = signer.client(KUBELET_CLIENT_USER, &[MASTERS_GROUP], LEAF_LIFE)?;
        let admin = signer.client(ADMIN_USER, &[MASTERS_GROUP], LEAF_LIFE)?;
        files::write_folder(
            dir,
            shared,
            &[
                (files::SERVER, server),
                (files::PEER, peer),
                (files::KUBELET_CLIENT, &kubelet_client),
                (files::ADMIN, &admin),
            ],
        )
    }

    /// Loads the folder.
    ///
    /// # Errors
    /// When a file is missing or does not fit the others.
    pub fn load(dir: &Path) -> Result<Pki, PkiError> {
        let unusable = |reason: String| PkiError::Unusable { dir: dir.to_path_buf(), reason };
        let shared = files::read_shared(dir)?;
        let signer = issue::Signer::new(&shared, LEAF_LIFE).map_err(|error| unusable(error.to_string()))?;
        let inner = Inner {
            leaves: ArcSwap::from_pointee(Leaves::read(dir)?),
            pin: tls::spki_sha256(&shared.ca_crt)?,
            dir: dir.to_path_buf(),
            signer: Mutex::new(Arc::new(signer)),
            shared,
        };
        let pki = Pki { inner: Arc::new(inner) };
        pki.server_config().map_err(|error| unusable(format!("server certificate: {error}")))?;
        Ok(pki)
    }

    /// How long certificates are valid that are signed from now on.
    ///
    /// # Errors
    /// When the authorities' keys cannot be used.
    pub fn set_leaf_life(&self, life: Duration) -> Result<(), PkiError> {
        *self.inner.signer.lock() = Arc::new(issue::Signer::new(&self.inner.shared, life)?);
        Ok(())
    }

    fn signer(&self) -> Arc<issue::Signer> {
        self.inner.signer.lock().clone()
    }

    /// This master's leaf certificates are signed anew, from the keys they have, when two thirds of their life are over
    /// or the address changed. Whether any was; all clones of this handle then have the new ones.
    ///
    /// # Errors
    /// When signing or writing fails.
    pub fn refresh(&self, identity: &MasterIdentity) -> Result<bool, PkiError> {
        let signer = self.signer();
        let leaves = self.inner.leaves.load_full();
        let mut changed = false;
        for (file, pair) in leaves.named() {
            let names = match file {
                files::SERVER => identity.server_names(),
                files::PEER => vec![identity.name.clone(), identity.address.to_string()],
                _ => Vec::new(),
            };
            // Copies of the administrator's are with people, to whom nobody brings a new one.
            let life = if file == files::ADMIN { LEAF_LIFE } else { signer.life };
            if !tls::is_due(&pair.cert_pem, &names, life)? {
                continue;
            }
            let signed = |cert_pem| Pair { cert_pem, key_pem: pair.key_pem.clone() };
            let new = match file {
                files::SERVER => signed(signer.master_server(&issue::csr_of_key(&pair.key_pem)?, identity)?),
                files::PEER => signed(signer.master_peer(&issue::csr_of_key(&pair.key_pem)?, identity)?),
                files::KUBELET_CLIENT => signer.client(KUBELET_CLIENT_USER, &[MASTERS_GROUP], life)?,
                _ => signer.client(ADMIN_USER, &[MASTERS_GROUP], life)?,
            };
            files::write_pair(&self.inner.dir, file, &new)?;
            tracing::info!(certificate = file, "certificate signed anew");
            changed = true;
        }
        if changed {
            self.inner.leaves.store(Arc::new(Leaves::read(&self.inner.dir)?));
        }
        Ok(changed)
    }

    /// This master's certificates and those of the authorities, with their times.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        let leaves = self.inner.leaves.load();
        let leaves = leaves.named().map(|(name, pair)| (name, pair.cert_pem.as_str()));
        let authorities =
            [("ca", self.inner.shared.ca_crt.as_str()), ("peer-ca", self.inner.shared.peer_ca_crt.as_str())];
        // What could not be read would not have been loaded.
        authorities.into_iter().chain(leaves).filter_map(|(name, pem)| tls::describe(name, pem).ok()).collect()
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Certificate of the authority that clients and servers of the API trust, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.inner.shared.ca_crt
    }

    /// Certificate of the authority for the traffic among masters, PEM.
    pub fn peer_ca_pem(&self) -> &str {
        &self.inner.shared.peer_ca_crt
    }

    /// The API server's certificate chain (leaf and CA) and key.
    pub fn server(&self) -> Pair {
        self.inner.leaves.load().server.clone()
    }

    /// Certificate and key for the traffic among masters.
    pub fn peer(&self) -> Pair {
        self.inner.leaves.load().peer.clone()
    }

    /// Client certificate with which the API server talks to node agents.
    pub fn kubelet_client(&self) -> Pair {
        self.inner.leaves.load().kubelet_client.clone()
    }

    /// The administrator's client certificate.
    pub fn admin(&self) -> Pair {
        self.inner.leaves.load().admin.clone()
    }

    /// Key that signs service account tokens, PEM.
    pub fn service_account_key_pem(&self) -> &str {
        &self.inner.shared.sa_key
    }

    /// Its public half, PEM.
    pub fn service_account_public_pem(&self) -> &str {
        &self.inner.shared.sa_pub
    }

    /// SHA-256 over the CA's public key (SubjectPublicKeyInfo), in hex: what tokens pin.
    pub fn ca_spki_sha256(&self) -> &str {
        &self.inner.pin
    }

    /// Everything a new master needs to be a full replica.
    pub fn shared_keys(&self) -> SharedKeys {
        self.inner.shared.clone()
    }

    /// Signs a node agent's certificate: client towards the masters, server towards them (logs, exec).
    ///
    /// # Errors
    /// When the request is not a valid, self-signed PKCS#10 request for a key of a supported kind.
    pub fn sign_node(&self, csr_pem: &str, name: &str, address: IpAddr) -> Result<String, PkiError> {
        let signer = self.signer();
        issue::sign(
            &signer.ca,
            csr_pem,
            &CsrSubject {
                user: format!("system:node:{name}"),
                groups: vec![NODES_GROUP.into()],
                names: vec![name.into(), address.to_string()],
                client: true,
                server: true,
                life: signer.life,
            },
        )
    }

    /// Signs the API server certificate of another master; the chain carries the CA too.
    ///
    /// # Errors
    /// As [`Pki::sign_node`].
    pub fn sign_master_server(&self, csr_pem: &str, identity: &MasterIdentity) -> Result<String, PkiError> {
        self.signer().master_server(csr_pem, identity)
    }

    /// Signs the peer certificate of another master.
    ///
    /// # Errors
    /// As [`Pki::sign_node`].
    pub fn sign_master_peer(&self, csr_pem: &str, identity: &MasterIdentity) -> Result<String, PkiError> {
        self.signer().master_peer(csr_pem, identity)
    }

    /// Makes a key and a client certificate for a user.
    ///
    /// # Errors
    /// When key generation fails.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Pair, PkiError> {
        let signer = self.signer();
        signer.client(user, groups, signer.life)
    }

    /// TLS of the API server: 1.2 and 1.3, HTTP/2 and 1.1, client certificates optional.
    ///
    /// # Errors
    /// When the files do not fit together.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        tls::server_config(&self.server(), &self.inner.shared.ca_crt)
    }

    /// TLS with which the API server calls node agents.
    ///
    /// # Errors
    /// When the files do not fit together.
    pub fn kubelet_client_config(&self) -> Result<Arc<rustls::ClientConfig>, PkiError> {
        tls::client_config(&self.kubelet_client(), &self.inner.shared.ca_crt)
    }
}

#[cfg(test)]
mod tests;
