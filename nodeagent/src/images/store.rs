//! The store: names, images, and what keeps them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::archive::{self, Found};
use super::blobs::{Blobs, replace_file, verify};
use super::error::IoContext;
use super::folder::Seen;
use super::layer;
use super::manifest::{ConfigFile, Document, MAX_DOCUMENT, Manifest, Platform, check, parse, parse_document};
use super::reference::Reference;
use super::registry::Pulls;
use super::types::{Collected, StoreConfig};
use super::{Image, ImageError};

/// The image store of one node: a cheap handle.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub config: StoreConfig,
    pub blobs: Blobs,
    pub pulls: Pulls,
    /// What the last import of each archive saw.
    pub seen: Mutex<Seen>,
    state: RwLock<State>,
    /// Held while the index is changed and written; `state` is only locked for moments.
    writing: Mutex<()>,
    /// Whoever brings blobs in holds it shared; a collection needs it alone.
    pub(super) arriving: Arc<tokio::sync::RwLock<()>>,
    /// Digests of images that somebody is about to use, and how many do. New ones come only under `arriving`.
    pub(super) pins: Mutex<HashMap<String, usize>>,
    _lock: File,
}

#[derive(Clone, Default)]
struct State {
    names: BTreeMap<String, Name>,
    images: HashMap<String, Arc<Image>>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    /// Digest that the registry or the archive gives for it (perhaps an index').
    pub target: String,
    /// Digest of the manifest for this machine.
    pub manifest: String,
    /// From an archive, and so not the registry's to change.
    #[serde(default)]
    pub imported: bool,
}

#[derive(Serialize, Deserialize)]
struct IndexFile {
    version: u32,
    names: BTreeMap<String, Name>,
    images: BTreeSet<String>,
}

const INDEX_VERSION: u32 = 1;

impl Store {
    /// Opens or makes the store; clears what a crash left half-done.
    pub async fn open(config: StoreConfig) -> Result<Store, ImageError> {
        blocking(move || Inner::open(config)).await.map(|inner| Store { inner: Arc::new(inner) })
    }

    /// Imports an OCI-layout or docker-save archive (also gzip-compressed); gives the references it brought. Either all
    /// images of the archive become visible or none.
    pub async fn import_archive(&self, path: &Path) -> Result<Vec<String>, ImageError> {
        let (inner, path) = (self.inner.clone(), path.to_owned());
        let _arriving = inner.arriving.clone().read_owned().await;
        blocking(move || inner.import_archive(&path)).await
    }

    /// The image of that name (as a user writes it), if it is there. Does not block.
    pub fn resolve(&self, reference: &str) -> Result<Option<Arc<Image>>, ImageError> {
        Ok(self.inner.find(&Reference::parse(reference)?).map(|(_, image)| image))
    }

    /// The image of that manifest or configuration digest, named or not. Does not block.
    pub fn by_digest(&self, digest: &str) -> Option<Arc<Image>> {
        let state = self.inner.state.read();
        let by_id = || state.images.values().find(|image| image.config_digest == digest);
        state.images.get(digest).or_else(by_id).cloned()
    }

    /// All images, largest first, for `node.status.images`. Does not block.
    pub fn list(&self) -> Vec<Arc<Image>> {
        let mut images: Vec<Arc<Image>> = self.inner.state.read().images.values().cloned().collect();
        images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.digest.cmp(&b.digest)));
        images
    }

    /// Removes one name; true if it was there. What it named goes with the next garbage collection.
    pub async fn remove(&self, reference: &str) -> Result<bool, ImageError> {
        let (inner, name) = (self.inner.clone(), Reference::parse(reference)?.canonical());
        blocking(move || inner.change(|state| state.names.remove(&name).is_some())).await
    }

    /// Removes images without a name that `in_use` does not claim, and all files that no image needs. Does nothing
    /// while an image is arriving: ask again later.
    pub async fn collect_garbage(
        &self,
        in_use: impl Fn(&Image) -> bool + Send + 'static,
    ) -> Result<Collected, ImageError> {
        let inner = self.inner.clone();
        let Ok(_alone) = inner.arriving.clone().try_write_owned() else { return Ok(Collected::default()) };
        blocking(move || {
            let pinned = inner.pinned();
            inner.collect_garbage(&|image| pinned.contains(&image.digest) || in_use(image))
        })
        .await
    }

    pub(super) async fn arriving(&self) -> tokio::sync::OwnedRwLockReadGuard<()> {
        self.inner.arriving.clone().read_owned().await
    }
}

