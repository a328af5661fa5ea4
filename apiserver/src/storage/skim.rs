//! Reading of a stored object no more than selection needs: labels and selectable fields become values, all else is passed
//! over. Every change is read so on every master.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use trireme_api::catalogue::Resource;

/// What is read of a value.
#[derive(Clone, Debug)]
enum Wanted {
    All,
    Members(HashMap<Box<str>, Wanted>),
}

/// What is read of a kind's objects.
#[derive(Clone, Debug)]
pub(crate) struct Skim(Wanted);

impl Skim {
    /// Labels, and the fields that can be selected by.
    pub(crate) fn of(resource: &Resource) -> Self {
        let mut wanted = Wanted::Members(HashMap::new());
        wanted.add("metadata.labels");
        for field in &resource.fields {
            // Some have another name than their path; of those without dots the whole member is read.
            match field.as_ref() {
                "source" | "reportingController" => {
                    ["source", "reportingController", "reportingComponent"].into_iter().for_each(|m| wanted.add(m));
                }
                "status.successful" => wanted.add("status.succeeded"),
                "status.podIPs" => wanted.add("status.podIP"),
                path => wanted.add(path),
            }
        }
        Self(wanted)
    }

    /// The object as far as it is wanted.
    pub(crate) fn read(&self, json: &[u8]) -> Result<Value, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let value = (&self.0).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }
}

impl Wanted {
    fn add(&mut self, path: &str) {
        let Wanted::Members(members) = self else { return };
        match path.split_once('.') {
            None => drop(members.insert(path.into(), Wanted::All)),
            Some((first, rest)) => {
                members.entry(first.into()).or_insert_with(|| Wanted::Members(HashMap::new())).add(rest);
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for &Wanted {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Wanted::All => serde::Deserialize::deserialize(deserializer),
            Wanted::Members(members) => deserializer.deserialize_any(Members(members)),
        }
    }
}

/// Takes some members of an object; what is no object has none.
struct Members<'a>(&'a HashMap<Box<str>, Wanted>);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut taken = Map::new();
        while let Some(known) = map.next_key_seed(Key(self.0))? {
            match known {
                Some((key, wanted)) => drop(taken.insert(key.into(), map.next_value_seed(wanted)?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(taken))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// The name of a member: one that is wanted, or any other.
struct Key<'a>(&'a HashMap<Box<str>, Wanted>);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<(&'a str, &'a Wanted)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<(&'a str, &'a Wanted)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.get_key_value(name).map(|(key, wanted)| (&**key, wanted)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::fields;
    use serde_json::json;
    use trireme_api::catalogue::Catalogue;

    #[test]
    fn what_is_wanted_is_read_and_nothing_else() {
        let catalogue = Catalogue::builtin();
        let pods = Skim::of(&catalogue.resource("", "v1", "pods").unwrap());
        let pod = json!({"metadata": {"name": "p", "labels": {"a": "b \"c\""}, "managedFields": [{"x": 1}]},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "args": [1, 1.5, true, null, -1]}]}, "status": null});
        let read = pods.read(pod.to_string().as_bytes()).unwrap();
        assert_eq!(read, json!({"metadata": {"labels": {"a": "b \"c\""}}, "spec": {"nodeName": "n"}, "status": null}));
        for odd in
            ["{\"metadata\":[1,{}],\"spec\":\"x\",\"status\":1}", "[]", "1.5", "{\"metadata\":{\"labels\":null}}"]
        {
            assert!(pods.read(odd.as_bytes()).is_ok(), "{odd}");
        }
        for broken in ["", "{", "{\"metadata\":{}", "{} x", "{\"a\":tru}"] {
            assert!(pods.read(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    /// Selectable fields are the same as those of the whole object, for every kind that has some.
    #[test]
    fn no_selectable_field_is_missed() {
        let catalogue = Catalogue::builtin();
        let mut compared = 0;
        for resource in catalogue.stored() {
            let mut object = json!({"metadata": {"name": "x", "namespace": "n"}});
            for (i, field) in resource.fields.iter().enumerate() {
                set(&mut object, field, json!(format!("value-{i}")));
            }
            for (field, value) in [("status.succeeded", json!(3)), ("reportingComponent", json!("r"))] {
                set(&mut object, field, value);
            }
            for object in [object.clone(), json!({"source": {"component": "c"}, "status": {"podIP": "1.2.3.4"}})] {
                let read = Skim::of(resource).read(object.to_string().as_bytes()).unwrap();
                let (whole, skimmed) = (fields::selectable(resource, &object), fields::selectable(resource, &read));
                let own = |fields: fields::Fields| {
                    fields.into_iter().filter(|(f, _)| !f.starts_with("metadata.")).collect::<Vec<_>>()
                };
                let (whole, skimmed) = (own(whole), own(skimmed));
                assert_eq!(whole, skimmed, "{}", resource.plural);
                compared += whole.len();
            }
        }
        assert!(compared > 20, "{compared}");
    }

    fn set(object: &mut Value, path: &str, value: Value) {
        let mut at = object;
        for key in path.split('.') {
            if !at.is_object() {
                return;
            }
            at = &mut at[key];
            if at.is_null() {
                *at = json!({});
            }
        }
        *at = value;
    }
}
