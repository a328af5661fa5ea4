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
    assert!(error(r#"{"kind":"Pod","apiVersion":"v1"}"#).contains("cannot be handled as a Deployment"));
    assert!(
        error(r#"{"kind":"Deployment","apiVersion":"apps/v2"}"#).contains("does not match the expected API version")
    );
    let warned = run(r#"{"spec":{"foo":1}}"#, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, vec!["unknown field \"spec.foo\""]);
    assert_eq!(warned.object["spec"], serde_json::json!({}));
    assert_eq!(warned.object["kind"], "Deployment");
    assert!(run(r#"{"spec":{"foo":1}}"#, FieldValidation::Ignore).unwrap().warnings.is_empty());
    assert!(run("[]", FieldValidation::Warn).is_err());
    assert!(run("", FieldValidation::Warn).is_err());
}