/// Runs blocking work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ImageError::malformed(format!("internal error: {error}"))),
    }
}

impl Inner {
    fn open(config: StoreConfig) -> Result<Self, ImageError> {
        fs::create_dir_all(&config.dir).context(|| format!("cannot make {:?}", config.dir))?;
        let lock = File::create(config.dir.join("lock")).context(|| "cannot make the store's lock".to_owned())?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| ImageError::Locked(config.dir.clone()))?;
        let blobs = Blobs::open(&config.dir)?;
        let pulls = Pulls::new(&config);
        let inner = Self {
            blobs,
            pulls,
            seen: Mutex::new(Seen::load(&config.dir)),
            state: RwLock::default(),
            writing: Mutex::default(),
            arriving: Arc::default(),
            pins: Mutex::default(),
            _lock: lock,
            config,
        };
        inner.load()?;
        Ok(inner)
    }

    fn index_path(&self) -> PathBuf {
        self.config.dir.join("index.json")
    }

    /// An image whose files are damaged or gone is left out, with a warning: it can be imported or pulled again.
    fn load(&self) -> Result<(), ImageError> {
        let bytes = match fs::read(self.index_path()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context(|| format!("cannot read {:?}", self.index_path())),
        };
        let index: IndexFile = parse(&bytes, "the image store's index")?;
        if index.version != INDEX_VERSION {
            return Err(ImageError::malformed(format!("the image store has unknown version {}", index.version)));
        }
        let mut state = State { names: index.names, images: HashMap::new() };
        for digest in index.images {
            match self.assemble(&digest) {
                Ok(image) => drop(state.images.insert(digest, Arc::new(image))),
                Err(error) => tracing::warn!(image = digest, %error, "an image of the store cannot be used"),
            }
        }
        let images = &state.images;
        state.names.retain(|_, name| images.contains_key(&name.manifest));
        *self.state.write() = named(state);
        Ok(())
    }

    fn documents(&self, manifest: &str) -> Result<(Manifest, ConfigFile), ImageError> {
        let Document::Manifest(document) =
            parse_document(&self.blobs.read_small(manifest, MAX_DOCUMENT)?, "a manifest")?
        else {
            return Err(ImageError::malformed(format!("{manifest} is an index")));
        };
        let config: ConfigFile =
            parse(&self.blobs.read_small(&document.config.digest, MAX_DOCUMENT)?, "an image's configuration")?;
        check(&document, &config, &Platform::host(), &format!("image {manifest}"))?;
        Ok((document, config))
    }

    /// The image of a manifest whose layers are unpacked.
    fn assemble(&self, digest: &str) -> Result<Image, ImageError> {
        let (manifest, config) = self.documents(digest)?;
        let mut layers = Vec::new();
        for diff_id in config.rootfs.diff_ids.iter().rev() {
            let dir = self.blobs.layer_path(diff_id)?;
            if !dir.is_dir() {
                return Err(ImageError::malformed(format!("layer {diff_id} is not unpacked")));
            }
            layers.push(dir);
        }
        Ok(Image {
            digest: digest.to_owned(),
            size: manifest.config.size + manifest.layers.iter().map(|layer| layer.size).sum::<u64>(),
            config_digest: manifest.config.digest,
            config: config.config.unwrap_or_default(),
            layers,
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
        })
    }

    fn import_archive(&self, path: &Path) -> Result<Vec<String>, ImageError> {
        let mut changes = Vec::new();
        for Found { target, manifest, names } in archive::read(&self.blobs, path, self.config.max_archive_bytes)? {
            let image = self.complete(&manifest)?;
            let name = Name { target, manifest, imported: true };
            changes.push((image, names.iter().map(Reference::canonical).collect::<Vec<_>>(), name));
        }
        let imported = changes.iter().flat_map(|(_, names, _)| names.clone()).collect();
        self.register(changes)?;
        Ok(imported)
    }

    /// Unpacks what is not unpacked of an image whose blobs are all there.
    pub fn complete(&self, manifest: &str) -> Result<Image, ImageError> {
        let (document, config) = self.documents(manifest)?;
        for (layer, diff_id) in document.layers.iter().zip(&config.rootfs.diff_ids) {
            self.unpack(&layer.digest, diff_id)?;
        }
        self.assemble(manifest)
    }

    fn unpack(&self, digest: &str, diff_id: &str) -> Result<(), ImageError> {
        let target = self.blobs.layer_path(diff_id)?;
        if target.is_dir() {
            return Ok(());
        }
        let scratch = self.blobs.scratch();
        fs::create_dir(&scratch).context(|| format!("cannot make {scratch:?}"))?;
        let unpacked = fs::set_permissions(&scratch, fs::Permissions::from_mode(0o755))
            .context(|| format!("cannot set the mode of {scratch:?}"))
            .and_then(|()| layer::unpack(&self.blobs.path(digest)?, &scratch, self.config.max_layer_bytes))
            .and_then(|actual| verify(&format!("layer {digest}"), diff_id, &actual))
            .and_then(|()| match fs::rename(&scratch, &target) {
                // Somebody else unpacked the same layer meanwhile.
                Err(_) if target.is_dir() => Ok(()),
                other => other.context(|| format!("cannot name layer {diff_id}")),
            })
            .and_then(|()| super::blobs::sync_dir(&self.blobs.layer_dir()));
        let _ = fs::remove_dir_all(&scratch);
        unpacked
    }

    /// Makes complete images and their names visible, all at once.
    pub fn register(&self, changes: Vec<(Image, Vec<String>, Name)>) -> Result<(), ImageError> {
        self.change(|state| {
            for (image, names, name) in changes {
                state.images.insert(image.digest.clone(), Arc::new(image));
                for text in names {
                    state.names.insert(text, name.clone());
                }
            }
        })
    }

    /// The index on disk is replaced first; what it says then becomes visible.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, ImageError> {
        let _writing = self.writing.lock();
        let mut state = self.state.read().clone();
        let result = change(&mut state);
        let index = IndexFile {
            version: INDEX_VERSION,
            names: state.names.clone(),
            images: state.images.keys().cloned().collect(),
        };
        let bytes = serde_json::to_vec_pretty(&index).map_err(|error| ImageError::malformed(error.to_string()))?;
        replace_file(&self.blobs.scratch(), &self.index_path(), &bytes)?;
        *self.state.write() = named(state);
        Ok(result)
    }

    /// A digest finds the image under any tag of the same repository, whether it is the manifest's or the index'.
    pub fn find(&self, reference: &Reference) -> Option<(Name, Arc<Image>)> {
        let state = self.state.read();
        let found = state.names.get(&reference.canonical()).or_else(|| {
            let digest = reference.digest()?;
            let (tag, pin) = (format!("{}:", reference.name()), format!("{}@", reference.name()));
            let same = |text: &str| text.starts_with(&tag) || text.starts_with(&pin);
            let matches = |name: &Name| name.target == digest || name.manifest == digest;
            state.names.iter().find(|(text, name)| same(text) && matches(name)).map(|(_, name)| name)
        })?;
        Some((found.clone(), state.images.get(&found.manifest)?.clone()))
    }

    /// Images that somebody is about to use.
    pub(super) fn pinned(&self) -> BTreeSet<String> {
        self.pins.lock().keys().cloned().collect()
    }

    /// Removes the names that stand for these images.
    pub(super) fn forget(&self, digests: &BTreeSet<String>) -> Result<(), ImageError> {
        if digests.is_empty() {
            return Ok(());
        }
        self.change(|state| state.names.retain(|_, name| !digests.contains(&name.manifest)))
    }

    pub(super) fn collect_garbage(&self, in_use: &dyn Fn(&Image) -> bool) -> Result<Collected, ImageError> {
        let mut collected = Collected::default();
        let named: BTreeSet<String> = self.state.read().names.values().map(|name| name.manifest.clone()).collect();
        let unneeded = |digest: &String, image: &Arc<Image>| !named.contains(digest) && !in_use(image);
        if self.state.read().images.iter().any(|(digest, image)| unneeded(digest, image)) {
            collected.images = self.change(|state| {
                let before = state.images.len();
                state.images.retain(|digest, image| !unneeded(digest, image));
                before - state.images.len()
            })?;
        }
        let mut keep = BTreeSet::new();
        let images: Vec<String> = self.state.read().images.keys().cloned().collect();
        for digest in images {
            let (manifest, config) = self.documents(&digest)?;
            keep.insert(self.blobs.path(&digest)?);
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                keep.insert(self.blobs.path(&blob.digest)?);
            }
            for diff_id in &config.rootfs.diff_ids {
                keep.insert(self.blobs.layer_path(diff_id)?);
            }
        }
        for dir in [self.blobs.blob_dir(), self.blobs.layer_dir()] {
            sweep(&dir, &keep, &self.blobs, &mut collected)?;
        }
        Ok(collected)
    }
}

