//! What ends up in the file.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::request::query::Query;
use http::{Method, StatusCode};
use serde_json::Value;

fn config(folder: &std::path::Path) -> AuditConfig {
    AuditConfig { path: folder.join("audit.log"), max_size: 0, max_backups: 0 }
}

fn request(method: Method, uri: &str) -> (Request<Body>, RequestInfo) {
    let mut request = Request::builder().method(method.clone()).uri(uri).body(Body::empty()).unwrap();
    let user = UserInfo::new("ada", ["writers".to_owned()]);
    request.extensions_mut().insert(Caller { user, fence: None });
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 7], 4711))));
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = RequestInfo::parse(&method, request.uri().path(), &query);
    (request, info)
}

fn lines(config: &AuditConfig) -> Vec<Value> {
    let text = std::fs::read_to_string(&config.path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn answer(code: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::from("the body with a secret"));
    *answer.status_mut() = code;
    answer
}

#[tokio::test]
async fn a_write_is_told_with_fence_and_revision() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let audit = Audit::open(Some(&config)).unwrap();
    let (mut create, info) = request(Method::POST, "/api/v1/namespaces/default/pods?dryRun=");
    let trail = audit.begin(&mut create, &info).unwrap();
    let note = create.extensions().get::<Note>().unwrap();
    note.decided(true);
    note.named("web-1");
    note.committed(Some(Fence::at(7)), 12);
    let told = trail.answered(answer(StatusCode::CREATED), false);
    audit.flush().await;
    let all = lines(&config);
    let event = &all[0];
    assert_eq!((event["kind"].as_str(), event["apiVersion"].as_str()), (Some("Event"), Some("audit.k8s.io/v1")));
    assert_eq!((event["level"].as_str(), event["stage"].as_str()), (Some("Metadata"), Some("ResponseComplete")));
    assert_eq!(event["requestURI"], "/api/v1/namespaces/default/pods?dryRun=");
    assert_eq!((event["verb"].as_str(), event["user"]["username"].as_str()), (Some("create"), Some("ada")));
    assert_eq!(event["user"]["groups"], serde_json::json!(["writers", "system:authenticated"]));
    assert_eq!(event["sourceIPs"], serde_json::json!(["10.0.0.7"]));
    let object = serde_json::json!({"resource": "pods", "namespace": "default", "name": "web-1", "apiVersion": "v1"});
    assert_eq!(event["objectRef"], object);
    assert_eq!(event["responseStatus"]["code"], 201);
    assert_eq!(event["annotations"][FENCE], "7");
    assert_eq!(event["annotations"][REVISION], "12");
    assert_eq!(event["annotations"][DECISION], "allow");
    assert_eq!(told.headers()[AUDIT_ID].to_str().unwrap(), event["auditID"].as_str().unwrap());
    assert_eq!(event["stageTimestamp"].as_str().unwrap().len(), "2026-11-21T15:30:00.123456Z".len());
    assert!(!event.to_string().contains("secret"));
}

#[tokio::test]
async fn refusals_tell_why_and_watches_have_two_stages() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let audit = Audit::open(Some(&config)).unwrap();
    let (mut get, info) = request(Method::GET, "/api/v1/nodes/x");
    let trail = audit.begin(&mut get, &info).unwrap();
    get.extensions().get::<Note>().unwrap().decided(false);
    let status = Status::forbidden("", "nodes", "x", "not yours");
    drop(trail.answered(crate::response::status(&status), false));
    let (mut watch, info) = request(Method::GET, "/api/v1/pods?watch=1");
    let trail = audit.begin(&mut watch, &info).unwrap();
    let open = trail.answered(answer(StatusCode::OK), true);
    audit.flush().await;
    assert_eq!(lines(&config).len(), 2);
    drop(open);
    audit.flush().await;
    let all = lines(&config);
    assert_eq!(all[0]["annotations"][DECISION], "forbid");
    assert_eq!(all[0]["responseStatus"]["reason"], "Forbidden");
    assert_eq!(all[0]["responseStatus"]["code"], 403);
    assert_eq!(
        (all[1]["stage"].as_str(), all[2]["stage"].as_str()),
        (Some("ResponseStarted"), Some("ResponseComplete"))
    );
    assert_eq!(all[1]["auditID"], all[2]["auditID"]);
    assert_eq!(all[1]["verb"], "watch");
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let audit = Audit::open(Some(&config)).unwrap();
    let (mut get, info) = request(Method::GET, "/version");
    drop(audit.begin(&mut get, &info));
    audit.fence("https://10.0.0.1:6443", Fence::at(9));
    audit.flush().await;
    let all = lines(&config);
    assert!(all[0]["responseStatus"].is_null() && all[0]["objectRef"].is_null());
    assert!(all[0]["annotations"].is_null(), "nobody has decided");
    assert_eq!((all[1]["verb"].as_str(), all[1]["annotations"][FENCE].as_str()), (Some("fence"), Some("9")));
}

