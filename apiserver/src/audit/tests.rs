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
    get.extensions().get::<Note>().unwrap().forbidden();
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
