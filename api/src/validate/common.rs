//! Checks that several kinds share.

use crate::field::{FieldError, Path};
use crate::intstr::IntOrString;
use crate::value::{int, list, map, text};
use crate::{Quantity, names};
use serde_json::Value;
use std::net::IpAddr;

/// Message of a negative number.
pub const NON_NEGATIVE: &str = "must be greater than or equal to 0";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

pub type Errors = Vec<FieldError>;

/// Checks that integers are not negative.
pub fn non_negative(value: &Value, path: &Path<'_>, keys: &[&str], errors: &mut Errors) {
    for key in keys {
        if let Some(number) = int(value, key).filter(|n| *n < 0) {
            errors.push(FieldError::invalid(&path.child(key), number, NON_NEGATIVE));
        }
    }
}

/// Checks a text that must be given and be one of a list (sorted, as the message shows it).
pub fn one_of(value: &Value, path: &Path<'_>, key: &str, supported: &[&str], errors: &mut Errors) {
    let given = text(value, key);
    if given.is_empty() {
        errors.push(FieldError::required(&path.child(key), ""));
    } else if !supported.contains(&given) {
        errors.push(FieldError::not_supported(&path.child(key), given, supported));
    }
}

/// Checks a text that is one of a list where it is given.
pub fn optional_one_of(value: &Value, path: &Path<'_>, key: &str, supported: &[&str], errors: &mut Errors) {
    if !text(value, key).is_empty() {
        one_of(value, path, key, supported, errors);
    }
}

/// Checks a text by a rule where it is given.
pub fn optional_name(value: &Value, path: &Path<'_>, key: &str, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    let given = text(value, key);
    if !given.is_empty() {
        errors.extend(rule(given).iter().map(|e| FieldError::invalid(&path.child(key), given, e)));
    }
}

/// Checks a text that must be given by a rule.
pub fn required_name(value: &Value, path: &Path<'_>, key: &str, rule: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if text(value, key).is_empty() {
        errors.push(FieldError::required(&path.child(key), ""));
    } else {
        optional_name(value, path, key, rule, errors);
    }
}

/// Checks a port number.
pub fn port(number: i64, path: &Path<'_>, errors: &mut Errors) {
    errors.extend(names::port_number(number).iter().map(|e| FieldError::invalid(path, number, e)));
}

/// Checks a port given by number or name.
pub fn port_or_name(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::String(name) => {
            errors.extend(names::port_name(name).iter().map(|e| FieldError::invalid(path, name.as_str(), e)));
        }
        other => port(other.as_i64().unwrap_or(0), path, errors),
    }
}

/// Checks an IP address.
pub fn ip(address: &str, path: &Path<'_>, errors: &mut Errors) {
    if address.parse::<IpAddr>().is_err() {
        let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(path, address, message));
    }
}

/// Checks a number or percentage; answers it where it is right.
pub fn int_or_percent(value: &Value, path: &Path<'_>, errors: &mut Errors) -> Option<IntOrString> {
    let given = IntOrString::from_value(value)?;
    match &given {
        IntOrString::Int(n) if *n < 0 => {
            errors.push(FieldError::invalid(path, *n, NON_NEGATIVE));
            None
        }
        IntOrString::Text(t)
            if !t.strip_suffix('%').is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit())) =>
        {
            errors.push(FieldError::invalid(path, t.as_str(), PERCENT));
            None
        }
        _ => Some(given),
    }
}

/// Checks a number or a percentage of at most all.
pub fn int_or_percent_of_all(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let given = int_or_percent(value, path, errors);
    if given.as_ref().and_then(IntOrString::percent).is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(path, value.clone(), "must not be greater than 100%"));
    }
}

/// Whether a number or percentage is absent or nothing.
pub fn is_zero(value: &Value) -> bool {
    match IntOrString::from_value(value) {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::Int(_)) => false,
        Some(text) => text.percent() == Some(0),
    }
}

/// Checks that an amount is not negative.
pub fn non_negative_quantity(amount: &Value, path: &Path<'_>, errors: &mut Errors) {
    if Quantity::from_value(amount).is_some_and(|q| q.is_negative()) {
        errors.push(FieldError::invalid(path, amount.clone(), NON_NEGATIVE));
    }
}

/// Checks that an amount is more than nothing.
pub fn positive_quantity(amount: &Value, path: &Path<'_>, errors: &mut Errors) {
    if Quantity::from_value(amount).is_some_and(|q| q.is_negative() || q.is_zero()) {
        errors.push(FieldError::invalid(path, amount.clone(), "must be greater than zero"));
    }
}

/// Checks conditions as `metav1.Condition` has them.
pub fn conditions(conditions: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        let kind = text(condition, "type");
        required_name(condition, &at, "type", names::qualified_name, errors);
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(&at.child("type"), kind));
        }
        seen.push(kind);
        if !matches!(text(condition, "status"), "True" | "False" | "Unknown") {
            let statuses = ["False", "True", "Unknown"];
            errors.push(FieldError::not_supported(&at.child("status"), text(condition, "status"), &statuses));
        }
        non_negative(condition, &at, &["observedGeneration"], errors);
        if !crate::value::has(condition, "lastTransitionTime") {
            errors.push(FieldError::required(&at.child("lastTransitionTime"), ""));
        }
        if text(condition, "reason").is_empty() {
            errors.push(FieldError::required(&at.child("reason"), ""));
        }
    }
}

/// Checks a `LabelSelector` object.
pub fn label_selector(selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    super::metadata::labels(map(selector, "matchLabels"), &path.child("matchLabels"), errors);
    let expressions = path.child("matchExpressions");
    for (i, expression) in list(selector, "matchExpressions").iter().enumerate() {
        let at = expressions.index(i);
        let key = text(expression, "key");
        errors.extend(names::qualified_name(key).iter().map(|e| FieldError::invalid(&at.child("key"), key, e)));
        let values = list(expression, "values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&at.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&at.child("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(&at.child("operator"), other, "not a valid selector operator")),
        }
        for (j, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            let values = at.child("values");
            let check = names::label_value(value);
            errors.extend(check.iter().map(|e| FieldError::invalid(&values.index(j), value, e)));
        }
    }
}

/// Checks that a value stays as it is.
pub fn immutable(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    if new != old {
        errors.push(FieldError::invalid(path, new.clone(), super::IMMUTABLE));
    }
}
