//! Registry credentials from `imagePullSecrets`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::ImageError;
use super::blobs::hex;
use super::reference::{DEFAULT_REGISTRY, Reference};

/// What to show a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Basic(String, String),
    Token(String),
}

/// Registry credentials of a pod, from its `imagePullSecrets`. Never printed.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Host, perhaps with port, path prefix and `*` labels; and the login.
    entries: Vec<(String, Login)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials for {} registries", self.entries.len())
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

impl Credentials {
    /// Adds the content of a Secret of type `kubernetes.io/dockerconfigjson` (key `.dockerconfigjson`).
    pub fn add_docker_config_json(&mut self, json: &[u8]) -> Result<(), ImageError> {
        let config: DockerConfig = parse(json)?;
        self.add(config.auths)
    }

    /// Adds the content of a Secret of type `kubernetes.io/dockercfg` (key `.dockercfg`).
    pub fn add_dockercfg(&mut self, json: &[u8]) -> Result<(), ImageError> {
        let auths: BTreeMap<String, Auth> = parse(json)?;
        self.add(auths)
    }

    fn add(&mut self, auths: BTreeMap<String, Auth>) -> Result<(), ImageError> {
        for (key, auth) in auths {
            if let Some(login) = auth.login(&key)? {
                self.entries.push((normalise(&key), login));
            }
        }
        Ok(())
    }

    /// Logins for an image, the most particular first.
    pub(crate) fn matching(&self, reference: &Reference) -> Vec<Login> {
        let mut found: Vec<&(String, Login)> =
            self.entries.iter().filter(|(pattern, _)| matches(pattern, reference)).collect();
        found.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
        found.into_iter().map(|(_, login)| login.clone()).collect()
    }

    /// Two pulls may share their work only if they show the same credentials.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        for (pattern, login) in &self.entries {
            let (kind, name, secret) = match login {
                Login::Basic(name, password) => ("basic", name.as_str(), password.as_str()),
                Login::Token(token) => ("token", "", token.as_str()),
            };
            for part in [pattern.as_str(), kind, name, secret] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        hex(&hasher.finalize())
    }
}

fn parse<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, ImageError> {
    // The parser's message would quote the secret.
    serde_json::from_slice(json)
        .map_err(|_| ImageError::malformed("an image pull secret is not a docker configuration"))
}

impl Auth {
    fn login(self, registry: &str) -> Result<Option<Login>, ImageError> {
        if let Some(token) = self.registrytoken.filter(|token| !token.is_empty()) {
            return Ok(Some(Login::Token(token)));
        }
        if let Some(encoded) = self.auth.filter(|auth| !auth.is_empty()) {
            let bad =
                || ImageError::malformed(format!("the image pull secret's auth for {registry} is not user:password"));
            let decoded = STANDARD.decode(encoded.trim_end_matches('\0')).map_err(|_| bad())?;
            let decoded = String::from_utf8(decoded).map_err(|_| bad())?;
            let (user, password) = decoded.split_once(':').ok_or_else(bad)?;
            return Ok(Some(Login::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned())));
        }
        match (self.username, self.password, self.identitytoken) {
            (Some(user), Some(password), _) if !user.is_empty() => Ok(Some(Login::Basic(user, password))),
            (_, _, Some(token)) if !token.is_empty() => Ok(Some(Login::Basic("<token>".into(), token))),
            _ => Ok(None),
        }
    }
}

/// `https://index.docker.io/v1/` and the like become `docker.io`.
fn normalise(key: &str) -> String {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        other => other,
    };
    match path {
        "" | "v1" | "v2" => host.to_owned(),
        path => format!("{host}/{path}"),
    }
}

fn matches(pattern: &str, reference: &Reference) -> bool {
    let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (pattern_host, pattern_port) = host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port)));
    let (image_host, image_port) = match reference.registry().rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => (host, Some(port)),
        _ => (reference.registry(), None),
    };
    let labels = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (wanted, have) = (labels(pattern_host), labels(image_host));
    pattern_port == image_port
        && wanted.len() == have.len()
        && wanted.iter().zip(&have).all(|(wanted, have)| glob(wanted, have))
        && (path.is_empty()
            || reference.repository() == path
            || reference.repository().strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
}

/// `*` within one label.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text
            .strip_prefix(start)
            .is_some_and(|tail| (0..=tail.len()).any(|at| tail.is_char_boundary(at) && glob(rest, &tail[at..]))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user(login: &Login) -> &str {
        match login {
            Login::Basic(user, _) => user,
            Login::Token(_) => "token",
        }
    }

    #[test]
    fn the_most_particular_login_comes_first() {
        let auth = |user: &str| STANDARD.encode(format!("{user}:secret"));
        let json = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},"*.example.com":{{"auth":"{}"}},
               "reg.example.com/team":{{"username":"team","password":"x"}},"127.0.0.1:5000":{{"auth":"{}"}}}}}}"#,
            auth("hub"),
            auth("wild"),
            auth("local")
        );
        let mut credentials = Credentials::default();
        credentials.add_docker_config_json(json.as_bytes()).unwrap();
        for (image, users) in [
            ("busybox", vec!["hub"]),
            ("reg.example.com/team/app", vec!["team", "wild"]),
            ("reg.example.com/teamster/app", vec!["wild"]),
            ("a.b.example.com/app", vec![]),
            ("127.0.0.1:5000/app", vec!["local"]),
            ("127.0.0.1:5001/app", vec![]),
        ] {
            let logins = credentials.matching(&Reference::parse(image).unwrap());
            assert_eq!(logins.iter().map(user).collect::<Vec<_>>(), users, "{image}");
        }
    }

    #[test]
    fn a_bad_secret_is_refused_without_quoting_it() {
        let mut credentials = Credentials::default();
        let error = credentials.add_docker_config_json(br#"{"auths":{"x":{"auth":"geheim!"}}}"#).unwrap_err();
        assert!(!error.to_string().contains("geheim"));
        let error = credentials.add_docker_config_json(b"geheim").unwrap_err();
        assert!(!error.to_string().contains("geheim"));
    }
}
