//! Turns tables into nftables transactions.
//!
//! Two maps lead from (address, protocol, port) and (protocol, node port) to a chain for each frontend; it picks one of
//! the endpoints' chains at random, which translates. Endpoint chains are named after their content, so that only the
//! frontend's own chain changes when endpoints come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use sha2::{Digest as _, Sha256};

use super::super::{Cidr, Protocol};
use super::table::{Backends, Frontend, Table};

/// Our table for services.
const TABLE: &str = "trireme-services";
/// Marks connections that are answered through this node.
const MARK: &str = "0x4000";

/// The chains (name to rules), sets and map elements that a table consists of.
#[derive(Default)]
struct Pieces {
    chains: BTreeMap<String, Vec<String>>,
    /// Affinity sets with their timeout in seconds.
    sets: BTreeMap<String, u32>,
    /// (map, key) to verdict.
    elements: BTreeMap<(&'static str, String), String>,
}

/// Replaces whatever is loaded.
pub(super) fn whole(table: &Table, service_cidr: Cidr) -> String {
    let mut text = format!("add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n");
    text.push_str(
        "\tmap vips {\n\t\ttype ipv4_addr . inet_proto . inet_service : verdict\n\t}\n\
         \tmap nodeports {\n\t\ttype inet_proto . inet_service : verdict\n\t}\n\
         \tmap refused {\n\t\ttype ipv4_addr . inet_proto . inet_service : verdict\n\t}\n\
         \tchain services {\n\
         \t\tip daddr . meta l4proto . th dport vmap @vips\n\
         \t\tip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @nodeports\n\t}\n\
         \tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\tjump services\n\t}\n\
         \tchain output {\n\t\ttype nat hook output priority -100; policy accept;\n\t\tjump services\n\t}\n\
         \tchain reject_it {\n\t\tmeta l4proto tcp reject with tcp reset\n\t\treject\n\t}\n\
         \tchain drop_it {\n\t\tdrop\n\t}\n",
    );
    for hook in ["forward", "output"] {
        // Whatever still has a virtual address here was translated by nobody.
        let _ = write!(
            text,
            "\tchain refuse_{hook} {{\n\t\ttype filter hook {hook} priority 0; policy accept;\n\
             \t\tip daddr . meta l4proto . th dport vmap @refused\n\
             \t\tip daddr {service_cidr} ct state new goto reject_it\n\t}}\n"
        );
    }
    let _ = write!(
        text,
        "\tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tmeta mark and {MARK} == {MARK} meta mark set meta mark xor {MARK} masquerade fully-random\n\t}}\n}}\n"
    );
    text.push_str(&difference(&Table::default(), table));
    text
}

/// Removes everything.
pub(super) fn nothing() -> String {
    format!("add table ip {TABLE}\ndelete table ip {TABLE}\n")
}

/// Leads from one table to another. New chains come before what refers to them, old ones go after.
pub(super) fn difference(old: &Table, new: &Table) -> String {
    let (old, new) = (pieces(old), pieces(new));
    let mut text = String::new();
    for (name, seconds) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
        let _ = writeln!(
            text,
            "add set ip {TABLE} {name} {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout {seconds}s; }}"
        );
    }
    let changed: Vec<_> = new.chains.iter().filter(|(name, rules)| old.chains.get(*name) != Some(rules)).collect();
    for (name, _) in &changed {
        let _ = writeln!(text, "add chain ip {TABLE} {name}");
    }
    for (name, rules) in changed {
        if old.chains.contains_key(name) {
            let _ = writeln!(text, "flush chain ip {TABLE} {name}");
        }
        for rule in rules {
            let _ = writeln!(text, "add rule ip {TABLE} {name} {rule}");
        }
    }
    for ((map, key), verdict) in &old.elements {
        if new.elements.get(&(*map, key.clone())) != Some(verdict) {
            let _ = writeln!(text, "delete element ip {TABLE} {map} {{ {key} }}");
        }
    }
    for ((map, key), verdict) in &new.elements {
        if old.elements.get(&(*map, key.clone())) != Some(verdict) {
            let _ = writeln!(text, "add element ip {TABLE} {map} {{ {key} : {verdict} }}");
        }
    }
    let gone: Vec<&String> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
    // They may refer to each other: all are emptied before the first goes.
    for name in &gone {
        let _ = writeln!(text, "flush chain ip {TABLE} {name}");
    }
    for name in &gone {
        let _ = writeln!(text, "delete chain ip {TABLE} {name}");
    }
    for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
        let _ = writeln!(text, "delete set ip {TABLE} {name}");
    }
    text
}

