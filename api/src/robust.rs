//! Whatever comes in: nothing panics, hangs or changes what it must not. Inputs are made by proptest: bytes and texts, JSON
//! of any form, and objects of every kind in which some places are replaced by what does not belong there.
#![allow(clippy::unwrap_used)]

use crate::apply::{self, FieldSet, Managers, Write};
use crate::catalogue::{Catalogue, FieldValidation, NewObject, Resource};
use crate::selector::{FieldSelector, LabelSelector};
use crate::{Quantity, decode, intstr, names, patch, subresource, table, time};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

/// An object of each kind that testdata has one of.
static SAMPLES: LazyLock<Vec<(Arc<Resource>, Value)>> = LazyLock::new(|| {
    let all: Vec<Value> = serde_json::from_str(include_str!("../testdata/kinds.json")).unwrap();
    let catalogue = Catalogue::builtin();
    let of = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap_or_default();
        let resource = catalogue.resource(text("group"), text("version"), text("plural"))?;
        let mut object = one["object"].clone();
        decode::with_type(&resource, &mut object);
        Some((resource, object))
    };
    let mut samples: Vec<_> = all.iter().filter_map(of).collect();
    let pod = catalogue.resource("", "v1", "pods").unwrap();
    let spec = json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
        "env": [{"name": "A", "value": "1"}]}], "volumes": [{"name": "v", "emptyDir": {}}]});
    let object =
        json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "labels": {"a": "b"}}, "spec": spec});
    samples.push((pod, object));
    samples
});

/// A small source of choices: proptest gives the seed.
struct Choices(u64);

impl Choices {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

fn odd(choices: &mut Choices) -> Value {
    let all = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(0.1),
        json!(""),
        json!("\u{0}é\u{202e}"),
        json!("x".repeat(300)),
        json!("-1"),
        json!("99999999999999999999Gi"),
        json!("2026-13-45T99:99:99Z"),
        json!([]),
        json!([null]),
        json!([[]]),
        json!([{}, {}]),
        json!({}),
        json!({"": null}),
        json!({"$patch": "delete"}),
        json!({"$patch": "replace", "$retainKeys": [1]}),
        json!({"name": null}),
        json!({"f:x": {}, ".": {}}),
        json!("*/0 * * * *"),
        json!("10.0.0.0/33"),
    ];
    all[choices.next(all.len())].clone()
}

/// Replaces, removes or repeats something somewhere.
fn disturb(value: &mut Value, choices: &mut Choices) {
    match value {
        Value::Object(map) if !map.is_empty() && choices.next(8) != 0 => {
            let at = choices.next(map.len());
            let key = map.keys().nth(at).unwrap().clone();
            match choices.next(10) {
                0 => drop(map.shift_remove(&key)),
                1 => drop(map.insert(format!("{key}\u{1}x"), json!(1))),
                2 => drop(map.insert(format!("$setElementOrder/{key}"), odd(choices))),
                _ => disturb(&mut map[&key], choices),
            }
        }
        Value::Array(list) if !list.is_empty() && choices.next(8) != 0 => {
            let at = choices.next(list.len());
            match choices.next(6) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => disturb(&mut list[at], choices),
            }
        }
        other => *other = odd(choices),
    }
}

