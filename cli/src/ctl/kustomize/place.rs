//! Where a kustomization reads files: in its folder and below, unless files may be anywhere.

use std::path::{Path, PathBuf};

use super::super::errors::{CtlError, Result};
use super::super::print::os_reason;

/// The folder of a kustomization.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder, without links.
    pub root: PathBuf,
    /// The folder of the kustomization that is built.
    top: PathBuf,
    /// Files may be anywhere.
    free: bool,
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

impl Place {
    /// The folder of the kustomization that is built.
    pub fn top(folder: &Path, free: bool) -> Place {
        Place { root: real(folder), top: real(folder), free }
    }

    /// Another folder.
    pub fn within(&self, name: &str) -> Place {
        Place { root: real(&self.root.join(name)), ..self.clone() }
    }

    /// Whether there is a folder of this name.
    pub fn is_folder(&self, name: &str) -> bool {
        self.root.join(name).is_dir()
    }

    /// Whether there is something of this name.
    pub fn has(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    /// A file's contents.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.root.join(name);
        let failed = |error: std::io::Error| CtlError::plain(format!("open {}: {}", path.display(), os_reason(&error)));
        let file = path.canonicalize().map_err(failed)?;
        if !self.free && !file.starts_with(&self.root) {
            return Err(CtlError::plain(format!(
                "security; file '{}' is not in or below '{}'",
                file.display(),
                self.root.display()
            )));
        }
        std::fs::read(&path).map_err(failed)
    }

    /// A file's contents as text.
    pub fn text(&self, name: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.read(name)?).into_owned())
    }

    /// A file as seen from the kustomization that is built.
    pub fn seen_from_top(&self, name: &str) -> String {
        let (path, mut base, mut up) = (self.root.join(name), self.top.as_path(), String::new());
        loop {
            if let Ok(rest) = path.strip_prefix(base) {
                let plain: PathBuf = rest.components().filter(|part| part.as_os_str() != ".").collect();
                return format!("{up}{}", plain.display());
            }
            up.push_str("../");
            match base.parent() {
                Some(parent) => base = parent,
                None => return path.display().to_string(),
            }
        }
    }
}