fn pieces(table: &Table) -> Pieces {
    let mut pieces = Pieces::default();
    for (frontend, backends) in &table.frontends {
        let protocol = frontend.protocol.nft();
        let (map, key) = match frontend.address {
            Some(address) => ("vips", format!("{address} . {protocol} . {}", frontend.port)),
            None => ("nodeports", format!("{protocol} . {}", frontend.port)),
        };
        if backends.endpoints.is_empty() {
            // Address translation cannot refuse: the filter chains do. A node port without endpoints is a closed port.
            if frontend.address.is_some() {
                let verdict = if backends.drop_if_empty { "goto drop_it" } else { "goto reject_it" };
                pieces.elements.insert(("refused", key), verdict.to_owned());
            }
            continue;
        }
        let chain = frontend_chain(&mut pieces, frontend, backends);
        pieces.elements.insert((map, key), format!("goto {chain}"));
    }
    pieces
}

fn frontend_chain(pieces: &mut Pieces, frontend: &Frontend, backends: &Backends) -> String {
    let mut rules = Vec::new();
    if backends.masquerade {
        rules.push(format!("meta mark set meta mark or {MARK} comment {}", comment(&backends.service)));
    }
    let mut choices = Vec::new();
    for (index, (address, port)) in backends.endpoints.iter().enumerate() {
        let chain = endpoint_chain(pieces, frontend.protocol, backends, *address, *port);
        if backends.affinity.is_some() {
            rules.push(format!("ip saddr @{} goto {chain}", affinity_set(&chain)));
        }
        choices.push(format!("{index} : goto {chain}"));
    }
    let service = comment(&backends.service);
    rules.push(match choices.as_slice() {
        [only] => format!("{} comment {service}", only.trim_start_matches("0 : ")),
        all => format!("numgen random mod {} vmap {{ {} }} comment {service}", all.len(), all.join(", ")),
    });
    let address = frontend.address.map(|address| address.to_string()).unwrap_or_default();
    let name = format!("svc-{}", hash(&[&address, frontend.protocol.nft(), &frontend.port.to_string()]));
    pieces.chains.insert(name.clone(), rules);
    name
}

fn endpoint_chain(
    pieces: &mut Pieces,
    protocol: Protocol,
    backends: &Backends,
    address: Ipv4Addr,
    port: u16,
) -> String {
    let protocol = protocol.nft();
    let affinity = backends.affinity.map(|seconds| format!("{seconds} {}", backends.service)).unwrap_or_default();
    let name = format!("ep-{}", hash(&[&address.to_string(), protocol, &port.to_string(), &affinity]));
    // Whoever reaches itself must not see its own address as the sender.
    let mut rules = vec![format!("ip saddr {address} meta mark set meta mark or {MARK}")];
    if let Some(seconds) = backends.affinity {
        let set = affinity_set(&name);
        rules.push(format!("update @{set} {{ ip saddr }}"));
        pieces.sets.insert(set, seconds);
    }
    rules.push(format!("meta l4proto {protocol} dnat to {address}:{port}"));
    pieces.chains.insert(name.clone(), rules);
    name
}

fn affinity_set(chain: &str) -> String {
    chain.replacen("ep-", "aff-", 1)
}

fn comment(text: &str) -> String {
    let clean: BTreeSet<char> = ['"', '\\'].into();
    let text: String = text.chars().filter(|c| c.is_ascii_graphic() && !clean.contains(c)).take(100).collect();
    format!("\"{text}\"")
}

fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn table(entries: &[(&str, u16, &[&str])]) -> Table {
        let mut table = Table::default();
        for (address, port, endpoints) in entries {
            let frontend = Frontend { address: Some(address.parse().unwrap()), protocol: Protocol::Tcp, port: *port };
            let endpoints = endpoints.iter().map(|ip| (ip.parse().unwrap(), 8080)).collect();
            table.frontends.insert(frontend, Backends { service: "d/web:".into(), endpoints, ..Backends::default() });
        }
        table
    }

    #[test]
    fn a_change_touches_only_what_changed() {
        let old = table(&[("10.96.0.1", 80, &["10.244.0.2"]), ("10.96.0.2", 80, &["10.244.0.2", "10.244.0.3"])]);
        assert_eq!(difference(&old, &old), "");
        let new = table(&[("10.96.0.1", 80, &["10.244.0.2"]), ("10.96.0.2", 80, &["10.244.0.3", "10.244.0.4"])]);
        let text = difference(&old, &new);
        let verbs: Vec<String> =
            text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
        // The new endpoint's chain and the frontend's; nothing of the other service. The old endpoint is still used.
        assert_eq!(verbs, ["add chain", "add chain", "add rule", "add rule", "flush chain", "add rule"], "{text}");
        assert!(!text.contains("element"), "{text}");
    }

    #[test]
    fn without_endpoints_connections_are_refused() {
        let old = table(&[("10.96.0.1", 80, &["10.244.0.2"])]);
        let new = table(&[("10.96.0.1", 80, &[])]);
        let text = difference(&old, &new);
        assert!(text.contains("delete element ip trireme-services vips { 10.96.0.1 . tcp . 80 }"), "{text}");
        assert!(text.contains("add element ip trireme-services refused { 10.96.0.1 . tcp . 80 : goto reject_it }"));
        let back = difference(&new, &Table::default());
        assert_eq!(back, "delete element ip trireme-services refused { 10.96.0.1 . tcp . 80 }\n");
    }
}
