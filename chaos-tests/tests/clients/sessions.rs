//! kube-rs: into containers, and what controllers leave behind: logs, exec, attach, port-forward, evictions, events, leases.

use anyhow::{Context, Result, bail, ensure};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Event as CoreEvent, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Status};
use kube::api::{AttachParams, AttachedProcess, EvictParams, ListParams, LogParams, PostParams, TerminalSize};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt, AsyncWriteExt, BufReader};
use trireme_chaos_tests::Cluster;

use crate::space::{Space, eventually, refused, with, within};

async fn text(reader: Option<impl tokio::io::AsyncRead + Unpin>) -> Result<String> {
    let mut out = String::new();
    reader.context("no such stream")?.read_to_string(&mut out).await?;
    Ok(out)
}

/// The code in the Status of a process that failed.
fn exit_code(status: &Status) -> Option<&str> {
    let causes = status.details.as_ref()?.causes.as_ref()?;
    let cause = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    cause?.message.as_deref()
}

/// What a process has said, and the code it ended with.
async fn ended(mut process: AttachedProcess) -> Result<(String, String, i64)> {
    let status = process.take_status().context("no status")?;
    let (out, err) = (process.stdout(), process.stderr());
    let (out, err, status) = within(15, async { tokio::join!(text(out), text(err), status) }).await?;
    let status = status.context("the server sent no status")?;
    let code = match status.status.as_deref() {
        Some("Success") => 0,
        _ => exit_code(&status).with_context(|| format!("{status:?}"))?.parse()?,
    };
    Ok((out?, err?, code))
}

/// exec without a terminal.
pub fn exec(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let pods = space.running("x", &["sleep", "1000"], json!({})).await?;
        let params = AttachParams::default();
        let process = pods.exec("x", ["sh", "-c", "echo out; echo err >&2; exit 4"], &params).await?;
        ensure!(ended(process).await? == ("out\n".into(), "err\n".into(), 4));
        let process = pods.exec("x", ["sh", "-c", "yes | head -c 2000000"], &params).await?;
        let (out, _, code) = ended(process).await?;
        ensure!((out.len(), code) == (2_000_000, 0), "{} bytes, code {code}", out.len());
        // Standard input until its end, which the program has to see.
        let params = AttachParams::default().stdin(true).stderr(false);
        let mut process = pods.exec("x", ["sh", "-c", "head -c 300000 | wc -c"], &params).await?;
        let mut stdin = process.stdin().context("no stdin")?;
        let writing = tokio::spawn(async move { stdin.write_all(&vec![b'x'; 300_000]).await });
        let out = within(15, text(process.stdout())).await??;
        ensure!(out.trim() == "300000", "{out}");
        writing.await??;
        let Err(error) = pods.exec("none", ["true"], &AttachParams::default()).await else {
            bail!("exec into nothing")
        };
        ensure!(error.to_string().contains("404"), "{error}");
        Ok(())
    })
}

/// exec with a terminal that is resized.
pub fn terminal(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let pods = space.running("x", &["sleep", "1000"], json!({})).await?;
        let mut process = pods.exec("x", ["sh"], &AttachParams::interactive_tty()).await?;
        let mut size = process.terminal_size().context("no sizes")?;
        futures::SinkExt::send(&mut size, TerminalSize { width: 81, height: 31 }).await?;
        let mut stdin = process.stdin().context("no stdin")?;
        let mut lines = BufReader::new(process.stdout().context("no stdout")?).lines();
        stdin.write_all(b"until stty size | grep '^31 81'; do sleep 0.1; done\n").await?;
        within(15, async {
            while let Some(line) = lines.next_line().await? {
                if line.trim() == "31 81" {
                    return Ok(());
                }
            }
            bail!("the terminal ended")
        })
        .await??;
        stdin.write_all(b"exit 6\n").await?;
        let status = process.take_status().context("no status")?;
        let rest = async { while lines.next_line().await.is_ok_and(|line| line.is_some()) {} };
        let (status, ()) = within(15, async { tokio::join!(status, rest) }).await?;
        ensure!(status.as_ref().and_then(exit_code) == Some("6"), "{status:?}");
        Ok(())
    })
}

