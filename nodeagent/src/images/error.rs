//! What can go wrong with images, in the kubelet's vocabulary of reasons.

use std::path::PathBuf;

/// An error of the image store. [`ImageError::reason`] gives the word that goes into a container's waiting state.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference does not follow the grammar.
    #[error("couldn't parse image name {reference:?}: {message}")]
    InvalidName {
        /// What was asked for.
        reference: String,
        /// What is wrong with it.
        message: String,
    },
    /// The image is not in the store and the policy forbids pulling it.
    #[error("Container image {0:?} is not present with pull policy of Never")]
    NeverPull(String),
    /// The registry does not have it, or it may not be read.
    #[error("failed to pull image {reference:?}: {message}")]
    Pull {
        /// What was asked for.
        reference: String,
        /// The registry's answer in words.
        message: String,
    },
    /// A digest differs from what was promised.
    #[error("digest mismatch of {what}: expected {expected}, got {actual}")]
    Digest {
        /// What was checked.
        what: String,
        /// Promised digest.
        expected: String,
        /// Digest of the bytes.
        actual: String,
    },
    /// An archive or manifest is not well formed.
    #[error("{0}")]
    Malformed(String),
    /// The image is not made for this machine.
    #[error("no image for {platform} in {what}")]
    Platform {
        /// os/architecture of this machine.
        platform: String,
        /// Where it was looked for.
        what: String,
    },
    /// A path of a layer leads out of the layer, or is of a kind that cannot be unpacked.
    #[error("layer entry {path:?}: {message}")]
    Layer {
        /// Path inside the layer.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The store's directory is used by another process.
    #[error("image store {0:?} is in use by another process")]
    Locked(PathBuf),
    /// The operating system refused.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Someone else's pull of the same reference failed; this is its message.
    #[error("{message}")]
    Shared {
        /// Reason of the original error.
        reason: &'static str,
        /// Text of the original error.
        message: String,
    },
}

impl ImageError {
    /// The reason a kubelet would put into `state.waiting.reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidImageName",
            Self::NeverPull(_) => "ErrImageNeverPull",
            Self::Shared { reason, .. } => reason,
            _ => "ErrImagePull",
        }
    }

    /// Whether asking again can never help until somebody changes the pod.
    pub fn is_permanent(&self) -> bool {
        matches!(self.reason(), "InvalidImageName" | "ErrImageNeverPull")
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::Malformed(message.into())
    }
}

/// Adds what was being done to an I/O error.
pub(crate) trait IoContext<T> {
    /// The context is only made on failure.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, ImageError>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::Io { context: what(), source: source.into() })
    }
}
