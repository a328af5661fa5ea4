//! An informer against a scripted API: what it must see, resume from, and survive.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::informer::subscription::CAPACITY;
use crate::informer::{Informer, Notice, Object, ObjectKey, Source, Subscription};

type Answered = UnsyncBoxBody<Bytes, std::convert::Infallible>;

fn whole(value: &Value) -> Answered {
    Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

/// What the scripted server answers, in order; a watch stays open until its sender is dropped.
enum Answer {
    List(Value),
    Error(u16),
    Watch(mpsc::Receiver<Value>),
}

#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn client(&self) -> Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            let uri = request.uri().to_string();
            async move { Ok::<_, std::convert::Infallible>(script.answer(uri).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, uri: String) -> Response<Answered> {
        self.asked.lock().push(uri);
        let next = self.answers.lock().pop_front();
        match next {
            None => std::future::pending().await,
            Some(Answer::List(list)) => Response::new(whole(&list)),
            Some(Answer::Error(code)) => {
                let status =
                    json!({"kind": "Status", "status": "Failure", "code": code, "reason": "x", "message": "m"});
                Response::builder().status(code).body(whole(&status)).unwrap()
            }
            Some(Answer::Watch(receiver)) => {
                let frames = futures::stream::unfold(receiver, |mut receiver| async move {
                    let event = receiver.recv().await?;
                    let line = Bytes::from(format!("{event}\n"));
                    Some((Ok::<_, std::convert::Infallible>(Frame::data(line)), receiver))
                });
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
        }
    }
}

fn pod(name: &str, revision: u64, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": revision.to_string(),
            "managedFields": [{"manager": "m"}],
            "ownerReferences": [{"apiVersion": "v1", "kind": "ReplicationController", "name": "rc", "uid": "rc-uid"}]},
        "spec": {"containers": [], "nodeName": node},
    })
}

fn list(revision: u64, items: Vec<Value>) -> Answer {
    Answer::List(json!({"apiVersion": "v1", "kind": "PodList",
        "metadata": {"resourceVersion": revision.to_string()}, "items": items}))
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn bookmark(revision: u64) -> Value {
    event("BOOKMARK", json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": revision.to_string()}}))
}

fn start(script: &Script) -> (Informer<Pod>, CancellationToken) {
    let shutdown = CancellationToken::new();
    (Informer::start_by_node(&script.client(), Source::path("/api/v1/pods"), &shutdown), shutdown)
}

fn watch(script: &Script) -> mpsc::Sender<Value> {
    let (sender, receiver) = mpsc::channel(16);
    script.answers.lock().push_back(Answer::Watch(receiver));
    sender
}

async fn names(subscription: &mut Subscription<Pod>) -> String {
    let name = |pod: &Arc<Pod>| pod.object_meta().name.clone().unwrap();
    match subscription.recv().await {
        Notice::Resync(all) => format!("all {}", all.iter().map(name).collect::<Vec<_>>().join(",")),
        Notice::Change(change) => {
            let part = |side: &Option<Arc<Pod>>| side.as_ref().map(name).unwrap_or_default();
            format!("{}>{}", part(&change.old), part(&change.new))
        }
    }
}

#[tokio::test]
async fn lists_watches_and_counts_bookmarks_as_progress() {
    let script = Script::default();
    script.answers.lock().push_back(list(10, vec![pod("a", 5, "n1"), pod("b", 7, "")]));
    let events = watch(&script);
    let (informer, _shutdown) = start(&script);
    let mut subscription = informer.subscribe();
    assert_eq!(names(&mut subscription).await, "all a,b");
    assert_eq!(informer.on_node("n1").len(), 1);
    assert_eq!(informer.owned_by("rc-uid").len(), 2);
    assert!(informer.find("default", "a").unwrap().metadata.managed_fields.is_none());

    events.send(event("MODIFIED", pod("a", 11, "n2"))).await.unwrap();
    events.send(event("ADDED", pod("c", 12, "n2"))).await.unwrap();
    events.send(event("DELETED", pod("b", 13, ""))).await.unwrap();
    assert_eq!(names(&mut subscription).await, "a>a");
    assert_eq!(names(&mut subscription).await, ">c");
    assert_eq!(names(&mut subscription).await, "b>");
    assert_eq!(informer.on_node("n1").len(), 0);
    assert_eq!(informer.on_node("n2").len(), 2);

    events.send(bookmark(40)).await.unwrap();
    informer.wait_for(40).await;
    assert_eq!(informer.revision(), 40);
}

#[tokio::test]
async fn a_watch_that_ends_is_resumed_from_the_last_bookmark_and_410_lists_again() {
    let script = Script::default();
    script.answers.lock().push_back(Answer::Error(503));
    script.answers.lock().push_back(list(10, vec![pod("a", 5, ""), pod("gone", 6, "")]));
    let first = watch(&script);
    script.answers.lock().push_back(Answer::Error(410));
    script.answers.lock().push_back(list(30, vec![pod("a", 5, ""), pod("new", 29, "")]));
    let last = watch(&script);
    let (informer, _shutdown) = start(&script);
    let mut subscription = informer.subscribe();
    assert_eq!(names(&mut subscription).await, "all a,gone");
    first.send(bookmark(17)).await.unwrap();
    informer.wait_for(17).await;
    drop(first);
    // The relist tells only what differs: "a" has kept its revision.
    assert_eq!(names(&mut subscription).await, "gone>");
    assert_eq!(names(&mut subscription).await, ">new");
    last.send(event("DELETED", pod("new", 31, ""))).await.unwrap();
    let key = ObjectKey::new("default", "new");
    informer.wait_deleting(&key, "new").await;
    assert!(informer.get(&key).is_none());
    let asked = script.asked.lock().join("\n");
    assert!(asked.contains("resourceVersion=17") && asked.contains("allowWatchBookmarks=true"), "{asked}");
}

#[tokio::test]
async fn an_overflowing_subscriber_gets_everything_again() {
    let script = Script::default();
    script.answers.lock().push_back(list(1, vec![]));
    let events = watch(&script);
    let (informer, _shutdown) = start(&script);
    let mut subscription = informer.subscribe();
    assert_eq!(names(&mut subscription).await, "all ");
    let count = CAPACITY as u64 + 5;
    for n in 0..count {
        events.send(event("ADDED", pod(&format!("p{n}"), n + 2, ""))).await.unwrap();
    }
    informer.wait_for(count + 1).await;
    let Notice::Resync(all) = subscription.recv().await else { panic!("expected the whole content") };
    assert_eq!(all.len() as u64, count);
    events.send(event("ADDED", pod("after", count + 10, ""))).await.unwrap();
    assert_eq!(names(&mut subscription).await, ">after");
}

#[tokio::test]
async fn a_long_list_is_read_in_pages() {
    let script = Script::default();
    let mut first = json!({"apiVersion": "v1", "kind": "PodList", "items": [pod("a", 1, "")]});
    first["metadata"] = json!({"resourceVersion": "9", "continue": "token"});
    script.answers.lock().push_back(Answer::List(first));
    script.answers.lock().push_back(list(9, vec![pod("b", 2, "")]));
    let (informer, _shutdown) = start(&script);
    informer.synced().await;
    assert_eq!(informer.len(), 2);
    assert!(script.asked.lock()[1].contains("continue=token"));
}
