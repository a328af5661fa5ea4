//! Probes: one task per running container, which tells the machine when an answer has changed.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nix::errno::Errno;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pods::kill::exec_to_end;
use crate::pods::machine::{Event, ProbeKind};
use crate::pods::worker::Message;
use crate::pods::{Context, PodView};

/// Counts answers until there are enough in a row to believe them. Pure.
#[derive(Debug)]
struct Threshold {
    needed_ok: i32,
    needed_failed: i32,
    last: Option<bool>,
    count: i32,
}

impl Threshold {
    fn new(probe: &Probe) -> Threshold {
        Threshold {
            needed_ok: probe.success_threshold.unwrap_or(1).max(1),
            needed_failed: probe.failure_threshold.unwrap_or(3).max(1),
            last: None,
            count: 0,
        }
    }

    /// The answer to believe from now on, if this one settles it.
    fn add(&mut self, ok: bool) -> Option<bool> {
        self.count = if self.last == Some(ok) { self.count.saturating_add(1) } else { 1 };
        self.last = Some(ok);
        let needed = if ok { self.needed_ok } else { self.needed_failed };
        (self.count >= needed).then_some(ok)
    }
}

/// What a container is probed with.
#[derive(Clone)]
pub(crate) struct Probing {
    pub(crate) context: Arc<Context>,
    pub(crate) view: Arc<PodView>,
    pub(crate) container: Container,
    pub(crate) id: String,
    pub(crate) ip: String,
    pub(crate) sender: mpsc::Sender<Message>,
}

/// Probes a container until cancelled.
pub(crate) async fn run(probing: Probing, started: bool, stop: CancellationToken) {
    let all = async {
        if let Some(probe) = probing.container.startup_probe.clone().filter(|_| !started) {
            repeat(&probing, &probe, ProbeKind::Startup).await;
        }
        let liveness = probing.container.liveness_probe.clone();
        let readiness = probing.container.readiness_probe.clone();
        tokio::join!(
            async {
                if let Some(probe) = liveness {
                    repeat(&probing, &probe, ProbeKind::Liveness).await;
                }
            },
            async {
                if let Some(probe) = readiness {
                    repeat(&probing, &probe, ProbeKind::Readiness).await;
                }
            },
        );
    };
    tokio::select! {
        () = all => {}
        () = stop.cancelled() => {}
    }
}

/// Probes again and again; a startup probe ends with its first success.
async fn repeat(probing: &Probing, probe: &Probe, kind: ProbeKind) {
    let seconds = |value: Option<i32>, default: i32| u64::try_from(value.unwrap_or(default)).unwrap_or(0);
    let period = Duration::from_secs(seconds(probe.period_seconds, 10).max(1));
    let limit = Duration::from_secs(seconds(probe.timeout_seconds, 1).max(1));
    tokio::time::sleep(Duration::from_secs(seconds(probe.initial_delay_seconds, 0))).await;
    let mut threshold = Threshold::new(probe);
    let mut believed = None;
    let name = match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Liveness => "Liveness",
        ProbeKind::Readiness => "Readiness",
    };
    loop {
        let begun = tokio::time::Instant::now();
        let answer = match tokio::time::timeout(limit, once(probing, probe)).await {
            Ok(answer) => answer,
            Err(_) => Err(overdue(probing, probe)),
        };
        let (ok, message) = match answer {
            Ok(()) => (true, String::new()),
            Err(message) => (false, message),
        };
        if !ok {
            let text = format!("{name} probe failed: {message}");
            probing.context.emit(&probing.view.pod, Some((&probing.container.name, false)), true, "Unhealthy", &text);
        }
        if let Some(settled) = threshold.add(ok).filter(|settled| believed != Some(*settled)) {
            believed = Some(settled);
            let event = Event::Probe { id: probing.id.clone(), kind, ok: settled, message };
            if probing.sender.send(Message::Event(event)).await.is_err() {
                return;
            }
            if kind == ProbeKind::Startup && settled {
                return;
            }
        }
        // Until a pod is ready for the first time it is asked more often, as newer kubelets do on its start.
        tokio::time::sleep_until(begun + period).await;
    }
}

async fn once(probing: &Probing, probe: &Probe) -> Result<(), String> {
    if let Some(exec) = &probe.exec {
        let shim = probing.view.shim();
        let (code, output) = exec_to_end(&shim, &probing.id, exec.command.clone().unwrap_or_default()).await?;
        return if code == 0 { Ok(()) } else { Err(output) };
    }
    if let Some(http) = &probe.http_get {
        let mut action = http.clone();
        action.host = Some(host(probing, &http.host));
        return http_get(&probing.view.pod, &probing.container, &action).await.map(drop);
    }
    if let Some(tcp) = &probe.tcp_socket {
        let port = port(&probing.container, &tcp.port)?;
        return dial(&host(probing, &tcp.host), port).await.map(drop);
    }
    Err("this kind of probe is not supported".to_owned())
}

