//! Where a pod's agent is, and which of its paths a request means. Error texts are upstream's.

use std::net::IpAddr;

use serde_json::Value;
use trireme_api::status::Status;
use trireme_api::value::{list, text};

use crate::error::{ApiResult, corrupt};
use crate::request::query::Query;
use crate::server::ApiServer;

const AGENT_PORT: u16 = 10250;

/// A node agent.
pub(crate) struct Target {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

impl Target {
    /// The agent of the pod's node; `None` for a pod without node.
    pub(crate) fn of(server: &ApiServer, pod: &Value) -> ApiResult<Option<Self>> {
        let node = text(&pod["spec"], "nodeName");
        if node.is_empty() {
            return Ok(None);
        }
        let found = server.inner.feed.cache("", "nodes").and_then(|c| c.get(node));
        let found = found.ok_or_else(|| Status::not_found("", "nodes", node))?.value().map_err(corrupt)?;
        Self::of_node(node, &found).map(Some)
    }

    /// The agent of a node.
    pub(crate) fn of_node(node: &str, found: &Value) -> ApiResult<Self> {
        let address = ["InternalIP", "ExternalIP"].iter().find_map(|kind| {
            list(&found["status"], "addresses")
                .iter()
                .find(|a| text(a, "type") == *kind)
                .and_then(|a| text(a, "address").parse().ok())
        });
        let address =
            address.ok_or_else(|| Status::internal(format!("no preferred addresses found for node {node:?}")))?;
        let port = found["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(AGENT_PORT);
        Ok(Self { address, port })
    }

    pub(crate) fn authority(&self) -> String {
        std::net::SocketAddr::new(self.address, self.port).to_string()
    }
}

fn names<'a>(pod: &'a Value, key: &'a str) -> impl Iterator<Item = &'a str> {
    list(&pod["spec"], key).iter().map(|c| text(c, "name"))
}

/// The container that is asked for, or the only one.
fn container(pod: &Value, query: &Query) -> ApiResult<String> {
    let pod_name = text(&pod["metadata"], "name");
    let containers: Vec<&str> = names(pod, "containers").collect();
    let init: Vec<&str> = names(pod, "initContainers").collect();
    let ephemeral: Vec<&str> = names(pod, "ephemeralContainers").collect();
    match query.get("container") {
        Some(wanted) if containers.contains(&wanted) || init.contains(&wanted) || ephemeral.contains(&wanted) => {
            Ok(wanted.to_owned())
        }
        Some(wanted) => Err(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}"))),
        None if containers.len() == 1 => Ok(containers[0].to_owned()),
        None => {
            let choose = if init.is_empty() {
                format!("choose one of: [{}]", containers.join(" "))
            } else {
                let (containers, init) = (containers.join(" "), init.join(" "));
                format!("choose one of: [{containers}] or one of the init containers: [{init}]")
            };
            Err(Status::bad_request(format!("a container name must be specified for pod {pod_name}, {choose}")))
        }
    }
}

fn base(pod: &Value, what: &str, container: Option<&str>) -> String {
    let (namespace, name) = (text(&pod["metadata"], "namespace"), text(&pod["metadata"], "name"));
    let container = container.map(|c| format!("/{}", escape(c))).unwrap_or_default();
    format!("/{what}/{}/{}{container}", escape(namespace), escape(name))
}

fn with_query(path: String, pairs: &[(&str, String)]) -> String {
    let query: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={}", escape(v))).collect();
    if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
}

/// The agent's path for logs.
pub(crate) fn log(pod: &Value, query: &Query) -> ApiResult<String> {
    let container = container(pod, query)?;
    let mut pairs = Vec::new();
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            pairs.push((flag, "true".to_owned()));
        }
    }
    let invalid = |field: &str, why: String| {
        let mut status = Status::bad_request(format!("PodLogOptions \"\" is invalid: {field}: {why}"));
        status.code = 422;
        status.reason = trireme_api::status::Reason::Invalid;
        status
    };
    for (name, least) in [("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)] {
        let Some(number) = query.integer(name).map_err(Status::bad_request)? else { continue };
        if number < least {
            let bound = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            return Err(invalid(name, format!("Invalid value: {number}: {bound}")));
        }
        pairs.push((name, number.to_string()));
    }
    if let Some(time) = query.get("sinceTime") {
        if query.get("sinceSeconds").is_some() {
            let why = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified";
            return Err(invalid("", why.to_owned()));
        }
        pairs.push(("sinceTime", time.to_owned()));
    }
    Ok(with_query(base(pod, "containerLogs", Some(&container)), &pairs))
}

/// The agent's path for exec or attach.
pub(crate) fn session(pod: &Value, query: &Query, what: &str) -> ApiResult<String> {
    let container = container(pod, query)?;
    let mut pairs: Vec<(&str, String)> = query.all("command").map(|c| ("command", c.to_owned())).collect();
    if what == "exec" && pairs.is_empty() {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    let streams = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let wanted: Vec<(&str, String)> =
        streams.iter().filter(|(flag, _)| query.flag(flag)).map(|(_, name)| (*name, "1".to_owned())).collect();
    if !wanted.iter().any(|(name, _)| *name != "tty") {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    pairs.extend(wanted);
    Ok(with_query(base(pod, what, Some(&container)), &pairs))
}

/// The agent's path for port forwarding.
pub(crate) fn port_forward(pod: &Value, query: &Query) -> ApiResult<String> {
    let pairs: Vec<(&str, String)> = query.all("ports").map(|p| ("port", p.to_owned())).collect();
    Ok(with_query(base(pod, "portForward", None), &pairs))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_and_errors() {
        let pod = json!({"metadata": {"namespace": "d", "name": "p"},
                         "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let path = |q: &str| log(&pod, &Query::parse(q)).map_err(|s| s.message);
        assert_eq!(
            path("container=a&follow=true&tailLines=5").unwrap(),
            "/containerLogs/d/p/a?follow=true&tailLines=5"
        );
        assert_eq!(
            path("").unwrap_err(),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(path("container=x").unwrap_err(), "container x is not valid for pod p");
        let exec =
            session(&pod, &Query::parse("container=b&command=sh&command=-c&command=a%20b&stdin=true&tty=true"), "exec");
        assert_eq!(exec.unwrap(), "/exec/d/p/b?command=sh&command=-c&command=a%20b&input=1&tty=1");
    }
}
