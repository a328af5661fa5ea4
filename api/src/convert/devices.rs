//! Conversion of what describes devices between `resource.k8s.io/v1beta1`, where a request's and a device's fields lie flat or
//! in a part of their own, and `v1`. The apiVersion is set by whoever calls this.

use crate::catalogue::UpdateOf;
use crate::defaults::policy;
use crate::field::FieldError;
use crate::validate::admission;
use crate::value::{has, items_mut, object_mut, remove, set, text};
use serde_json::{Map, Value, json};

/// Fields of a request that `v1` has in `exactly`.
const EXACTLY: [&str; 7] =
    ["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

fn to_v1(spec: Option<&mut Value>) {
    let Some(devices) = spec.and_then(|spec| spec.get_mut("devices")) else { return };
    for request in items_mut(devices, "requests") {
        let given: Map<String, Value> =
            EXACTLY.iter().filter_map(|key| Some(((*key).to_owned(), remove(request, key)?))).collect();
        if !text_of(&given, "deviceClassName").is_empty() || !has(request, "firstAvailable") {
            set(request, "exactly", given);
        }
    }
}

fn text_of<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn from_v1(spec: Option<&mut Value>) {
    let Some(devices) = spec.and_then(|spec| spec.get_mut("devices")) else { return };
    for request in items_mut(devices, "requests") {
        let exactly = remove(request, "exactly");
        for (key, value) in exactly.as_ref().and_then(Value::as_object).into_iter().flatten() {
            set(request, key, value.clone());
        }
    }
}

/// A ResourceClaim of v1beta1 as one of v1.
pub fn claim_to_v1(object: &mut Value) {
    to_v1(object.get_mut("spec"));
}

/// A ResourceClaim of v1 as one of v1beta1.
pub fn claim_from_v1(object: &mut Value) {
    from_v1(object.get_mut("spec"));
}

/// A ResourceClaimTemplate of v1beta1 as one of v1.
pub fn template_to_v1(object: &mut Value) {
    to_v1(object.pointer_mut("/spec/spec"));
}

/// A ResourceClaimTemplate of v1 as one of v1beta1.
pub fn template_from_v1(object: &mut Value) {
    from_v1(object.pointer_mut("/spec/spec"));
}

/// A ResourceSlice of v1beta1 as one of v1.
pub fn slice_to_v1(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    for device in items_mut(spec, "devices") {
        let basic = remove(device, "basic");
        for (key, value) in basic.as_ref().and_then(Value::as_object).into_iter().flatten() {
            set(device, key, value.clone());
        }
    }
}

/// A ResourceSlice of v1 as one of v1beta1.
pub fn slice_from_v1(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    for device in items_mut(spec, "devices").filter(|device| device.is_object()) {
        let name = text(device, "name").to_owned();
        let mut basic = std::mem::take(device);
        remove(&mut basic, "name");
        *device = json!({"name": name, "basic": basic});
    }
}

fn as_v1(object: &Value, convert: fn(&mut Value)) -> Value {
    let mut object = object.clone();
    convert(&mut object);
    object
}

/// Defaults of a ResourceClaim of v1beta1.
pub fn claim_default(object: &mut Value) {
    claim_to_v1(object);
    policy::resource_claim(object);
    claim_from_v1(object);
}

/// Validates a ResourceClaim of v1beta1; errors name v1's fields, as upstream's do.
pub fn claim_validate(object: &Value, errors: &mut Vec<FieldError>) {
    admission::resource_claim(&as_v1(object, claim_to_v1), errors);
}

/// Validates a change of a ResourceClaim of v1beta1.
pub fn claim_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Vec<FieldError>) {
    admission::resource_claim_update(&as_v1(new, claim_to_v1), &as_v1(old, claim_to_v1), of, errors);
}

/// Defaults of a ResourceClaimTemplate of v1beta1.
pub fn template_default(object: &mut Value) {
    template_to_v1(object);
    policy::resource_claim_template(object);
    template_from_v1(object);
}

/// Validates a ResourceClaimTemplate of v1beta1.
pub fn template_validate(object: &Value, errors: &mut Vec<FieldError>) {
    admission::resource_claim_template(&as_v1(object, template_to_v1), errors);
}

/// Validates a change of a ResourceClaimTemplate of v1beta1.
pub fn template_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Vec<FieldError>) {
    admission::template_update(&as_v1(new, template_to_v1), &as_v1(old, template_to_v1), of, errors);
}

/// Validates a ResourceSlice of v1beta1.
pub fn slice_validate(object: &Value, errors: &mut Vec<FieldError>) {
    let mut object = as_v1(object, slice_to_v1);
    object_mut(&mut object, "spec");
    admission::resource_slice(&object, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_the_versions() {
        let claim = json!({"spec": {"devices": {"requests": [
            {"name": "a", "deviceClassName": "c", "allocationMode": "ExactCount", "count": 2},
            {"name": "b", "firstAvailable": [{"name": "x", "deviceClassName": "d"}]},
        ]}}});
        let mut object = claim.clone();
        claim_to_v1(&mut object);
        let requests = &object["spec"]["devices"]["requests"];
        assert_eq!(
            requests[0],
            json!({"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "ExactCount", "count": 2}})
        );
        assert_eq!(requests[1], claim["spec"]["devices"]["requests"][1]);
        claim_from_v1(&mut object);
        assert_eq!(object, claim);
        let slice = json!({"spec": {"devices": [{"name": "a", "basic": {"attributes": {"m": {"string": "x"}}}}]}});
        let mut object = slice.clone();
        slice_to_v1(&mut object);
        assert_eq!(object["spec"]["devices"][0], json!({"name": "a", "attributes": {"m": {"string": "x"}}}));
        slice_from_v1(&mut object);
        assert_eq!(object, slice);
    }
}
