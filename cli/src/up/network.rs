//! The cluster's bridge, and a network namespace with one link for each host. What is there already stays.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::bins;
use super::layout::{Host, Layout, gateway};
use super::registry::Route;

/// Where `ip netns` keeps namespaces.
const NETNS: &str = "/run/netns";

/// The file that pins a namespace.
pub fn netns_file(name: &str) -> PathBuf {
    Path::new(NETNS).join(name)
}

/// Brings the network of a cluster into place; the hosts whose namespace was made anew.
pub fn ensure(layout: &Layout, subnet: u8, hosts: &[Host]) -> anyhow::Result<Vec<String>> {
    let bridge = layout.bridge();
    let links = links()?;
    let mut batch = Vec::new();
    match links.iter().find(|link| link.name == bridge) {
        None => {
            batch.push(format!("link add {bridge} type bridge"));
            batch.push(format!("address add {}/24 dev {bridge}", gateway(subnet)));
            batch.push(format!("link set {bridge} up"));
        }
        Some(link) if !link.bridge => bail!(
            "an interface with the name {bridge:?} is in the way and is not a bridge; remove it (ip link del {bridge}), or \
             choose another name for the cluster"
        ),
        Some(link) if link.addresses.iter().any(|a| *a == gateway(subnet).to_string()) => {
            batch.push(format!("link set {bridge} up"));
        }
        Some(link) if link.addresses.is_empty() => {
            batch.push(format!("address add {}/24 dev {bridge}", gateway(subnet)));
            batch.push(format!("link set {bridge} up"));
        }
        Some(link) => bail!(
            "a bridge with the name {bridge:?} and the address {} is in the way; remove it (ip link del {bridge}), or choose \
             another name for the cluster",
            link.addresses.join(", ")
        ),
    }
    let known: HashSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let mut fresh = Vec::new();
    for host in hosts {
        if whole(host, &known) {
            batch.push(format!("link set {} master {bridge} up", host.link));
            continue;
        }
        if !alive(host) {
            remove_netns(&host.netns)?;
            batch.push(format!("netns add {}", host.netns));
            fresh.push(host.name.clone());
        }
        if known.contains(host.link.as_str()) {
            batch.push(format!("link del {}", host.link));
        }
        batch.push(format!("link add {} type veth peer name eth0 netns {}", host.link, host.netns));
        batch.push(format!("link set {} master {bridge} up", host.link));
    }
    run_batch(None, &batch).context("cannot set up the cluster's bridge")?;
    for host in hosts.iter().filter(|host| !whole(host, &known)) {
        let inside = [
            "link set lo up".to_owned(),
            format!("address replace {}/24 dev eth0", host.ip),
            "link set eth0 up".to_owned(),
            format!("route replace default via {}", gateway(subnet)),
        ];
        run_batch(Some(&host.netns), &inside).with_context(|| format!("cannot set up the network of {}", host.name))?;
    }
    Ok(fresh)
}

/// Whether a host's namespace can be entered.
fn alive(host: &Host) -> bool {
    ip(&["-n", &host.netns, "link", "show", "lo"]).is_ok()
}

/// Whether a host has its namespace, link and address.
fn whole(host: &Host, links: &HashSet<&str>) -> bool {
    links.contains(host.link.as_str())
        && netns_file(&host.netns).exists()
        && ip(&["-n", &host.netns, "-4", "-o", "address", "show", "dev", "eth0"])
            .is_ok_and(|text| text.contains(&format!(" {}/24 ", host.ip)))
}

/// Interface of this machine.
struct Link {
    name: String,
    bridge: bool,
    addresses: Vec<String>,
}

fn links() -> anyhow::Result<Vec<Link>> {
    let value: Value = serde_json::from_str(&ip(&["-j", "-d", "address", "show"])?).context("output of \"ip\"")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(value
        .as_array()
        .into_iter()
        .flatten()
        .map(|link| Link {
            name: text(&link["ifname"]),
            bridge: link["linkinfo"]["info_kind"] == "bridge",
            addresses: link["addr_info"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|address| address["family"] == "inet")
                .map(|address| text(&address["local"]))
                .collect(),
        })
        .filter(|link| !link.name.is_empty())
        .collect())
}

/// IPv4 routes of this machine, except those over `bridge`.
pub fn routes(bridge: &str) -> anyhow::Result<Vec<Route>> {
    let value: Value = serde_json::from_str(&ip(&["-4", "-j", "route", "show"])?).context("output of \"ip\"")?;
    Ok(value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|route| Route::parse(route["dst"].as_str()?, route["dev"].as_str().unwrap_or("?")))
        .filter(|route| route.device != bridge)
        .collect())
}

/// Names of the cluster's namespaces that exist, whatever hosts it is said to have.
pub fn namespaces(layout: &Layout) -> Vec<String> {
    let prefix = layout.netns_prefix();
    let entries = std::fs::read_dir(NETNS).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            // Another cluster's name may begin with this one's: what follows has to be a host.
            name.strip_prefix(&prefix).is_some_and(|host| {
                let number = host.strip_prefix("master-").or_else(|| host.strip_prefix("node-"));
                number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            })
        })
        .collect();
    names.sort();
    names
}

/// Interfaces of the machine that belong to the cluster.
pub fn cluster_links(layout: &Layout, hosts: &[Host]) -> anyhow::Result<Vec<String>> {
    let bridge = layout.bridge();
    let names = links()?.into_iter().map(|link| link.name);
    Ok(names.filter(|name| *name == bridge || hosts.iter().any(|host| host.link == *name)).collect())
}

/// Removes a link; gone already is fine.
pub fn remove_link(name: &str) -> anyhow::Result<()> {
    match ip(&["link", "del", name]) {
        Err(error) if !error.to_string().contains("Cannot find device") => Err(error),
        _ => Ok(()),
    }
}

/// Removes a namespace; gone already is fine, and so is a file left by an unclean end.
pub fn remove_netns(name: &str) -> anyhow::Result<()> {
    let file = netns_file(name);
    if !file.exists() {
        return Ok(());
    }
    // More than one mount can lie on the file after an unclean end.
    while nix::mount::umount2(&file, nix::mount::MntFlags::MNT_DETACH).is_ok() {}
    std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
}

fn program() -> anyhow::Result<PathBuf> {
    bins::find("ip").context("the program \"ip\" is missing; \"make deps\" installs it")
}

fn ip(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program()?).args(args).stdin(Stdio::null()).output().context("cannot run \"ip\"")?;
    if !output.status.success() {
        bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run_batch(netns: Option<&str>, lines: &[String]) -> anyhow::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut command = Command::new(program()?);
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run \"ip\"")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A failing batch closes its input early; what it says then is the better message.
        let _ = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    }
    let output = child.wait_with_output().context("cannot run \"ip\"")?;
    if !output.status.success() {
        bail!("ip: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "));
    }
    Ok(())
}
