//! The test-only server and its client, as processes: what tests and benchmarks build on.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use trireme_raftstore::port::{Client, tls_files};
use trireme_raftstore::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn program() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
    let program = folder.join("examples/store-server");
    assert!(program.exists(), "build it: cargo build -p trireme-raftstore --example store-server");
    program
}

/// Runs the program to its end; what it said, and whether it succeeded.
fn say(words: &[&str]) -> (bool, String) {
    let output = Command::new(program()).args(words).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

struct Server {
    child: Child,
    client: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Group {
    dir: tempfile::TempDir,
    /// Peer and client addresses.
    addresses: Vec<[String; 2]>,
}

impl Group {
    fn new(size: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listeners: Vec<_> = (0..2 * size).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |i: usize| listeners[i].local_addr().unwrap().to_string();
        let addresses = (0..size).map(|i| [address(2 * i), address(2 * i + 1)]).collect();
        let group = Self { dir, addresses };
        let (made, text) = say(&["certs", &group.path("tls"), "m0", "m1", "m2", "client"]);
        assert!(made, "{text}");
        group
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn words(&self, how: &str, i: usize) -> Vec<String> {
        let [peer, client] = &self.addresses[i];
        let (name, data, tls) = (format!("m{i}"), self.path(&format!("data-{i}")), self.path("tls"));
        let words = [how, "--name", &name, "--data", &data, "--tls", &tls, "--peer", peer, "--client", client];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        if how == "join" {
            words.extend(["--via".to_owned(), format!("127.0.0.1:1,{}", self.addresses[0][1])]);
        }
        words
    }

    fn start(&self, how: &str, i: usize) -> Server {
        let mut child = Command::new(program())
            .args(self.words(how, i))
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let client = self.addresses[i][1].clone();
        assert!(line.starts_with(&format!("ready name=m{i} id=")) && line.contains(&client), "{line:?}");
        Server { child, client }
    }

    async fn client(&self, server: &Server) -> Client {
        Client::connect(&server.client, &tls_files(&self.dir.path().join("tls"), "client").unwrap()).await.unwrap()
    }
}

fn put(key: &str, value: &str) -> Txn {
    let op = Op::Put { key: key.to_owned().into(), value: value.to_owned().into(), expires_at_ms: None };
    Txn { then: vec![op], ..Txn::default() }
}

fn read(prefix: &str, revision: Option<Revision>, consistency: Consistency) -> RangeRequest {
    let range = KeyRange::Prefix(prefix.to_owned().into());
    RangeRequest { range, revision, limit: 0, consistency, keys_only: false }
}

/// The events of the keys until one of this revision.
async fn until(watch: &mut port::WatchStream, revision: Revision) -> Vec<Event> {
    let mut events = Vec::new();
    while events.last().is_none_or(|e: &Event| e.kv.mod_revision < revision) {
        let batch = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        events.extend(batch.events);
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_processes_keeps_what_it_promises() {
    let group = Group::new(3);
    let mut servers: Vec<Server> = vec![group.start("bootstrap", 0)];
    servers.extend([group.start("join", 1), group.start("join", 2)]);
    let mut clients = Vec::new();
    for server in &servers {
        clients.push(group.client(server).await);
    }
    voters(&clients[1]).await;
    let request = WatchRequest { range: KeyRange::Prefix("/r/p/".into()), start_revision: Some(1) };
    let mut watch = clients[2].watch(request.clone()).await.unwrap();
    let mut bare = clients[2].watch_bare(request).await.unwrap();
    // Many at a time on one connection, and all members.
    let writes = (0..300).map(|i| {
        let client = clients[i % 3].clone();
        async move { client.txn(put(&format!("/r/p/{}", i % 100), &format!("v{i}"))).await }
    });
    let revisions: Vec<u64> =
        futures::future::join_all(writes).await.into_iter().map(|r| r.unwrap().revision).collect();
    let newest = *revisions.iter().max().unwrap();
    for client in &clients {
        let all = client.range(read("/r/p/", None, Consistency::Linearizable)).await.unwrap();
        assert_eq!((all.revision, all.count, all.kvs.len()), (newest, 100, 100));
        assert_eq!(client.linearizable_revision().await.unwrap(), newest);
    }
    let (full, bare) = (until(&mut watch, newest).await, until(&mut bare, newest).await);
    let seen: Vec<u64> = full.iter().map(|e| e.kv.mod_revision).collect();
    assert_eq!(seen, (newest - 299..=newest).collect::<Vec<_>>());
    assert!(full[299].previous.is_some() && bare.iter().all(|e| e.previous.is_none()));
    assert!(full.iter().zip(&bare).all(|(full, bare)| full.kv == bare.kv));
    drop(watch);
    errors_are_told(&clients[1], newest).await;
    wrong_clients_harm_nobody(&group, &servers[0]).await;
    assert!(clients[0].linearizable_revision().await.is_ok());
    leaders_come_and_go(&group, &mut servers, &clients).await;
}

async fn voters(client: &Client) {
    let begin = Instant::now();
    loop {
        let members = client.members().await.unwrap();
        if members.len() == 3 && members.iter().all(|m| m.role != Role::Learner) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{members:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn errors_are_told(client: &Client, newest: Revision) {
    let future = client.range(read("/r/p/", Some(newest + 1000), Consistency::Local)).await.unwrap_err();
    assert!(matches!(future, StoreError::FutureRevision { requested, .. } if requested == newest + 1000), "{future}");
    client.compact(newest - 10).await.unwrap();
    // A member that has not applied it yet still answers for old revisions.
    client.linearizable_revision().await.unwrap();
    let old = client.range(read("/r/p/", Some(3), Consistency::Linearizable)).await.unwrap_err();
    assert!(matches!(old, StoreError::Compacted { requested: 3, compacted } if compacted == newest - 10), "{old}");
    let request = WatchRequest { range: KeyRange::Prefix("/r/p/".into()), start_revision: Some(3) };
    let watch = client.watch(request).await.err().unwrap();
    assert!(matches!(watch, StoreError::Compacted { requested: 3, .. }), "{watch}");
    let invalid = client.txn(put("", "no key")).await.unwrap_err();
    assert!(matches!(&invalid, StoreError::Invalid(why) if why.contains("key")), "{invalid}");
    let unknown = client.remove_member(77).await.unwrap_err();
    assert!(matches!(&unknown, StoreError::Membership(why) if why.contains("77")), "{unknown}");
    let twice = Txn {
        compares: vec![Compare::Absent("/r/p/1".into())],
        otherwise: vec![Op::Get { key: "/r/p/1".into() }],
        ..put("/r/p/1", "x")
    };
    let refused = client.txn(twice).await.unwrap();
    assert!(!refused.succeeded && refused.failed_compare == Some(0));
    assert!(matches!(&refused.results[..], [OpResult::Get(Some(_))]));
}

/// Connections that speak no TLS, have the certificate of another CA, or close in the middle.
async fn wrong_clients_harm_nobody(group: &Group, server: &Server) {
    let mut plain = tokio::net::TcpStream::connect(&server.client).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let other = group.path("other-tls");
    assert!(say(&["certs", &other, "client"]).0);
    let stranger = match Client::connect(&server.client, &tls_files(other.as_ref(), "client").unwrap()).await {
        // In TLS 1.3 a client learns that it is refused only when it reads.
        Ok(client) => client.status().await.err(),
        Err(error) => Some(error),
    };
    assert!(matches!(stranger, Some(StoreError::Unavailable { .. })), "{stranger:?}");
}

async fn leaders_come_and_go(group: &Group, servers: &mut [Server], clients: &[Client]) {
    let leader = async |client: &Client| {
        let begin = Instant::now();
        loop {
            let status = client.status().await.unwrap();
            let name = status.members.iter().find(|m| Some(m.id) == status.leader).map(|m| m.name.clone());
            if let Some(name) = name {
                return name.strip_prefix('m').unwrap().parse::<usize>().unwrap();
            }
            assert!(begin.elapsed() < PATIENCE, "no leader");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // At SIGTERM nobody is told of an error: leadership is handed over, what was asked is answered.
    let first = leader(&clients[0]).await;
    let writing = clients[first].clone();
    let writer = tokio::spawn(async move {
        for i in 0.. {
            if let Err(error) = writing.txn(put("/r/p/w", &i.to_string())).await {
                return (i, error, writing.is_closed());
            }
        }
        unreachable!()
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    servers[first].signal("TERM");
    assert!(servers[first].ended().await.success());
    let (written, error, closed) = writer.await.unwrap();
    assert!(written > 0 && closed, "{written} {error}");
    assert!(matches!(error, StoreError::Unavailable { maybe_applied: false, .. }), "{error}");
    servers[first] = group.start("open", first);
    let back = group.client(&servers[first]).await;
    let kept = back.range(read("/r/p/w", None, Consistency::Linearizable)).await.unwrap();
    assert_eq!(kept.kvs[0].value, (written - 1).to_string());
    // A killed leader: its clients do not know what became of their writes, the others go on.
    let clients: Vec<Client> = (0..3).map(|i| if i == first { back.clone() } else { clients[i].clone() }).collect();
    let second = leader(&back).await;
    servers[second].signal("STOP");
    let stopped = clients[second].clone();
    let pending = tokio::spawn(async move { stopped.txn(put("/r/p/x", "?")).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    servers[second].signal("KILL");
    let error = pending.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { maybe_applied: true, .. }), "{error}");
    let next = clients[(second + 1) % 3].txn(put("/r/p/y", "1")).await.unwrap();
    assert!(next.succeeded);
}

#[test]
fn wrong_words_are_refused_in_words() {
    let group = Group::new(1);
    let (ok, text) = say(&["help"]);
    assert!(ok && text.contains("bootstrap|join|open"), "{text}");
    let refused = |words: &[&str], why: &str| {
        let (ok, text) = say(words);
        assert!(!ok && text.contains(why), "{words:?}: {text}");
    };
    refused(&["fly"], "not understood");
    refused(&["bootstrap", "--data"], "not understood: --data");
    refused(&["bootstrap", "--data", "/x"], "--name is missing");
    let words = group.words("bootstrap", 0);
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(["--set", "heartbeat-ms=many"]);
    refused(&words, "heartbeat-ms=many");
    *words.last_mut().unwrap() = "speed=3";
    refused(&words, "there is no such number");
    *words.last_mut().unwrap() = "heartbeat-ms=1";
    refused(&words, "timing:");
    let server = group.start("bootstrap", 0);
    drop(server);
    words.truncate(words.len() - 2);
    refused(&words, "already holds a member");
    words[0] = "join";
    refused(&words, "already holds a member");
    let tls = group.path("nowhere");
    let at = words.iter().position(|w| *w == "--tls").unwrap();
    words[at + 1] = &tls;
    refused(&words, "ca.pem");
}