#[tokio::test]
async fn a_large_file_is_put_aside_and_the_oldest_removed() {
    let folder = tempfile::tempdir().unwrap();
    let config = AuditConfig { max_size: 1, max_backups: 2, ..config(folder.path()) };
    let audit = Audit::open(Some(&config)).unwrap();
    let uri = format!("/version?{}", "x".repeat(1000));
    for _ in 0..5 {
        for _ in 0..700 {
            let (mut get, info) = request(Method::GET, &uri);
            drop(audit.begin(&mut get, &info));
        }
        audit.flush().await;
    }
    let sizes: Vec<u64> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 1024 * 1024), "{sizes:?}");
}

/// Writes more than a file holds.
async fn fill(audit: &Arc<Audit>) {
    let uri = format!("/version?{}", "x".repeat(1000));
    for _ in 0..900 {
        let (mut get, info) = request(Method::GET, &uri);
        drop(audit.begin(&mut get, &info));
    }
    audit.flush().await;
}

#[tokio::test]
async fn a_file_that_was_moved_or_an_old_one_that_stays_does_not_end_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let config = AuditConfig { max_size: 1, max_backups: 1, ..config(folder.path()) };
    // A folder cannot be removed as files are.
    let stays = folder.path().join("audit-2020-01-01T00-00-00.000.log");
    std::fs::create_dir(&stays).unwrap();
    let audit = Audit::open(Some(&config)).unwrap();
    for _ in 0..3 {
        fill(&audit).await;
        std::fs::rename(&config.path, folder.path().join("moved")).unwrap();
        fill(&audit).await;
        assert!(!lines(&config).is_empty());
    }
    assert_eq!(audit.dropped.get(), 0);
    assert!(stays.is_dir());
}

#[tokio::test]
async fn a_pipe_is_not_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let config = AuditConfig { max_size: 1, ..config(folder.path()) };
    assert!(std::process::Command::new("mkfifo").arg(&config.path).status().unwrap().success());
    let path = config.path.clone();
    let reader = std::thread::spawn(move || std::fs::read(path).unwrap());
    let audit = Audit::open(Some(&config)).unwrap();
    fill(&audit).await;
    fill(&audit).await;
    assert_eq!(audit.dropped.get(), 0);
    drop(audit);
    assert_eq!(reader.join().unwrap().split(|byte| *byte == b'\n').count(), 1801);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn long_requests_are_told_in_short() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let audit = Audit::open(Some(&config)).unwrap();
    let name = "n".repeat(60_000);
    let (mut get, info) = request(Method::GET, &format!("/api/v1/namespaces/default/pods/{name}"));
    drop(audit.begin(&mut get, &info));
    audit.flush().await;
    let all = lines(&config);
    let length = |value: &Value| value.as_str().unwrap().chars().count();
    assert_eq!((length(&all[0]["requestURI"]), length(&all[0]["objectRef"]["name"])), (4097, 257));
    assert!(all[0]["requestURI"].as_str().unwrap().ends_with("nn…"));
}

#[tokio::test]
async fn what_cannot_be_written_is_counted() {
    let config = AuditConfig { path: "/dev/full".into(), max_size: 0, max_backups: 0 };
    let audit = Audit::open(Some(&config)).unwrap();
    for _ in 0..10 {
        let (mut get, info) = request(Method::GET, "/version");
        drop(audit.begin(&mut get, &info));
    }
    audit.flush().await;
    assert_eq!(audit.dropped.get(), 10);
    let none = AuditConfig { path: "/nonexistent/audit.log".into(), ..config };
    assert!(Audit::open(Some(&none)).is_err());
}

#[tokio::test]
async fn a_full_queue_drops_and_nobody_waits() {
    use std::os::unix::fs::OpenOptionsExt;
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    // A pipe that nobody empties: the thread stands still in the middle of its first batch.
    assert!(std::process::Command::new("mkfifo").arg(&config.path).status().unwrap().success());
    let nonblocking = 0o4000;
    let reader = std::fs::File::options().read(true).custom_flags(nonblocking).open(&config.path).unwrap();
    let audit = Audit::open(Some(&config)).unwrap();
    for _ in 0..15_000 {
        let (mut get, info) = request(Method::GET, "/version");
        drop(audit.begin(&mut get, &info));
    }
    let (sent, dropped) = (audit.events.get(), audit.dropped.get());
    assert_eq!(sent + dropped, 15_000);
    assert!(dropped >= 3000, "{dropped}");
    drop(reader);
}

#[tokio::test]
async fn a_queue_of_long_requests_is_bounded_by_its_bytes() {
    use std::os::unix::fs::OpenOptionsExt;
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    assert!(std::process::Command::new("mkfifo").arg(&config.path).status().unwrap().success());
    let nonblocking = 0o4000;
    let reader = std::fs::File::options().read(true).custom_flags(nonblocking).open(&config.path).unwrap();
    let audit = Audit::open(Some(&config)).unwrap();
    let uri = format!("/version?{}", "x".repeat(4000));
    for _ in 0..9000 {
        let (mut get, info) = request(Method::GET, &uri);
        drop(audit.begin(&mut get, &info));
    }
    // As many records as the queue has places for, but they are larger than it may be.
    assert!((1000..7000).contains(&audit.events.get()), "{}", audit.events.get());
    drop(reader);
}
