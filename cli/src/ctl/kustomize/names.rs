//! Names that change, and the fields of other objects that hold them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Item, text};

/// New names by kind and old name.
#[derive(Debug, Default)]
pub struct Renames {
    names: BTreeMap<(String, String), String>,
}

impl Renames {
    /// Gives an object another name.
    pub fn rename(&mut self, item: &mut Item, name: impl FnOnce(&str) -> String) {
        let old = item.name().to_owned();
        item.object["metadata"]["name"] = Value::from(name(&old));
        self.note(item, &old);
    }

    /// Notes that an object got another name.
    pub fn note(&mut self, item: &Item, old: &str) {
        if item.name() != old {
            self.names.insert((item.kind().to_owned(), old.to_owned()), item.name().to_owned());
        }
    }

    /// Changes what refers to the objects that were renamed.
    pub fn apply(&self, items: &mut [Item]) {
        if self.names.is_empty() {
            return;
        }
        for item in items {
            let kind = item.kind().to_owned();
            self.fields(&kind, &mut item.object);
        }
    }

    fn put(&self, kind: &str, slot: &mut Value) {
        let new = slot.as_str().and_then(|old| self.names.get(&(kind.to_owned(), old.to_owned()))).cloned();
        if let Some(new) = new {
            *slot = Value::from(new);
        }
    }

    /// The field of a kind's name inside one object.
    fn within(&self, holder: &mut Value, path: &str, kind: &str) {
        if let Some(slot) = holder.pointer_mut(path) {
            self.put(kind, slot);
        }
    }

    fn fields(&self, kind: &str, object: &mut Value) {
        for path in ["/spec", "/spec/template/spec", "/spec/jobTemplate/spec/template/spec"] {
            if let Some(pod) = object.pointer_mut(path).filter(|pod| pod["containers"].is_array()) {
                self.pod(pod);
            }
        }
        match kind {
            "RoleBinding" | "ClusterRoleBinding" => {
                let role = text(&object["roleRef"], "kind").to_owned();
                self.within(object, "/roleRef/name", &role);
                for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
                    if subject["kind"] == "ServiceAccount" {
                        self.within(subject, "/name", "ServiceAccount");
                    }
                }
            }
            "ServiceAccount" => {
                for field in ["secrets", "imagePullSecrets"] {
                    for secret in object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                        self.within(secret, "/name", "Secret");
                    }
                }
            }
            "HorizontalPodAutoscaler" => {
                let of = text(&object["spec"]["scaleTargetRef"], "kind").to_owned();
                self.within(object, "/spec/scaleTargetRef/name", &of);
            }
            "StatefulSet" => {
                self.within(object, "/spec/serviceName", "Service");
                let claims = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
                for claim in claims.into_iter().flatten() {
                    self.within(claim, "/spec/storageClassName", "StorageClass");
                }
            }
            "PersistentVolumeClaim" => {
                self.within(object, "/spec/storageClassName", "StorageClass");
                self.within(object, "/spec/volumeName", "PersistentVolume");
            }
            "Ingress" => self.ingress(object),
            "Role" | "ClusterRole" => {
                for rule in object.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
                    for name in rule.get_mut("resourceNames").and_then(Value::as_array_mut).into_iter().flatten() {
                        ["ConfigMap", "Secret"].iter().for_each(|kind| self.put(kind, name));
                    }
                }
            }
            "APIService" => self.within(object, "/spec/service/name", "Service"),
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
                for hook in object.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
                    self.within(hook, "/clientConfig/service/name", "Service");
                }
            }
            _ => {}
        }
    }

    fn ingress(&self, object: &mut Value) {
        self.within(object, "/spec/defaultBackend/service/name", "Service");
        self.within(object, "/spec/ingressClassName", "IngressClass");
        for tls in object.pointer_mut("/spec/tls").and_then(Value::as_array_mut).into_iter().flatten() {
            self.within(tls, "/secretName", "Secret");
        }
        for rule in object.pointer_mut("/spec/rules").and_then(Value::as_array_mut).into_iter().flatten() {
            let paths = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut);
            for path in paths.into_iter().flatten() {
                self.within(path, "/backend/service/name", "Service");
            }
        }
    }

    fn pod(&self, pod: &mut Value) {
        for field in ["serviceAccountName", "serviceAccount"] {
            self.within(pod, &format!("/{field}"), "ServiceAccount");
        }
        self.within(pod, "/priorityClassName", "PriorityClass");
        let each = |pod: &mut Value, list: &str, change: &dyn Fn(&mut Value)| {
            if let Some(list) = pod.get_mut(list).and_then(Value::as_array_mut) {
                list.iter_mut().for_each(change);
            }
        };
        each(pod, "imagePullSecrets", &|secret| self.within(secret, "/name", "Secret"));
        each(pod, "volumes", &|volume| {
            self.within(volume, "/configMap/name", "ConfigMap");
            self.within(volume, "/secret/secretName", "Secret");
            self.within(volume, "/persistentVolumeClaim/claimName", "PersistentVolumeClaim");
            let sources = volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut);
            for source in sources.into_iter().flatten() {
                self.within(source, "/configMap/name", "ConfigMap");
                self.within(source, "/secret/name", "Secret");
            }
        });
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            each(pod, list, &|container| {
                each(container, "env", &|env| {
                    self.within(env, "/valueFrom/configMapKeyRef/name", "ConfigMap");
                    self.within(env, "/valueFrom/secretKeyRef/name", "Secret");
                });
                each(container, "envFrom", &|from| {
                    self.within(from, "/configMapRef/name", "ConfigMap");
                    self.within(from, "/secretRef/name", "Secret");
                });
            });
        }
    }
}
