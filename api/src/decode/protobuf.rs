//! Upstream's protobuf encoding of objects (`application/vnd.kubernetes.protobuf`), which kubectl from 1.32 on and client-go
//! use for built-in kinds: read into the same JSON values as every other body.
//!
//! The numbers of fields come from `schema/numbers.txt`. A line names a definition and its properties as `name=number`; where
//! Go embeds a struct, which is a message of its own in protobuf and nothing in JSON, its properties stand in parentheses
//! after its number.

use super::{DecodeError, Decoded, MAX_DEPTH};
use crate::catalogue::Catalogue;
use crate::names;
use crate::schema::{Node, Schemas, TypeId};
use base64::Engine as _;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::LazyLock;

const TEXT: &str = include_str!("../schema/numbers.txt");
/// Opens every encoded object.
const MAGIC: &[u8] = b"k8s\0";
/// Scalars that Go holds by pointer: on the wire only where they are set, so that zero means zero. Of all others zero means
/// absent, since they are always written.
const POINTERS: &[&str] = &[
    "activeDeadlineSeconds",
    "allNodes",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "allowVolumeExpansion",
    "appProtocol",
    "attachRequired",
    "automountServiceAccountToken",
    "averageUtilization",
    "backoffLimit",
    "backoffLimitPerIndex",
    "bindsToNode",
    "blockOwnerDeletion",
    "borrowingLimitPercent",
    "completions",
    "controller",
    "defaultMode",
    "deletionGracePeriodSeconds",
    "enableServiceLinks",
    "endPort",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "holderIdentity",
    "hostUsers",
    "immutable",
    "ingressClassName",
    "leaseDurationSeconds",
    "leaseTransitions",
    "lendablePercent",
    "manualSelector",
    "maxFailedIndexes",
    "minReplicas",
    "mode",
    "nominalConcurrencyShares",
    "optional",
    "orphanDependents",
    "parallelism",
    "partition",
    "perDeviceNodeSelection",
    "persistentVolumeName",
    "podInfoOnMount",
    "priority",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "requiresRepublish",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seLinuxMount",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stabilizationWindowSeconds",
    "started",
    "startingDeadlineSeconds",
    "storageCapacity",
    "storageClassName",
    "succeededCount",
    "successfulJobsHistoryLimit",
    "suspend",
    "targetCPUUtilizationPercentage",
    "terminating",
    "terminationGracePeriodSeconds",
    "timeZone",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
];

/// What a field number stands for.
#[derive(Debug)]
enum Slot {
    Property(&'static str),
    Embedded(Slots),
}

type Slots = Vec<(u32, Slot)>;

static NUMBERS: LazyLock<HashMap<&'static str, Slots>> = LazyLock::new(|| {
    let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
    let parse = |line: &'static str| {
        let mut words = line.split_whitespace();
        Some((words.next()?, slots(&mut words)))
    };
    lines.filter_map(parse).collect()
});

fn slots(words: &mut std::str::SplitWhitespace<'static>) -> Slots {
    let mut out = Slots::new();
    while let Some(word) = words.next() {
        if word == ")" {
            break;
        }
        match word.split_once('=') {
            Some((name, number)) => out.extend(number.parse().ok().map(|n| (n, Slot::Property(name)))),
            None => {
                let inner = slots(words);
                out.extend(word.trim_end_matches('(').parse().ok().map(|n| (n, Slot::Embedded(inner))));
            }
        }
    }
    out
}

fn broken<T>(why: &str) -> Result<T, DecodeError> {
    Err(DecodeError(format!("provided data does not appear to be a protobuf message: {why}")))
}

/// What a field carries.
#[derive(Clone, Copy)]
enum Payload<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads fields one after another.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut out = 0u64;
        for shift in (0..64).step_by(7) {
            let Some((first, rest)) = self.0.split_first() else { return broken("it ends within a number") };
            self.0 = rest;
            out |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(out);
            }
        }
        broken("a number is too long")
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        match usize::try_from(length).ok().and_then(|n| self.0.split_at_checked(n)) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => broken("it ends within a field"),
        }
    }

    fn next(&mut self) -> Result<Option<(u32, Payload<'a>)>, DecodeError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let payload = match key & 7 {
            0 => Payload::Number(self.varint()?),
            1 => Payload::Number(u64::from_le_bytes(self.take(8)?.try_into().unwrap_or_default())),
            2 => {
                let length = self.varint()?;
                Payload::Bytes(self.take(length)?)
            }
            5 => Payload::Number(u64::from(u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default()))),
            _ => return broken("an unknown wire type"),
        };
        match u32::try_from(key >> 3) {
            Ok(number) if number > 0 => Ok(Some((number, payload))),
            _ => broken("a field has no number"),
        }
    }
}

