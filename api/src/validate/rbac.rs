//! Validation of roles and their bindings.

use super::common::{Errors, label_selector};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{has, list, text};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";
const RULES: Path<'static> = Path::new("rules");

fn rules(object: &Value, namespaced: bool, errors: &mut Errors) {
    for (i, rule) in list(object, "rules").iter().enumerate() {
        let at = RULES.index(i);
        if list(rule, "verbs").is_empty() {
            errors.push(FieldError::required(&at.child("verbs"), "verbs must contain at least one value"));
        }
        let urls = list(rule, "nonResourceURLs");
        if !urls.is_empty() {
            let path = at.child("nonResourceURLs");
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(&path, urls.to_vec(), detail));
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|key| !list(rule, key).is_empty()) {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(&path, urls.to_vec(), detail));
            }
            continue;
        }
        if list(rule, "apiGroups").is_empty() {
            let detail = "resource rules must supply at least one api group";
            errors.push(FieldError::required(&at.child("apiGroups"), detail));
        }
        if list(rule, "resources").is_empty() {
            let detail = "resource rules must supply at least one resource";
            errors.push(FieldError::required(&at.child("resources"), detail));
        }
    }
}

/// A Role.
pub fn role(object: &Value, errors: &mut Errors) {
    rules(object, true, errors);
}

/// A ClusterRole.
pub fn cluster_role(object: &Value, errors: &mut Errors) {
    rules(object, false, errors);
    if !has(object, "aggregationRule") {
        return;
    }
    let aggregation = Path::new("aggregationRule");
    let within = aggregation.child("clusterRoleSelectors");
    let selectors = list(&object["aggregationRule"], "clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required(&within, detail));
    }
    for (i, selector) in selectors.iter().enumerate() {
        label_selector(selector, &within.index(i), errors);
    }
}

/// A RoleBinding.
pub fn role_binding(object: &Value, errors: &mut Errors) {
    binding(object, true, &["Role", "ClusterRole"], errors);
}

/// A ClusterRoleBinding.
pub fn cluster_role_binding(object: &Value, errors: &mut Errors) {
    binding(object, false, &["ClusterRole"], errors);
}

fn binding(object: &Value, namespaced: bool, kinds: &[&str], errors: &mut Errors) {
    let (role, path) = (&object["roleRef"], Path::new("roleRef"));
    let (group, kind, name) = (text(role, "apiGroup"), text(role, "kind"), text(role, "name"));
    if group != GROUP {
        errors.push(FieldError::not_supported(&path.child("apiGroup"), group, &[GROUP]));
    }
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, kinds));
    }
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        let check = names::path_segment_name(name, false);
        errors.extend(check.iter().map(|e| FieldError::invalid(&path.child("name"), name, e)));
    }
    let subjects = Path::new("subjects");
    for (i, one) in list(object, "subjects").iter().enumerate() {
        subject(one, namespaced, &subjects.index(i), errors);
    }
}

fn subject(subject: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Errors) {
    let (kind, name, group) = (text(subject, "kind"), text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    match kind {
        "ServiceAccount" => {
            if !name.is_empty() {
                let check = names::subdomain_name(name, false);
                errors.extend(check.iter().map(|e| FieldError::invalid(&path.child("name"), name, e)));
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if name.is_empty() {
                let detail = format!("{} name cannot be empty", kind.to_lowercase());
                errors.push(FieldError::invalid(&path.child("name"), "", &detail));
            }
            if group != GROUP {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
        }
        other => {
            errors.push(FieldError::not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]));
        }
    }
}

/// A change of a binding: what it binds to stays.
pub fn binding_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    if new["roleRef"] != old["roleRef"] {
        let path = Path::new("roleRef");
        errors.push(FieldError::invalid(&path, new["roleRef"].clone(), "cannot change roleRef"));
    }
}