/// attach to the process of a container.
pub fn attach(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let command = ["sh", "-c", "while read line; do echo got $line; done; echo end"];
        let pods = space.running("a", &command, json!({"stdin": true, "stdinOnce": true})).await?;
        let params = AttachParams::default().stdin(true).stderr(false);
        let mut process = pods.attach("a", &params).await?;
        let mut stdin = process.stdin().context("no stdin")?;
        let mut lines = BufReader::new(process.stdout().context("no stdout")?).lines();
        stdin.write_all(b"this\n").await?;
        let line = within(10, lines.next_line()).await??;
        ensure!(line.as_deref() == Some("got this"), "{line:?}");
        drop((stdin, lines));
        process.abort();
        eventually(15, async || {
            let phase = pods.get("a").await?.status.and_then(|status| status.phase);
            ensure!(phase.as_deref() == Some("Succeeded"), "{phase:?}");
            Ok(())
        })
        .await
    })
}

/// Logs, whole, in part and followed.
pub fn logs(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let script = "for i in 1 2 3 4; do echo line $i; sleep 0.2; done";
        let pods = space.running("l", &["sh", "-c", script], json!({})).await?;
        let follow = LogParams { follow: true, ..LogParams::default() };
        let lines: Vec<String> = within(15, pods.log_stream("l", &follow).await?.lines().try_collect()).await??;
        ensure!(lines == ["line 1", "line 2", "line 3", "line 4"], "{lines:?}");
        let tail = LogParams { tail_lines: Some(1), timestamps: true, ..LogParams::default() };
        let last = pods.logs("l", &tail).await?;
        ensure!(last.starts_with("20") && last.ends_with(" line 4\n"), "{last}");
        let since = LogParams { since_seconds: Some(600), limit_bytes: Some(7), ..LogParams::default() };
        ensure!(pods.logs("l", &since).await? == "line 1\n");
        let other = LogParams { container: Some("other".into()), ..LogParams::default() };
        let status = refused(pods.logs("l", &other).await, 400, "BadRequest")?;
        ensure!(status.message == "container other is not valid for pod l", "{status:?}");
        refused(pods.logs("none", &tail).await, 404, "NotFound").map(drop)
    })
}

async fn fetch(pods: &Api<Pod>, port: u16) -> Result<String> {
    let mut forwarder = pods.portforward("p", &[port]).await?;
    let mut stream = forwarder.take_stream(port).context("no stream")?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    within(10, stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}

/// A connection to a port of a pod, and one to a port where nobody listens.
pub fn port_forward(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let script = "mkdir /w; echo hello > /w/index.html; exec httpd -f -p 8080 -h /w";
        let pods = space.running("p", &["sh", "-c", script], json!({})).await?;
        eventually(10, async || {
            let answer = fetch(&pods, 8080).await?;
            ensure!(answer.contains("200 OK") && answer.ends_with("hello\n"), "{answer}");
            Ok(())
        })
        .await?;
        let mut forwarder = pods.portforward("p", &[81]).await?;
        let mut stream = forwarder.take_stream(81).context("no stream")?;
        let error = forwarder.take_error(81).context("no errors")?;
        stream.write_all(b"x").await.ok();
        let said = within(10, error).await?.unwrap_or_default();
        ensure!(said.contains("81"), "{said:?}");
        Ok(())
    })
}

/// Evictions delete.
pub fn evictions(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let pods = space.running("e", &["sleep", "1000"], json!({})).await?;
        let uid = pods.get("e").await?.uid().unwrap_or_default();
        let status = pods.evict("e", &EvictParams::default()).await?;
        ensure!(status.is_success(), "{status:?}");
        within(20, await_condition(pods.clone(), "e", conditions::is_deleted(&uid))).await??;
        refused(pods.evict("e", &EvictParams::default()).await, 404, "NotFound").map(drop)
    })
}

