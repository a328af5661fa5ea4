//! What is mounted where, as this process sees it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::mount::{MntFlags, umount2};

/// How many mounts one mount point may carry, one above the other.
const LAYERS: usize = 16;

/// All mount points, parents first.
///
/// # Errors
/// If the kernel's list cannot be read.
pub fn points() -> io::Result<Vec<PathBuf>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Unmounts the chosen ones of all mount points, the last first, until nothing more is chosen; how many mounts that were.
///
/// # Errors
/// That of the first one that cannot be unmounted; it is named.
pub fn undo(choose: impl Fn(Vec<PathBuf>) -> Vec<PathBuf>) -> io::Result<usize> {
    let mut count = 0;
    for _ in 0..LAYERS {
        let chosen = choose(points()?);
        if chosen.is_empty() {
            break;
        }
        for point in chosen.iter().rev() {
            umount2(point, MntFlags::MNT_DETACH).map_err(|errno| {
                let kind = io::Error::from(errno).kind();
                io::Error::new(kind, format!("cannot unmount {}: {}", point.display(), errno.desc()))
            })?;
            count += 1;
        }
    }
    Ok(count)
}

fn parse(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescape).collect()
}

/// Undoes the octal escapes of the kernel's lists of mounts.
#[must_use]
pub fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read() {
        let text = b"22 1 0:20 / / rw - ext4 /dev/a rw\n23 22 0:21 / /var/lib/a\\040b\\134c rw - tmpfs tmpfs rw\n";
        assert_eq!(parse(text), [PathBuf::from("/"), PathBuf::from("/var/lib/a b\\c")]);
    }
}
