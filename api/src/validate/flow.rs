//! Validation of flow control.

use super::common::{Errors, required_name};
use crate::bootstrap::flow::fixed;
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{has, int, list, text, truth};
use serde_json::Value;

const SPEC: Path<'static> = Path::new("spec");
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const MAX_QUEUES: i64 = 10_000_000;
/// Bits of the hash by which requests are dealt to queues.
const HASH_BITS: i64 = 60;

/// A FlowSchema.
pub fn flow_schema(object: &Value, errors: &mut Errors) {
    let (spec, name) = (&object["spec"], text(&object["metadata"], "name"));
    let precedence = int(spec, "matchingPrecedence").unwrap_or(0);
    let at = SPEC.child("matchingPrecedence");
    if precedence <= 0 {
        errors.push(FieldError::invalid(&at, precedence, "must be a positive value"));
    } else if precedence > 10_000 {
        errors.push(FieldError::invalid(&at, precedence, "must not be greater than 10000"));
    } else if precedence == 1 && name != "exempt" {
        errors.push(FieldError::invalid(&at, 1, "only the schema named 'exempt' may have matchingPrecedence 1"));
    }
    let method = &spec["distinguisherMethod"];
    if method.is_object() && !matches!(text(method, "type"), "ByNamespace" | "ByUser") {
        let at = SPEC.child("distinguisherMethod");
        errors.push(FieldError::not_supported(&at.child("type"), method.clone(), &["ByNamespace", "ByUser"]));
    }
    let (level, at) = (text(&spec["priorityLevelConfiguration"], "name"), SPEC.child("priorityLevelConfiguration"));
    if level.is_empty() {
        errors.push(FieldError::required(&at.child("name"), "must reference a priority level"));
    }
    let check = if level.is_empty() { Vec::new() } else { names::dns1123_subdomain(level) };
    errors.extend(check.iter().map(|e| FieldError::invalid(&at.child("name"), level, e)));
    let within = SPEC.child("rules");
    for (i, rule) in list(spec, "rules").iter().enumerate() {
        rules(rule, &within.index(i), errors);
    }
    unchanged("FlowSchema", object, errors);
    conditions(object, errors);
}

/// Upstream's own objects that everything else rests on keep their spec.
fn unchanged(kind: &str, object: &Value, errors: &mut Errors) {
    let (name, mut spec) = (text(&object["metadata"], "name"), object["spec"].clone());
    let Some(mut wanted) = fixed(kind, name) else { return };
    // How much an exempt level lends is free.
    let exempt = kind == "PriorityLevelConfiguration" && name == "exempt";
    if exempt {
        crate::value::remove(&mut spec, "exempt");
        crate::value::remove(&mut wanted, "exempt");
    }
    if spec != wanted {
        let but = if exempt { " except the 'spec.exempt' field" } else { "" };
        let detail = format!("spec of '{name}'{but} must equal the fixed value");
        errors.push(FieldError::invalid(&SPEC, object["spec"].clone(), &detail));
    }
}

fn rules(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (subjects, at) = (list(rule, "subjects"), path.child("subjects"));
    if subjects.is_empty() {
        errors.push(FieldError::required(&at, "subjects must contain at least one value"));
    }
    for (i, one) in subjects.iter().enumerate() {
        subject(one, &at.index(i), errors);
    }
    let (resources, others) = (list(rule, "resourceRules"), list(rule, "nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, detail));
    }
    let within = path.child("resourceRules");
    for (i, one) in resources.iter().enumerate() {
        let at = within.index(i);
        verbs(one, &at, errors);
        let said = |what: &str| format!("resource rules must supply at least one {what}");
        strings(one, &at, "apiGroups", (&said("api group"), "api groups"), errors);
        strings(one, &at, "resources", (&said("resource"), "resources"), errors);
        namespaces(one, &at.child("namespaces"), errors);
    }
    let within = path.child("nonResourceRules");
    for (i, one) in others.iter().enumerate() {
        let at = within.index(i);
        verbs(one, &at, errors);
        let said = "nonResourceURLs must contain at least one value";
        strings(one, &at, "nonResourceURLs", (said, "non-resource URLs"), errors);
        let urls = list(one, "nonResourceURLs");
        if !urls.iter().any(|url| url == "*") {
            let at = at.child("nonResourceURLs");
            for (j, url) in urls.iter().filter_map(Value::as_str).enumerate() {
                url_path(url, &at.index(j), errors);
            }
        }
    }
}

fn subject(subject: &Value, path: &Path<'_>, errors: &mut Errors) {
    const KINDS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = text(subject, "kind");
    if !KINDS.iter().any(|(known, _)| *known == kind) {
        let known = ["Group", "ServiceAccount", "User"];
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &known));
        return;
    }
    for (wanted, key) in KINDS {
        let (given, at) = (&subject[key], path.child(key));
        match (wanted == kind, given.is_object()) {
            (true, false) => {
                let detail = format!("{key} is required when subject kind is '{wanted}'");
                errors.push(FieldError::required(&at, &detail));
            }
            (false, true) => {
                let detail = format!("{key} is forbidden when subject kind is not '{wanted}'");
                errors.push(FieldError::forbidden(&at, &detail));
            }
            (true, true) if wanted == "ServiceAccount" => account(given, &at, errors),
            (true, true) if text(given, "name").is_empty() => {
                errors.push(FieldError::required(&at.child("name"), ""));
            }
            _ => {}
        }
    }
}

