//! `trireme up` and `down`: a whole cluster on one machine.
//!
//! Every host is a network namespace with an address of its own on the cluster's bridge and a data directory of its own
//! under `.trireme/<name>/`; in it runs exactly what an operator types on a real machine. Several clusters live side by
//! side: names, addresses, namespaces and cgroups all derive from the cluster's name and a subnet claimed for it.

mod bins;
mod boot;
mod down;
mod extra;
mod layout;
mod network;
mod process;
mod progress;
mod ready;
mod registry;
mod scrub;
pub mod status;

use std::path::PathBuf;

use anyhow::bail;

use layout::Layout;

/// Which cluster.
#[derive(clap::Args, Debug, Clone)]
pub struct Which {
    /// Name of the cluster.
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Folder that holds the clusters.
    #[arg(long, default_value = ".trireme", value_name = "DIR")]
    pub dir: PathBuf,
}

/// `trireme up`
#[derive(clap::Args, Debug)]
pub struct UpArgs {
    #[command(flatten)]
    which: Which,
    /// Number of masters [default: 3, or what the cluster has].
    #[arg(long)]
    masters: Option<u8>,
    /// Number of nodes [default: 2, or what the cluster has].
    #[arg(long)]
    nodes: Option<u8>,
    /// A further argument of every master, such as --master-arg=--node-monitor-grace-period=5s; may be repeated, and is
    /// remembered until others are given ("" alone: none).
    #[arg(long = "master-arg", value_name = "ARG", allow_hyphen_values = true)]
    master_args: Vec<String>,
    /// The same for every node.
    #[arg(long = "node-arg", value_name = "ARG", allow_hyphen_values = true)]
    node_args: Vec<String>,
    /// Seconds to wait for everything to become ready.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

/// `trireme down`
#[derive(clap::Args, Debug)]
pub struct DownArgs {
    #[command(flatten)]
    which: Which,
    /// Stop everything but keep the data directories, so that `trireme up` continues where this cluster was.
    #[arg(long)]
    keep_data: bool,
}

/// Boots a cluster, or brings back what has died of it.
///
/// # Errors
/// With what is wrong and how to mend it.
pub async fn up(args: UpArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&args.which.dir, &args.which.name)?;
    require_root("up")?;
    for tool in ["ip", "nft"] {
        if bins::find(tool).is_none() {
            bail!("the program {tool:?} is missing; \"make deps\" installs what is needed");
        }
    }
    boot::run(&layout, &args).await
}

/// Stops a cluster and removes everything it left.
///
/// # Errors
/// When something could not be removed; it says what.
pub async fn down(args: DownArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&args.which.dir, &args.which.name)?;
    require_root("down")?;
    down::run(&layout, args.keep_data).await
}

fn require_root(command: &str) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "\"trireme {command}\" has to run as root, since it makes network namespaces, mounts and cgroups; \
         try: sudo make {command}   (or: sudo trireme {command})"
    )
}
