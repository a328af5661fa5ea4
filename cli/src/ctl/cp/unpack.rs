//! Unpacking what a container sends. Nobody vouches for the container: nothing is written outside of the destination,
//! and links are not made.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, EntryType};

use super::super::errors::{CtlError, Result};

/// Where the files come from.
pub struct Source {
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// File or directory in it.
    pub path: String,
}

const TRUNCATED: &str = "the archive ends too early";

/// Whether an error says that the archive was not whole.
pub fn is_truncated(error: &CtlError) -> bool {
    matches!(error, CtlError::Plain(text) if text == TRUNCATED)
}

/// A path without `.`, `..` and double slashes, as far as that is possible without looking.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let rooted = path.starts_with('/');
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => drop(parts.pop()),
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// What every name in the archive begins with.
fn prefix(path: &str) -> String {
    let cleaned = clean(path.trim_start_matches('/'));
    let mut rest = cleaned.as_str();
    while let Some(inner) = rest.strip_prefix("../") {
        rest = inner;
    }
    if matches!(rest, "." | "..") { String::new() } else { rest.to_owned() }
}

/// Unpacks an archive of `source.path` to `target`.
pub fn unpack(source: &Source, target: &str, input: impl Read) -> Result<()> {
    let prefix = prefix(&source.path);
    let mut archive = Archive::new(input);
    let mut warned = false;
    for entry in archive.entries()? {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name).trim_end_matches('/').to_owned();
        let Some(rest) = inside(&name, &prefix) else {
            return Err(CtlError::plain("tar contents corrupted"));
        };
        let Some(path) = place(Path::new(target), rest) else {
            let outside = Path::new(target).join(rest.trim_start_matches('/'));
            eprintln!("warning: file {outside:?} is outside target destination, skipping");
            continue;
        };
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&path).map_err(|error| named(&path, &error))?,
            EntryType::Symlink | EntryType::Link => {
                if !warned {
                    let link = entry.link_name_bytes().unwrap_or_default().into_owned();
                    let link = String::from_utf8_lossy(&link).into_owned();
                    let Source { namespace, pod, path: from } = source;
                    eprintln!(
                        "warning: skipping symlink: {path:?} -> {link:?} (consider using \"trictl exec -n {namespace:?} \
                         {pod:?} -- tar cf - {from:?} | tar xf -\")"
                    );
                    warned = true;
                }
            }
            _ => {
                if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    fs::create_dir_all(parent).map_err(|error| named(parent, &error))?;
                }
                let mut file = fs::File::create(&path).map_err(|error| named(&path, &error))?;
                io::copy(&mut entry, &mut file).map_err(broken)?;
            }
        }
    }
    // The rest is padding; whoever sends it must not find the pipe closed.
    let _ = io::copy(&mut archive.into_inner(), &mut io::sink());
    Ok(())
}

/// What follows the prefix in a name of the archive.
fn inside<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = name.trim_start_matches('/').strip_prefix(prefix)?;
    Some(rest)
}

/// Where an entry belongs; `None` for one that would leave the destination.
fn place(target: &Path, rest: &str) -> Option<PathBuf> {
    let mut path = target.to_path_buf();
    let mut depth = 0;
    for part in Path::new(rest.trim_start_matches('/')).components() {
        match part {
            Component::Normal(name) => {
                path.push(name);
                depth += 1;
            }
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => {
                path.pop();
                depth -= 1;
            }
            _ => return None,
        }
    }
    Some(path)
}

fn broken(error: io::Error) -> CtlError {
    let truncated = error.kind() == io::ErrorKind::UnexpectedEof || error.to_string().contains("unexpected EOF");
    if truncated { CtlError::plain(TRUNCATED) } else { CtlError::Io(error) }
}

fn named(path: &Path, error: &io::Error) -> CtlError {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
    CtlError::plain(format!("open {}: {text}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::pack::pack;
    use super::*;
    use tar::{Builder, Header};

    fn source(path: &str) -> Source {
        Source { namespace: "n".into(), pod: "p".into(), path: path.into() }
    }

    /// An archive with names that a well-behaved program would not write.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            if *kind == EntryType::Symlink {
                header.set_link_name(content).unwrap();
                header.set_size(0);
            } else {
                header.set_size(content.len() as u64);
            }
            header.set_cksum();
            let content = if *kind == EntryType::Symlink { "" } else { content };
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn what_is_packed_comes_out_the_same() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let long = "n".repeat(150);
        fs::create_dir_all(from.path().join("a/empty")).unwrap();
        fs::write(from.path().join("a/file"), vec![7; 100_000]).unwrap();
        fs::write(from.path().join("a").join(&long), "long").unwrap();
        std::os::unix::fs::symlink("file", from.path().join("a/link")).unwrap();
        let mut bytes = Vec::new();
        pack(&from.path().join("a"), "renamed", &mut bytes).unwrap();
        let target = to.path().join("there");
        unpack(&source("/tmp/../renamed"), target.to_str().unwrap(), &bytes[..]).unwrap();
        assert_eq!(fs::read(target.join("file")).unwrap(), vec![7; 100_000]);
        assert_eq!(fs::read_to_string(target.join(long)).unwrap(), "long");
        assert!(target.join("empty").is_dir() && !target.join("link").exists());
        let error = unpack(&source("renamed"), target.to_str().unwrap(), &bytes[..70_000]).unwrap_err();
        assert!(is_truncated(&error), "{error:?}");
    }

    #[test]
    fn nothing_leaves_the_destination() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("in");
        let file = EntryType::Regular;
        let hostile = archive(&[
            ("x/../../out", file, "bad"),
            ("x/link", EntryType::Symlink, "/etc"),
            ("x/link/passwd", file, "kept inside"),
            ("x/good", file, "good"),
        ]);
        unpack(&source("x"), target.to_str().unwrap(), &hostile[..]).unwrap();
        assert!(!directory.path().join("out").exists());
        assert!(!target.join("link").is_symlink());
        assert_eq!(fs::read_to_string(target.join("link/passwd")).unwrap(), "kept inside");
        assert_eq!(fs::read_to_string(target.join("good")).unwrap(), "good");
        let foreign = archive(&[("etc/passwd", file, "bad")]);
        let error = unpack(&source("/tmp/x"), target.to_str().unwrap(), &foreign[..]).unwrap_err();
        assert_eq!(error.text(), "error: tar contents corrupted\n");
    }

    #[test]
    fn paths_are_cleaned() {
        assert_eq!(clean("/a//b/./../c/"), "/a/c");
        assert_eq!(clean("../../x"), "../../x");
        assert_eq!(clean("/../x"), "/x");
        assert_eq!(clean("./"), ".");
        assert_eq!(prefix("/tmp/x"), "tmp/x");
        assert_eq!(prefix("../../x"), "x");
        assert_eq!(prefix("."), "");
    }
}
