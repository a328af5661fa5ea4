//! Image references, as docker reads and completes them.

use std::fmt;

use super::ImageError;

/// A complete reference: `busybox` has become `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// The registry of names without one.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

impl Reference {
    /// Reads what a user wrote.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let bad = |message: &str| ImageError::InvalidName { reference: text.to_owned(), message: message.to_owned() };
        if text.is_empty() {
            return Err(bad("invalid reference format: it is empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(check_digest(digest).ok_or_else(|| bad("invalid digest"))?)),
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before belongs to the registry's port.
        let (name, tag) = match rest.rfind(':') {
            Some(colon) if !rest[colon..].contains('/') => (&rest[..colon], Some(&rest[colon + 1..])),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("invalid reference format: bad tag"));
        }
        let (registry, repository) = split_registry(name);
        if repository.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(bad("invalid reference format: repository name must be lowercase"));
        }
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if !is_registry(registry) || !repository.split('/').all(is_component) {
            return Err(bad("invalid reference format"));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(bad("repository name must not be more than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Host (and port) of the registry, `docker.io` for Docker's.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path inside the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag, if one was given or implied.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if pinned.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The name under which the store keeps it: a digest wins over a tag.
    pub fn canonical(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.name()),
            (None, Some(tag)) => format!("{}:{tag}", self.name()),
            (None, None) => self.name(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" || has_upper(host) => {
            // Docker's registry answers to two names.
            (if host == "index.docker.io" { DEFAULT_REGISTRY } else { host }, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn has_upper(text: &str) -> bool {
    text.chars().any(|c| c.is_ascii_uppercase())
}

fn is_registry(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            return address.parse::<std::net::Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok()
}

/// `[a-z0-9]+` parts joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if bytes.first().is_none_or(|b| !alnum(*b)) || bytes.last().is_none_or(|b| !alnum(*b)) {
        return false;
    }
    let mut separator = String::new();
    for &byte in bytes {
        if alnum(byte) {
            if !(matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')) {
                return false;
            }
            separator.clear();
        } else if matches!(byte, b'.' | b'_' | b'-') {
            separator.push(char::from(byte));
        } else {
            return false;
        }
    }
    true
}

/// Whether `text` can be a tag.
pub(crate) fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn check_digest(text: &str) -> Option<String> {
    super::blobs::hex_of(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let sha = "a".repeat(64);
        for (written, complete) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.35", "docker.io/library/busybox:1.35".into()),
            ("docker.io/busybox", "docker.io/library/busybox:latest".into()),
            ("index.docker.io/library/busybox", "docker.io/library/busybox:latest".into()),
            ("grafana/grafana", "docker.io/grafana/grafana:latest".into()),
            ("localhost/app", "localhost/app:latest".into()),
            ("localhost:5000/app:v1", "localhost:5000/app:v1".into()),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest".into()),
            ("[::1]:5000/app", "[::1]:5000/app:latest".into()),
            ("registry.k8s.io/e2e-test-images/agnhost:2.53", "registry.k8s.io/e2e-test-images/agnhost:2.53".into()),
            (&format!("busybox@sha256:{sha}"), format!("docker.io/library/busybox@sha256:{sha}")),
            (&format!("busybox:1.35@sha256:{sha}"), format!("docker.io/library/busybox@sha256:{sha}")),
            ("a__b/c--d.e", "docker.io/a__b/c--d.e:latest".into()),
        ] {
            assert_eq!(Reference::parse(written).unwrap().canonical(), complete, "{written}");
        }
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "a".repeat(256);
        for written in [
            "",
            "Busybox",
            "busybox:",
            "busybox:-x",
            "busybox@sha256:abc",
            "busybox@md5:abc",
            "a//b",
            "/a",
            "a/",
            "a___b",
            "a..b",
            "-a",
            "a b",
            "host:99999/a",
            "ho_st.x/a",
            "..",
            "../../etc",
            long.as_str(),
        ] {
            let error = Reference::parse(written).unwrap_err();
            assert_eq!(error.reason(), "InvalidImageName", "{written}");
        }
    }
}
