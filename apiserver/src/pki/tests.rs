//! Tests of the key folder.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;

fn identity(name: &str, address: &str) -> MasterIdentity {
    MasterIdentity {
        name: name.into(),
        address: address.parse().unwrap(),
        service_ip: "10.96.0.1".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
    }
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("trireme-pki-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

#[test]
fn a_folder_is_reused_and_private() {
    let root = scratch("reuse");
    let dir = root.join(DIRECTORY);
    let first = Pki::create(&dir, &identity("master-1", "10.0.0.1")).unwrap();
    let again = Pki::create(&dir, &identity("master-1", "10.0.0.1")).unwrap();
    assert_eq!(first.ca_pem(), again.ca_pem());
    assert_eq!(first.server().cert_pem, again.server().cert_pem);
    assert_eq!(first.ca_spki_sha256().len(), 64);
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|e| e == "key") {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    }
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_new_address_signs_the_leaves_anew_from_the_same_key() {
    let root = scratch("move");
    let dir = root.join(DIRECTORY);
    let before = Pki::create(&dir, &identity("master-1", "10.0.0.1")).unwrap();
    let after = Pki::create(&dir, &identity("master-1", "10.0.0.2")).unwrap();
    assert_eq!(before.ca_pem(), after.ca_pem());
    assert_eq!(before.server().key_pem, after.server().key_pem);
    assert_ne!(before.server().cert_pem, after.server().cert_pem);
    assert!(!tls::is_due(&after.server().cert_pem, &["10.0.0.2".into()], LEAF_LIFE).unwrap());
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_damaged_folder_is_refused_and_left_alone() {
    let root = scratch("damaged");
    let dir = root.join(DIRECTORY);
    Pki::create(&dir, &identity("master-1", "10.0.0.1")).unwrap();
    std::fs::remove_file(dir.join("ca.key")).unwrap();
    let error = Pki::create(&dir, &identity("master-1", "10.0.0.1")).unwrap_err();
    assert!(error.to_string().contains("ca.key is missing"), "{error}");
    assert!(!dir.join("ca.key").exists());

    let other = root.join("other");
    Pki::create(&other, &identity("master-1", "10.0.0.1")).unwrap();
    std::fs::copy(other.join("ca.key"), dir.join("ca.key")).unwrap();
    let error = Pki::load(&dir).unwrap_err();
    assert!(error.to_string().contains("do not belong together"), "{error}");
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_join_installs_and_may_be_repeated_but_never_crosses_clusters() {
    let root = scratch("join");
    let founder = Pki::create(&root.join("m1"), &identity("master-1", "10.0.0.1")).unwrap();
    let joiner = identity("master-2", "10.0.0.2");
    let install = |from: &Pki| {
        let (server, peer) = (key_and_csr().unwrap(), key_and_csr().unwrap());
        let pair = |cert_pem, key_pem| Pair { cert_pem, key_pem };
        let server = pair(from.sign_master_server(&server.csr_pem, &joiner).unwrap(), server.key_pem);
        let peer = pair(from.sign_master_peer(&peer.csr_pem, &joiner).unwrap(), peer.key_pem);
        Pki::install(&root.join("m2"), &from.shared_keys(), &server, &peer)
    };
    let first = install(&founder).unwrap();
    let second = install(&founder).unwrap();
    assert_eq!(second.ca_spki_sha256(), founder.ca_spki_sha256());
    assert_ne!(first.server().key_pem, second.server().key_pem);
    let stranger = Pki::create(&root.join("x"), &identity("master-1", "10.0.0.9")).unwrap();
    assert!(install(&stranger).unwrap_err().to_string().contains("another cluster"));
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn requests_are_checked() {
    let root = scratch("csr");
    let pki = Pki::create(&root.join("m1"), &identity("master-1", "10.0.0.1")).unwrap();
    let address = "10.0.0.7".parse().unwrap();
    assert!(matches!(pki.sign_node("rubbish", "node-1", address), Err(PkiError::Request(_))));
    let request = key_and_csr().unwrap();
    let cert = pki.sign_node(&request.csr_pem, "node-1", address).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(cert.as_bytes()).unwrap();
    let parsed = pem.parse_x509().unwrap();
    assert!(parsed.subject().to_string().contains("CN=system:node:node-1"), "{}", parsed.subject());
    assert!(parsed.subject().to_string().contains("O=system:nodes"));
    assert_eq!(
        parsed.public_key().subject_public_key.data.as_ref(),
        public_key_of_csr(&request.csr_pem).unwrap().as_slice()
    );
    pki.kubelet_client_config().unwrap();
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn certificates_are_renewed_in_place_after_two_thirds_of_their_life() {
    let root = scratch("renew");
    let who = identity("master-1", "10.0.0.1");
    let pki = Pki::create(&root.join(DIRECTORY), &who).unwrap();
    let same = pki.clone();
    assert!(!pki.refresh(&who).unwrap());
    // A shorter life than the certificates have: they are due at once, and again soon after.
    pki.set_leaf_life(Duration::from_secs(3)).unwrap();
    let before = pki.server();
    assert!(pki.refresh(&who).unwrap());
    let after = same.server();
    assert_ne!(before.cert_pem, after.cert_pem);
    assert_eq!(before.key_pem, after.key_pem);
    let info = same.certificates();
    let names: Vec<&str> = info.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["ca", "peer-ca", "server", "peer", "kubelet-client", "admin"]);
    let server = &info[2];
    assert!(server.not_after - server.not_before <= 4, "{server:?}");
    assert!(!pki.refresh(&who).unwrap());
    std::thread::sleep(Duration::from_millis(2500));
    assert!(pki.refresh(&who).unwrap());
    assert_eq!(Pki::load(&root.join(DIRECTORY)).unwrap().server().cert_pem, pki.server().cert_pem);
    std::fs::remove_dir_all(root).unwrap();
}