fn disturbed(object: &Value, seed: u64) -> Value {
    let mut choices = Choices(seed | 1);
    let mut object = object.clone();
    for _ in 0..=choices.next(4) {
        disturb(&mut object, &mut choices);
    }
    object
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let key = prop_oneof![
            Just("name".to_owned()),
            Just("metadata".to_owned()),
            Just("$patch".to_owned()),
            Just("$retainKeys".to_owned()),
            any::<String>(),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn sample() -> impl Strategy<Value = (Arc<Resource>, Value)> {
    (0..SAMPLES.len()).prop_map(|i| SAMPLES[i].clone())
}

fn config() -> ProptestConfig {
    // By hand: PROPTEST_CASES=100000 takes minutes.
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(500);
    // No file of former failures: what fails becomes a test of its own.
    ProptestConfig { cases, failure_persistence: None, max_global_rejects: u32::MAX, ..ProptestConfig::default() }
}

/// All that happens to a new object, and to one that replaces an older one.
fn admit(resource: &Resource, object: &mut Value, old: Option<&Value>) {
    let new =
        NewObject { now: time::parse("2026-01-01T00:00:00Z").unwrap(), uid: "u", name_suffix: "abcde", namespace: "n" };
    resource.default(object);
    match old {
        None => {
            resource.prepare_create(object, &new);
            resource.validate_create(object);
        }
        Some(old) => {
            for subresource in [None, Some("status"), Some("scale"), Some("resize"), Some("ephemeralcontainers")] {
                let mut object = object.clone();
                resource.prepare_update(&mut object, old, subresource);
                resource.validate_update(&object, old, subresource);
            }
        }
    }
    resource.warnings(object, old);
    resource.to_storage(object);
    resource.from_storage(object);
    let options = table::Options {
        include_object: table::IncludeObject::Metadata,
        no_columns: false,
        list_metadata: Map::new(),
        version: String::new(),
    };
    table::table(resource, std::slice::from_ref(object), new.now, &options);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), text in any::<String>()) {
        for bytes in [&bytes[..], text.as_bytes()] {
            let _ = decode::from_json(bytes);
            let _ = decode::from_yaml(bytes);
            let _ = decode::from_protobuf(bytes);
            let _ = decode::from_protobuf(&[b"k8s\0", bytes].concat());
            let _ = Managers::from_text(bytes);
        }
    }

    #[test]
    fn injured_documents_are_decoded_or_refused((resource, object) in sample(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        for mut text in [serde_json::to_vec(&object).unwrap(), serde_norway::to_string(&object).unwrap().into_bytes()] {
            let at = at.index(text.len());
            text[at] = byte;
            for encoding in [decode::Encoding::Json, decode::Encoding::Yaml, decode::Encoding::Protobuf] {
                let _ = decode::object(&resource, &text, encoding, FieldValidation::Strict);
            }
        }
    }

    #[test]
    fn texts_are_parsed_or_refused((resource, _) in sample(), text in "\\PC{0,40}", likely in "[a-z0-9/.=!,() -]{0,40}") {
        for text in [&text, &likely] {
            if let Ok(selector) = LabelSelector::parse(text) {
                let again = LabelSelector::parse(&selector.to_string());
                prop_assert!(again.is_ok_and(|again| again.to_string() == selector.to_string()), "{}", text);
            }
            let _ = FieldSelector::parse(&resource, text);
            let _ = (Quantity::parse(text), time::parse(text), intstr::IntOrString::from_value(&json!(text)));
            let _ = (names::qualified_name(text), names::dns1123_subdomain(text), names::split_api_version(text));
            let _ = (FieldValidation::parse(text), names::generated(text, text), decode::Encoding::of_content_type(text));
        }
    }

    #[test]
    fn quantities_say_the_same_again(text in "[+-]?[0-9]{1,20}(\\.[0-9]{0,12})?(m|k|M|G|Ki|Mi|Ei|n|u|e[+-]?[0-9]{1,3})?") {
        if let Ok(quantity) = Quantity::parse(&text) {
            let shown = quantity.to_string();
            prop_assert_eq!(Quantity::parse(&shown).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn objects_of_every_kind_are_admitted_or_refused((resource, object) in sample(), seed in any::<u64>()) {
        let disturbed = disturbed(&object, seed);
        let bytes = serde_json::to_vec(&disturbed).unwrap();
        let admitted = decode::object(&resource, &bytes, decode::Encoding::Json, FieldValidation::Warn);
        if let Ok(admitted) = admitted {
            let mut again = admitted.object.clone();
            let found = resource.conform(&mut again).unwrap();
            prop_assert!(found.unknown.is_empty() && again == admitted.object, "once is enough: {again}");
            admit(&resource, &mut admitted.object.clone(), None);
            let mut old = object;
            resource.default(&mut old);
            admit(&resource, &mut admitted.object.clone(), Some(&old));
            subresource::scale(&admitted.object);
            let _ = subresource::apply_scale(&resource, &mut again, disturbed);
        }
    }

    #[test]
    fn patches_apply_or_change_nothing((resource, object) in sample(), seed in any::<u64>(), wild in any_json()) {
        let near = disturbed(&object, seed);
        let operations = json!([{"op": "add", "path": "/metadata/labels", "value": wild}, disturbed(
            &json!({"op": "copy", "from": "/metadata", "path": "/spec/x"}), seed)]);
        for patch in [&near, &wild, &operations] {
            for kind in ["json", "merge", "strategic"] {
                let mut target = object.clone();
                let done = match kind {
                    "json" => patch::json_patch(&mut target, patch),
                    "merge" => patch::merge_patch(&mut target, patch),
                    _ => patch::strategic_merge_patch(&resource, &mut target, patch),
                };
                prop_assert!(done.is_ok() || target == object, "{kind}: {patch}");
                if done.is_ok() {
                    let _ = decode::fit(&resource, target, &[], FieldValidation::Strict);
                }
            }
        }
    }

    #[test]
    fn owners_are_kept_whatever_is_written((resource, object) in sample(), seed in any::<u64>(), wild in any_json()) {
        let version = resource.api_version();
        let ignored = FieldSet::of_fields(&["status"]);
        let write = |manager: &'static str| Write {
            schemas: &resource.schemas, root: resource.root, version: &version, manager, subresource: "",
            now: "2026-01-01T00:00:00Z", ignored: &ignored, convert: &|_, _| None,
        };
        let (mut old, mut new) = (object.clone(), disturbed(&object, seed));
        prop_assume!(resource.conform(&mut old).is_ok() && resource.conform(&mut new).is_ok());
        let made = apply::update(&write("a"), &json!({}), &old, Managers::default(), None).unwrap();
        let Ok(changed) = apply::update(&write("b"), &old, &new, made.clone(), Some(&wild)) else { return Ok(()) };
        prop_assert_eq!(&Managers::from_text(changed.to_text().as_bytes()).unwrap(), &changed);
        let same = apply::update(&write("c"), &new, &new, changed.clone(), None).unwrap();
        prop_assert_eq!(&same, &changed, "nothing was changed");
        let Ok(Some((mut object, owners))) = apply::apply(&write("d"), &old, made, &new, true) else { return Ok(()) };
        resource.conform(&mut object).unwrap();
        prop_assert_eq!(&Managers::from_text(owners.to_text().as_bytes()).unwrap(), &owners);
        if let Some((_, again)) = apply::apply(&write("d"), &object, owners.clone(), &new, true).unwrap() {
            prop_assert!(again.same_but_times(&owners), "{} instead of {}", again.to_text(), owners.to_text());
        }
    }
}
