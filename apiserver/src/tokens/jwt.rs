//! Signed tokens: JSON web tokens under ES256, with the key that all masters share.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::ServerError;

const ALGORITHM: &str = "ES256";
/// What comes before the point in the DER form of a public key of the curve P-256.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Longer texts are no tokens.
const MAX_TOKEN: usize = 16 * 1024;

/// An object that a token is about or bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What only Kubernetes understands of a token's claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Private {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    pub(crate) serviceaccount: Reference,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) private: Private,
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

/// The key of a cluster's tokens.
pub(crate) struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
}

impl Signer {
    /// From a PKCS#8 key in PEM.
    pub(crate) fn new(key_pem: &str) -> Result<Self, ServerError> {
        let bad = |why: String| ServerError::Config(format!("the key of service accounts cannot be used: {why}"));
        let der = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
            .map_err(|e| bad(e.to_string()))?;
        let mut hash = Sha256::new();
        hash.update(SPKI_PREFIX);
        hash.update(key.public_key().as_ref());
        Ok(Self { id: BASE64.encode(hash.finalize()), key, random })
    }

    /// The public key, as a set of JSON web keys.
    pub(crate) fn key_set(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..65]));
        let key = json!({"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": ALGORITHM, "x": x, "y": y});
        json!({"keys": [key]})
    }

    /// A token that says this.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, String> {
        let part = |bytes: Vec<u8>| BASE64.encode(bytes);
        let header = json!({"alg": ALGORITHM, "kid": self.id}).to_string();
        let body = serde_json::to_vec(claims).map_err(|e| e.to_string())?;
        let signed = format!("{}.{}", part(header.into_bytes()), part(body));
        let signature = self.key.sign(&self.random, signed.as_bytes()).map_err(|e| e.to_string())?;
        Ok(format!("{signed}.{}", BASE64.encode(signature)))
    }

    /// What a token of ours says; its times are not looked at. `None` for what we have not signed.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, body) = signed.split_once('.')?;
        let decoded = |text: &str| BASE64.decode(text).ok();
        let header: Value = serde_json::from_slice(&decoded(header)?).ok()?;
        if header["alg"] != ALGORITHM {
            return None;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(signed.as_bytes(), &decoded(signature)?).ok()?;
        serde_json::from_slice(&decoded(body)?).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn signer() -> Signer {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Signer::new(&key.serialize_pem()).unwrap()
    }

    fn claims() -> Claims {
        let account = Reference { name: "a".into(), uid: "u".into() };
        let private = Private { namespace: "d".into(), node: None, pod: None, secret: None, serviceaccount: account };
        let sub = "system:serviceaccount:d:a".into();
        Claims { aud: vec!["x".into()], exp: 2, iat: 1, iss: "i".into(), jti: "j".into(), private, nbf: 1, sub }
    }

    #[test]
    fn only_what_was_signed_is_believed() {
        let (ours, theirs) = (signer(), signer());
        let token = ours.sign(&claims()).unwrap();
        assert_eq!(ours.verify(&token), Some(claims()));
        assert_eq!(theirs.verify(&token), None);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, body) = signed.split_once('.').unwrap();
        let mut forged: Value = serde_json::from_slice(&BASE64.decode(body).unwrap()).unwrap();
        forged["sub"] = "system:serviceaccount:d:b".into();
        let forged = BASE64.encode(forged.to_string());
        assert_eq!(ours.verify(&format!("{header}.{forged}.{signature}")), None);
        let none = BASE64.encode(r#"{"alg":"none"}"#);
        assert_eq!(ours.verify(&format!("{none}.{body}.")), None);
        for text in ["", ".", "..", "a.b.c", signed, &"x.".repeat(MAX_TOKEN)] {
            assert_eq!(ours.verify(text), None);
        }
    }

    #[test]
    fn claims_look_as_upstream_writes_them() {
        let text = serde_json::to_string(&claims()).unwrap();
        let wanted = r#"{"aud":["x"],"exp":2,"iat":1,"iss":"i","jti":"j","kubernetes.io":{"namespace":"d","serviceaccount":{"name":"a","uid":"u"}},"nbf":1,"sub":"system:serviceaccount:d:a"}"#;
        assert_eq!(text, wanted);
    }

    #[test]
    fn the_published_key_is_the_one_that_signs() {
        let signer = signer();
        let key = signer.key_set()["keys"][0].clone();
        let coordinate = |name: &str| BASE64.decode(key[name].as_str().unwrap()).unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let token = signer.sign(&claims()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        public.verify(signed.as_bytes(), &BASE64.decode(signature).unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&BASE64.decode(signed.split('.').next().unwrap()).unwrap()).unwrap();
        assert_eq!((&header["kid"], &header["alg"]), (&key["kid"], &key["alg"]));
    }
}