fn account(account: &Value, path: &Path<'_>, errors: &mut Errors) {
    if text(account, "name") != "*" {
        required_name(account, path, "name", names::dns1123_subdomain, errors);
    }
    let (namespace, at) = (text(account, "namespace"), path.child("namespace"));
    if namespace.is_empty() {
        errors.push(FieldError::required(&at, "must specify namespace for service account"));
    } else {
        let check = names::dns1123_label(namespace);
        errors.extend(check.iter().map(|e| FieldError::invalid(&at, namespace, e)));
    }
}

/// Checks a list that must not be empty, and is `*` alone if at all: what is said when it is empty, and what the others are.
fn strings(rule: &Value, path: &Path<'_>, key: &str, (empty, others): (&str, &str), errors: &mut Errors) {
    let (given, at) = (list(rule, key), path.child(key));
    if given.is_empty() {
        errors.push(FieldError::required(&at, empty));
    } else if given.len() > 1 && given.iter().any(|one| one == "*") {
        let detail = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(&at, given.to_vec(), &detail));
    }
}

fn verbs(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    strings(rule, path, "verbs", ("verbs must contain at least one value", "verbs"), errors);
    let given = list(rule, "verbs");
    let known = |verb: &Value| verb.as_str().is_some_and(|verb| VERBS.contains(&verb));
    if !given.iter().any(|verb| verb == "*") && !given.iter().all(known) {
        errors.push(FieldError::not_supported(&path.child("verbs"), given.to_vec(), VERBS));
    }
}

fn namespaces(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let given = list(rule, "namespaces");
    let all = given.iter().any(|one| one == "*");
    if given.is_empty() && !truth(rule, "clusterScope") {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(FieldError::required(path, detail));
    } else if all && given.len() > 1 {
        let detail = "if '*' is present, must not specify other namespaces";
        errors.push(FieldError::invalid(path, given.to_vec(), detail));
    }
    for (i, one) in given.iter().filter_map(Value::as_str).enumerate().filter(|_| !all) {
        for why in names::dns1123_label(one) {
            let detail = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
            errors.push(FieldError::invalid(&path.index(i), one, &detail));
        }
    }
}

fn url_path(url: &str, path: &Path<'_>, errors: &mut Errors) {
    let stars = url.matches('*').count();
    let detail = match url {
        "/" => return,
        "" => "must not be empty",
        url if !url.starts_with('/') => "must start with slash",
        url if url.contains(' ') => "must not contain white-space",
        url if url.contains("//") => "must not contain double slash",
        url if stars > 1 || stars == 1 && !url.ends_with("/*") => "wildcard can only do suffix matching",
        _ => return,
    };
    errors.push(FieldError::invalid(path, url, detail));
}

fn conditions(object: &Value, errors: &mut Errors) {
    let status = Path::new("status");
    let within = status.child("conditions");
    let given = list(&object["status"], "conditions");
    for (i, condition) in given.iter().enumerate() {
        let (kind, at) = (text(condition, "type"), within.index(i));
        if given[..i].iter().any(|other| text(other, "type") == kind) {
            errors.push(FieldError::duplicate(&at.child("type"), kind));
        }
        if kind.is_empty() {
            errors.push(FieldError::required(&at.child("type"), "must not be empty"));
        }
    }
}

