//! `trireme snapshot restore`: a snapshot becomes the data directory of a master.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, bail};
use trireme_apiserver::pki::{self, MasterIdentity, Pki};
use trireme_raftstore::{NewLineage, RestoreTarget, Store};

use crate::master::{API_PORT, master_name};

const PEER_PORT: u16 = 2380;

/// `trireme snapshot restore`
#[derive(clap::Args, Debug)]
pub struct RestoreArgs {
    /// The snapshot.
    file: PathBuf,
    /// Data directory of the master that is made. What it holds of keys (pki/) is used; it must hold no store.
    #[arg(long, alias = "data-dir", value_name = "DIR", default_value = "/var/lib/trireme/master")]
    dir: PathBuf,
    /// Name of the master [default: the host name].
    #[arg(long)]
    name: Option<String>,
    /// Address (and port, default 6443) under which the other machines will reach it.
    #[arg(long, value_name = "IP[:PORT]")]
    advertise: String,
    /// Its port for the traffic among masters.
    #[arg(long, value_name = "PORT", default_value_t = PEER_PORT)]
    peer_port: u16,
    /// Make new authorities where the old ones are lost. All nodes then have to join anew, and all kubeconfigs are void.
    #[arg(long)]
    new_keys: bool,
}

pub async fn run(args: RestoreArgs) -> anyhow::Result<()> {
    let address = args.advertise.parse::<SocketAddr>();
    let address = address.or_else(|_| args.advertise.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, API_PORT)));
    let address =
        address.with_context(|| format!("--advertise {:?} is not an address such as 10.0.0.11", args.advertise))?;
    if address.ip().is_unspecified() {
        bail!("--advertise {address}: give the address that other machines reach this one at");
    }
    let name = master_name(args.name.as_deref())?;
    let store = args.dir.join("store");
    if Store::has_data(&store)? {
        bail!(
            "{} holds a master's store already; move it away first, for example: mv {} {}.old",
            args.dir.display(),
            store.display(),
            store.display()
        );
    }
    let keys = args.dir.join(pki::DIRECTORY);
    if Pki::exists(&keys) {
        Pki::load(&keys)?;
    } else if !args.new_keys {
        bail!(
            "{keys} is missing: a snapshot does not hold the keys of the cluster's authorities. Copy the folder pki/ of any of \
             the old masters to {keys}, and nodes and kubeconfigs go on as they are; with --new-keys new authorities are made, \
             and every node has to join anew",
            keys = keys.display()
        );
    }
    let file = args.file.clone();
    let target = RestoreTarget {
        data_dir: store,
        name: name.clone(),
        peer_address: SocketAddr::new(address.ip(), args.peer_port).to_string(),
        client_address: format!("https://{address}"),
    };
    let made = !args.dir.exists();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    let _lock = crate::master::lock(&args.dir)?;
    let restored = tokio::task::spawn_blocking(move || Store::restore(&file, &target)).await?;
    let begun = restored.with_context(|| format!("{} is not restored", args.file.display())).inspect_err(|_| {
        if made {
            let _ = std::fs::remove_dir_all(&args.dir);
        }
    })?;
    if !Pki::exists(&keys) {
        // Addresses that depend on how the master is started are signed anew when it is.
        let identity = MasterIdentity {
            name: name.clone(),
            address: address.ip(),
            service_ip: IpAddr::from([10, 96, 0, 1]),
            cluster_domain: "cluster.local".into(),
        };
        Pki::create(&keys, &identity)?;
    }
    say(&args, &name, &begun);
    Ok(())
}

fn say(args: &RestoreArgs, name: &str, begun: &NewLineage) {
    println!("restored {} into {}", args.file.display(), args.dir.display());
    println!("lineage  {} (follows {})", begun.lineage, begun.former);
    println!("revision {} (was {}; everything before counts as compacted)", begun.revision, begun.former_revision);
    println!("\nNext:\n");
    for (line, why) in next(args, name) {
        println!("{}", format!("    {line:<37}{why}").trim_end());
    }
}

/// What to type next, and where or when.
fn next(args: &RestoreArgs, name: &str) -> Vec<(String, &'static str)> {
    let (dir, advertise) = (args.dir.display(), &args.advertise);
    let mut start = format!("trireme master --data-dir {dir} --name {name} --advertise {advertise}");
    if args.peer_port != PEER_PORT {
        start.push_str(&format!(" --peer-port {}", args.peer_port));
    }
    let mut lines = vec![
        (start, ""),
        ("trireme master reset".to_owned(), "# on each other old master, which then joins anew"),
        ("trireme member add NAME".to_owned(), "# once this one runs, for each: prints what it joins with"),
    ];
    if args.new_keys {
        lines.push(("trireme node reset".to_owned(), "# on each node, which then joins anew"));
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn args(name: &str, peer_port: u16) -> RestoreArgs {
        RestoreArgs {
            file: "/nowhere".into(),
            dir: "/nowhere/data".into(),
            name: Some(name.into()),
            advertise: "10.0.0.1".into(),
            peer_port,
            new_keys: true,
        }
    }

    #[test]
    fn what_is_to_be_typed_next_has_the_ports_that_were_given() {
        let first = |peer_port| next(&args("m", peer_port), "m").remove(0).0;
        assert_eq!(first(2380), "trireme master --data-dir /nowhere/data --name m --advertise 10.0.0.1");
        assert!(first(2399).ends_with(" --peer-port 2399"));
    }

    #[tokio::test]
    async fn a_name_that_no_master_can_have_is_refused_before_anything_is_made() {
        let refused = run(args("Not_A_Name", 2380)).await.unwrap_err().to_string();
        assert!(refused.contains("the name \"Not_A_Name\" cannot be used"), "{refused}");
        assert!(!std::path::Path::new("/nowhere").exists());
    }
}
