//! Tests of kubeconfigs: merging, resolving, errors, writing.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::tls::Trust;

const SAMPLE: &str = r#"
apiVersion: v1
kind: Config
preferences: {}
clusters:
- name: home
  cluster:
    server: https://10.1.0.1:6443/
    certificate-authority-data: Y2E=
    extensions:
    - name: trireme.io/masters
      extension:
        urls: ["https://10.1.0.1:6443", "https://10.1.0.2:6443", "https://10.1.0.3:6443"]
    - name: someone/else
      extension: {a: 1}
contexts:
- name: home
  context: {cluster: home, user: admin, namespace: prod}
- name: broken
  context: {cluster: nowhere, user: admin}
users:
- name: admin
  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}
- name: secret
  user: {token: abc}
- name: half
  user: {client-certificate-data: Y2VydA==}
- name: plugin
  user: {exec: {command: aws}}
- name: garbled
  user: {client-certificate-data: "***", client-key-data: a2V5}
current-context: home
"#;

fn sample() -> Kubeconfig {
    Kubeconfig::parse(SAMPLE).unwrap()
}

fn message(overrides: Overrides) -> String {
    sample().resolve(&overrides).unwrap_err().to_string()
}

#[test]
fn resolves_the_current_context_with_all_masters() {
    let resolved = sample().resolve(&Overrides::default()).unwrap();
    assert_eq!(resolved.namespace, "prod");
    assert_eq!(resolved.masters.urls.len(), 3);
    assert_eq!(resolved.masters.urls[0], "https://10.1.0.1:6443");
    assert!(matches!(resolved.masters.trust, Trust::Ca(ref pem) if pem == b"ca"));
    assert_eq!(resolved.masters.identity.unwrap().key_pem, b"key");
}

#[test]
fn an_explicit_server_is_the_only_one() {
    let overrides =
        Overrides { server: Some("https://one:1".into()), user: Some("secret".into()), ..Overrides::default() };
    let resolved = sample().resolve(&overrides).unwrap();
    assert_eq!(resolved.masters.urls, ["https://one:1"]);
    assert_eq!(resolved.masters.token.as_deref(), Some("abc"));
    assert!(resolved.masters.identity.is_none());
}

#[test]
fn errors_name_what_is_wrong() {
    let context = |name: &str| Overrides { context: Some(name.into()), ..Overrides::default() };
    let user = |name: &str| Overrides { user: Some(name.into()), ..Overrides::default() };
    assert_eq!(message(context("nope")), "context \"nope\" does not exist");
    assert_eq!(message(context("broken")), "context \"broken\": cluster \"nowhere\" does not exist");
    assert_eq!(message(user("nope")), "context \"home\": user \"nope\" does not exist");
    assert_eq!(message(user("half")), "users[half].user.client-key-data: is missing");
    assert!(message(user("plugin")).contains("users[plugin].user.exec"));
    assert!(message(user("garbled")).contains("users[garbled].user.client-certificate-data: is not base64"));
    assert!(matches!(Kubeconfig::default().resolve(&Overrides::default()), Err(KubeconfigError::Nothing)));
}

#[test]
fn parse_errors_name_file_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    std::fs::write(&path, "clusters:\n- name: a\n  cluster: {server: [1]}\n").unwrap();
    let text = Kubeconfig::read(&path).unwrap_err().to_string();
    assert!(text.contains(path.to_str().unwrap()) && text.contains("clusters[0].cluster"), "{text}");
    std::fs::write(&path, "kind: Pod\n").unwrap();
    assert!(Kubeconfig::read(&path).unwrap_err().to_string().contains("kind is \"Pod\""));
    let missing = Kubeconfig::load(Some(&folder.path().join("nope"))).unwrap_err().to_string();
    assert!(missing.contains("nope") && missing.contains("No such file"), "{missing}");
}

#[test]
fn files_are_relative_to_the_kubeconfig() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.crt"), "pem").unwrap();
    let path = folder.path().join("config");
    std::fs::write(
        &path,
        "clusters: [{name: a, cluster: {server: 'https://a', certificate-authority: ca.crt}}]\n\
         contexts: [{name: a, context: {cluster: a, user: ''}}]\ncurrent-context: a\n",
    )
    .unwrap();
    let resolved = Kubeconfig::read(&path).unwrap().resolve(&Overrides::default()).unwrap();
    assert!(matches!(resolved.masters.trust, Trust::Ca(ref pem) if pem == b"pem"));
    std::fs::remove_file(folder.path().join("ca.crt")).unwrap();
    let text = Kubeconfig::read(&path).unwrap().resolve(&Overrides::default()).unwrap_err().to_string();
    assert!(text.contains("clusters[a].cluster.certificate-authority") && text.contains("ca.crt"), "{text}");
}

#[test]
fn the_first_file_wins_a_merge() {
    let mut first = Kubeconfig::parse("contexts: [{name: home, context: {cluster: other, user: x}}]").unwrap();
    first.merge(sample());
    assert_eq!(first.contexts[0].context.cluster, "other");
    assert_eq!(first.contexts.len(), 2);
    assert_eq!(first.current_context.as_deref(), Some("home"));
}

#[test]
fn written_configs_read_back_and_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let urls = ["https://a:1".to_owned(), "https://b:1".to_owned()];
    let config = Kubeconfig::for_cluster("trireme-x", "admin", &urls, b"ca", b"cert", b"key");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("kubeconfig");
    config.write(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let resolved = Kubeconfig::load(Some(&path)).unwrap().resolve(&Overrides::default()).unwrap();
    assert_eq!(resolved.masters.urls, urls);
    assert_eq!(resolved.context.as_deref(), Some("trireme-x"));
}

#[test]
fn unknown_fields_and_foreign_extensions_survive_writing() {
    let mut config = sample();
    config.clusters[0].cluster.set_masters(&["https://new:1".to_owned()]);
    let text = config.to_yaml();
    assert!(text.contains("preferences") && text.contains("someone/else") && !text.contains("10.1.0.2"), "{text}");
    assert!(text.contains("command: aws"));
}

#[test]
fn nothing_secret_goes_over_plain_http() {
    let mut config = sample();
    let resolved = |config: &Kubeconfig, server: Option<&str>| {
        config.resolve(&Overrides { server: server.map(str::to_owned), ..Overrides::default() }).unwrap().masters
    };
    let plain = resolved(&config, Some("http://127.0.0.1:8001"));
    assert!(plain.plain_allowed && plain.identity.is_none() && plain.token.is_none());
    // What is known of the cluster's certificate decides for a server without a scheme.
    assert_eq!(resolved(&config, Some("a:1")).urls, ["https://a:1"]);
    for entry in &mut config.clusters {
        entry.cluster.certificate_authority = None;
        entry.cluster.certificate_authority_data = None;
    }
    assert_eq!(resolved(&config, Some("a:1")).urls, ["http://a:1"]);
}
