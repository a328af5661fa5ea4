//! Which server a request to `nodes/…/proxy`, `pods/…/proxy` or `services/…/proxy` means. Rules and texts are upstream's.

use std::net::IpAddr;

use rand::seq::IndexedRandom;
use serde_json::Value;
use trireme_api::status::Status;
use trireme_api::value::{list, text};

use super::target::Target;
use crate::error::{ApiResult, corrupt};
use crate::request::info::RequestInfo;
use crate::server::ApiServer;
use crate::storage::keys;

/// How to speak to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Plain.
    Http,
    /// TLS; whose certificate it is does not matter, as upstream has it for pods and services.
    Https,
    /// TLS with a node agent that knows us.
    Agent,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) scheme: Scheme,
    /// Node of the pod there: masters need not be on the pod network, so its agent makes the connection.
    pub(super) node: Option<String>,
}

impl Backend {
    pub(super) fn authority(&self) -> String {
        std::net::SocketAddr::new(self.address, self.port).to_string()
    }

    /// The server that a request means.
    pub(super) fn of(server: &ApiServer, info: &RequestInfo) -> ApiResult<Backend> {
        let id = info.name.as_deref().unwrap_or_default();
        let what = info.resource.strip_suffix('s').unwrap_or(&info.resource);
        let wanted = Wanted::parse(id).ok_or_else(|| Status::bad_request(format!("invalid {what} request {id:?}")))?;
        let find = |resource: &str| -> ApiResult<Value> {
            let namespace = info.namespace.as_deref();
            let cache = server.inner.feed.cache("", resource);
            let found = cache.and_then(|cache| cache.get(&keys::suffix(namespace, wanted.name)));
            found.ok_or_else(|| Status::not_found("", resource, wanted.name))?.value().map_err(corrupt)
        };
        match info.resource.as_str() {
            "nodes" => wanted.node(Target::of_node(wanted.name, &find("nodes")?)?),
            "pods" => wanted.pod(&find("pods")?),
            "services" => {
                let service = find("services")?;
                // A service without endpoints may have no such object at all.
                wanted.service(&service, &find("endpoints").unwrap_or_default())
            }
            _ => Err(Status::method_not_supported()),
        }
    }
}

/// `[scheme:]name[:port]`
struct Wanted<'a> {
    scheme: Scheme,
    name: &'a str,
    port: &'a str,
}

