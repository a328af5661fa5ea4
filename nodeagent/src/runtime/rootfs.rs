//! A container's root file system: the overlay mount, and what must be looked up inside it.
//!
//! Images come from strangers: a symbolic link in one must not lead a lookup out of the root, so everything here
//! opens paths with the root as a wall.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};

/// User and groups of a process, as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// Mounts an image's layers (uppermost first) with a writable layer on top.
pub(crate) fn mount_overlay(layers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    for directory in [upper, work, target] {
        fs::create_dir_all(directory)?;
    }
    // The options of a mount must fit into one page, however many and long the layers' paths are: descriptors are short.
    let mut held: Vec<OwnedFd> = Vec::new();
    let mut short = |path: &Path| -> io::Result<String> {
        let fd = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| io::Error::other(format!("{}: {errno}", path.display())))?;
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        held.push(fd);
        Ok(name)
    };
    let mut lower = Vec::new();
    for layer in layers {
        lower.push(short(layer)?);
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), short(upper)?, short(work)?);
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|errno| io::Error::other(format!("overlay mount on {}: {errno}", target.display())))
}

/// Takes a mount away; one that is not there is no error.
pub(crate) fn unmount(target: &Path) {
    let _ = umount2(target, MntFlags::MNT_DETACH);
}

fn open_in(root: &OwnedFd, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(root, relative, how)?)
}

fn open_root(root: &Path) -> io::Result<OwnedFd> {
    Ok(open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn read_in(root: &OwnedFd, path: &str) -> Option<String> {
    let file = File::from(open_in(root, Path::new(path), OFlag::O_RDONLY).ok()?);
    let mut text = String::new();
    file.take(4 << 20).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Makes a directory and its parents inside a root.
pub(crate) fn make_directory(root: &Path, path: &Path) -> io::Result<()> {
    let root = open_root(root)?;
    if open_in(&root, path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok() {
        return Ok(());
    }
    let mut at = PathBuf::from("/");
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        let parent = open_in(&root, &at, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        at.push(name);
    }
    Ok(())
}

/// Turns what an image or a pod says about the user (`name`, `uid`, `name:group`, …) into numbers.
pub(crate) fn identity(root: &Path, user: &str, extra_groups: &[u32]) -> Result<Identity, String> {
    let root = open_root(root).map_err(|error| format!("root file system: {error}"))?;
    let passwd = read_in(&root, "/etc/passwd").unwrap_or_default();
    let group = read_in(&root, "/etc/group").unwrap_or_default();
    resolve(user, &passwd, &group, extra_groups)
}

fn resolve(user: &str, passwd: &str, group: &str, extra_groups: &[u32]) -> Result<Identity, String> {
    let (user, group_wanted) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| match number {
        Some(uid) => fields.get(2).and_then(|f| f.parse().ok()) == Some(uid),
        None => fields.first() == Some(&user),
    });
    let uid = match (number, &entry) {
        (Some(uid), _) => uid,
        (None, Some(fields)) => parse_field(fields, 2)?,
        (None, None) => return Err(format!("unable to find user {user}: no matching entries in passwd file")),
    };
    let groups_file = || group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let gid = match group_wanted {
        Some(wanted) => match (wanted.parse::<u32>(), groups_file().find(|fields| fields.first() == Some(&wanted))) {
            (Ok(gid), _) => gid,
            (Err(_), Some(fields)) => parse_field(&fields, 2)?,
            (Err(_), None) => {
                return Err(format!("unable to find group {wanted}: no matching entries in group file"));
            }
        },
        None => match &entry {
            Some(fields) => parse_field(fields, 3)?,
            None => 0,
        },
    };
    let name = entry.as_ref().and_then(|fields| fields.first().copied()).unwrap_or(user);
    let mut groups = extra_groups.to_vec();
    groups.push(gid);
    groups.extend(
        groups_file()
            .filter(|fields| fields.get(3).is_some_and(|members| members.split(',').any(|m| m.trim() == name)))
            .filter_map(|fields| fields.get(2)?.parse::<u32>().ok()),
    );
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid, gid, groups })
}

fn parse_field(fields: &[&str], index: usize) -> Result<u32, String> {
    fields.get(index).and_then(|f| f.parse().ok()).ok_or_else(|| "malformed passwd or group file".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:50:web,other\n";

    #[test]
    fn users_by_name_and_number() {
        let got = resolve("web", PASSWD, GROUP, &[7]).unwrap();
        assert_eq!(got, Identity { uid: 33, gid: 34, groups: vec![7, 34, 50] });
        assert_eq!(resolve("33", PASSWD, GROUP, &[]).unwrap().gid, 34);
        let unknown = resolve("1000", PASSWD, GROUP, &[]).unwrap();
        assert_eq!(unknown, Identity { uid: 1000, gid: 0, groups: vec![0] });
        assert_eq!(resolve("web:logs", PASSWD, GROUP, &[]).unwrap().gid, 50);
        assert_eq!(resolve("", "", "", &[]).unwrap(), Identity { uid: 0, gid: 0, groups: vec![0] });
        assert!(resolve("nobody", PASSWD, GROUP, &[]).is_err());
        assert!(resolve("web:none", PASSWD, GROUP, &[]).is_err());
    }

    #[test]
    fn links_do_not_lead_out() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        // The link's target does not exist inside the root, so making a directory below it fails or stays inside.
        let _ = make_directory(root.path(), Path::new("/link/made"));
        assert!(!outside.path().join("made").exists());
        make_directory(root.path(), Path::new("/a/b/c")).unwrap();
        assert!(root.path().join("a/b/c").is_dir());
    }
}
