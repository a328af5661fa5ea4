//! Which name and address a node's certificate may carry. Both become names of a server under the API's authority, so a
//! node that could choose them freely could pass for a master.

use std::net::IpAddr;

use trireme_api::status::Status;
use trireme_raftstore::Member;

/// What a node asks for, and where the request came from.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) address: IpAddr,
    pub(super) from: IpAddr,
}

/// Refuses what belongs to the API server or to another machine.
///
/// That the address has to be the caller's own also keeps the addresses of masters: only a machine that runs a master
/// can ask for that master's.
pub(super) fn check(wanted: &Wanted<'_>, service_ip: IpAddr, members: &[Member]) -> Result<(), Status> {
    let Wanted { name, address, from } = wanted;
    let (address, from) = (address.to_canonical(), from.to_canonical());
    let refuse = |why: String| Err(Status::forbidden("", "nodes", name, &why));
    // A name in the form of an address would be signed as one.
    if *name == "localhost" || *name == "kubernetes" || name.starts_with("kubernetes.") || is_address(name) {
        return refuse("this name is not for nodes: choose another with --name".to_owned());
    }
    if address.is_loopback() {
        return refuse(format!("{address} is a loopback address: other machines cannot reach a node there"));
    }
    if address == service_ip.to_canonical() {
        return refuse(format!("{address} is the address of the service \"kubernetes\""));
    }
    if address != from {
        return refuse(format!(
            "the address has to be the one that the request comes from: it is {from}, not {address}; choose the \
             address with --address and a route to the master that uses it"
        ));
    }
    if members.iter().any(|member| member.name == *name && !lives_at(member, from)) {
        return refuse("a master on another machine has this name: choose another with --name".to_owned());
    }
    Ok(())
}

fn is_address(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
}

/// Whether a member's API or peer server has this address; one with host names has no known address.
fn lives_at(member: &Member, ip: IpAddr) -> bool {
    let host = |text: &str| {
        let authority = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        host.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    };
    [&member.client_address, &member.peer_address].into_iter().any(|address| host(address) == Some(ip))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use trireme_raftstore::Role;

    fn asked(name: &str, address: &str, from: &str) -> Result<(), String> {
        let member = Member {
            id: 1,
            name: "master-1".into(),
            peer_address: "10.0.0.11:2380".into(),
            client_address: "https://10.0.0.11:6443".into(),
            role: Role::Follower,
            healthy: true,
            lag: None,
        };
        let wanted = Wanted { name, address: address.parse().unwrap(), from: from.parse().unwrap() };
        check(&wanted, "10.96.0.1".parse().unwrap(), &[member]).map_err(|status| {
            assert_eq!(status.code, 403);
            status.message
        })
    }

    #[test]
    fn a_node_gets_its_own_name_and_address() {
        assert_eq!(asked("node-1", "10.0.0.21", "10.0.0.21"), Ok(()));
        assert_eq!(asked("node-1", "10.0.0.21", "::ffff:10.0.0.21"), Ok(()));
        // A machine may be master and node at once.
        assert_eq!(asked("master-1", "10.0.0.11", "10.0.0.11"), Ok(()));
        assert_eq!(asked("kubernetes-1", "10.0.0.21", "10.0.0.21"), Ok(()));
    }

    #[test]
    fn names_and_addresses_of_others_are_refused() {
        for (name, address, from, why) in [
            ("localhost", "10.0.0.21", "10.0.0.21", "not for nodes"),
            ("kubernetes", "10.0.0.21", "10.0.0.21", "not for nodes"),
            ("kubernetes.default.svc", "10.0.0.21", "10.0.0.21", "not for nodes"),
            ("10.0.0.11", "10.0.0.21", "10.0.0.21", "not for nodes"),
            ("node-1", "127.0.0.1", "127.0.0.1", "loopback"),
            ("node-1", "::ffff:127.0.0.1", "127.0.0.1", "loopback"),
            ("node-1", "10.96.0.1", "10.96.0.1", "service \"kubernetes\""),
            ("node-1", "10.0.0.11", "10.0.0.21", "it is 10.0.0.21, not 10.0.0.11"),
            ("master-1", "10.0.0.21", "10.0.0.21", "a master on another machine"),
        ] {
            let said = asked(name, address, from).unwrap_err();
            assert!(said.contains(why), "{name} {address} {from}: {said}");
        }
    }
}
