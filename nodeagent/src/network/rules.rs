//! The nftables rules of a node, rendered as a whole and loaded in one transaction.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use super::ipam::Record;
use super::netns::Netns;
use super::{Cidr, NetworkError};

/// Our table; nothing else is touched.
pub(crate) const TABLE: &str = "trireme";
const PATHS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// What the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules<'a> {
    pub bridge: &'a str,
    pub pod_cidr: Cidr,
    pub cluster_cidr: Cidr,
    /// Nodes that have a route back to our pods.
    pub known_nodes: Vec<Ipv4Addr>,
    pub records: Vec<Record>,
}

impl Rules<'_> {
    /// The transaction that replaces the table.
    pub fn render(&self) -> String {
        let mut text = format!("add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n");
        text.push_str("\tset known_nodes {\n\t\ttype ipv4_addr\n");
        if !self.known_nodes.is_empty() {
            let nodes: Vec<String> = self.known_nodes.iter().map(Ipv4Addr::to_string).collect();
            let _ = writeln!(text, "\t\telements = {{ {} }}", nodes.join(", "));
        }
        text.push_str("\t}\n");
        self.host_ports(&mut text);
        let _ = write!(
            text,
            "\tchain prerouting {{\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\
             \t\tfib daddr type local jump hostports\n\t}}\n\
             \tchain output {{\n\t\ttype nat hook output priority -100; policy accept;\n\
             \t\tfib daddr type local jump hostports\n\t}}\n"
        );
        self.masquerade(&mut text);
        text.push_str("}\n");
        text
    }

    fn host_ports(&self, text: &mut String) {
        text.push_str("\tchain hostports {\n");
        for (record, port) in self.records.iter().flat_map(|record| record.host_ports.iter().map(move |p| (record, p)))
        {
            let address = port.host_ip.map(|ip| format!("ip daddr {ip} ")).unwrap_or_default();
            let (protocol, ip) = (port.protocol.nft(), record.network.ip);
            let _ = writeln!(
                text,
                "\t\t{address}{protocol} dport {} dnat to {ip}:{} comment \"{}\"",
                port.host_port,
                port.container_port,
                comment(&record.key)
            );
        }
        text.push_str("\t}\n");
    }

    fn masquerade(&self, text: &mut String) {
        let (pods, cluster, bridge) = (self.pod_cidr, self.cluster_cidr, self.bridge);
        text.push_str("\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n");
        // A pod that reaches itself through its host port would drop an answer from its own address.
        for record in self.records.iter().filter(|record| !record.host_ports.is_empty()) {
            let ip = record.network.ip;
            let _ = writeln!(text, "\t\tip saddr {ip} ip daddr {ip} ct status dnat masquerade");
        }
        let _ = write!(
            text,
            "\t\tip saddr {pods} ip daddr {cluster} accept\n\
             \t\tip saddr {pods} ip daddr @known_nodes accept\n\
             \t\tip saddr {pods} ip daddr 224.0.0.0/4 accept\n\
             \t\tip saddr {pods} oifname != \"{bridge}\" masquerade fully-random\n\t}}\n"
        );
    }
}

/// Comments are quoted strings of at most 128 bytes.
fn comment(key: &str) -> String {
    key.chars().filter(|c| c.is_ascii_graphic() && *c != '"' && *c != '\\').take(100).collect()
}

/// Loads a transaction in a namespace: all of it or nothing.
pub(crate) async fn load(netns: &Netns, script: String) -> Result<(), NetworkError> {
    let outcome = netns.run("cannot run nft", move || run(&script)).await?;
    outcome.map_err(NetworkError::Nftables)
}

fn run(script: &str) -> io::Result<Result<(), String>> {
    let mut missing = None;
    for path in PATHS {
        let spawned = Command::new(path)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        // nft reads everything before it says anything.
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
        let output = child.wait_with_output()?;
        if output.status.success() {
            return written.map(Ok);
        }
        let message = String::from_utf8_lossy(&output.stderr);
        return Ok(Err(message.trim().chars().take(2000).collect()));
    }
    Err(missing.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{HostPort, PodNetwork, Protocol};
    use super::*;

    #[test]
    fn the_table_is_replaced_in_one_transaction() {
        let pod = Ipv4Addr::new(10, 244, 1, 5);
        let network = PodNetwork { ip: pod, gateway: Ipv4Addr::new(10, 244, 1, 1), mac: String::new(), mtu: 1450 };
        let port = HostPort { host_ip: None, host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
        let rules = Rules {
            bridge: "tri0",
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            known_nodes: vec![Ipv4Addr::new(10, 0, 0, 2)],
            records: vec![Record { key: "de\"ad\\".into(), network, host_ports: vec![port] }],
        };
        let text = rules.render();
        assert!(text.starts_with("add table ip trireme\ndelete table ip trireme\ntable ip trireme {"));
        assert!(text.contains("tcp dport 8080 dnat to 10.244.1.5:80 comment \"dead\""));
        assert!(text.contains("elements = { 10.0.0.2 }"));
        assert!(text.contains("ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 accept"));
    }
}
