//! A container's root file system: the image's layers below, a writable directory above.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use super::error::IoContext;
use super::{Image, ImageError};

/// What mount(2) takes as options, with the closing zero.
const PAGE: usize = 4096;

/// The directories of one container's root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Makes `upper`, `work` and `rootfs` under `container_dir`. Idempotent; blocking, but only a few mkdirs.
    pub fn create(image: &Image, container_dir: &Path) -> Result<Self, ImageError> {
        let dirs = Self {
            lower: image.layers.clone(),
            upper: container_dir.join("upper"),
            work: container_dir.join("work"),
            merged: container_dir.join("rootfs"),
        };
        for dir in [&dirs.upper, &dirs.work, &dirs.merged] {
            fs::create_dir_all(dir).context(|| format!("cannot make {dir:?}"))?;
        }
        // The root of the merged tree is the upper directory: it has to look like the image's.
        let (mode, owner) = match dirs.lower.first() {
            Some(top) => {
                let top = fs::metadata(top).context(|| format!("cannot read layer {top:?}"))?;
                (top.mode() & 0o7777, (top.uid(), top.gid()))
            }
            None => (0o755, (0, 0)),
        };
        chown(&dirs.upper, Some(owner.0), Some(owner.1)).context(|| format!("cannot own {:?}", dirs.upper))?;
        fs::set_permissions(&dirs.upper, fs::Permissions::from_mode(mode))
            .context(|| format!("cannot set the mode of {:?}", dirs.upper))?;
        Ok(dirs)
    }

    /// Mounts the overlay on `merged` in the caller's mount namespace. Plain system calls: fit for the shim.
    ///
    /// mount(2) takes one page of options. Where the paths do not fit, or hold a character that means something in
    /// options, the directories are opened and named `/proc/self/fd/N`: fit for 200 layers and more.
    pub fn mount(&self) -> Result<(), ImageError> {
        if self.lower.is_empty() {
            // overlayfs wants a layer below; an image without layers is an empty directory.
            return rustix::mount::mount_bind(&self.upper, &self.merged)
                .context(|| format!("cannot mount {:?}", self.merged));
        }
        let by_path = options(&self.lower, &self.upper, &self.work);
        if let Some(options) = by_path.filter(|options| options.len() < PAGE) {
            return self.overlay(&options);
        }
        let open = |path: &PathBuf| File::open(path).context(|| format!("cannot open {path:?}"));
        let lower = self.lower.iter().map(open).collect::<Result<Vec<File>, _>>()?;
        let (upper, work) = (open(&self.upper)?, open(&self.work)?);
        let name = |file: &File| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let lower: Vec<PathBuf> = lower.iter().map(name).collect();
        let by_fd = options(&lower, &name(&upper), &name(&work));
        match by_fd.filter(|options| options.len() < PAGE) {
            Some(options) => self.overlay(&options),
            None => Err(ImageError::malformed(format!("{} layers are too many to mount", self.lower.len()))),
        }
    }

    fn overlay(&self, options: &str) -> Result<(), ImageError> {
        let data = std::ffi::CString::new(options).map_err(|_| ImageError::malformed("a path holds a zero byte"))?;
        mount("overlay", &self.merged, "overlay", MountFlags::empty(), Some(data.as_c_str()))
            .context(|| format!("cannot mount the overlay on {:?} ({options})", self.merged))
    }
}

/// Mount options, or `None` if a path cannot be written in them.
fn options(lower: &[PathBuf], upper: &Path, work: &Path) -> Option<String> {
    let plain = |path: &Path| path.to_str().filter(|path| !path.contains([',', ':', '\\', '"'])).map(str::to_owned);
    let lower: Option<Vec<String>> = lower.iter().map(|path| plain(path)).collect();
    Some(format!("lowerdir={},upperdir={},workdir={}", lower?.join(":"), plain(upper)?, plain(work)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_do_not_get_into_options() {
        let (upper, work) = (Path::new("/u"), Path::new("/w"));
        let lower = [PathBuf::from("/top"), PathBuf::from("/base")];
        assert_eq!(options(&lower, upper, work).as_deref(), Some("lowerdir=/top:/base,upperdir=/u,workdir=/w"));
        assert_eq!(options(&[PathBuf::from("/a:b")], upper, work), None);
        assert_eq!(options(&[PathBuf::from("/a,b")], upper, work), None);
    }
}
