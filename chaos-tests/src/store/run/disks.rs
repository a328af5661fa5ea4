//! A small disk for each member, which can be filled: ext4 in a file, or memory where that cannot be mounted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

use crate::command::run;

/// Bytes of one disk. Of these an eighth counts as little room.
const SIZE: u64 = 256 << 20;
/// What fills one up.
const BALLAST: &str = "ballast";
/// Mount points begin so; the process id follows.
const PREFIX: &str = "disk-of-";

/// The disks; they are unmounted when this is dropped.
#[derive(Debug)]
pub struct Disks {
    dir: PathBuf,
    members: u32,
}

impl Disks {
    /// Makes and mounts them in a folder.
    ///
    /// # Errors
    /// When this machine does not allow it.
    pub fn make(dir: &Path, members: u32) -> Result<Disks> {
        orphans();
        let disks = Disks { dir: dir.to_path_buf(), members };
        for member in 1..=members {
            let folder = disks.folder(member);
            fs::create_dir_all(&folder)?;
            if let Err(error) = in_a_file(&dir.join(format!("m{member}.disk")), &folder) {
                println!("a disk in memory: {error:#}");
                let options = format!("size={SIZE}");
                mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
                    .context("mounting a small disk; this has to run as root")?;
            }
        }
        Ok(disks)
    }

    /// Where a member's disk is.
    pub fn folder(&self, member: u32) -> PathBuf {
        self.dir.join(format!("{PREFIX}{}-m{member}", std::process::id()))
    }

    /// Fills a disk until so many bytes are free.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn fill(&self, member: u32, leave: u64) -> Result<()> {
        let folder = self.folder(member);
        let file = File::create(folder.join(BALLAST))?;
        let mut held = 0;
        // In pieces, since the member writes meanwhile and a file system needs a little for itself.
        for piece in [16 << 20, 1 << 20, 64 << 10, 4096] {
            loop {
                let stat = statvfs(&folder)?;
                let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
                if free < leave + piece || fallocate(&file, FallocateFlags::empty(), held as i64, piece as i64).is_err()
                {
                    break;
                }
                held += piece;
            }
        }
        ensure!(held > 0, "the disk of member {member} was full already");
        Ok(())
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn free(&self, member: u32) -> Result<()> {
        let ballast = self.folder(member).join(BALLAST);
        if ballast.exists() { fs::remove_file(&ballast).context("removing the ballast") } else { Ok(()) }
    }
}

impl Disks {
    /// Takes them away.
    pub fn unmount(&self) {
        for member in 1..=self.members {
            let _ = umount2(&self.folder(member), MntFlags::MNT_DETACH);
        }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn in_a_file(file: &Path, folder: &Path) -> Result<()> {
    File::create(file)?.set_len(SIZE)?;
    let mut make = Command::new("mkfs.ext4");
    run(make.args(["-q", "-F", "-m", "0", "-E", "nodiscard"]).arg(file))?.ok()?;
    run(Command::new("mount").args(["-o", "loop"]).arg(file).arg(folder))?.ok()?;
    Ok(())
}

/// Unmounts what runs left that were killed.
fn orphans() {
    for line in fs::read_to_string("/proc/mounts").unwrap_or_default().lines() {
        let place = line.split(' ').nth(1).unwrap_or_default();
        if let Some(pid) = run_of(place)
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            println!("unmounting {place}, which an earlier run left");
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}

/// The process that a mount point belongs to.
fn run_of(place: &str) -> Option<u32> {
    let rest = place.rsplit('/').next()?.strip_prefix(PREFIX)?;
    let (pid, member) = rest.split_once("-m")?;
    member.parse::<u32>().ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn disks_of_runs_are_told_from_others() {
        assert_eq!(run_of("/tmp/x/disk-of-4711-m2"), Some(4711));
        for other in ["/", "/tmp/disk-of-4711", "/tmp/disk-of-x-m2", "/tmp/disk-of-4711-m2/m2-1", ""] {
            assert_eq!(run_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_disk_is_filled_and_freed() {
        let folder = tempfile::tempdir().unwrap();
        let disks = Disks::make(folder.path(), 1).unwrap();
        let write = |name: &str| fs::write(disks.folder(1).join(name), vec![1; 1 << 20]);
        write("before").unwrap();
        disks.fill(1, 0).unwrap();
        let full = write("full").unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        disks.free(1).unwrap();
        write("after").unwrap();
        let place = disks.folder(1);
        drop(disks);
        assert!(!place.join("before").exists(), "it is unmounted");
    }
}