/// Events under one API are read under the other; one that repeats is counted.
pub fn events(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space| {
        let map = space.maps().create(&PostParams::default(), &crate::space::config_map("subject", &[], "1")).await?;
        let reporter = Reporter { controller: "clients-test".into(), instance: Some("one".into()) };
        let recorder = Recorder::new(space.client.clone(), reporter);
        let event = Event {
            type_: EventType::Warning,
            reason: "Tried".into(),
            note: Some("it was tried".into()),
            action: "Trying".into(),
            secondary: None,
        };
        for _ in 0..3 {
            recorder.publish(&event, &map.object_ref(&())).await?;
        }
        let events: Api<k8s_openapi::api::events::v1::Event> = space.api();
        let about = ListParams::default().fields("regarding.name=subject");
        let list = events.list(&about).await?;
        ensure!(list.items.len() == 1, "{list:?}");
        let series = list.items[0].series.as_ref().context("the event is not counted")?;
        ensure!(series.count >= 2 && list.items[0].note.as_deref() == Some("it was tried"), "{series:?}");
        let core: Api<CoreEvent> = space.api();
        let about = ListParams::default().fields("involvedObject.name=subject,reason=Tried,type=Warning");
        let list = core.list(&about).await?;
        ensure!(list.items.len() == 1 && list.items[0].message.as_deref() == Some("it was tried"), "{list:?}");
        Ok(())
    })
}

/// Takes the lease if nobody has it or who has it is late; false where another was faster.
async fn acquire(leases: &Api<Lease>, name: &str, seconds: i32) -> Result<bool> {
    let now = k8s_openapi::jiff::Timestamp::now();
    let spec = LeaseSpec {
        holder_identity: Some(name.into()),
        lease_duration_seconds: Some(seconds),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    };
    let answer = match leases.get_opt("leader").await? {
        None => {
            let lease = Lease {
                metadata: kube::core::ObjectMeta { name: Some("leader".into()), ..Default::default() },
                spec: Some(spec),
            };
            leases.create(&PostParams::default(), &lease).await
        }
        Some(mut lease) => {
            let held = lease.spec.as_ref();
            let by_other = held.and_then(|s| s.holder_identity.as_deref()).is_some_and(|holder| holder != name);
            let renewed = held.and_then(|s| s.renew_time.as_ref()).map_or(0, |t| t.0.as_second());
            let lasts = held.and_then(|s| s.lease_duration_seconds).unwrap_or(0);
            if by_other && now.as_second() < renewed + i64::from(lasts) {
                return Ok(false);
            }
            lease.spec = Some(spec);
            leases.replace("leader", &PostParams::default(), &lease).await
        }
    };
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Many candidates at once: one wins, and the next only when it is late.
pub fn leader_election(cluster: &Cluster) -> Result<()> {
    with(cluster, async |space: &Space| {
        let leases: Api<Lease> = space.api();
        let names: Vec<String> = (0..8).map(|i| format!("candidate-{i}")).collect();
        for round in 0..2 {
            let tries = names.iter().map(|name| acquire(&leases, name, 2));
            let won: Vec<bool> = futures::future::try_join_all(tries).await?;
            ensure!(won.iter().filter(|won| **won).count() == 1, "round {round}: {won:?}");
            let leader = leases.get("leader").await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            let index = won.iter().position(|won| *won).unwrap_or_default();
            ensure!(leader == names[index], "{leader} leads, but {} was told so", names[index]);
            if round == 0 {
                ensure!(acquire(&leases, &leader, 2).await?, "the leader cannot renew");
                tokio::time::sleep(std::time::Duration::from_millis(3200)).await;
            }
        }
        let pods: Api<Pod> = space.api();
        ensure!(pods.list(&ListParams::default()).await?.items.iter().all(|pod| pod.name_any().is_empty()));
        Ok(())
    })
}
