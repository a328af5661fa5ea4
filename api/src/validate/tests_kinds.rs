//! Tests of the kinds that nothing acts on yet: what each needs at least passes, and what is wrong is told as upstream tells it.
#![allow(clippy::unwrap_used)]

use super::tests::{made, texts};
use crate::catalogue::{Catalogue, Resource};
use crate::patch::merge_patch;
use serde_json::{Value, json};
use std::sync::Arc;

/// The least that each kind can be.
fn kinds() -> Vec<(Arc<Resource>, Value)> {
    let all: Vec<Value> = serde_json::from_str(include_str!("../../testdata/kinds.json")).unwrap();
    let find = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        let (group, version, plural) = (text("group"), text("version"), text("plural"));
        let resource = Catalogue::builtin().resource(&group, &version, &plural);
        (resource.unwrap_or_else(|| panic!("{group} {plural}")), one["object"].clone())
    };
    all.iter().map(find).collect()
}

#[test]
fn the_least_of_each_kind_passes_and_stays_as_it_is() {
    let tried: Vec<String> = kinds().iter().map(|(resource, _)| resource.definition.to_string()).collect();
    for resource in Catalogue::builtin().resources().iter().filter(|r| r.is_stored() && !r.converts()) {
        let elsewhere = ["core.v1", "apps.v1", "coordination", "discovery", "node.v1", "scheduling", "events.v1"];
        let older = elsewhere.iter().any(|part| resource.definition.contains(part));
        assert!(older || tried.contains(&resource.definition.to_string()), "{} is not tried", resource.qualified());
    }
    for (resource, object) in kinds() {
        let name = resource.qualified();
        let object = made(&resource, object);
        assert_eq!(texts(resource.validate_create(&object)), Vec::<String>::new(), "{name}");
        let mut again = object.clone();
        resource.default(&mut again);
        assert_eq!(again, object, "{name}: defaults twice");
        resource.prepare_update(&mut again, &object, None);
        assert_eq!(again, object, "{name}: an update that changes nothing");
        assert_eq!(texts(resource.validate_update(&again, &object, None)), Vec::<String>::new(), "{name}");
        if resource.has_status() {
            assert!(resource.generation == object["metadata"].get("generation").is_some(), "{name}");
            let mut written = object.clone();
            written["spec"] = json!({});
            resource.prepare_update(&mut written, &object, Some("status"));
            assert_eq!(written["spec"], object["spec"], "{name}: a status write changed the spec");
            assert_eq!(
                texts(resource.validate_update(&written, &object, Some("status"))),
                Vec::<String>::new(),
                "{name}"
            );
        }
        let mut stored = object.clone();
        assert_eq!(resource.conform(&mut stored).unwrap().unknown, Vec::<String>::new(), "{name}: what defaults add");
    }
}

/// A kind, what is merged into the least of it, and how the messages begin.
fn check(cases: Vec<(&str, Value, Vec<&str>)>) {
    for (plural, change, want) in cases {
        let (resource, mut object) = kinds().into_iter().find(|(r, _)| r.plural == plural).unwrap();
        merge_patch(&mut object, &change).unwrap();
        let object = made(&resource, object);
        compare(texts(resource.validate_create(&object)), &want, &format!("{plural} {change}"));
    }
}

