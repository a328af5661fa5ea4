//! `trictl port-forward`: local ports whose connections go to a pod.
//!
//! Every connection is a request of its own, so that one through a master that dies does not take the others along, and
//! the next ones go through another master.

mod connection;
mod ports;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use futures::stream::FuturesUnordered;
use futures::{AsyncBufReadExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use self::ports::Mapping;
use super::api::Call;
use super::errors::{CtlError, Result};
use super::exec::running_pod;
use super::session::Session;
use super::targets::{self, Query, Target};

/// Connections at one time.
const MAX_CONNECTIONS: usize = 1024;

/// Forward one or more local ports to a pod.
#[derive(Debug, Clone, Default, Args)]
pub struct PortForwardArgs {
    /// POD or TYPE/NAME, then [LOCAL_PORT:]REMOTE_PORT, any number of times
    pub words: Vec<String>,
    /// Addresses to listen on, separated by commas: IP addresses or localhost
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    pub address: Vec<String>,
    /// How long to wait for a pod of TYPE/NAME
    #[arg(long, default_value = "1m0s", value_parser = super::flags::duration_text)]
    pub pod_running_timeout: String,
}

/// Runs the verb, until it is interrupted or the pod is gone.
pub async fn run(session: &Session, args: &PortForwardArgs) -> Result<()> {
    let (word, wanted) = match args.words.split_first() {
        Some((word, wanted)) if !wanted.is_empty() => (word, wanted),
        _ => {
            let text = "TYPE/NAME and list of ports are required for port-forward";
            return Err(CtlError::Usage(text.to_owned()));
        }
    };
    let (pod, object) = running_pod(session, std::slice::from_ref(word), &args.pod_running_timeout).await?;
    let wanted = match service(session, word).await? {
        Some(service) => ports::of_service(wanted, &service, &object)?,
        None => ports::of_pod(wanted, &object)?,
    };
    let mappings = ports::parse(&wanted)?;
    let addresses = addresses(&args.address)?;
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    if phase != "Running" {
        let text = format!("unable to forward port because pod is not running. Current status={phase}");
        return Err(CtlError::plain(text));
    }
    let (sender, accepted) = mpsc::channel(16);
    let mut listening = false;
    for mapping in &mappings {
        match listen(*mapping, &addresses, &sender).await {
            Ok(()) => listening = true,
            Err(why) => eprintln!("Unable to listen on port {}: {why}", mapping.local),
        }
    }
    if !listening {
        let ports: Vec<String> = mappings.iter().map(|m| format!("{{{} {}}}", m.local, m.remote)).collect();
        let text = format!("unable to listen on any of the requested ports: [{}]", ports.join(" "));
        return Err(CtlError::plain(text));
    }
    tokio::select! {
        () = connections(session, &pod, accepted) => Ok(()),
        () = pod_ends(session, &pod, &object) => Err(CtlError::plain("lost connection to pod")),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// The service that a word names, if it names one.
async fn service(session: &Session, word: &str) -> Result<Option<Value>> {
    if !word.contains('/') {
        return Ok(None);
    }
    let discovery = session.discovery().await?;
    let (queries, _) = targets::parse(&discovery, &[word.to_owned()])?;
    let Some(Query::Named(resource, names)) = queries.into_iter().next() else { return Ok(None) };
    if resource.kind != "Service" || !resource.group.is_empty() {
        return Ok(None);
    }
    let name = names.into_iter().next().unwrap_or_default();
    let target = Target { resource, namespace: Some(session.namespace.clone()), name, object: None, source: None };
    target.fetch(session).await.map(Some)
}

/// An address, and whether it is one of localhost's, of which one that works is enough.
type Listen = (IpAddr, bool);

fn addresses(words: &[String]) -> Result<Vec<Listen>> {
    let mut all: Vec<Listen> = Vec::new();
    for word in words {
        let found: Vec<Listen> = match (word.as_str(), word.parse::<IpAddr>()) {
            ("localhost", _) => vec![(Ipv4Addr::LOCALHOST.into(), true), (Ipv6Addr::LOCALHOST.into(), true)],
            (_, Ok(address)) => vec![(address, false)],
            (word, Err(_)) => return Err(CtlError::plain(format!("{word} is not a valid IP"))),
        };
        for (address, local) in found {
            if !all.iter().any(|(known, _)| *known == address) {
                all.push((address, local));
            }
        }
    }
    all.sort_by_key(|(address, _)| address.to_string());
    Ok(all)
}

/// A local connection, and the ports that it belongs to.
type Accepted = (TcpStream, Mapping);

async fn listen(
    mapping: Mapping,
    addresses: &[Listen],
    accepted: &mpsc::Sender<Accepted>,
) -> std::result::Result<(), String> {
    let mut mapping = mapping;
    let (mut local, mut failures, mut needed_failed) = (false, Vec::new(), false);
    for (address, is_local) in addresses {
        let at = SocketAddr::new(*address, mapping.local);
        let bound = async {
            let listener = TcpListener::bind(at).await?;
            let port = listener.local_addr()?.port();
            Ok::<_, std::io::Error>((listener, port))
        };
        match bound.await {
            Ok((listener, port)) => {
                mapping.local = port;
                local |= is_local;
                println!("Forwarding from {} -> {}", SocketAddr::new(*address, port), mapping.remote);
                tokio::spawn(accept(listener, mapping, accepted.clone()));
            }
            Err(error) => {
                let network = if at.is_ipv4() { "tcp4" } else { "tcp6" };
                let why = reason(&error);
                failures.push(format!("unable to create listener: Error listen {network} {at}: bind: {why}"));
                needed_failed |= !is_local;
            }
        }
    }
    let wants_local = addresses.iter().any(|(_, is_local)| *is_local);
    if needed_failed || wants_local && !local {
        let failures = failures.join(" ");
        return Err(format!("Listeners failed to create with the following errors: [{failures}]"));
    }
    Ok(())
}

fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

async fn accept(listener: TcpListener, mapping: Mapping, accepted: mpsc::Sender<Accepted>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if accepted.send((stream, mapping)).await.is_err() {
                    return;
                }
            }
            // Out of descriptors, for example: it passes.
            Err(error) => {
                eprintln!("error: Error accepting connection on port {}: {error}", mapping.local);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Carries connections; never ends.
async fn connections(session: &Session, pod: &Target, mut accepted: mpsc::Receiver<Accepted>) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((stream, mapping)) = accepted.recv(), if running.len() < MAX_CONNECTIONS => {
                println!("Handling connection for {}", mapping.local);
                running.push(async move { (connection::carry(session, pod, stream, mapping.remote).await, mapping) });
            }
            Some((outcome, mapping)) = running.next(), if !running.is_empty() => {
                if let Err(error) = outcome {
                    let text = error.text();
                    let text = text.trim().trim_start_matches("error: ");
                    eprintln!("error: an error occurred forwarding {} -> {}: {text}", mapping.local, mapping.remote);
                }
            }
        }
    }
}

/// Waits until the pod does not run any more.
async fn pod_ends(session: &Session, pod: &Target, object: &Value) {
    let uid = &object["metadata"]["uid"];
    let gone = |object: &Value| {
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        &object["metadata"]["uid"] != uid || matches!(phase, "Succeeded" | "Failed")
    };
    loop {
        let version = match session.api.json(&Call::get(pod.path())).await {
            Ok(object) if gone(&object) => return,
            Ok(object) => object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            Err(error) if error.is_not_found() => return,
            Err(_) => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let call = Call::get(pod.collection())
            .query("watch", "true")
            .query("fieldSelector", format!("metadata.name={}", pod.name))
            .query("resourceVersion", version);
        if let Ok(mut events) = session.api.stream(&call).await {
            let mut line = Vec::new();
            while matches!(events.read_until(b'\n', &mut line).await, Ok(1..)) {
                let event: Value = serde_json::from_slice(&line).unwrap_or_default();
                match event["type"].as_str() {
                    Some("DELETED") => return,
                    Some("ADDED" | "MODIFIED") if gone(&event["object"]) => return,
                    // The watch has to begin anew.
                    Some("ERROR") => break,
                    _ => line.clear(),
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_what_kubectl_takes() {
        let parse = |words: &[&str]| addresses(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let local = parse(&["localhost"]).unwrap();
        assert_eq!(local, [(Ipv4Addr::LOCALHOST.into(), true), (Ipv6Addr::LOCALHOST.into(), true)]);
        assert_eq!(parse(&["0.0.0.0", "0.0.0.0"]).unwrap().len(), 1);
        assert_eq!(parse(&["nowhere"]).unwrap_err().text(), "error: nowhere is not a valid IP\n");
    }
}
