//! Which requests a proxy lets through: without this, any web page that is open in a browser could send some.

use regex::Regex;

use super::super::errors::{CtlError, Result};
use super::ProxyArgs;
use super::files::decode;

/// Regular expressions that requests have to match, or must not.
#[derive(Debug)]
pub struct Filter {
    accept_paths: Vec<Regex>,
    reject_paths: Vec<Regex>,
    accept_hosts: Vec<Regex>,
    reject_methods: Vec<Regex>,
}

fn expressions(text: &str) -> Result<Vec<Regex>> {
    let parts = text.split(',').filter(|_| !text.is_empty());
    parts.map(|part| Regex::new(part).map_err(|why| CtlError::plain(format!("Error compiling re: {why}")))).collect()
}

impl Filter {
    /// As the flags say.
    pub fn new(args: &ProxyArgs) -> Result<Filter> {
        Ok(Filter {
            accept_paths: expressions(&args.accept_paths)?,
            reject_paths: expressions(&args.reject_paths)?,
            accept_hosts: expressions(&args.accept_hosts)?,
            reject_methods: expressions(&args.reject_methods)?,
        })
    }

    /// Whether a request passes; the host is that of its header. The path is looked at as the server will read it, so that
    /// encoding hides nothing.
    pub fn passes(&self, method: &str, path: &str, host: &str) -> bool {
        decode(path).is_some_and(|path| self.accepts(method, &path, host))
    }

    fn accepts(&self, method: &str, path: &str, host: &str) -> bool {
        let any = |list: &[Regex], text: &str| list.iter().any(|expression| expression.is_match(text));
        !any(&self.reject_paths, path)
            && !any(&self.reject_methods, method)
            && any(&self.accept_paths, path)
            && any(&self.accept_hosts, without_port(host))
    }
}

/// The host without its port; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn usual() -> Filter {
        Filter::new(&ProxyArgs {
            accept_hosts: r"^localhost$,^127\.0\.0\.1$,^\[::1\]$".into(),
            accept_paths: "^.*".into(),
            reject_paths: "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach".into(),
            reject_methods: "^$".into(),
            ..ProxyArgs::default()
        })
        .unwrap()
    }

    #[test]
    fn only_this_machine_and_no_sessions() {
        let filter = usual();
        for host in ["localhost", "localhost:8001", "127.0.0.1:1", "[::1]", "[::1]:8001"] {
            assert!(filter.accepts("GET", "/api/v1/pods", host), "{host}");
        }
        for host in ["", "example.org", "localhost.example.org", "10.0.0.1:8001", "xlocalhost"] {
            assert!(!filter.accepts("GET", "/api/v1/pods", host), "{host}");
        }
        assert!(!filter.accepts("POST", "/api/v1/namespaces/a/pods/b/exec", "localhost"));
        assert!(!filter.accepts("POST", "/api/v1/namespaces/a/pods/b/attach", "localhost"));
        assert!(filter.accepts("POST", "/api/v1/namespaces/a/pods/b/portforward", "localhost"));
        for path in [
            "/api/v1/namespaces/a/pods/b/%65xec",
            "/api/v1/namespaces/a/%70ods/b/exec",
            "/%61pi/v1/x/pods/b/exec",
            "/%",
        ] {
            assert!(!filter.passes("POST", path, "localhost"), "{path}");
        }
        assert!(filter.passes("GET", "/api/v1/namespaces/a/pods/b%2Dc", "localhost"));
    }

    #[test]
    fn methods_and_mistakes() {
        let args = ProxyArgs {
            accept_hosts: "^.*$".into(),
            accept_paths: "^/api".into(),
            reject_methods: "POST,PUT".into(),
            ..ProxyArgs::default()
        };
        let filter = Filter::new(&args).unwrap();
        assert!(filter.accepts("GET", "/api", "anywhere") && !filter.accepts("PUT", "/api", "anywhere"));
        assert!(!filter.accepts("GET", "/version", "anywhere"));
        assert!(Filter::new(&ProxyArgs { accept_hosts: "(".into(), ..args }).is_err());
    }
}
