//! What tests share.

use std::path::PathBuf;

/// The folder with facts of upstream: `$TRIREME_FACTS`, or `../shared/kubernetes` beside the workspace.
pub(crate) fn facts_folder() -> PathBuf {
    match std::env::var_os("TRIREME_FACTS") {
        Some(folder) => folder.into(),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/kubernetes")),
    }
}
