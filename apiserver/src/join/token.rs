//! Tokens: upstream's bootstrap token Secrets, checked in constant time.

use std::net::IpAddr;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::Value;
use sha2::{Digest, Sha256};
use trireme_api::status::Status;

use super::Join;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Master,
    Node,
}

impl Role {
    fn group(self) -> &'static str {
        match self {
            Role::Master => "system:bootstrappers:trireme:masters",
            Role::Node => "system:bootstrappers:trireme:nodes",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Node => "node",
        }
    }
}

/// Why a token is not accepted.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// Wrong id, wrong secret or malformed: which of them is not told.
    Unknown,
    Expired,
    NotForJoining,
    OtherRole,
}

/// Checks the request's token; its id on success, for the log.
pub(super) async fn check(join: &Join, headers: &HeaderMap, from: IpAddr, role: Role) -> Result<String, Status> {
    let now = Instant::now();
    if let Some(seconds) = join.limiter.blocked(from, now) {
        let message = format!("too many wrong tokens from {from}; try again in {seconds} s");
        return Err(Status::too_many_requests(&message, seconds));
    }
    let refusal = match bearer(headers) {
        Some((id, secret)) => {
            let path = format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}");
            let stored = join.object(&path).await?;
            match judge(stored.as_ref(), id, secret, role, jiff::Timestamp::now()) {
                Ok(()) => return Ok(id.to_owned()),
                Err(refusal) => refusal,
            }
        }
        None => Refusal::Unknown,
    };
    tracing::warn!(%from, ?refusal, role = role.name(), "join refused");
    Err(match refusal {
        Refusal::Unknown => {
            join.limiter.failed(from, now);
            Status::unauthorized("the join token is not known to this cluster; make one with \"trireme token create\"")
        }
        Refusal::Expired => {
            Status::unauthorized("the join token has expired; make a new one with \"trireme token create\"")
        }
        Refusal::NotForJoining => Status::unauthorized("the token is not meant for joining a cluster"),
        Refusal::OtherRole => Status::forbidden(
            "",
            "",
            "",
            &format!(
                "this token does not allow joining as a {0}; make one with \"trireme token create --role {0}\"",
                role.name()
            ),
        ),
    })
}

/// `id` and `secret` of `Authorization: Bearer id.secret`, if they have the form of a bootstrap token.
fn bearer(headers: &HeaderMap) -> Option<(&str, &str)> {
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.trim();
    let (id, secret) = token.split_once('.')?;
    let fits = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (fits(id, 6) && fits(secret, 16)).then_some((id, secret))
}

fn judge(secret: Option<&Value>, id: &str, given: &str, role: Role, now: jiff::Timestamp) -> Result<(), Refusal> {
    let field = |name: &str| -> Option<String> {
        let encoded = secret?.get("data")?.get(name)?.as_str()?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
    };
    let typed = secret.and_then(|s| s.get("type")).and_then(Value::as_str) == Some("bootstrap.kubernetes.io/token");
    // Compared also when there is nothing to compare with, so that the time taken does not tell whether the id exists.
    let expected = field("token-secret").unwrap_or_default();
    let equal = same(&expected, given);
    if !typed || !equal || expected.is_empty() || field("token-id").as_deref() != Some(id) {
        return Err(Refusal::Unknown);
    }
    if let Some(expiration) = field("expiration") {
        // Unreadable counts as expired: a token must not live longer than its maker wanted.
        if expiration.parse::<jiff::Timestamp>().map_or(true, |at| at <= now) {
            return Err(Refusal::Expired);
        }
    }
    if field("usage-bootstrap-authentication").as_deref() != Some("true") {
        return Err(Refusal::NotForJoining);
    }
    let groups = field("auth-extra-groups").unwrap_or_default();
    if groups.split(',').any(|group| group.trim() == role.group()) { Ok(()) } else { Err(Refusal::OtherRole) }
}

/// Equality in time that depends on neither text: digests are compared, all bytes of them.
fn same(a: &str, b: &str) -> bool {
    let (a, b) = (Sha256::digest(a), Sha256::digest(b));
    a.iter().zip(b.iter()).fold(0u8, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn secret(expiration: &str, group: &str) -> Value {
        let encode = |text: &str| STANDARD.encode(text);
        serde_json::json!({
            "type": "bootstrap.kubernetes.io/token",
            "data": {
                "token-id": encode("abcdef"),
                "token-secret": encode("0123456789abcdef"),
                "expiration": encode(expiration),
                "usage-bootstrap-authentication": encode("true"),
                "auth-extra-groups": encode(group),
            }
        })
    }

    #[test]
    fn tokens_are_judged() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let (later, earlier) = ("2026-01-01T01:00:00Z", "2025-12-31T23:59:59Z");
        let nodes = "system:bootstrappers:trireme:nodes";
        let good = "0123456789abcdef";
        let judge = |s: Option<&Value>, given, role| judge(s, "abcdef", given, role, now);
        assert_eq!(judge(Some(&secret(later, nodes)), good, Role::Node), Ok(()));
        assert_eq!(judge(Some(&secret(later, nodes)), good, Role::Master), Err(Refusal::OtherRole));
        assert_eq!(judge(Some(&secret(later, nodes)), "0123456789abcdeX", Role::Node), Err(Refusal::Unknown));
        assert_eq!(judge(Some(&secret(earlier, nodes)), good, Role::Node), Err(Refusal::Expired));
        assert_eq!(judge(Some(&secret("soon", nodes)), good, Role::Node), Err(Refusal::Expired));
        // Whoever does not know the secret does not learn that the token has expired either.
        assert_eq!(judge(Some(&secret(earlier, nodes)), "x", Role::Node), Err(Refusal::Unknown));
        assert_eq!(judge(None, good, Role::Node), Err(Refusal::Unknown));
        assert_eq!(judge(Some(&serde_json::json!({"data": {}})), "", Role::Node), Err(Refusal::Unknown));
        let mut opaque = secret(later, nodes);
        opaque["type"] = "Opaque".into();
        assert_eq!(judge(Some(&opaque), good, Role::Node), Err(Refusal::Unknown));
    }

    #[test]
    fn only_well_formed_tokens_reach_the_store() {
        let header = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, text.parse().unwrap());
            headers
        };
        assert_eq!(bearer(&header("Bearer abcdef.0123456789abcdef")), Some(("abcdef", "0123456789abcdef")));
        for bad in [
            "abcdef.0123456789abcdef",
            "Bearer abcdef",
            "Bearer ../..x.0123456789abcdef",
            "Bearer ABCDEF.0123456789abcdef",
        ] {
            assert_eq!(bearer(&header(bad)), None, "{bad}");
        }
    }
}