/// All values of one field of a message.
fn field<'a>(bytes: &'a [u8], wanted: u32) -> Result<Option<Payload<'a>>, DecodeError> {
    let mut reader = Reader(bytes);
    let mut found = None;
    while let Some((number, payload)) = reader.next()? {
        if number == wanted {
            found = Some(payload);
        }
    }
    Ok(found)
}

fn text(bytes: &[u8], wanted: u32) -> Result<String, DecodeError> {
    match field(bytes, wanted)? {
        Some(Payload::Bytes(bytes)) => utf8(bytes),
        _ => Ok(String::new()),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, DecodeError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => broken("a text is no UTF-8"),
    }
}

/// Reads an encoded object of a built-in type.
pub(super) fn read(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let Some(body) = bytes.strip_prefix(MAGIC) else { return broken("the prefix is missing") };
    let meta = match field(body, 1)? {
        Some(Payload::Bytes(meta)) => meta,
        _ => &[],
    };
    let (api_version, kind) = (text(meta, 1)?, text(meta, 2)?);
    let raw = match field(body, 2)? {
        Some(Payload::Bytes(raw)) => raw,
        _ => &[],
    };
    let schemas = Schemas::builtin();
    let Some(id) = definition(&schemas, &api_version, &kind) else {
        return Err(DecodeError(format!("no kind \"{kind}\" is registered for version \"{api_version}\"")));
    };
    let name = schemas.get(id).name.as_ref();
    if !NUMBERS.contains_key(name) && !raw.is_empty() {
        return Err(DecodeError(format!("{name} is not known as protobuf: send it as JSON")));
    }
    let mut out = Map::new();
    out.insert("kind".into(), kind.into());
    out.insert("apiVersion".into(), api_version.into());
    out.append(&mut Walk { schemas: &schemas }.message(id, raw, 0)?);
    Ok(Decoded { value: Value::Object(out), duplicates: Vec::new() })
}

