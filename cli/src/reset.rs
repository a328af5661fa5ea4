//! `trireme node reset` and `trireme master reset`: take a machine out of service and leave nothing on it.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use http::Request;
use trireme_apiserver::join::wire::{MEMBERS_PATH, MemberInfo};
use trireme_client::kubeconfig::{Kubeconfig, Overrides};
use trireme_client::masters;
use trireme_raftstore::{Owner, Store, StoreError};

use crate::admin::{api_error, member};
use crate::node::Remembered;

/// How long the other masters may take to let this one go.
const LEAVE: Duration = Duration::from_secs(10);

/// Removes a data directory; says what became of it. One that is a mount point stays, empty: the mount is not ours.
fn remove(dir: &Path) -> anyhow::Result<&'static str> {
    match std::fs::remove_dir_all(dir) {
        Ok(()) => Ok("removed"),
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && is_empty(dir) => {
            Ok("emptied; something is mounted on it, so it stays")
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", dir.display())),
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// `trireme node reset`
#[derive(clap::Args, Debug)]
pub struct NodeArgs {
    /// Where the node keeps its certificate, images and pods.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/trireme/node")]
    data_dir: PathBuf,
    /// Name of the node [default: the one that it ran under].
    #[arg(long)]
    name: Option<String>,
    /// Cgroup below which its pods live [default: the one that it ran with].
    #[arg(long, value_name = "PATH")]
    cgroup_root: Option<String>,
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
}

/// `trireme master reset`
#[derive(clap::Args, Debug)]
pub struct MasterArgs {
    /// Where the master keeps its keys and its replica of the state.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/trireme/master")]
    data_dir: PathBuf,
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
}

fn say(line: impl std::fmt::Display) {
    // Whoever reads may have seen enough.
    let _ = writeln!(std::io::stdout(), "[reset] {line}");
}

/// Goes on only if somebody agrees.
fn confirm(force: bool, what: &str) -> anyhow::Result<()> {
    if force {
        return Ok(());
    }
    say(what);
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here; give --force to go on without asking");
    }
    print!("[reset] Are you sure you want to proceed? [y/N]: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("aborted; nothing was changed");
    }
    Ok(())
}

/// The directory, if it is one of ours. Anything else is not to be deleted by a slip of the fingers.
fn recognised(dir: &Path, signs: &[&str], what: &str) -> anyhow::Result<Option<PathBuf>> {
    if !dir.exists() {
        say(format_args!("{} does not exist; nothing to do", dir.display()));
        return Ok(None);
    }
    if !signs.iter().any(|sign| dir.join(sign).exists()) {
        bail!("{} does not look like the data directory of a {what}; nothing was changed", dir.display());
    }
    Ok(Some(std::fs::canonicalize(dir)?))
}

/// Stops the pods of this node and removes what its agent has left.
///
/// # Errors
/// When the agent runs, nobody agrees, or something cannot be removed; it can be repeated then.
pub async fn node(args: NodeArgs) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("trireme node reset removes mounts, cgroups and links, and needs root; try: sudo trireme node reset");
    }
    let signs = ["node.json", "masters.json", "pki/node.key"];
    let Some(dir) = recognised(&args.data_dir, &signs, "node")? else { return Ok(()) };
    let lock = crate::master::lock(&dir)?;
    let known = Remembered::load(&dir);
    let name = args.name.or(known.as_ref().map(|k| k.name.clone())).map_or_else(crate::host_name, Ok)?;
    confirm(
        args.force,
        &format!(
            "All pods of node {name:?} will be stopped, and {} with its images and volumes removed.",
            dir.display()
        ),
    )?;
    let address = known.as_ref().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |known| known.address);
    let mut config = trireme_nodeagent::Config::new(&name, address, &dir);
    if let Some(root) = args.cgroup_root.or(known.map(|known| known.cgroup_root)) {
        config.cgroup_root = root;
    }
    config.validate()?;
    let done = trireme_nodeagent::reset(&config).await.context("cannot undo what the agent has made")?;
    say(format_args!("pods stopped, cgroup {} removed, {} mounts removed", config.cgroup_root, done.mounts));
    if done.network {
        say("links, routes and nftables rules removed");
    } else {
        say(format_args!(
            "this machine does not have the address {address} of the node: links, routes and nftables rules were left alone"
        ));
    }
    let done = remove(&dir)?;
    drop(lock);
    say(format_args!("{} {done}", dir.display()));
    say(format_args!(
        "the cluster still lists the node; where you have an administrator's kubeconfig: kubectl delete node {name}"
    ));
    Ok(())
}