/// A change of a FlowSchema's status.
pub fn flow_schema_update(new: &Value, _: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of == UpdateOf::Status {
        conditions(new, errors);
    }
}

/// A PriorityLevelConfiguration.
pub fn priority_level(object: &Value, errors: &mut Errors) {
    let (spec, kind) = (&object["spec"], text(&object["spec"], "type"));
    if (text(&object["metadata"], "name") == "exempt") != (kind == "Exempt") {
        let detail = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.push(FieldError::invalid(&SPEC.child("type"), kind, detail));
    }
    match kind {
        "Exempt" => {
            if has(spec, "limited") {
                let detail = "must be nil if the type is not Limited";
                errors.push(FieldError::forbidden(&SPEC.child("limited"), detail));
            }
            shares(&spec["exempt"], &SPEC.child("exempt"), errors);
        }
        "Limited" => {
            if has(spec, "exempt") {
                errors.push(FieldError::forbidden(&SPEC.child("exempt"), "must be nil if the type is Limited"));
            }
            match has(spec, "limited") {
                false => {
                    errors.push(FieldError::required(&SPEC.child("limited"), "must not be empty when type is Limited"))
                }
                true => limited(&spec["limited"], &SPEC.child("limited"), errors),
            }
        }
        other => errors.push(FieldError::not_supported(&SPEC.child("type"), other, &["Exempt", "Limited"])),
    }
    unchanged("PriorityLevelConfiguration", object, errors);
    conditions(object, errors);
}

/// A change of a PriorityLevelConfiguration's status.
pub fn priority_level_update(new: &Value, _: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of == UpdateOf::Status {
        conditions(new, errors);
    }
}

fn shares(level: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(shares) = int(level, "nominalConcurrencyShares").filter(|shares| *shares < 0) {
        let detail = "must be a non-negative integer";
        errors.push(FieldError::invalid(&path.child("nominalConcurrencyShares"), shares, detail));
    }
    if let Some(percent) = int(level, "lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        let detail = "must be between 0 and 100, inclusive";
        errors.push(FieldError::invalid(&path.child("lendablePercent"), percent, detail));
    }
}

fn limited(limited: &Value, path: &Path<'_>, errors: &mut Errors) {
    shares(limited, path, errors);
    if let Some(percent) = int(limited, "borrowingLimitPercent").filter(|percent| *percent < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(&path.child("borrowingLimitPercent"), percent, detail));
    }
    let (response, at) = (&limited["limitResponse"], path.child("limitResponse"));
    match text(response, "type") {
        "Reject" if has(response, "queuing") => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(&at.child("queuing"), detail));
        }
        "Queue" if !response["queuing"].is_object() => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(&at.child("queuing"), detail));
        }
        "Queue" => queuing(&response["queuing"], &at.child("queuing"), errors),
        "Reject" => {}
        other => errors.push(FieldError::not_supported(&at.child("type"), other, &["Queue", "Reject"])),
    }
}

fn queuing(queuing: &Value, path: &Path<'_>, errors: &mut Errors) {
    let number = |key: &str| int(queuing, key).unwrap_or(0);
    let (queues, hand) = (number("queues"), number("handSize"));
    let mut invalid = |key: &str, detail: &str| {
        errors.push(FieldError::invalid(&path.child(key), number(key), detail));
    };
    if number("queueLengthLimit") <= 0 {
        invalid("queueLengthLimit", "must be positive");
    }
    if queues <= 0 {
        invalid("queues", "must be positive");
    } else if queues > MAX_QUEUES {
        invalid("queues", "must not be greater than 10000000");
    }
    if hand <= 0 {
        invalid("handSize", "must be positive");
    } else if hand > queues {
        invalid("handSize", &format!("should not be greater than queues ({queues})"));
    } else if entropy(queues, hand) > HASH_BITS {
        let detail = "should not be greater than 60";
        invalid("handSize", &format!("required entropy bits of deckSize {queues} and handSize {hand} {detail}"));
    }
}

/// Bits that it takes to deal a hand of queues.
fn entropy(queues: i64, hand: i64) -> i64 {
    ((queues as f64).log2() * hand as f64).ceil() as i64
}