/// The host that is to be asked: the one given, or the pod.
fn host(probing: &Probing, given: &Option<String>) -> String {
    given.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| probing.ip.clone())
}

/// What the kubelet says of a probe that was not answered in time.
fn overdue(probing: &Probing, probe: &Probe) -> String {
    if let Some(exec) = &probe.exec {
        return format!("command {:?} timed out", exec.command.clone().unwrap_or_default().join(" "));
    }
    if let Some(http) = &probe.http_get {
        let port = port(&probing.container, &http.port).unwrap_or_default();
        let url = url(http, &host(probing, &http.host), port);
        return format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    }
    let tcp = probe.tcp_socket.as_ref();
    let at = tcp.and_then(|tcp| Some((host(probing, &tcp.host), port(&probing.container, &tcp.port).ok()?)));
    at.map_or_else(|| "timed out".to_owned(), |(host, port)| format!("dial tcp {}: i/o timeout", address(&host, port)))
}

/// `host:port`, as it is part of URLs.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn path(action: &HTTPGetAction) -> String {
    let path = action.path.as_deref().unwrap_or("/");
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn url(action: &HTTPGetAction, host: &str, port: u16) -> String {
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
    format!("{scheme}://{}{}", address(host, port), path(action))
}

/// Connects. Errors read as the kubelet's, since people search for them.
async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|error| {
        let why = match error.raw_os_error() {
            Some(code) => format!("connect: {}", Errno::from_raw(code).desc().to_lowercase()),
            None => error.to_string(),
        };
        format!("dial tcp {}: {why}", address(host, port))
    })
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => name.parse().ok().or_else(|| {
            let mut ports = container.ports.iter().flatten();
            ports.find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port)
        }),
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| format!("invalid port {port:?}"))
}

/// A GET as probes and hooks make it. 200 to 399 is success.
pub(crate) async fn http_get(pod: &Pod, container: &Container, action: &HTTPGetAction) -> Result<u16, String> {
    let port = port(container, &action.port)?;
    let ip = || pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let host = action.host.clone().or_else(ip).ok_or("the pod has no address")?;
    let failed = |why: String| format!("Get {:?}: {why}", url(action, &host, port));
    let mut request = hyper::Request::get(path(action))
        .header("host", address(&host, port))
        .header("user-agent", "kube-probe/1.36")
        .header("accept", "*/*")
        .header("connection", "close");
    for header in action.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let stream = dial(&host, port).await.map_err(failed)?;
    let status = if action.scheme.as_deref() == Some("HTTPS") {
        let secured = crate::server::tls::connect_unchecked(&host, stream).await.map_err(failed)?;
        send(TokioIo::new(secured), request).await
    } else {
        send(TokioIo::new(stream), request).await
    };
    match status.map_err(failed)? {
        status @ 200..=399 => Ok(status),
        status => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn send<I>(io: I, request: hyper::Request<Empty<Bytes>>) -> Result<u16, String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        // A bounded part of the body, so that the server is not cut off in the middle of a small answer.
        let _ = http_body_util::Limited::new(response.into_body(), 10 << 10).collect().await;
        Ok(status)
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        status = &mut exchange => status,
        ended = connection => match ended {
            // The server has closed after its answer, which waits to be taken.
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_believed_after_enough_in_a_row() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let mut threshold = Threshold::new(&probe);
        let answers = [true, true, false, false, true, false, false, false, false];
        let settled: Vec<_> = answers.iter().map(|ok| threshold.add(*ok)).collect();
        let expected = [None, Some(true), None, None, None, None, None, Some(false), Some(false)];
        assert_eq!(settled, expected);
    }

    #[tokio::test]
    async fn refusals_read_as_the_kubelets() {
        // Nobody listens at a port that was just given back.
        let port =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|l| l.local_addr()).map_or(1, |a| a.port());
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(dial("127.0.0.1", port).await.map(drop), Err(refused.clone()));
        let action = HTTPGetAction {
            host: Some("127.0.0.1".to_owned()),
            path: Some("ready?now=1".to_owned()),
            port: IntOrString::Int(i32::from(port)),
            ..HTTPGetAction::default()
        };
        let asked = http_get(&Pod::default(), &Container::default(), &action).await;
        assert_eq!(asked, Err(format!("Get \"http://127.0.0.1:{port}/ready?now=1\": {refused}")));
        assert_eq!(url(&action, "fd00::1", 80), "http://[fd00::1]:80/ready?now=1");
    }

    #[test]
    fn ports_by_number_and_name() {
        let ports = vec![k8s_openapi::api::core::v1::ContainerPort {
            name: Some("web".to_owned()),
            container_port: 8080,
            ..Default::default()
        }];
        let container = Container { ports: Some(ports), ..Container::default() };
        assert_eq!(port(&container, &IntOrString::String("web".to_owned())), Ok(8080));
        assert_eq!(port(&container, &IntOrString::Int(81)), Ok(81));
        assert!(port(&container, &IntOrString::String("none".to_owned())).is_err());
    }
}
