//! Image store: import, pull, unpack.

mod error;
mod types;

pub use error::ImageError;
pub use types::{Collected, Ensured, FolderReport, Image, ImageConfig, PullPolicy, StoreConfig};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Registry credentials of a pod, from its `imagePullSecrets`.
#[derive(Clone, Default)]
pub struct Credentials {}
impl Credentials {
    /// Adds the content of a Secret of type `kubernetes.io/dockerconfigjson` (key `.dockerconfigjson`).
    pub fn add_docker_config_json(&mut self, _json: &[u8]) -> Result<(), ImageError> {
        Ok(())
    }
    /// Adds the content of a Secret of type `kubernetes.io/dockercfg` (key `.dockercfg`).
    pub fn add_dockercfg(&mut self, _json: &[u8]) -> Result<(), ImageError> {
        Ok(())
    }
}

/// The image store of one node: a cheap handle.
#[derive(Clone)]
pub struct Store {}
impl Store {
    /// Opens or makes the store; clears what a crash left half-done.
    pub async fn open(_config: StoreConfig) -> Result<Store, ImageError> {
        Err(ImageError::malformed("not built yet"))
    }
    /// Imports an OCI-layout or docker-save archive (also gzip-compressed); gives the references it brought.
    pub async fn import_archive(&self, _path: &Path) -> Result<Vec<String>, ImageError> {
        Err(ImageError::malformed("not built yet"))
    }
    /// Imports every archive (`*.tar`, `*.tar.gz`, `*.tgz`) of a folder; unchanged ones are skipped.
    pub async fn import_folder(&self, _dir: &Path) -> Result<FolderReport, ImageError> {
        Err(ImageError::malformed("not built yet"))
    }
    /// Imports the folder, then again whenever it changes, until `shutdown`.
    pub async fn watch_folder(&self, _dir: PathBuf, _shutdown: CancellationToken) {}
    /// The image of that name (as a user writes it), if it is there. Does not block.
    pub fn resolve(&self, _reference: &str) -> Result<Option<Arc<Image>>, ImageError> {
        Ok(None)
    }
    /// All images, largest first, for `node.status.images`. Does not block.
    pub fn list(&self) -> Vec<Arc<Image>> {
        Vec::new()
    }
    /// Makes the image present as the policy says.
    pub async fn ensure(&self, _r: &str, _p: PullPolicy, _c: &Credentials) -> Result<Ensured, ImageError> {
        Err(ImageError::malformed("not built yet"))
    }
    /// Pulls from the registry. Concurrent pulls of one reference share the work.
    pub async fn pull(&self, _reference: &str, _c: &Credentials) -> Result<Arc<Image>, ImageError> {
        Err(ImageError::malformed("not built yet"))
    }
    /// Removes one name. Blobs go with the next garbage collection.
    pub async fn remove(&self, _reference: &str) -> Result<bool, ImageError> {
        Ok(false)
    }
    /// Removes what no reference needs. `in_use` is asked with an image's digest.
    pub async fn collect_garbage(
        &self,
        _in_use: impl Fn(&Image) -> bool + Send + 'static,
    ) -> Result<Collected, ImageError> {
        Ok(Collected::default())
    }
}

/// The directories of one container's root file system.
#[derive(Clone, Debug)]
pub struct RootfsDirs {
    /// Topmost first, as in [`Image::layers`].
    pub lower: Vec<PathBuf>,
    /// Holds what the container writes.
    pub upper: PathBuf,
    /// overlayfs' own scratch directory.
    pub work: PathBuf,
    /// Where it is mounted.
    pub merged: PathBuf,
}
impl RootfsDirs {
    /// Makes `upper`, `work` and `merged` under `container_dir`. Idempotent; blocking, but only three mkdirs.
    pub fn create(_image: &Image, _container_dir: &Path) -> Result<RootfsDirs, ImageError> {
        Err(ImageError::malformed("not built yet"))
    }
    /// Mounts the overlay on `merged` in the caller's mount namespace. Plain system calls: fit for the shim. Copes
    /// with as many layers as overlayfs does, whatever the length of the paths.
    pub fn mount(&self) -> Result<(), ImageError> {
        Err(ImageError::malformed("not built yet"))
    }
}

pub mod build {
    //! Makes image archives.
    use super::ImageError;
    use std::path::Path;
    /// Writes an OCI archive of a static busybox. Blocking.
    pub fn busybox_archive(_busybox: &Path, _out: &Path) -> Result<(), ImageError> {
        Err(ImageError::malformed("not built yet"))
    }
}