/// Takes away what is not kept. A layer is renamed first: half a layer must never be found under its name.
fn sweep(dir: &Path, keep: &BTreeSet<PathBuf>, blobs: &Blobs, collected: &mut Collected) -> Result<(), ImageError> {
    for entry in fs::read_dir(dir).context(|| format!("cannot read {dir:?}"))? {
        let path = entry.context(|| format!("cannot read {dir:?}"))?.path();
        if keep.contains(&path) {
            continue;
        }
        let removed = if path.is_dir() {
            let scratch = blobs.scratch();
            fs::rename(&path, &scratch).and_then(|()| fs::remove_dir_all(&scratch))
        } else {
            collected.bytes += fs::metadata(&path).map(|metadata| metadata.len()).unwrap_or(0);
            fs::remove_file(&path)
        };
        removed.context(|| format!("cannot remove {path:?}"))?;
        collected.objects += 1;
    }
    Ok(())
}

/// Writes every image's names into it.
fn named(mut state: State) -> State {
    let mut names: HashMap<&str, (BTreeSet<String>, BTreeSet<String>)> = HashMap::new();
    for (text, name) in &state.names {
        let (tags, digests) = names.entry(&name.manifest).or_default();
        if let Some((repository, _)) = text.split_once('@') {
            digests.insert(format!("{repository}@{}", name.target));
        } else {
            tags.insert(text.clone());
            let repository = text.rsplit_once(':').map_or(text.as_str(), |(repository, _)| repository);
            digests.insert(format!("{repository}@{}", name.target));
        }
    }
    for (digest, image) in &mut state.images {
        let (tags, digests) = names.remove(digest.as_str()).unwrap_or_default();
        let (tags, digests): (Vec<_>, Vec<_>) = (tags.into_iter().collect(), digests.into_iter().collect());
        if image.repo_tags != tags || image.repo_digests != digests {
            *image = Arc::new(Image { repo_tags: tags, repo_digests: digests, ..(**image).clone() });
        }
    }
    state
}