fn definition(schemas: &Schemas, api_version: &str, kind: &str) -> Option<TypeId> {
    let (group, version) = names::split_api_version(api_version)?;
    if let Some(resource) = Catalogue::everything().by_kind(group, version, kind) {
        return Some(resource.root);
    }
    let group = match group.split('.').next().unwrap_or_default() {
        "" => "core",
        first => first,
    };
    let own = schemas.find(&format!("io.k8s.api.{group}.{version}.{kind}"));
    own.or_else(|| schemas.find(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")))
}

struct Walk<'a> {
    schemas: &'a Schemas,
}

impl Walk<'_> {
    fn message(&self, id: TypeId, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, DecodeError> {
        if depth > MAX_DEPTH {
            return broken("exceeded max depth");
        }
        let mut out = Map::new();
        if let Some(slots) = NUMBERS.get(self.schemas.get(id).name.as_ref()) {
            self.fill(&mut out, slots, id, bytes, depth)?;
        }
        Ok(out)
    }

    fn fill(
        &self,
        out: &mut Map<String, Value>,
        slots: &Slots,
        id: TypeId,
        bytes: &[u8],
        depth: usize,
    ) -> Result<(), DecodeError> {
        let mut reader = Reader(bytes);
        while let Some((number, payload)) = reader.next()? {
            // A field that is newer than we are is left out, as upstream does.
            let name = match slots.iter().find(|(n, _)| *n == number) {
                None => continue,
                Some((_, Slot::Property(name))) => *name,
                Some((_, Slot::Embedded(inner))) => {
                    if let Payload::Bytes(bytes) = payload {
                        self.fill(out, inner, id, bytes, depth)?;
                    }
                    continue;
                }
            };
            let Some(property) = self.schemas.get(id).property(name) else { continue };
            match &property.node {
                Node::List(list) => {
                    let items = out.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                    let value = self.value(&list.items, payload, depth)?;
                    if let Value::Array(items) = items {
                        items.push(value);
                    }
                }
                Node::Map(values) => {
                    let Payload::Bytes(entry) = payload else { return broken("a map is no message") };
                    let value = field(entry, 2)?.unwrap_or(Payload::Bytes(&[]));
                    let (key, value) = (text(entry, 1)?, self.value(values, value, depth)?);
                    let map = out.entry(name).or_insert_with(|| Value::Object(Map::new()));
                    crate::value::set(map, &key, value);
                }
                node => {
                    let value = self.value(node, payload, depth)?;
                    if !is_zero(&value) || POINTERS.contains(&name) {
                        out.insert(name.to_owned(), value);
                    }
                }
            }
        }
        Ok(())
    }

    fn value(&self, node: &Node, payload: Payload<'_>, depth: usize) -> Result<Value, DecodeError> {
        let bytes = match (node, payload) {
            (Node::Bool, Payload::Number(n)) => return Ok((n != 0).into()),
            (Node::Number, Payload::Number(n)) => return Ok(f64::from_bits(n).into()),
            // Negative numbers of 32 bits are written in 64.
            (_, Payload::Number(n)) => return Ok(n.cast_signed().into()),
            (_, Payload::Bytes(bytes)) => bytes,
        };
        Ok(match node {
            Node::String => utf8(bytes)?.into(),
            Node::Bytes => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
            Node::Struct(id) => Value::Object(self.message(*id, bytes, depth + 1)?),
            Node::Quantity => match text(bytes, 1)? {
                empty if empty.is_empty() => "0".into(),
                quantity => quantity.into(),
            },
            Node::Time | Node::MicroTime => time(bytes, *node == Node::MicroTime)?,
            Node::IntOrString => match (number(bytes, 1)?, number(bytes, 2)?) {
                (0, n) => n.into(),
                _ => text(bytes, 3)?.into(),
            },
            // A list inside a map is a message with its items as field 1.
            Node::List(list) => {
                let mut reader = Reader(bytes);
                let mut items = Vec::new();
                while let Some((_, payload)) = reader.next()? {
                    items.push(self.value(&list.items, payload, depth + 1)?);
                }
                Value::Array(items)
            }
            Node::Any => match field(bytes, 1)? {
                Some(Payload::Bytes(raw)) => serde_json::from_slice(raw).unwrap_or(Value::Null),
                _ => Value::Null,
            },
            _ => return broken("a number is no number"),
        })
    }
}

fn number(bytes: &[u8], wanted: u32) -> Result<i64, DecodeError> {
    match field(bytes, wanted)? {
        Some(Payload::Number(n)) => Ok(n.cast_signed()),
        _ => Ok(0),
    }
}

fn time(bytes: &[u8], micro: bool) -> Result<Value, DecodeError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(number(bytes, 2)?).unwrap_or(0);
    Ok(match jiff::Timestamp::new(number(bytes, 1)?, nanos) {
        Ok(time) if micro => crate::time::micro(time).into(),
        Ok(time) => crate::time::seconds(time).into(),
        Err(_) => Value::Null,
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn bytes(number: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(body.len()).unwrap()];
        out.extend_from_slice(body);
        out
    }

    fn object(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
    }

    #[test]
    fn objects_become_json() {
        let metadata = bytes(1, &[bytes(1, b"n"), bytes(3, b""), bytes(8, b"")].concat());
        let entry = |key: &[u8], value: &[u8]| bytes(2, &[bytes(1, key), bytes(2, value)].concat());
        let container =
            [bytes(1, b"c"), bytes(2, b"x"), bytes(6, &[bytes(1, b""), vec![0x10, 0, 0x18, 80]].concat())].concat();
        let pod =
            bytes(2, &[bytes(2, &container), bytes(1, &[bytes(1, b"v"), bytes(2, &bytes(2, &[]))].concat())].concat());
        let cases = [
            (
                object("v1", "ConfigMap", &[metadata.clone(), entry(b"a", b"b"), entry(b"c", b"")].concat()),
                json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "n"}, "data": {"a": "b", "c": ""}}),
            ),
            (
                object("v1", "Secret", &entry(b"a", b"hello")),
                json!({"kind": "Secret", "apiVersion": "v1", "data": {"a": "aGVsbG8="}}),
            ),
            (
                object("apps/v1", "Deployment", &bytes(2, &[0x08, 0, 0x28, 0])),
                json!({"kind": "Deployment", "apiVersion": "apps/v1", "spec": {"replicas": 0}}),
            ),
            (
                object("v1", "Pod", &pod),
                json!({"kind": "Pod", "apiVersion": "v1", "spec": {
                "containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}]}], "volumes": [{"name": "v", "emptyDir": {}}]}}),
            ),
            (
                object("v1", "DeleteOptions", &[0x08, 5]),
                json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 5}),
            ),
        ];
        for (encoded, want) in cases {
            assert_eq!(read(&encoded).unwrap().value, want);
            for end in 0..encoded.len() {
                let _ = read(&encoded[..end]);
            }
        }
        assert!(read(b"{}").is_err());
        assert!(read(&object("v1", "Nope", b"")).is_err());
    }

    /// What has no numbers here, so that it is read as JSON and YAML alone: all of it is newer than the release of upstream that the
    /// numbers were made from, but `Info`, which has no such form.
    const UNNUMBERED: &[(&[&str], &str)] = &[
        (&["api.certificates.v1beta1"], "PodCertificateRequestSpec stubPKCS10Request"),
        (
            &["api.core.v1"],
            "ImageVolumeStatus, NodeAllocatableResourceClaimStatus, PodSchedulingGroup, PodSpec schedulingGroup, \
             PodStatus nodeAllocatableResourceClaimStatuses, ResourceHealth message, VolumeMountStatus \
             volumeStatus, VolumeStatus",
        ),
        (
            &["api.resource.v1", "api.resource.v1beta1", "api.resource.v1beta2"],
            "DeviceAttribute bools, DeviceAttribute ints, DeviceAttribute strings, DeviceAttribute versions, \
             NodeAllocatableResourceMapping",
        ),
        (&["api.resource.v1"], "Device nodeAllocatableResourceMappings"),
        (
            &["api.resource.v1alpha3"],
            "PoolStatus, ResourcePoolStatusRequest, ResourcePoolStatusRequestSpec, \
             ResourcePoolStatusRequestStatus",
        ),
        (&["api.resource.v1beta1"], "BasicDevice nodeAllocatableResourceMappings"),
        (
            &["api.resource.v1beta2"],
            "Device nodeAllocatableResourceMappings, DeviceTaintRule, DeviceTaintRuleSpec, DeviceTaintRuleStatus, \
             DeviceTaintSelector",
        ),
        (
            &["api.scheduling.v1alpha2"],
            "GangSchedulingPolicy, PodGroup, PodGroupResourceClaim, PodGroupResourceClaimStatus, \
             PodGroupSchedulingConstraints, PodGroupSchedulingPolicy, PodGroupSpec, PodGroupStatus, \
             PodGroupTemplate, PodGroupTemplateReference, TopologyConstraint, TypedLocalObjectReference, \
             Workload, WorkloadPodGroupTemplateReference, WorkloadSpec",
        ),
        (&["api.storage.v1"], "CSIDriverSpec preventPodSchedulingIfMissing"),
        (&["apimachinery.pkg.apis.meta.v1"], "ListMeta shardInfo, ShardInfo"),
        (&["apimachinery.pkg.version"], "Info"),
    ];

    #[test]
    fn every_type_has_its_numbers() {
        fn numbered(slots: &Slots) -> Vec<&'static str> {
            let of = |(_, slot): &(u32, Slot)| match slot {
                Slot::Property(name) => vec![*name],
                Slot::Embedded(inner) => numbered(inner),
            };
            slots.iter().flat_map(of).collect()
        }
        let mut missing = Vec::new();
        for one in Schemas::builtin().types().iter().skip(1) {
            let Some(slots) = NUMBERS.get(one.name.as_ref()) else {
                missing.push(one.name.to_string());
                continue;
            };
            let names = numbered(slots);
            let lacking = one.properties.iter().filter(|p| !names.contains(&p.name.as_ref()));
            missing.extend(
                lacking
                    .filter(|p| !matches!(p.name.as_ref(), "kind" | "apiVersion"))
                    .map(|p| format!("{} {}", one.name, p.name)),
            );
        }
        missing.sort();
        let known =
            UNNUMBERED.iter().flat_map(|(packages, types)| packages.iter().map(move |package| (package, types)));
        let mut known: Vec<String> = known
            .flat_map(|(package, types)| types.split(", ").map(move |one| format!("io.k8s.{package}.{one}")))
            .collect();
        known.sort();
        assert_eq!(missing, known);
    }
}
