//! What a request is about, read from method, path and query as upstream's RequestInfo.

use http::Method;

use super::query::Query;

/// A request taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// Whether the path is below `/api/V/` or `/apis/G/V/` and names a resource.
    pub(crate) is_resource: bool,
    /// get, list, watch, create, update, patch, delete, deletecollection; the lower-case method for other paths.
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) name: Option<String>,
    /// More path segments than any resource has.
    pub(crate) trailing: Vec<String>,
    pub(crate) path: String,
}

const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self { path: path.to_owned(), verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        let parts: Vec<String> = path.trim_matches('/').split('/').map(percent_decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.resource_parts(method, rest, query);
        info
    }

    /// The same of a whole request.
    pub(crate) fn of<B>(request: &http::Request<B>) -> Self {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        Self::parse(request.method(), request.uri().path(), &query)
    }

    fn resource_parts(&mut self, method: &Method, mut parts: &[&str], query: &Query) {
        let mut legacy_watch = false;
        if parts.len() > 1 && parts[0] == "watch" {
            legacy_watch = true;
            parts = &parts[1..];
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            self.namespace = Some(parts[1].to_owned());
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts = &parts[2..];
            } else {
                // A request about the namespace itself; authorization sees it as inside its own namespace.
                self.namespace = None;
            }
        }
        self.resource = parts[0].to_owned();
        self.name = parts.get(1).map(|n| (*n).to_owned());
        self.subresource = parts.get(2).map(|s| (*s).to_owned()).unwrap_or_default();
        self.trailing = parts.iter().skip(3).map(|s| (*s).to_owned()).collect();
        let named = self.name.is_some();
        self.verb = match *method {
            Method::GET | Method::HEAD if legacy_watch => "watch",
            Method::GET | Method::HEAD if named => "get",
            Method::GET | Method::HEAD if query.flag("watch") => "watch",
            Method::GET | Method::HEAD => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ => "",
        }
        .to_owned();
        // `?watch` on a named object is served as a watch of that one object, like upstream.
        if self.verb == "get" && self.subresource.is_empty() && query.flag("watch") {
            self.verb = "watch".to_owned();
        }
    }
}

/// Undoes %XX; invalid escapes are kept as they are.
pub(crate) fn percent_decode(text: &str) -> String {
    decode_bytes(text, false)
}

pub(crate) fn decode_bytes(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
        match bytes[i] {
            b'%' if i + 2 < bytes.len() => match (hex(bytes[i + 1]), hex(bytes[i + 2])) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    i += 3;
                    continue;
                }
                _ => out.push(b'%'),
            },
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(other),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, uri: &str) -> RequestInfo {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    #[test]
    fn verbs_and_parts() {
        let i = parse(Method::GET, "/api/v1/namespaces/default/pods/web/log?follow=true");
        assert_eq!((i.verb.as_str(), i.resource.as_str(), i.subresource.as_str()), ("get", "pods", "log"));
        assert_eq!((i.namespace.as_deref(), i.name.as_deref()), (Some("default"), Some("web")));
        let i = parse(Method::GET, "/apis/apps/v1/deployments?watch=1");
        assert_eq!((i.verb.as_str(), i.group.as_str(), i.namespace.as_deref()), ("watch", "apps", None));
        let i = parse(Method::PUT, "/api/v1/namespaces/x/finalize");
        assert_eq!(
            (i.resource.as_str(), i.name.as_deref(), i.subresource.as_str()),
            ("namespaces", Some("x"), "finalize")
        );
        assert_eq!(parse(Method::DELETE, "/api/v1/namespaces/x/pods").verb, "deletecollection");
        assert_eq!(parse(Method::GET, "/api/v1/namespaces").verb, "list");
        assert_eq!(parse(Method::GET, "/api/v1/watch/namespaces/x/pods").verb, "watch");
        assert!(!parse(Method::GET, "/apis/apps/v1").is_resource);
        assert!(!parse(Method::GET, "/healthz").is_resource);
        assert_eq!(parse(Method::GET, "/api/v1/namespaces/a%2Fb/pods").namespace.as_deref(), Some("a/b"));
    }
}
