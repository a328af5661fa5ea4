//! Pod networking between real network namespaces: three "hosts", two on one subnet and one behind a router. Needs root.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nix::sched::{CloneFlags, setns};
use trireme_nodeagent::network::services::ServiceProxy;
use trireme_nodeagent::network::{HostPort, Network, NetworkConfig, NetworkError, Peer, PodNetwork, Protocol};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Namespaces that go away with it, also when a test fails.
struct Lab {
    prefix: String,
    names: Vec<String>,
    state: tempfile::TempDir,
}

impl Lab {
    /// A switch with two subnets and a router between them; hosts `a` and `b` on the first, `c` on the second.
    fn new(test: &str) -> Lab {
        let prefix = format!("trt{}{test}", std::process::id());
        let mut lab = Lab { prefix, names: Vec::new(), state: tempfile::tempdir().unwrap() };
        lab.namespace("s");
        for (bridge, router) in [("br0", "192.168.77.254/24"), ("br1", "192.168.78.254/24")] {
            lab.ip("s", &["link", "add", bridge, "type", "bridge"]);
            lab.ip("s", &["link", "set", bridge, "up"]);
            lab.ip("s", &["addr", "add", router, "dev", bridge]);
        }
        lab.inside("s", || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        for (host, bridge, subnet, last) in [("a", "br0", 77, 1), ("b", "br0", 77, 2), ("c", "br1", 78, 3)] {
            lab.namespace(host);
            let netns = lab.name(host);
            let port = format!("to-{host}");
            lab.ip("s", &["link", "add", &port, "type", "veth", "peer", "name", "net0", "netns", &netns]);
            lab.ip("s", &["link", "set", &port, "master", bridge, "up"]);
            lab.ip(host, &["link", "set", "lo", "up"]);
            lab.ip(host, &["link", "set", "net0", "up"]);
            lab.ip(host, &["addr", "add", &format!("192.168.{subnet}.{last}/24"), "dev", "net0"]);
            lab.ip(host, &["route", "add", "default", "via", &format!("192.168.{subnet}.254")]);
        }
        lab
    }

    fn name(&self, short: &str) -> String {
        format!("{}{short}", self.prefix)
    }

    fn path(&self, short: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(self.name(short))
    }

    fn namespace(&mut self, short: &str) {
        let name = self.name(short);
        self.names.push(name.clone());
        assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
    }

    fn output(&self, short: &str, program: &str, args: &[&str]) -> String {
        let output =
            Command::new("ip").args(["netns", "exec", &self.name(short), program]).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn ip(&self, short: &str, args: &[&str]) -> String {
        self.output(short, "ip", args)
    }

    fn inside<T: Send + 'static>(&self, short: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(self.path(short)).unwrap();
        let thread = std::thread::spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    async fn network(&self, host: &str, address: &str) -> Network {
        let mut config = NetworkConfig::new(self.state.path().join(host), host, address.parse().unwrap());
        config.host_netns = Some(self.path(host));
        Network::open(config).await.unwrap()
    }

    async fn pod(&mut self, network: &Network, pod: &str, ports: &[HostPort]) -> PodNetwork {
        self.namespace(pod);
        let netns = File::open(self.path(pod)).unwrap();
        network.attach(pod, netns.as_fd(), ports).await.unwrap()
    }

    fn listen(&self, short: &str, port: u16) -> TcpListener {
        self.inside(short, move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
    }

    /// Connects and sends 64 KiB; gives both ends.
    fn connect(&self, from: &str, to: SocketAddr, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let mut client = self
            .inside(from, move || TcpStream::connect_timeout(&to, TIMEOUT))
            .unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
        let (mut server, _) = listener.accept().unwrap();
        exchange(&mut client, &mut server);
        (client, server)
    }
}

fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    for stream in [&*client, &*server] {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    }
    let mut writer = client.try_clone().unwrap();
    let thread = std::thread::spawn(move || writer.write_all(&[7; 65536]).unwrap());
    let mut bytes = vec![0; 65536];
    server.read_exact(&mut bytes).unwrap();
    thread.join().unwrap();
    server.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.names.iter().rev() {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn peers() -> Vec<Peer> {
    [("a", "192.168.77.1", 1), ("b", "192.168.77.2", 2), ("c", "192.168.78.3", 3)]
        .map(|(name, address, net)| Peer {
            name: name.into(),
            address: address.parse().unwrap(),
            pod_cidr: format!("10.244.{net}.0/24").parse().unwrap(),
        })
        .to_vec()
}

async fn ready(network: &Network, net: u8) {
    network.configure(format!("10.244.{net}.0/24").parse().unwrap()).await.unwrap();
    network.sync_peers(&peers()).await.unwrap();
}

fn at(pod: &PodNetwork, port: u16) -> SocketAddr {
    SocketAddr::from((pod.ip, port))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_reach_each_other_and_the_world() {
    let mut lab = Lab::new("r");
    let a = lab.network("a", "192.168.77.1").await;
    let b = lab.network("b", "192.168.77.2").await;
    let c = lab.network("c", "192.168.78.3").await;
    for (network, net) in [(&a, 1), (&b, 2), (&c, 3)] {
        ready(network, net).await;
    }
    let a1 = lab.pod(&a, "a1", &[]).await;
    let a2 = lab.pod(&a, "a2", &[]).await;
    let b1 = lab.pod(&b, "b1", &[]).await;
    let c1 = lab.pod(&c, "c1", &[]).await;
    assert_eq!((a1.ip, a1.mtu), (Ipv4Addr::new(10, 244, 1, 2), 1450));

    // Neighbour on the node, on the next node, and through the tunnel; nobody sees a translated address.
    for (pod, network) in [("a2", &a2), ("b1", &b1), ("c1", &c1)] {
        let listener = lab.listen(pod, 80);
        let (_client, server) = lab.connect("a1", at(network, 80), &listener);
        assert_eq!(server.peer_addr().unwrap().ip(), a1.ip, "a1 to {pod}");
        // The node itself reaches pods everywhere.
        let (_client, _server) = lab.connect("a", at(network, 80), &listener);
    }
    let listener = lab.listen("a1", 80);
    let (_client, server) = lab.connect("c1", at(&a1, 80), &listener);
    assert_eq!(server.peer_addr().unwrap().ip(), c1.ip);

    // A node on the same subnet sees the pod, the world outside sees the node.
    let listener = lab.listen("b", 81);
    let (_client, server) = lab.connect("a1", "192.168.77.2:81".parse().unwrap(), &listener);
    assert_eq!(server.peer_addr().unwrap().ip(), a1.ip);
    let listener = lab.listen("s", 82);
    let (_client, server) = lab.connect("a1", "192.168.77.254:82".parse().unwrap(), &listener);
    assert_eq!(server.peer_addr().unwrap().ip().to_string(), "192.168.77.1");

    // A node that leaves is no longer routed to, and the tunnel goes with the last one that needs it.
    a.sync_peers(&peers()[..2]).await.unwrap();
    let routes = lab.ip("a", &["route"]);
    assert!(routes.contains("10.244.2.0/24 via 192.168.77.2") && !routes.contains("10.244.3.0/24"), "{routes}");
    assert!(!lab.ip("a", &["link"]).contains("tri-vx"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_disturbs_nothing_and_leaks_nothing() {
    let mut lab = Lab::new("l");
    let a = lab.network("a", "192.168.77.1").await;
    let b = lab.network("b", "192.168.77.2").await;
    let unready = lab.network("c", "192.168.78.3").await;
    lab.namespace("x");
    let early = unready.attach("x", File::open(lab.path("x")).unwrap().as_fd(), &[]).await;
    assert!(matches!(early, Err(NetworkError::NotConfigured)));
    ready(&a, 1).await;
    ready(&b, 2).await;
    let a1 = lab.pod(&a, "a1", &[]).await;
    let b1 = lab.pod(&b, "b1", &[]).await;
    let listener = lab.listen("b1", 80);
    let (mut client, mut server) = lab.connect("a1", at(&b1, 80), &listener);
    let before =
        (lab.ip("a", &["-o", "link"]), lab.ip("a1", &["-o", "addr"]), lab.output("a", "nft", &["list", "ruleset"]));

    // The agent dies and comes back: same addresses, same links, and the connection goes on.
    drop(a);
    let a = lab.network("a", "192.168.77.1").await;
    ready(&a, 1).await;
    let live: BTreeSet<String> = ["a1".to_owned()].into();
    assert!(a.reconcile(&live).await.unwrap().is_empty());
    assert_eq!(a.lookup("a1"), Some(a1.clone()));
    let again = a.attach("a1", File::open(lab.path("a1")).unwrap().as_fd(), &[]).await.unwrap();
    assert_eq!(again, a1);
    exchange(&mut client, &mut server);
    let after =
        (lab.ip("a", &["-o", "link"]), lab.ip("a1", &["-o", "addr"]), lab.output("a", "nft", &["list", "ruleset"]));
    assert_eq!(before, after);

    // A sandbox made anew under the same key keeps the address.
    lab.namespace("a1new");
    let moved = a.attach("a1", File::open(lab.path("a1new")).unwrap().as_fd(), &[]).await.unwrap();
    assert_eq!(moved.ip, a1.ip);
    let (_client, _server) = lab.connect("a1new", at(&b1, 80), &listener);

    // Pods that died while the agent was away give everything back.
    lab.pod(&a, "dead", &[]).await;
    assert_eq!(a.reconcile(&live).await.unwrap(), ["dead"]);
    assert_eq!(lab.ip("a", &["-o", "link"]).matches("trv").count(), 1);
    a.detach("a1").await.unwrap();
    a.detach("a1").await.unwrap();
    assert_eq!(a.lookup("a1"), None);
    a.cleanup().await.unwrap();
    a.cleanup().await.unwrap();
    let links = lab.ip("a", &["-o", "link"]);
    assert!(!links.contains("tri") && !links.contains("trv"), "{links}");
    assert!(!lab.ip("a", &["route"]).contains("10.244"));
    assert!(!lab.output("a", "nft", &["list", "ruleset"]).contains("trireme"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_ports_lead_to_their_pod_alone() {
    let mut lab = Lab::new("h");
    let a = lab.network("a", "192.168.77.1").await;
    let b = lab.network("b", "192.168.77.2").await;
    ready(&a, 1).await;
    ready(&b, 2).await;
    let port = HostPort { host_ip: None, host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
    let web = lab.pod(&a, "web", std::slice::from_ref(&port)).await;
    lab.pod(&b, "far", &[]).await;
    let listener = lab.listen("web", 80);
    let node: SocketAddr = "192.168.77.1:8080".parse().unwrap();
    // From another machine, another node's pod, the node itself, and the pod itself.
    for from in ["s", "far", "a", "web"] {
        let (_client, server) = lab.connect(from, node, &listener);
        assert_eq!(server.local_addr().unwrap(), at(&web, 80), "{from}");
    }
    lab.namespace("second");
    let taken = a.attach("second", File::open(lab.path("second")).unwrap().as_fd(), &[port]).await;
    assert!(matches!(taken, Err(NetworkError::HostPortTaken { .. })), "{taken:?}");
    assert_eq!(a.lookup("second"), None);
    a.detach("web").await.unwrap();
    let refused = lab.inside("s", move || TcpStream::connect_timeout(&node, TIMEOUT));
    assert!(refused.is_err());
}

fn service(name: &str, ip: &str, extra: serde_json::Value) -> Service {
    let mut spec = serde_json::json!({"clusterIP": ip, "ports": [{"port": 80, "protocol": "TCP"}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(serde_json::json!({"metadata": {"namespace": "d", "name": name}, "spec": spec})).unwrap()
}

fn slice(name: &str, addresses: &[std::net::IpAddr], port: u16) -> EndpointSlice {
    let endpoints: Vec<_> = addresses.iter().map(|ip| serde_json::json!({"addresses": [ip]})).collect();
    serde_json::from_value(serde_json::json!({"addressType": "IPv4", "endpoints": endpoints,
        "metadata": {"namespace": "d", "name": name, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"port": port, "protocol": "TCP"}]}))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_lead_to_their_endpoints() {
    let mut lab = Lab::new("v");
    let a = lab.network("a", "192.168.77.1").await;
    let b = lab.network("b", "192.168.77.2").await;
    ready(&a, 1).await;
    ready(&b, 2).await;
    let a1 = lab.pod(&a, "a1", &[]).await;
    let a2 = lab.pod(&a, "a2", &[]).await;
    let b1 = lab.pod(&b, "b1", &[]).await;
    let proxy = ServiceProxy::new(&a);
    let vip: SocketAddr = "10.96.0.10:80".parse().unwrap();
    let services = [
        service(
            "web",
            "10.96.0.10",
            serde_json::json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
        ),
        service("empty", "10.96.0.11", serde_json::json!({})),
        service("api", "10.96.0.1", serde_json::json!({"ports": [{"port": 443}]})),
    ];
    let api = slice("api", &["192.168.77.254".parse().unwrap()], 6443);

    // Each endpoint in turn: neighbour, other node, oneself; from pods and from the node, by address and node port.
    for (endpoint, network) in [("a2", &a2), ("b1", &b1), ("a1", &a1)] {
        let listener = lab.listen(endpoint, 8080);
        proxy.sync(&services, &[slice("web", &[network.ip.into()], 8080), api.clone()]).await.unwrap();
        for from in ["a1", "a2", "a"] {
            let (_client, server) = lab.connect(from, vip, &listener);
            assert_eq!(server.local_addr().unwrap(), at(network, 8080), "{from} to {endpoint}");
            let seen = server.peer_addr().unwrap().ip();
            let own = lookup(&[&a1, &a2], &a, from);
            assert!(from == "a" || from == endpoint || Some(seen) == own, "{from} to {endpoint} seen as {seen}");
        }
        for from in ["s", "b", "a"] {
            let (_client, _server) = lab.connect(from, "192.168.77.1:30080".parse().unwrap(), &listener);
        }
    }
    // Outside endpoints, such as the masters', from pods and from the node.
    let listener = lab.listen("s", 6443);
    for from in ["a1", "a"] {
        let (_client, _server) = lab.connect(from, "10.96.0.1:443".parse().unwrap(), &listener);
    }
    // Both endpoints get their share, and a proxy that starts anew takes over what is loaded.
    let proxy = ServiceProxy::new(&a);
    proxy.sync(&services, &[slice("web", &[a2.ip.into(), b1.ip.into()], 8080), api]).await.unwrap();
    let (la, lb) = (lab.listen("a2", 8080), lab.listen("b1", 8080));
    la.set_nonblocking(true).unwrap();
    lb.set_nonblocking(true).unwrap();
    let clients: Vec<TcpStream> =
        (0..40).map(|_| lab.inside("a1", move || TcpStream::connect_timeout(&vip, TIMEOUT)).unwrap()).collect();
    let count = |listener: &TcpListener| std::iter::from_fn(|| listener.accept().ok()).count();
    let shares = (count(&la), count(&lb));
    assert_eq!((shares.0 + shares.1, clients.len()), (40, 40));
    assert!(shares.0 > 5 && shares.1 > 5, "{shares:?}");
    // Without endpoints, and on ports and addresses that no service has: refused, not timed out.
    for (from, address) in
        [("a1", "10.96.0.11:80"), ("a", "10.96.0.11:80"), ("a1", "10.96.0.10:81"), ("a1", "10.96.9.9:1")]
    {
        let address: SocketAddr = address.parse().unwrap();
        let error = lab.inside(from, move || TcpStream::connect_timeout(&address, TIMEOUT)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{from} to {address}: {error}");
    }
    // Peers' routes come and go without taking the services' route along.
    a.sync_peers(&[]).await.unwrap();
    assert!(lab.ip("a", &["route"]).contains("10.96.0.0/16"));
    proxy.cleanup().await.unwrap();
    assert!(!lab.ip("a", &["route"]).contains("10.96.0.0/16"));
    assert!(!lab.output("a", "nft", &["list", "ruleset"]).contains("trireme-services"));
}

fn lookup(pods: &[&PodNetwork], network: &Network, key: &str) -> Option<std::net::IpAddr> {
    let found = network.lookup(key)?;
    pods.iter().find(|pod| pod.ip == found.ip).map(|pod| pod.ip.into())
}