fn compare(got: Vec<String>, want: &[&str], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: {got:#?}");
    for (got, want) in got.iter().zip(want) {
        assert!(got.starts_with(want), "{what}: {got}");
    }
}

#[test]
fn workloads() {
    check(vec![
        (
            "daemonsets",
            json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}}),
            vec![
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ],
        ),
        (
            "daemonsets",
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
            vec!["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        ),
        (
            "statefulsets",
            json!({"spec": {"podManagementPolicy": "Some", "replicas": -1}}),
            vec![
                "spec.podManagementPolicy: Invalid value: \"Some\": must be 'OrderedReady' or 'Parallel'",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            "jobs",
            json!({"spec": {"template": {"spec": {"restartPolicy": null}}}}),
            vec!["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        ),
        ("jobs", json!({"spec": {"completionMode": "Indexed"}}), vec![]),
        (
            "jobs",
            json!({"spec": {"completionMode": "Indexed", "parallelism": 2}}),
            vec!["spec.completions: Required value: when completion mode is Indexed"],
        ),
        (
            "jobs",
            json!({"spec": {"template": {"metadata": {"labels": {"controller-uid": "other"}}}}}),
            vec!["spec.template.metadata.labels[controller-uid]: Invalid value"],
        ),
        (
            "cronjobs",
            json!({"spec": {"schedule": "x", "timeZone": "Mars/Olympus", "concurrencyPolicy": "Maybe"}}),
            vec![
                "spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]",
                "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus",
                "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ],
        ),
        (
            "cronjobs",
            json!({"spec": {"schedule": "TZ=UTC 0 0 * * *"}}),
            vec![
                "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ],
        ),
        (
            "horizontalpodautoscalers",
            json!({"spec": {"maxReplicas": 0, "scaleTargetRef": {"name": null}}}),
            vec![
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
                "spec.scaleTargetRef.name: Required value",
            ],
        ),
    ]);
}

#[test]
fn claims_of_stateful_sets_are_mounted() {
    let containers = json!([{"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]);
    let template = json!({"spec": {"containers": containers}});
    check(vec![
        (
            "statefulsets",
            json!({"spec": {"template": template, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}}),
            vec![],
        ),
        (
            "statefulsets",
            json!({"spec": {"template": template}}),
            vec!["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
        ),
    ]);
}

#[test]
fn indexes_of_jobs_and_budgets() {
    check(vec![
        (
            "jobs",
            json!({"spec": {"completionMode": "Indexed", "completions": 5, "template": {"spec": {"restartPolicy": "Sometimes"}},
                "successPolicy": {"rules": [{"succeededIndexes": "0-2,4", "succeededCount": 5}, {"succeededIndexes": "3,1"},
                    {"succeededIndexes": "0-9"}, {"succeededIndexes": "0-1-2"}, {"succeededIndexes": "x"}]},
                "podFailurePolicy": {"rules": [{"action": "FailJob"}]}}}),
            vec![
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 5: must be less than or equal to 4 (the number of indexes in the specified succeededIndexes field)",
                "spec.successPolicy.rules[1].succeededIndexes: Invalid value: \"3,1\": error parsing succeededIndexes: non-increasing order, previous: 3, current: 1",
                "spec.successPolicy.rules[2].succeededIndexes: Invalid value: \"0-9\": error parsing succeededIndexes: too large index: \"9\"",
                "spec.successPolicy.rules[3].succeededIndexes: Invalid value: \"0-1-2\": error parsing succeededIndexes: the fragment \"0-1-2\" violates",
                "spec.successPolicy.rules[4].succeededIndexes: Invalid value: \"x\": error parsing succeededIndexes: cannot convert string to integer for index: \"x\"",
                "spec.template.spec.restartPolicy: Unsupported value: \"Sometimes\"",
                "spec.template.spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"OnFailure\", \"Never\"",
            ],
        ),
        (
            "poddisruptionbudgets",
            json!({"spec": {"maxUnavailable": "110%", "minAvailable": null}}),
            vec!["spec.maxUnavailable: Invalid value: \"110%\": must not be greater than 100%"],
        ),
    ]);
}

#[test]
fn storage_and_quota() {
    check(vec![
        (
            "persistentvolumes",
            json!({"spec": {"hostPath": null, "accessModes": ["Some"]}}),
            vec![
                "spec.accessModes: Unsupported value: \"Some\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec: Required value: must specify a volume type",
            ],
        ),
        (
            "persistentvolumeclaims",
            json!({"spec": {"accessModes": null, "resources": null}}),
            vec![
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        ),
        (
            "resourcequotas",
            json!({"spec": {"hard": {"pods": "1500m", "nope": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}}),
            vec![
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                "spec.hard[nope]: Invalid value: \"nope\": must be a standard resource for quotas",
                "spec.scopes: Invalid value",
                "spec.scopes: Invalid value",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ],
        ),
        (
            "limitranges",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}, "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}}]}}),
            vec![
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
            ],
        ),
        ("storageclasses", json!({"provisioner": null}), vec!["provisioner: Required value"]),
        (
            "volumeattachments",
            json!({"spec": {"source": {"persistentVolumeName": null}}}),
            vec!["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
        ),
    ]);
}

#[test]
fn policies_and_extensions() {
    check(vec![
        (
            "roles",
            json!({"rules": [{"verbs": [], "nonResourceURLs": ["/x"]}]}),
            vec![
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
            ],
        ),
        (
            "clusterrolebindings",
            json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}]}),
            vec![
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[0].namespace: Required value",
            ],
        ),
        (
            "ingresses",
            json!({"spec": {"rules": null}}),
            vec!["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
        ),
        (
            "ingresses",
            json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}, "spec": {"ingressClassName": "b",
                "defaultBackend": {}, "rules": [{"host": "10.0.0.1", "http": {"paths": [{"backend": {}}]}}]}}),
            vec![
                "spec.defaultBackend: Invalid value: \"\": resource or service backend is required",
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
                "annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified",
            ],
        ),
        (
            "ingresses",
            json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}, "spec": {"ingressClassName": "a"}}),
            vec![],
        ),
    ]);
}

#[test]
fn networks_and_certificates() {
    check(vec![
        (
            "networkpolicies",
            json!({"spec": {"policyTypes": ["Both"], "egress": [{"ports": [{"protocol": "ICMP"}, {"port": 9, "endPort": 8}, {"endPort": 8}],
                "to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}]}]}}),
            vec![
                "spec.egress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                "spec.egress[0].ports[1].endPort: Invalid value: 8: must be greater than or equal to `port`",
                "spec.egress[0].ports[2].endPort: Invalid value: 8: may not be specified when `port` is not specified",
                "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/9\": must be a strict subset of `cidr`",
                "spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Ingress\", \"Egress\"",
            ],
        ),
        (
            "networkpolicies",
            json!({"spec": {"egress": [{"to": [{}, {"ipBlock": {"cidr": "x"}}]}]}}),
            vec![
                "spec.egress[0].to[0]: Required value: must specify a peer",
                "spec.egress[0].to[1].ipBlock.cidr: Invalid value: \"x\": must be a valid CIDR value",
            ],
        ),
        (
            "ipaddresses",
            json!({"metadata": {"name": "010.0.0.1"}}),
            vec!["metadata.name: Invalid value: \"010.0.0.1\": must be a valid IP address"],
        ),
        (
            "certificatesigningrequests",
            json!({"spec": {"request": "eA==", "usages": ["x"], "signerName": "s"}}),
            vec![
                "spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST",
                "spec.usages[0]: Unsupported value: \"x\"",
                "spec.signerName: Invalid value: \"s\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
            ],
        ),
    ]);
}

#[test]
fn extensions_and_devices() {
    check(vec![
        (
            "validatingwebhookconfigurations",
            json!({"webhooks": [{"name": "a", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {}}]}),
            vec![
                "webhooks[0].name: Invalid value: \"a\": should be a domain with at least three segments separated by dots",
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ],
        ),
        (
            "customresourcedefinitions",
            json!({"metadata": {"name": "x"}, "spec": {"versions": []}}),
            vec![
                "metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group",
                "spec.versions: Invalid value: []: must have exactly one version marked as storage version",
            ],
        ),
        (
            "prioritylevelconfigurations",
            json!({"spec": {"limited": null}}),
            vec!["spec.limited: Required value: must not be empty when type is Limited"],
        ),
        (
            "prioritylevelconfigurations",
            json!({"metadata": {"name": "exempt"}}),
            vec![
                "spec.type: Invalid value: \"Limited\": type must be 'Exempt' if and only if name is 'exempt'",
                "spec: Invalid value",
            ],
        ),
        (
            "prioritylevelconfigurations",
            json!({"spec": {"limited": {"limitResponse": {"type": "Queue", "queuing": {"queues": 512, "handSize": 8}}}}}),
            vec![
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 512 and handSize 8 should not be greater than 60",
            ],
        ),
        (
            "flowschemas",
            json!({"spec": {"rules": [{"subjects": [{"kind": "User", "group": {"name": "g"}}],
                "resourceRules": [{"verbs": ["*", "get"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["look"], "nonResourceURLs": ["x"]}]}]}}),
            vec![
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
                "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
                "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
                "spec.rules[0].nonResourceRules[0].verbs: Unsupported value: [\"look\"]: supported values: \"create\"",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"x\": must start with slash",
            ],
        ),
        (
            "resourceclaims",
            json!({"spec": {"devices": {"requests": [{"name": "r"}]}}}),
            vec!["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
        ),
    ]);
}

#[test]
fn what_may_not_change() {
    let cases: Vec<(&str, Value, Vec<&str>)> = vec![
        (
            "daemonsets",
            json!({"spec": {"selector": {"matchLabels": {"b": "c"}}, "template": {"metadata": {"labels": {"b": "c"}}}}}),
            vec!["spec.selector: Invalid value"],
        ),
        ("statefulsets", json!({"spec": {"replicas": 4}}), vec![]),
        (
            "statefulsets",
            json!({"spec": {"serviceName": "other"}}),
            vec![
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ],
        ),
        ("jobs", json!({"spec": {"parallelism": 4, "suspend": true}}), vec![]),
        ("jobs", json!({"spec": {"completions": 4}}), vec!["spec.completions: Invalid value: 4: field is immutable"]),
        (
            "persistentvolumes",
            json!({"spec": {"hostPath": {"path": "/e"}}}),
            vec!["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
        ),
        (
            "persistentvolumeclaims",
            json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}),
            vec!["spec: Forbidden: spec is immutable after creation except resources.requests"],
        ),
        (
            "storageclasses",
            json!({"provisioner": "example.com/q"}),
            vec!["provisioner: Forbidden: updates to provisioner are forbidden."],
        ),
        ("volumeattachments", json!({"spec": {"nodeName": "m"}}), vec!["spec: Invalid value"]),
        (
            "rolebindings",
            json!({"roleRef": {"name": "s"}}),
            vec![
                "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"s\"}: cannot change roleRef",
            ],
        ),
        (
            "ingressclasses",
            json!({"spec": {"controller": "example.com/d"}}),
            vec!["spec.controller: Invalid value: \"example.com/d\": field is immutable"],
        ),
        ("servicecidrs", json!({"spec": {"cidrs": ["10.9.0.0/16", "fd00::/108"]}}), vec![]),
        (
            "servicecidrs",
            json!({"spec": {"cidrs": ["10.8.0.0/16"]}}),
            vec!["spec.cidrs: Invalid value: [\"10.8.0.0/16\"]: field is immutable"],
        ),
        (
            "resourceclaims",
            json!({"spec": {"devices": {"requests": [{"name": "q", "exactly": {"deviceClassName": "c"}}]}}}),
            vec!["spec: Invalid value"],
        ),
    ];
    check_changes(cases);
}

#[test]
fn a_claim_shrinks_down_to_what_its_volume_has() {
    let (resource, object) = kinds().into_iter().find(|(r, _)| r.plural == "persistentvolumeclaims").unwrap();
    let mut old = made(&resource, object);
    old["spec"]["resources"]["requests"]["storage"] = json!("5Gi");
    old["status"] = json!({"phase": "Bound", "capacity": {"storage": "2Gi"}});
    for (size, want) in
        [("3Gi", vec![]), ("2Gi", vec!["spec.resources.requests.storage: Forbidden: field can not be less"])]
    {
        let mut new = old.clone();
        new["spec"]["resources"]["requests"]["storage"] = json!(size);
        compare(texts(resource.validate_update(&new, &old, None)), &want, size);
    }
}

fn check_changes(cases: Vec<(&str, Value, Vec<&str>)>) {
    for (plural, change, want) in cases {
        let (resource, object) = kinds().into_iter().find(|(r, _)| r.plural == plural).unwrap();
        let old = made(&resource, object);
        let mut new = old.clone();
        merge_patch(&mut new, &change).unwrap();
        resource.default(&mut new);
        resource.prepare_update(&mut new, &old, None);
        let mut got = texts(resource.validate_update(&new, &old, None));
        got.iter_mut().for_each(|text| {
            *text = text.replace(
                "\"kind\":\"Role\",\"name\":\"s\",\"apiGroup\":\"rbac.authorization.k8s.io\"",
                "\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"s\"",
            )
        });
        compare(got, &want, &format!("{plural} {change}"));
        if resource.generation && want.is_empty() {
            assert_eq!(new["metadata"]["generation"], 2, "{plural}");
        }
    }
}

#[test]
fn what_the_server_decides() {
    let of = |plural: &str| {
        let (resource, object) = kinds().into_iter().find(|(r, _)| r.plural == plural).unwrap();
        (resource.clone(), made(&resource, object))
    };
    let (resource, daemon) = of("daemonsets");
    assert_eq!(daemon["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "1");
    assert_eq!(daemon["status"]["desiredNumberScheduled"], 0);
    let mut rolled = daemon.clone();
    rolled["spec"]["template"]["spec"]["containers"][0]["image"] = json!("y");
    resource.prepare_update(&mut rolled, &daemon, None);
    assert_eq!(rolled["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "2");
    let (_, job) = of("jobs");
    assert_eq!(job["spec"]["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": "u"}));
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "x");
    assert_eq!((&job["spec"]["backoffLimit"], &job["spec"]["suspend"]), (&json!(6), &json!(false)));
    let (_, set) = of("statefulsets");
    let claim = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!((&claim["kind"], &claim["status"]), (&json!("PersistentVolumeClaim"), &json!({"phase": "Pending"})));
    let (_, volume) = of("persistentvolumes");
    assert_eq!(volume["status"], json!({"phase": "Pending", "lastPhaseTransitionTime": "2026-01-01T00:00:00Z"}));
    let (_, limits) = of("limitranges");
    let item = &limits["spec"]["limits"][0];
    assert_eq!(
        (&item["default"], &item["defaultRequest"]),
        (&json!({"cpu": "2"}), &json!({"cpu": "2", "memory": "1Mi"}))
    );
    let (_, policy) = of("networkpolicies");
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let (_, definition) = of("customresourcedefinitions");
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(definition["spec"]["names"]["listKind"], "ThingList");
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(schema["properties"]["a"]["default"], "", "an empty default is a default");
    let (resource, request) = of("certificatesigningrequests");
    let mut approved = request.clone();
    approved["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="});
    resource.prepare_update(&mut approved, &request, Some("approval"));
    assert_eq!(approved["status"], json!({"conditions": [{"type": "Approved", "status": "True"}]}));
    let mut issued = approved.clone();
    issued["status"] = json!({"certificate": "eA=="});
    resource.prepare_update(&mut issued, &approved, Some("status"));
    assert_eq!(issued["status"]["conditions"], approved["status"]["conditions"]);
    assert_eq!(issued["status"]["certificate"], "eA==");
}
