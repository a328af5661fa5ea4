//! Programs: those of the machine, and the cluster's own copy of this one.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::layout::Layout;

/// A program in `$PATH` or in the folders where administrators' programs are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|dir| dir.join(program))
        .find(|path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// Copies this executable into the cluster's folder, so that building anew does not disturb what runs.
pub fn install(layout: &Layout) -> anyhow::Result<()> {
    let target = layout.binary();
    let dir = layout.root.join("bin");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let this = std::env::current_exe().context("cannot find out which program this is")?;
    if !same(&this, &target) {
        let temporary = dir.join(".trireme.new");
        let copy = || -> std::io::Result<()> {
            fs::copy(&this, &temporary)?;
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755))?;
            // Kept, so that an unchanged build is recognised next time.
            let modified = fs::metadata(&this)?.modified()?;
            fs::File::options().write(true).open(&temporary)?.set_modified(modified)?;
            fs::rename(&temporary, &target)
        };
        copy().with_context(|| format!("cannot copy {} to {}", this.display(), target.display()))?;
    }
    let alias = dir.join("trictl");
    if fs::read_link(&alias).ok().as_deref() != Some(Path::new("trireme")) {
        let _ = fs::remove_file(&alias);
        std::os::unix::fs::symlink("trireme", &alias).with_context(|| format!("cannot make {}", alias.display()))?;
    }
    Ok(())
}

fn same(a: &Path, b: &Path) -> bool {
    let (Ok(a), Ok(b)) = (fs::metadata(a), fs::metadata(b)) else { return false };
    let identical = a.dev() == b.dev() && a.ino() == b.ino();
    identical || (a.len() == b.len() && a.modified().ok().is_some_and(|at| b.modified().ok() == Some(at)))
}

/// Makes the archive with the busybox image, if it is not there yet.
pub fn busybox_archive(layout: &Layout) -> anyhow::Result<()> {
    let dir = layout.images();
    let target = dir.join("busybox.tar");
    let busybox = find("busybox")
        .ok_or_else(|| anyhow!("busybox is missing; \"make deps\" installs it (Debian's busybox-static)"))?;
    let newer = |a: &Path, b: &Path| match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.modified().ok() >= b.modified().ok(),
        _ => false,
    };
    if newer(&target, &busybox) {
        return Ok(());
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let temporary = dir.join(".busybox.tar.new");
    trireme_nodeagent::images::build::busybox_archive(&busybox, &temporary)
        .with_context(|| format!("cannot make an image of {}", busybox.display()))?;
    fs::rename(&temporary, &target).with_context(|| format!("cannot write {}", target.display()))?;
    Ok(())
}
