//! Tests of decoding.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalogue::Catalogue;

#[test]
fn duplicates_are_found_with_their_paths() {
    let cases = [
        (r#"{"a":1,"a":2}"#, vec!["a"]),
        (r#"{"spec":{"l":[{"x":1,"x":2}],"y":{"z":1,"z":1}}}"#, vec!["spec.l[0].x", "spec.y.z"]),
        (r#"{"a":{"b":1},"c":{"b":2}}"#, vec![]),
    ];
    for (text, want) in cases {
        assert_eq!(from_json(text.as_bytes()).unwrap().duplicates, want, "{text}");
    }
    let yaml = from_yaml(b"a: 1\nb:\n  c: x\n  c: y\n").unwrap();
    assert_eq!(yaml.duplicates, vec!["b.c"]);
    assert_eq!(yaml.value, serde_json::json!({"a": 1, "b": {"c": "y"}}));
    assert!(from_json(b"{").is_err());
    assert!(from_json(b"{} x").is_err());
    assert!(from_yaml(b"a: [").is_err());
}

#[test]
fn bodies_are_checked() {
    let catalogue = Catalogue::builtin();
    let deployment = catalogue.resource("apps", "v1", "deployments").unwrap();
    let run = |text: &str, v| object(&deployment, text.as_bytes(), Encoding::Json, v);
    let error = |text: &str| run(text, FieldValidation::Strict).unwrap_err().message;
    assert_eq!(
        error(r#"{"spec":{"replicas":"x"}}"#),
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct \
         field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        error(r#"{"spec":{"template":{"spec":{"containers":[{"image":1}]}}}}"#),
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number into Go struct \
         field Container.spec.template.spec.containers.image of type string"
    );
    assert_eq!(
        error(r#"{"spec":{"foo":1,"replicas":1,"replicas":2,"template":{"spec":{"containers":[{"x":1}]}}}}"#),
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: duplicate field \
         \"spec.replicas\", unknown field \"spec.foo\", unknown field \"spec.template.spec.containers[0].x\""
    );
    let warned = run(r#"{"spec":{"foo":1}}"#, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, vec!["unknown field \"spec.foo\""]);
    assert_eq!(warned.object["spec"], serde_json::json!({}));
    assert_eq!(warned.object["kind"], "Deployment");
    assert!(run(r#"{"spec":{"foo":1}}"#, FieldValidation::Ignore).unwrap().warnings.is_empty());
    assert!(run("[]", FieldValidation::Warn).is_err());
    assert!(run("", FieldValidation::Warn).is_err());
}

#[test]
fn what_is_no_deployment_is_refused_in_upstreams_words() {
    let deployment = Catalogue::builtin().resource("apps", "v1", "deployments").unwrap();
    let error = |text: &str| {
        let status = object(&deployment, text.as_bytes(), Encoding::Json, FieldValidation::Strict).unwrap_err();
        assert_eq!(status.code, 400, "{status:?}");
        status.message
    };
    let unread = "the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error:";
    let head = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let scheme = "in scheme \"pkg/api/legacyscheme/scheme.go:30\"";
    let cases = [
        ("", format!("{unread} unexpected end of JSON input (<empty>)")),
        ("{", format!("{unread} unexpected end of JSON input ({{)")),
        ("[]", format!("{unread} json: cannot unmarshal array into Go value of type {head} (5b5d)")),
        ("x", format!("{unread} invalid character 'x' looking for beginning of value (78)")),
        ("{\"a\":1 x", format!("{unread} invalid character 'x' after object key:value pair ({{\"a\":1 x)")),
        ("{x", format!("{unread} invalid character 'x' looking for beginning of object key string ({{x)")),
        ("{} x", format!("{unread} invalid character 'x' after top-level value ({{}} x)")),
        (
            r#"{"kind":1}"#,
            format!(r#"{unread} json: cannot unmarshal number into Go struct field .kind of type string ({{"kind":1}})"#),
        ),
        (
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            "Pod in version \"v1\" cannot be handled as a Deployment: converting (v1.Pod) to (apps.Deployment): unknown conversion"
                .to_owned(),
        ),
        (
            r#"{"kind":"Deploy","apiVersion":"apps/v1"}"#,
            format!(
                "Deploy in version \"v1\" cannot be handled as a Deployment: no kind \"Deploy\" is registered for version \"apps/v1\" {scheme}"
            ),
        ),
        (
            r#"{"kind":"Deployment","apiVersion":"apps/v2"}"#,
            format!(
                "Deployment in version \"v2\" cannot be handled as a Deployment: no kind \"Deployment\" is registered for version \"apps/v2\" {scheme}"
            ),
        ),
    ];
    for (text, want) in cases {
        assert_eq!(error(text), want, "{text}");
    }
    let long = error(r#"{"kind":1,"x":"0123456789abcdefghij"}"#);
    assert!(long.ends_with(r#"({"kind":1,"x":"0123456789abcde ...)"#), "{long}");
    let scaler = Catalogue::builtin().resource("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
    let other = br#"{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v1"}"#;
    let status = object(&scaler, other, Encoding::Json, FieldValidation::Strict).unwrap_err();
    let why = "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)";
    assert_eq!(status.message, why);
}

#[test]
fn what_a_patch_makes_is_refused_in_upstreams_words() {
    use serde_json::json;
    let deployment = Catalogue::builtin().resource("apps", "v1", "deployments").unwrap();
    let error = |patched: Value, patch: Value, strategic: bool| {
        let again = || patched.clone();
        let patch = Decoded { value: patch, duplicates: Vec::new() };
        let again: Option<&dyn Fn() -> Value> = if strategic { None } else { Some(&again) };
        let refused = fit_patched(&deployment, patched.clone(), &patch, again, FieldValidation::Strict).unwrap_err();
        assert_eq!((refused.code, &refused.details.as_ref().unwrap().causes[0].field), (422, &"patch".to_owned()));
        refused.message
    };
    let of = |spec: Value| json!({"kind": "Deployment", "apiVersion": "apps/v1", "spec": spec});
    let patch = json!({"spec": {"replicas": "x", "a": [1, null, {"c": true, "b": "t"}]}});
    assert_eq!(
        error(of(json!({"replicas": "x"})), patch, true),
        " \"\" is invalid: patch: Invalid value: \"map[spec:map[a:[1 <nil> map[b:t c:true]] replicas:x]]\": unrecognized type: int32"
    );
    let said = |spec: Value| {
        let message = error(of(spec), json!({}), true);
        message.strip_prefix(" \"\" is invalid: patch: Invalid value: \"map[]\": ").unwrap().to_owned()
    };
    let container = |container: Value| json!({"template": {"spec": {"containers": [container]}}});
    assert_eq!(said(container(json!({"name": 1}))), "cannot convert int64 to string");
    assert_eq!(said(container(json!({"name": "a", "env": {}}))), "cannot restore slice from map");
    assert_eq!(said(json!({"template": []})), "cannot restore struct from: slice");
    assert_eq!(said(json!({"paused": "yes"})), "unrecognized type: bool");
    assert_eq!(said(json!({"nope": 1})), "strict decoding error: unknown field \"spec.nope\"");
    let merged = error(of(json!({"paused": "yes"})), json!({}), false);
    assert_eq!(
        merged,
        r#" "" is invalid: patch: Invalid value: "{\"kind\":\"Deployment\",\"apiVersion\":\"apps/v1\",\"spec\":{\"paused\":\"yes\"}}": "#
            .to_owned()
            + "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool"
    );
    let other = error(json!({"kind": "Pod", "apiVersion": "v1"}), json!({}), false);
    assert!(other.ends_with("converting (v1.Pod) to (apps.Deployment): unknown conversion"), "{other}");
}
