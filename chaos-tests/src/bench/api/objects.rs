//! What is created: pods as people write them, and ConfigMaps of a size.

use bytes::Bytes;
use serde_json::json;

/// Bytes of data of a small ConfigMap.
pub const SMALL: usize = 1024;
/// Bytes of data of a large one.
pub const LARGE: usize = 64 << 10;

/// A kind of object, and how large one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pod of one container that no scheduler feels responsible for.
    Pod,
    /// A ConfigMap with so many bytes of data.
    Map(usize),
}

impl Kind {
    /// How rows call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Map(_) => "configmaps",
        }
    }

    /// The collection of a namespace.
    pub fn collection(self, namespace: &str) -> String {
        format!("/api/v1/namespaces/{namespace}/{}", self.name())
    }

    /// An object.
    pub fn object(self, name: &str, number: u64) -> Bytes {
        let labels = json!({"app": format!("app-{}", number % 100), "bench": "yes"});
        let object = match self {
            // Without a scheduler, so that what is measured is the creation, not what follows.
            Self::Pod => json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
                "spec": {
                    "schedulerName": "nobody",
                    "containers": [{
                        "name": "web", "image": "registry.example/web:1.27", "ports": [{"containerPort": 80, "name": "http"}],
                        "env": [{"name": "STAGE", "value": "production"}, {"name": "NUMBER", "value": number.to_string()}],
                        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
                        "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}]
                    }],
                    "volumes": [{"name": "config", "configMap": {"name": "web"}}]
                }
            }),
            Self::Map(size) => json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels},
                "data": {"value": text(size, number)}
            }),
        };
        object.to_string().into()
    }
}

/// Text that does not compress to nothing.
fn text(size: usize, number: u64) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = String::with_capacity(size + 16);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.push_str(&format!("{state:016x}"));
    }
    out.truncate(size);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn objects_have_their_size_and_differ() {
        for size in [SMALL, LARGE] {
            let [a, b] = [1, 2].map(|n| Kind::Map(size).object("a", n));
            assert_ne!(a, b);
            assert!(a.len() > size && a.len() < size + 256, "{}", a.len());
        }
        let pod: serde_json::Value = serde_json::from_slice(&Kind::Pod.object("p", 7)).unwrap();
        assert_eq!((&pod["metadata"]["name"], &pod["spec"]["schedulerName"]), (&json!("p"), &json!("nobody")));
    }
}
