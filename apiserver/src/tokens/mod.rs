//! Tokens of service accounts: who shows one is that account, for as long as the account and what the token is bound to exist.

pub(crate) mod jwt;

use serde_json::{Value, json};
use trireme_api::status::Status;
use trireme_api::value::text;

use crate::config::Config;
use crate::error::{ApiResult, ServerError, corrupt};
use crate::identity::{Caller, UserInfo};
use crate::request::info::RequestInfo;
use crate::request::query::Query;
use crate::server::ApiServer;
use jwt::{Claims, Reference, Signer};

/// How far clocks may be apart, in seconds.
const LEEWAY: i64 = 60;
const PREFIX: &str = "authentication.kubernetes.io/";

/// What is needed to issue and to check tokens.
pub(crate) struct Tokens {
    pub(crate) signer: Signer,
    pub(crate) issuer: String,
    /// Whom a token is for that is shown to this API.
    pub(crate) audiences: Vec<String>,
}

/// Whom a token proves its bearer to be.
pub(crate) struct Proven {
    pub(crate) user: UserInfo,
    /// Those of the wanted audiences that it is for.
    pub(crate) audiences: Vec<String>,
}

/// Why a token is not taken.
pub(crate) enum Refused {
    /// Nothing that this cluster has issued, or not for this audience, or not any more.
    Token(String),
    /// What it depends on cannot be looked up now.
    Unavailable(Status),
}

impl Tokens {
    pub(crate) fn new(config: &Config, key_pem: &str) -> Result<Self, ServerError> {
        let issuer = match &config.service_account_issuer {
            Some(issuer) => issuer.clone(),
            None => format!("https://kubernetes.default.svc.{}", config.cluster_domain),
        };
        let audiences = match config.api_audiences.as_slice() {
            [] => vec![issuer.clone()],
            given => given.to_vec(),
        };
        Ok(Self { signer: Signer::new(key_pem)?, issuer, audiences })
    }

    /// Where to find the keys, as OpenID Connect wants it told.
    pub(crate) fn configuration(&self, url: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", url.trim_end_matches('/')),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// What a token says that is ours, in time and for one of these audiences.
    fn check(&self, token: &str, wanted: &[String], now: i64) -> Result<(Claims, Vec<String>), String> {
        let claims = self.signer.verify(token).filter(|claims| claims.iss == self.issuer);
        let claims = claims.ok_or_else(String::new)?;
        if now - LEEWAY >= claims.exp {
            return Err("service account token has expired".into());
        }
        if now + LEEWAY < claims.nbf.max(claims.iat) {
            return Err("service account token is not valid yet".into());
        }
        let audiences: Vec<String> = claims.aud.iter().filter(|one| wanted.contains(one)).cloned().collect();
        if audiences.is_empty() {
            return Err(format!("token audiences {:?} is invalid for the target audiences {wanted:?}", claims.aud));
        }
        Ok((claims, audiences))
    }
}

/// The name of an account among users.
pub(crate) fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

impl ApiServer {
    /// Whom a token proves its bearer to be, to one of these audiences (none: this API's own). `fresh`: what it depends on is
    /// looked up after everything that was acknowledged before.
    pub(crate) async fn token_bearer(&self, token: &str, wanted: &[String], fresh: bool) -> Result<Proven, Refused> {
        let tokens = &self.inner.tokens;
        let wanted = if wanted.is_empty() { &tokens.audiences } else { wanted };
        let now = jiff::Timestamp::now().as_second();
        let (claims, audiences) = tokens.check(token, wanted, now).map_err(Refused::Token)?;
        if fresh {
            self.barrier().await.map_err(Refused::Unavailable)?;
        }
        let private = &claims.private;
        let namespace = Some(private.namespace.as_str());
        self.stands("serviceaccounts", namespace, &private.serviceaccount, now)?;
        for (plural, namespace, bound) in
            [("pods", namespace, &private.pod), ("secrets", namespace, &private.secret), ("nodes", None, &private.node)]
        {
            // A node that a pod's token names is told, not asked for.
            if let Some(bound) = bound.as_ref().filter(|_| plural != "nodes" || private.pod.is_none()) {
                self.stands(plural, namespace, bound, now)?;
            }
        }
        Ok(Proven { user: user(&claims), audiences })
    }

    /// That an object is the one that a token means, and not on its way out for long.
    fn stands(&self, plural: &str, namespace: Option<&str>, wanted: &Reference, now: i64) -> Result<(), Refused> {
        let gone = |why: &str| Refused::Token(why.to_owned());
        let cache = self.inner.feed.cache("", plural).ok_or_else(|| gone("the kind is not served"))?;
        let object = cache.get(&crate::storage::keys::suffix(namespace, &wanted.name));
        let object = object.ok_or_else(|| Refused::Token(format!("{plural} {:?} not found", wanted.name)))?;
        let object = object.value().map_err(|e| Refused::Unavailable(corrupt(e)))?;
        let metadata = &object["metadata"];
        if text(metadata, "uid") != wanted.uid {
            let (uid, kind) = (text(metadata, "uid"), plural.trim_end_matches('s'));
            return Err(Refused::Token(format!("{kind} UID ({uid}) does not match claim ({})", wanted.uid)));
        }
        let deleted: Option<jiff::Timestamp> = text(metadata, "deletionTimestamp").parse().ok();
        match deleted {
            Some(at) if at.as_second() + LEEWAY < now => Err(gone("token has been invalidated")),
            _ => Ok(()),
        }
    }

    /// Who makes a request: whoever its connection proves, else whoever its token does.
    pub(crate) async fn caller_by_token(
        &self,
        headers: &http::HeaderMap,
        caller: Caller,
        info: &RequestInfo,
        query: &Query,
    ) -> ApiResult<Caller> {
        let shown = headers.get(http::header::AUTHORIZATION);
        let Some(shown) = shown.filter(|_| caller.user.name == UserInfo::anonymous().name) else { return Ok(caller) };
        let token = shown.to_str().ok().and_then(|text| text.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Err(Status::unauthorized("")) };
        // Whoever asks for what may be old gets it also where nobody can say what is new.
        let reading = matches!(info.verb.as_str(), "get" | "list" | "watch");
        let stale = reading && query.get("resourceVersion") == Some("0");
        match self.token_bearer(token, &[], !stale).await {
            Ok(proven) => Ok(Caller { user: proven.user, fence: caller.fence }),
            Err(Refused::Token(why)) => {
                tracing::debug!(why, "a bearer token was refused");
                Err(Status::unauthorized(""))
            }
            Err(Refused::Unavailable(status)) => Err(status),
        }
    }
}

fn user(claims: &Claims) -> UserInfo {
    let private = &claims.private;
    let namespace = &private.namespace;
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    let mut user = UserInfo::new(user_name(namespace, &private.serviceaccount.name), groups);
    user.uid = private.serviceaccount.uid.clone();
    let mut tell = |key: &str, value: String| user.extra.insert(format!("{PREFIX}{key}"), vec![value]);
    tell("credential-id", format!("JTI={}", claims.jti));
    for (kind, bound) in [("pod", &private.pod), ("node", &private.node)] {
        if let Some(bound) = bound {
            tell(&format!("{kind}-name"), bound.name.clone());
            tell(&format!("{kind}-uid"), bound.uid.clone());
        }
    }
    user
}