/// Takes this master out of its cluster, if that can be reached, and removes its data.
///
/// # Errors
/// When the master runs, nobody agrees, or the data cannot be removed.
pub async fn master(args: MasterArgs) -> anyhow::Result<()> {
    let Some(dir) = recognised(&args.data_dir, &["store", "pki"], "master")? else { return Ok(()) };
    let lock = crate::master::lock(&dir)?;
    confirm(args.force, &format!("The keys and the replica of the state in {} will be removed.", dir.display()))?;
    let owner = Store::owner(&dir.join("store"));
    let name = owner.as_ref().ok().and_then(Option::as_ref).map_or("NAME", |owner| owner.name.as_str());
    let elsewhere = format!("if it lives on without this master, take it out there: trireme member remove {name}");
    match tokio::time::timeout(LEAVE, leave(&dir, &owner)).await {
        Ok(Ok(line)) => say(line),
        Ok(Err(error)) => say(format_args!("the cluster was not told ({}); {elsewhere}", crate::sentence(&error))),
        Err(_) => say(format_args!("the cluster did not answer; {elsewhere}")),
    }
    let done = remove(&dir)?;
    drop(lock);
    say(format_args!("{} {done}", dir.display()));
    Ok(())
}

/// Asks the other masters to go on without this one: without the very member that the data is of. Its name and its address may be
/// those of another one by now.
async fn leave(dir: &Path, owner: &Result<Option<Owner>, StoreError>) -> anyhow::Result<String> {
    let config = Kubeconfig::load(Some(&dir.join("kubeconfig-admin")))?;
    let mut masters = config.resolve(&Overrides::default())?.masters;
    let own = masters.urls.first().cloned().context("the kubeconfig names no master")?;
    masters.urls.retain(|url| *url != own);
    if masters.urls.is_empty() {
        return Ok("no other master is known: with this one the cluster is gone".to_owned());
    }
    let (client, _) = masters::connect(masters)?;
    let members = member::list(&client).await?;
    let owner = match owner {
        Ok(Some(owner)) => owner,
        Ok(None) => return Ok(unknown(&own, &members, "there is no store")),
        Err(error) => return Ok(unknown(&own, &members, &error.to_string())),
    };
    let gone = || Ok(format!("the cluster has this master ({:?}, id {}) no more", owner.name, owner.id));
    let Some(member) = members.iter().find(|member| member.id == owner.id) else { return gone() };
    let path = format!("{MEMBERS_PATH}/{}?id={}&lineage={}", member.name, owner.id, owner.lineage);
    match client.request::<MemberInfo>(Request::delete(path).body(Vec::new())?).await {
        Ok(_) => Ok(format!("master {:?} taken out of its cluster", member.name)),
        Err(kube::Error::Api(status)) if status.code == 404 => gone(),
        Err(error) => Err(api_error(error)),
    }
}

/// What is left to do where the data does not tell which member it is of: to guess could take out another one.
fn unknown(own: &str, members: &[MemberInfo], why: &str) -> String {
    match members.iter().find(|member| member.address == own) {
        Some(member) => format!(
            "which member this was cannot be told ({why}), so the cluster was not asked to go on without it. It has {:?} at {own}: if \
             that was this one, take it out: trireme member remove {}",
            member.name, member.name
        ),
        None => format!("which member this was cannot be told ({why}); the cluster has none at {own}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_not_known_for_sure_is_not_guessed() {
        let member = |name: &str, address: &str| MemberInfo {
            name: name.into(),
            address: address.into(),
            role: "follower".into(),
            healthy: true,
            lag: None,
            id: 7,
            peer_address: String::new(),
        };
        let members = [member("a", "https://h1:6443"), member("b", "https://h2:6443")];
        let told = unknown("https://h2:6443", &members, "checksum mismatch");
        assert!(told.contains("checksum mismatch") && told.ends_with("trireme member remove b"), "{told}");
        assert!(unknown("https://h3:6443", &members, "no").contains("has none at https://h3:6443"));
    }
}
