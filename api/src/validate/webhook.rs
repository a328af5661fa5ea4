//! Where a webhook is, and which versions of reviews it understands.

use super::common::Errors;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{has, int, list, text};
use serde_json::Value;

const FORM: &str = "; desired format: https://host[/path]";

/// A client configuration: a URL or a service.
pub(super) fn client(config: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (has(config, "url"), has(config, "service")) {
        (true, false) => url(text(config, "url"), &path.child("url"), errors),
        (false, true) => service(&config["service"], &path.child("service"), errors),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

/// The parts of a URL that are judged.
#[derive(Debug, Default, PartialEq, Eq)]
struct Url<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Url<'a> {
    /// Takes a URL apart as Go does, or says with its words why that cannot be.
    fn parse(text: &'a str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(format!("parse {text:?}: net/url: invalid control character in URL"));
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let named = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let (scheme, rest) = match rest.split_once(':') {
            Some(("", _)) => return wrong("missing protocol scheme"),
            Some((scheme, rest))
                if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(named) =>
            {
                (scheme, rest)
            }
            Some((before, _)) if !before.contains('/') => {
                return wrong("first path segment in URL cannot contain colon");
            }
            _ => ("", rest),
        };
        let authority = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or_default());
        let (user, host) = match authority.unwrap_or_default().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority.unwrap_or_default()),
        };
        if let Some(bad) = host.chars().find(|c| c.is_ascii() && " <>\"^`{|}\\".contains(*c)) {
            return wrong(&format!("invalid character {:?} in host name", bad.to_string()));
        }
        let port = match host.rsplit_once(']') {
            Some((_, after)) => after.strip_prefix(':'),
            None => host.split_once(':').map(|(_, port)| port),
        };
        if let Some(port) = port.filter(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
            return wrong(&format!("invalid port {:?} after host", format!(":{port}")));
        }
        Ok(Self { scheme, user, host, query, fragment })
    }
}

fn url(given: &str, path: &Path<'_>, errors: &mut Errors) {
    let url = match Url::parse(given) {
        Ok(url) => url,
        Err(why) => {
            errors.push(FieldError::required(path, &format!("url must be a valid URL: {why}{FORM}")));
            return;
        }
    };
    let mut invalid = |value: &str, why: &str| errors.push(FieldError::invalid(path, value, why));
    if !url.scheme.eq_ignore_ascii_case("https") {
        invalid(url.scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if url.host.is_empty() {
        invalid("", &format!("host must be specified{FORM}"));
    }
    if let Some(user) = url.user {
        invalid(user, "user information is not permitted in the URL");
    }
    if !url.fragment.is_empty() {
        invalid(url.fragment, "fragments are not permitted in the URL");
    }
    if !url.query.is_empty() {
        invalid(url.query, "query parameters are not permitted in the URL");
    }
}

fn service(service: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in ["name", "namespace"] {
        if text(service, key).is_empty() {
            errors.push(FieldError::required(&path.child(key), &format!("service {key} is required")));
        }
    }
    if let Some(port) = int(service, "port").filter(|port| !(1..=65535).contains(port)) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(&path.child("port"), port, detail));
    }
    service_path(text(service, "path"), &path.child("path"), errors);
}

fn service_path(given: &str, path: &Path<'_>, errors: &mut Errors) {
    let mut invalid = |why: &str| errors.push(FieldError::invalid(path, given, why));
    match given {
        "" | "/" => return,
        "//" => return invalid("segment[0] may not be empty"),
        _ => {}
    }
    if !given.starts_with('/') {
        invalid("must start with a '/'");
    }
    let steps = given.get(1..).unwrap_or_default();
    for (i, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            invalid(&format!("segment[{i}] may not be empty"));
            continue;
        }
        for why in names::dns1123_subdomain(step) {
            invalid(&format!("segment[{i}]: {why}"));
        }
    }
}

/// Versions of reviews: one at least that is spoken here, each once.
pub(super) fn review_versions(holder: &Value, key: &str, path: &Path<'_>, errors: &mut Errors) {
    let (versions, path) = (list(holder, key), path.child(key));
    if versions.is_empty() {
        errors.push(FieldError::required(&path, "must specify one of v1, v1beta1"));
        return;
    }
    for (i, version) in versions.iter().filter_map(Value::as_str).enumerate() {
        if versions[..i].iter().any(|other| other == version) {
            errors.push(FieldError::invalid(&path.index(i), version, "duplicate version"));
            continue;
        }
        for why in names::dns1035_label(version) {
            errors.push(FieldError::invalid(&path.index(i), version, &why));
        }
    }
    if !versions.iter().any(|version| *version == "v1" || *version == "v1beta1") {
        let detail = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(&path, versions.to_vec(), detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(config: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        client(config, &Path::new("c"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn urls() {
        let cases = [
            ("https://host/path", vec![]),
            ("HTTPS://[::1]:8443", vec![]),
            (
                "http://host",
                vec![
                    "c.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                ],
            ),
            (
                "https://",
                vec!["c.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]"],
            ),
            ("https://u:p@host", vec!["c.url: Invalid value: \"u:p\": user information is not permitted in the URL"]),
            ("https://host#f", vec!["c.url: Invalid value: \"f\": fragments are not permitted in the URL"]),
            ("https://host?q=1", vec!["c.url: Invalid value: \"q=1\": query parameters are not permitted in the URL"]),
            (
                "https://ho st",
                vec![
                    "c.url: Required value: url must be a valid URL: parse \"https://ho st\": invalid character \" \" in host name; desired format: https://host[/path]",
                ],
            ),
            (
                "https://host:x",
                vec![
                    "c.url: Required value: url must be a valid URL: parse \"https://host:x\": invalid port \":x\" after host; desired format: https://host[/path]",
                ],
            ),
            (
                ":",
                vec![
                    "c.url: Required value: url must be a valid URL: parse \":\": missing protocol scheme; desired format: https://host[/path]",
                ],
            ),
            (
                "é",
                vec![
                    "c.url: Invalid value: \"\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                    "c.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]",
                ],
            ),
        ];
        for (given, want) in cases {
            assert_eq!(told(&json!({"url": given})), want, "{given}");
        }
    }

    #[test]
    fn services() {
        let of = |path: &str| told(&json!({"service": {"name": "s", "namespace": "n", "path": path}}));
        for good in ["", "/", "/a", "/a/", "/a/b.c"] {
            assert_eq!(of(good), Vec::<String>::new(), "{good}");
        }
        assert_eq!(of("//"), ["c.service.path: Invalid value: \"//\": segment[0] may not be empty"]);
        assert_eq!(of("/a//b"), ["c.service.path: Invalid value: \"/a//b\": segment[1] may not be empty"]);
        assert!(of("a/b")[0].ends_with("must start with a '/'"));
        assert!(of("/A")[0].contains("segment[0]: a lowercase RFC 1123 subdomain"), "{:?}", of("/A"));
        assert!(of("é").iter().any(|why| why.ends_with("must start with a '/'")));
        let none = told(&json!({"service": {"port": 0}}));
        assert_eq!(none.len(), 3, "{none:?}");
        assert_eq!(told(&json!({})), ["c: Required value: exactly one of url or service is required"]);
    }
}
