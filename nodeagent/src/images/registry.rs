//! Pulls from registries.

use std::collections::HashMap;
use std::error::Error as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt, Shared};
use futures::stream::{self, StreamExt, TryStreamExt};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::blobs::{digest_of, verify};
use super::credentials::{Credentials, Login};
use super::manifest::{
    ConfigFile, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, MAX_DOCUMENT, Manifest, OCI_INDEX, OCI_MANIFEST,
    Platform, check, choose, parse, parse_document,
};
use super::reference::Reference;
use super::store::{Name, blocking};
use super::types::{Ensured, PullPolicy, StoreConfig};
use super::{Image, ImageError, Store};

const ACCEPTED: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
/// Layers of one image that are fetched at the same time.
const CONCURRENT_LAYERS: usize = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Pieces of a blob between network and disk.
const PIECES: usize = 16;

type Outcome = Result<Arc<Image>, (&'static str, String)>;
type Running = Shared<BoxFuture<'static, Outcome>>;

/// Pulls under way.
pub(super) struct Pulls {
    running: Mutex<HashMap<(String, String), Running>>,
    slots: Arc<Semaphore>,
}

impl Pulls {
    pub fn new(config: &StoreConfig) -> Self {
        Self { running: Mutex::default(), slots: Arc::new(Semaphore::new(config.max_concurrent_pulls.max(1))) }
    }
}

impl Store {
    /// Makes the image present as the policy says.
    ///
    /// A name that came from an archive stands for itself: `Always` does not ask a registry for it, so that what was
    /// imported runs where there is no registry at all.
    pub async fn ensure(
        &self,
        reference: &str,
        policy: PullPolicy,
        credentials: &Credentials,
    ) -> Result<Ensured, ImageError> {
        let start = Instant::now();
        // Between finding an image and pinning it nothing may be collected.
        let _arriving = self.arriving().await;
        let found = self.inner.find(&Reference::parse(reference)?);
        match (found, policy) {
            (Some((name, image)), policy) if policy != PullPolicy::Always || name.imported => {
                Ok(Ensured { pin: self.pin(&image), image, pulled: false, took: start.elapsed() })
            }
            (_, PullPolicy::Never) => Err(ImageError::NeverPull(reference.to_owned())),
            _ => {
                let image = self.pull(reference, credentials).await?;
                Ok(Ensured { pin: self.pin(&image), image, pulled: true, took: start.elapsed() })
            }
        }
    }

    /// Pulls from the registry. Concurrent pulls of one reference with the same credentials share the work, which goes
    /// on when a caller gives up.
    pub async fn pull(&self, reference: &str, credentials: &Credentials) -> Result<Arc<Image>, ImageError> {
        let parsed = Reference::parse(reference)?;
        let key = (parsed.canonical(), credentials.fingerprint());
        let running = {
            let mut all = self.inner.pulls.running.lock();
            match all.get(&key) {
                Some(running) => running.clone(),
                None => {
                    let running = self.start(parsed, credentials.clone(), key.clone());
                    all.insert(key, running.clone());
                    running
                }
            }
        };
        running.await.map_err(|(reason, message)| ImageError::Shared { reason, message })
    }

    fn start(&self, reference: Reference, credentials: Credentials, key: (String, String)) -> Running {
        let store = self.clone();
        let task = tokio::spawn(async move {
            let result = store.pull_now(&reference, &credentials).await;
            store.inner.pulls.running.lock().remove(&key);
            result.map_err(|error| (error.reason(), error.to_string()))
        });
        async move { task.await.unwrap_or_else(|error| Err(("ErrImagePull", format!("internal error: {error}")))) }
            .boxed()
            .shared()
    }

    async fn pull_now(&self, reference: &Reference, credentials: &Credentials) -> Result<Arc<Image>, ImageError> {
        let slots = self.inner.pulls.slots.clone();
        let Ok(_slot) = slots.acquire_owned().await else {
            return Err(ImageError::malformed("the image store is closing"));
        };
        let _arriving = self.arriving().await;
        let mut logins: Vec<Option<Login>> = credentials.matching(reference).into_iter().map(Some).collect();
        if logins.is_empty() {
            logins.push(None);
        }
        let mut last = None;
        for login in logins {
            let remote = Remote::new(self, reference, login).await?;
            match remote.pull(self).await {
                Err(error) if remote.denied(&error) => last = Some(error),
                Ok(image) => return Ok(image),
                Err(error) => return Err(remote.explain(error)),
            }
        }
        Err(last.map_or_else(|| ImageError::malformed("no credentials"), |error| explain(reference, error)))
    }
}

/// What goes wrong with a pull, before it is put into words.
enum PullError {
    Registry(OciDistributionError),
    Image(ImageError),
}

impl From<OciDistributionError> for PullError {
    fn from(error: OciDistributionError) -> Self {
        Self::Registry(error)
    }
}

impl From<ImageError> for PullError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// One registry, one image, one login.
struct Remote {
    client: oci_client::Client,
    auth: RegistryAuth,
    reference: Reference,
    image: oci_client::Reference,
}

impl Remote {
    async fn new(store: &Store, reference: &Reference, login: Option<Login>) -> Result<Self, ImageError> {
        let config = store.inner.config.clone();
        let registry = reference.registry().to_owned();
        // On a thread of its own: it reads the system's certificates, and panics where there are none.
        let client = tokio::task::spawn_blocking(move || client(&config, &registry)).await.map_err(|_| {
            ImageError::malformed("cannot set up TLS for registries: is the package ca-certificates installed?")
        })??;
        let auth = match login {
            None => RegistryAuth::Anonymous,
            Some(Login::Basic(user, password)) => RegistryAuth::Basic(user, password),
            Some(Login::Token(token)) => RegistryAuth::Bearer(token),
        };
        let (host, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
        let image = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => oci_client::Reference::with_digest(host, repository, digest.to_owned()),
            (None, tag) => oci_client::Reference::with_tag(host, repository, tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self { client, auth, reference: reference.clone(), image })
    }

    async fn pull(&self, store: &Store) -> Result<Arc<Image>, PullError> {
        let (bytes, _) = self.client.pull_manifest_raw(&self.image, &self.auth, &ACCEPTED).await?;
        let target = self.checked(&bytes, self.reference.digest())?;
        let what = format!("image {}", self.reference);
        if let Some((name, image)) = store.inner.find(&self.reference)
            && name.target == target
        {
            return Ok(image);
        }
        let (bytes, digest, manifest) = match parse_document(&bytes, &what)? {
            Document::Manifest(manifest) => (bytes, target.clone(), manifest),
            Document::Index(index) => {
                let chosen = choose(&index, &Platform::host(), &what)?.digest.clone();
                let entry = self.image.clone_with_digest(chosen.clone());
                let (bytes, _) = self.client.pull_manifest_raw(&entry, &self.auth, &ACCEPTED).await?;
                self.checked(&bytes, Some(&chosen))?;
                match parse_document(&bytes, &what)? {
                    Document::Manifest(manifest) => (bytes, chosen, manifest),
                    Document::Index(_) => return Err(ImageError::malformed(format!("{what}: nested index")).into()),
                }
            }
        };
        self.fetch_all(store, &manifest, &what).await?;
        let names = vec![self.reference.canonical()];
        let inner = store.inner.clone();
        blocking(move || {
            inner.blobs.put(&bytes)?;
            let image = inner.complete(&digest)?;
            let name = Name { target, manifest: digest, imported: false };
            inner.register(vec![(image, names, name)])
        })
        .await?;
        let found = store.inner.find(&self.reference);
        found.map(|(_, image)| image).ok_or_else(|| ImageError::malformed(format!("{what} vanished")).into())
    }

    fn checked(&self, manifest: &[u8], expected: Option<&str>) -> Result<String, ImageError> {
        if manifest.len() as u64 > MAX_DOCUMENT {
            return Err(ImageError::malformed(format!("the manifest of {} is too large", self.reference)));
        }
        let digest = digest_of(manifest);
        if let Some(expected) = expected {
            verify(&format!("manifest of {}", self.reference), expected, &digest)?;
        }
        Ok(digest)
    }

    /// The configuration first: it tells whether the image fits before layers are fetched.
    async fn fetch_all(&self, store: &Store, manifest: &Manifest, what: &str) -> Result<(), PullError> {
        if manifest.config.size > MAX_DOCUMENT {
            return Err(ImageError::malformed(format!("{what}: the configuration is too large")).into());
        }
        self.fetch(store, &manifest.config).await?;
        let bytes = store.inner.blobs.read_small(&manifest.config.digest, MAX_DOCUMENT)?;
        let config: ConfigFile = parse(&bytes, &format!("the configuration of {what}"))?;
        check(manifest, &config, &Platform::host(), what)?;
        let fetches: Vec<_> = manifest.layers.iter().map(|layer| self.fetch(store, layer).boxed()).collect();
        stream::iter(fetches).buffer_unordered(CONCURRENT_LAYERS).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn fetch(&self, store: &Store, blob: &Descriptor) -> Result<(), PullError> {
        store.inner.blobs.path(&blob.digest)?;
        if store.inner.blobs.contains(&blob.digest) {
            return Ok(());
        }
        let mut body = self.client.pull_blob_stream(&self.image, blob.digest.as_str()).await?;
        let (pieces, mut incoming) = tokio::sync::mpsc::channel::<bytes::Bytes>(PIECES);
        let (blobs, digest, size) = (store.inner.blobs.clone(), blob.digest.clone(), blob.size);
        let writing = tokio::spawn(blocking(move || {
            let mut writer = blobs.writer()?;
            while let Some(piece) = incoming.blocking_recv() {
                let failed = |source| ImageError::Io { context: format!("cannot write blob {digest}"), source };
                writer.write_all(&piece).map_err(failed)?;
                if size > 0 && writer.size() > size {
                    return Err(ImageError::malformed(format!("blob {digest} is longer than its manifest says")));
                }
            }
            writer.commit(Some(&digest))
        }));
        let mut broken = None;
        while let Some(piece) = body.next().await {
            match piece {
                // The writer tells why it stopped.
                Ok(piece) => {
                    if pieces.send(piece).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    broken = Some(OciDistributionError::IoError(error));
                    break;
                }
            }
        }
        drop(pieces);
        let written = writing.await.map_err(|error| ImageError::malformed(format!("internal error: {error}")))?;
        match broken {
            Some(error) => Err(error.into()),
            None => Ok(written.map(drop)?),
        }
    }

    /// Whether other credentials might do.
    fn denied(&self, error: &PullError) -> bool {
        match error {
            PullError::Registry(error) => is_denied(error),
            PullError::Image(_) => false,
        }
    }

    fn explain(&self, error: PullError) -> ImageError {
        explain(&self.reference, error)
    }
}

fn client(config: &StoreConfig, registry: &str) -> Result<oci_client::Client, ImageError> {
    // The TLS library takes whatever provider the process has; only a test or a tool has none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let plain = is_loopback(registry) || config.plain_http_registries.iter().any(|host| host == registry);
    let protocol = if plain { ClientProtocol::HttpsExcept(vec![registry.to_owned()]) } else { ClientProtocol::Https };
    let authority = |pem: &Vec<u8>| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() };
    let config = ClientConfig {
        protocol,
        extra_root_certificates: config.extra_ca_pem.iter().map(authority).collect(),
        read_timeout: Some(config.read_timeout),
        connect_timeout: Some(CONNECT_TIMEOUT),
        user_agent: concat!("trireme/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    oci_client::Client::try_from(config)
        .map_err(|error| ImageError::malformed(format!("cannot set up a registry client: {}", words(&error))))
}

/// Loopback registries speak plain HTTP, as docker assumes too.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_denied(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 401 || *code == 403,
        OciDistributionError::RegistryError { envelope, .. } => {
            let text = envelope.to_string().to_lowercase();
            envelope.errors.iter().any(|error| {
                matches!(
                    error.code,
                    oci_client::errors::OciErrorCode::Denied | oci_client::errors::OciErrorCode::Unauthorized
                )
            }) || text.contains("authentication required")
        }
        _ => false,
    }
}

fn is_missing(error: &OciDistributionError) -> bool {
    use oci_client::errors::OciErrorCode as Code;
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .any(|error| matches!(error.code, Code::ManifestUnknown | Code::NameUnknown | Code::NotFound)),
        _ => false,
    }
}

/// The kubelet's users look for "not found" and "pull access denied" in these messages.
fn explain(reference: &Reference, error: PullError) -> ImageError {
    let error = match error {
        PullError::Image(error @ ImageError::Pull { .. }) => return error,
        PullError::Image(error) => {
            return ImageError::Pull { reference: reference.to_string(), message: error.to_string() };
        }
        PullError::Registry(error) => error,
    };
    let message = if is_missing(&error) {
        format!("failed to resolve reference \"{reference}\": {reference}: not found")
    } else if is_denied(&error) {
        format!(
            "failed to resolve reference \"{reference}\": pull access denied, repository does not exist or may require \
             authorization: {}",
            words(&error)
        )
    } else {
        words(&error)
    };
    ImageError::Pull { reference: reference.to_string(), message }
}

/// An error with its causes: reqwest keeps "connection refused" three levels down.
fn words(error: &OciDistributionError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_plain() {
        for (registry, plain) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.8.8.8", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", false),
            ("localhost.example.com", false),
            ("docker.io", false),
        ] {
            assert_eq!(is_loopback(registry), plain, "{registry}");
        }
    }
}
