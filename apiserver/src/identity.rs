//! Who makes a request, and under which fence.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fence::Fence;

/// An authenticated user as upstream's `user.Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What tells users of the same name apart, if known.
    pub uid: String,
    /// What else is known.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Members may do everything.
pub const GROUP_MASTERS: &str = "system:masters";
/// Group of the node agents.
pub const GROUP_NODES: &str = "system:nodes";
/// Everyone who presented a valid credential.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// Everyone who did not.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";

impl UserInfo {
    /// A user with groups; `system:authenticated` is added.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        if !groups.iter().any(|g| g == GROUP_AUTHENTICATED) {
            groups.push(GROUP_AUTHENTICATED.into());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// A component of this process, for example `system:kube-scheduler`.
    pub fn component(name: impl Into<String>) -> Self {
        Self::new(name, [])
    }

    /// Whoever presents nothing.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec![GROUP_UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// The subject of a verified client certificate: CN is the user, each O a group.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups: Vec<String> =
            subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        Some(Self::new(name, groups))
    }

    /// The user as `authentication.k8s.io/v1` writes it.
    pub(crate) fn to_value(&self) -> Value {
        let mut user = json!({"username": self.name});
        if !self.uid.is_empty() {
            user["uid"] = self.uid.as_str().into();
        }
        user["groups"] = self.groups.as_slice().into();
        if !self.extra.is_empty() {
            user["extra"] = json!(self.extra);
        }
        user
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node whose agent this is.
    pub fn node_name(&self) -> Option<&str> {
        if !self.in_group(GROUP_NODES) {
            return None;
        }
        self.name.strip_prefix("system:node:").filter(|n| !n.is_empty())
    }
}

/// Extension of every request: the server puts it there after authentication; no header can.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) user: UserInfo,
    pub(crate) fence: Option<Fence>,
}

/// The client certificate's DER, put into the extensions by the listener (join uses it for its own checks).
#[derive(Clone, Debug)]
pub struct PeerCertificate(pub Vec<u8>);

impl PeerCertificate {
    /// The last second, of Unix time, in which it is valid.
    pub(crate) fn not_after(&self) -> Option<i64> {
        let (_, certificate) = x509_parser::parse_x509_certificate(&self.0).ok()?;
        Some(certificate.validity().not_after.timestamp())
    }
}
