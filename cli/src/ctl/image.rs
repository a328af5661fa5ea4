//! Names of images.

use std::sync::OnceLock;

use regex::Regex;

/// Whether a text names an image: a registry, a path, a tag and a digest, of which the path is needed.
pub fn is_valid(name: &str) -> bool {
    static SHAPE: OnceLock<Option<Regex>> = OnceLock::new();
    let shape = SHAPE.get_or_init(|| {
        let host = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
        let domain = format!(r"(?:{host}(?:\.{host})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?");
        let part = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
        let tag = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
        let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
        Regex::new(&format!("^(?:{domain}/)?{part}(?:/{part})*(?::{tag})?(?:@{digest})?$")).ok()
    });
    // The expression is a constant: it compiles, as the test shows.
    shape.as_ref().is_none_or(|shape| shape.is_match(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_their_names() {
        for good in [
            "busybox",
            "busybox:1.35",
            "r.io:5000/a/b_c:x@sha256:0123456789abcdef0123456789abcdef",
            "Host/a",
            "[::1]:5000/a",
        ] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "Busybox", "a b", "busybox:", "a//b", "-a", "a:b:c", "busybox@sha256:12"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