impl<'a> Wanted<'a> {
    fn parse(id: &'a str) -> Option<Wanted<'a>> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let scheme = match scheme {
            "" | "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        (!name.is_empty()).then_some(Wanted { scheme, name, port })
    }

    fn number(&self) -> ApiResult<Option<u16>> {
        if self.port.is_empty() {
            return Ok(None);
        }
        let port = self.port.parse::<u16>().ok().filter(|port| *port > 0);
        port.map(Some).ok_or_else(|| Status::bad_request(format!("invalid port {:?}", self.port)))
    }

    fn node(&self, agent: Target) -> ApiResult<Backend> {
        match self.number()? {
            Some(port) if port != agent.port => {
                Ok(Backend { address: proxyable(agent.address)?, port, scheme: self.scheme, node: None })
            }
            _ => Ok(Backend { address: agent.address, port: agent.port, scheme: Scheme::Agent, node: None }),
        }
    }

    fn pod(&self, pod: &Value) -> ApiResult<Backend> {
        let declared = || {
            list(&pod["spec"], "containers").iter().find_map(|c| list(c, "ports").first()?["containerPort"].as_u64())
        };
        let default = if self.scheme == Scheme::Https { 443 } else { 80 };
        let port = match self.number()? {
            Some(port) => port,
            None => declared().and_then(|port| u16::try_from(port).ok()).unwrap_or(default),
        };
        let Ok(address) = text(&pod["status"], "podIP").parse() else {
            return Err(Status::service_unavailable(format!("pod {} has no address yet", self.name)));
        };
        let node = Some(text(&pod["spec"], "nodeName").to_owned()).filter(|node| !node.is_empty());
        Ok(Backend { address: proxyable(address)?, port, scheme: self.scheme, node })
    }

    fn service(&self, service: &Value, endpoints: &Value) -> ApiResult<Backend> {
        let unavailable = |why: String| Err(Status::service_unavailable(why));
        let mut name = self.port.to_owned();
        if let Ok(number) = self.port.parse::<u64>() {
            let ports = list(&service["spec"], "ports");
            match ports.iter().find(|port| port["port"].as_u64() == Some(number)) {
                Some(port) => name = text(port, "name").to_owned(),
                None => return unavailable(format!("no service port {number} found for service {:?}", self.name)),
            }
        }
        let mut found = Vec::new();
        for subset in list(endpoints, "subsets") {
            let ports = list(subset, "ports").iter().filter(|port| text(port, "name") == name);
            for port in ports.filter_map(|port| u16::try_from(port["port"].as_u64()?).ok()) {
                for entry in list(subset, "addresses") {
                    let Ok(address) = text(entry, "ip").parse::<IpAddr>() else { continue };
                    let node = Some(text(entry, "nodeName").to_owned()).filter(|node| !node.is_empty());
                    found.push((address, port, node));
                }
            }
        }
        let Some((address, port, node)) = found.choose(&mut rand::rng()).cloned() else {
            return unavailable(format!("no endpoints available for service {:?}", self.name));
        };
        Ok(Backend { address: proxyable(address)?, port, scheme: self.scheme, node })
    }
}

/// Refuses addresses that mean this machine, or whatever is on its link.
fn proxyable(address: IpAddr) -> ApiResult<IpAddr> {
    // `::ffff:127.0.0.1` is this machine too.
    let address = address.to_canonical();
    let bad = match address {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_unspecified(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || (ip.segments()[0] & 0xffc0) == 0xfe80
        }
    };
    if bad { Err(Status::bad_request("address not allowed")) } else { Ok(address) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn wanted(id: &str) -> Wanted<'_> {
        Wanted::parse(id).unwrap()
    }

    fn said(result: ApiResult<Backend>) -> Result<(String, Scheme), (u16, String)> {
        result.map(|b| (b.authority(), b.scheme)).map_err(|status| (status.code, status.message))
    }

    #[test]
    fn nodes_and_their_agents() {
        let agent = || Target { address: "10.0.0.5".parse().unwrap(), port: 10250 };
        assert_eq!(said(wanted("n").node(agent())), Ok(("10.0.0.5:10250".into(), Scheme::Agent)));
        assert_eq!(said(wanted("https:n:10250").node(agent())), Ok(("10.0.0.5:10250".into(), Scheme::Agent)));
        assert_eq!(said(wanted("n:9100").node(agent())), Ok(("10.0.0.5:9100".into(), Scheme::Http)));
        let here = Target { address: "127.0.0.1".parse().unwrap(), port: 10250 };
        assert_eq!(said(wanted("n:22").node(here)), Err((400, "address not allowed".into())));
        for bad in ["", ":80", "ftp:n:1", "a:b:c:d"] {
            assert!(Wanted::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_this_machine_in_every_dress() {
        let kept = ["10.244.0.7", "::ffff:10.244.0.7", "2001:db8::1"].map(|ip| proxyable(ip.parse().unwrap()).is_ok());
        assert_eq!(kept, [true; 3]);
        let refused = ["127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0.0.0.0", "::1", "fe80::1"];
        for ip in refused {
            assert!(proxyable(ip.parse().unwrap()).is_err(), "{ip}");
        }
    }

    #[test]
    fn pods_by_their_first_port() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]},
                         "status": {"podIP": "10.244.0.7"}});
        assert_eq!(said(wanted("p").pod(&pod)), Ok(("10.244.0.7:8080".into(), Scheme::Http)));
        assert_eq!(said(wanted("https:p:9").pod(&pod)), Ok(("10.244.0.7:9".into(), Scheme::Https)));
        let none = json!({"spec": {"containers": [{"name": "a"}]}, "status": {"podIP": "10.244.0.7"}});
        assert_eq!(said(wanted("p").pod(&none)), Ok(("10.244.0.7:80".into(), Scheme::Http)));
        let waiting = json!({"spec": {"containers": []}, "status": {}});
        assert_eq!(said(wanted("p").pod(&waiting)).unwrap_err().0, 503);
        assert_eq!(said(wanted("p:web").pod(&pod)).unwrap_err().0, 400);
    }

    #[test]
    fn services_by_number_or_name() {
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "tls", "port": 443}]}});
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "10.244.0.9"}],
                                            "ports": [{"name": "web", "port": 8080}, {"name": "tls", "port": 8443}]}]});
        let ask = |id: &str, e: &Value| said(wanted(id).service(&service, e));
        assert_eq!(ask("s:80", &endpoints), Ok(("10.244.0.9:8080".into(), Scheme::Http)));
        assert_eq!(ask("https:s:tls", &endpoints), Ok(("10.244.0.9:8443".into(), Scheme::Https)));
        assert_eq!(ask("s:81", &endpoints), Err((503, "no service port 81 found for service \"s\"".into())));
        assert_eq!(ask("s", &endpoints), Err((503, "no endpoints available for service \"s\"".into())));
        assert_eq!(ask("s:web", &json!({})), Err((503, "no endpoints available for service \"s\"".into())));
    }
}
