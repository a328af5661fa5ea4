//! The values that the image store hands out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the store lives and what it may do.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The store's own directory; made when missing.
    pub dir: PathBuf,
    /// Registry hosts (`host` or `host:port`) besides loopback ones that are spoken to in plain HTTP.
    pub plain_http_registries: Vec<String>,
    /// PEM certificates of further authorities that registries may be signed by.
    pub extra_ca_pem: Vec<Vec<u8>>,
    /// Pulls that run at the same time; others wait.
    pub max_concurrent_pulls: usize,
    /// An unpacked layer may not hold more bytes than this.
    pub max_layer_bytes: u64,
    /// An archive may not hold more bytes than this once decompressed.
    pub max_archive_bytes: u64,
    /// Nothing heard from a registry for this long ends a pull.
    pub read_timeout: Duration,
}

impl StoreConfig {
    /// Defaults for a store in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            plain_http_registries: Vec::new(),
            extra_ca_pem: Vec::new(),
            max_concurrent_pulls: 3,
            max_layer_bytes: 64 << 30,
            max_archive_bytes: 256 << 30,
            read_timeout: Duration::from_secs(60),
        }
    }
}

/// The part of an image's configuration that running a container needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageConfig {
    /// `user[:group]`, names or numbers; empty is root.
    #[serde(deserialize_with = "null_as_default")]
    pub user: String,
    /// `KEY=value` lines.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// The command's first part.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// The command's rest, or all of it.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// Directory to start in; empty is `/`.
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// `port/protocol` to an empty object.
    #[serde(deserialize_with = "null_as_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Paths that the image wants as volumes.
    #[serde(deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Labels.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the container to end, name or number; `None` is SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// Docker writes `null` where nothing is set.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An image in the store, complete and unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of the image's manifest for this platform (`sha256:…`).
    pub digest: String,
    /// Digest of the configuration: what CRI calls the image's id.
    pub config_digest: String,
    /// How to run it.
    pub config: ImageConfig,
    /// Unpacked layers, **topmost first**: overlayfs' order of `lowerdir`.
    pub layers: Vec<PathBuf>,
    /// Bytes of the blobs, as registries count them.
    pub size: u64,
    /// `docker.io/library/busybox:latest` …
    pub repo_tags: Vec<String>,
    /// `docker.io/library/busybox@sha256:…` …
    pub repo_digests: Vec<String>,
}

impl Image {
    /// What goes into `containerStatus.imageID`: a name with digest where there is one, else the bare id.
    pub fn image_id(&self) -> String {
        self.repo_digests.first().cloned().unwrap_or_else(|| self.config_digest.clone())
    }

    /// All names as `node.status.images[].names` has them: digests first.
    pub fn names(&self) -> Vec<String> {
        self.repo_digests.iter().chain(&self.repo_tags).cloned().collect()
    }
}

/// A container's `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry each time, except for names that came from an archive: those stand for themselves.
    Always,
    /// Pull only what is missing.
    IfNotPresent,
    /// Never pull.
    Never,
}

impl PullPolicy {
    /// From the API's word; what is unknown or absent counts as `IfNotPresent`.
    pub fn from_api(word: Option<&str>) -> Self {
        match word {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            _ => Self::IfNotPresent,
        }
    }
}

/// What [`crate::images::Store::ensure`] found or did.
#[derive(Debug)]
pub struct Ensured {
    /// The image.
    pub image: std::sync::Arc<Image>,
    /// Whether a registry was asked (the event then says "Successfully pulled").
    pub pulled: bool,
    /// How long that took, waiting included.
    pub took: Duration,
    /// Keeps the image until a container's record does.
    pub pin: super::Pin,
}

/// What an import of a folder did.
#[derive(Debug, Default)]
pub struct FolderReport {
    /// References that are there now, by archive.
    pub imported: Vec<(PathBuf, Vec<String>)>,
    /// Archives that could not be imported. The others are not harmed.
    pub failed: Vec<(PathBuf, super::ImageError)>,
}

/// What a garbage collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images whose last name was removed.
    pub images: usize,
    /// Files and layer directories removed.
    pub objects: usize,
    /// Bytes freed, as far as known.
    pub bytes: u64,
}
