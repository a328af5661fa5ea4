//! The node's images: a content-addressed store, filled from archives and registries.
//!
//! On disk: `blobs/sha256/` (manifests, configurations, compressed layers), `layers/` (one unpacked directory per
//! diff-id, ready for overlayfs and never changed), `index.json` (names), `tmp/` (what is being written; cleared at
//! start), `lock`. Everything is written under `tmp` or beside its target, synced, and renamed: after a crash an image is
//! there whole or not at all.

mod archive;
mod blobs;
pub mod build;
mod credentials;
mod error;
mod folder;
mod gc;
mod layer;
mod manifest;
mod reference;
mod registry;
mod rootfs;
mod store;
mod types;

pub use credentials::Credentials;
pub use error::ImageError;
pub use gc::{Ages, Disk, GcPolicy, Pin, Plan};
pub use reference::Reference;
pub use rootfs::RootfsDirs;
pub use store::Store;
pub use types::{Collected, Ensured, FolderReport, Image, ImageConfig, PullPolicy, StoreConfig};
