//! `trireme master --recover`: one master goes on alone after a majority is lost for good.

use std::net::SocketAddr;

use anyhow::bail;
use trireme_apiserver::pki::{self, Pki};
use trireme_raftstore::{Store, StoreError};

use super::args::Args;
use super::identity;

/// Begins a new lineage with the data of this master, says so, and ends: left in a command line by mistake, the flag must
/// not do it again and again.
///
/// # Errors
/// When there is no data, the master runs, a quorum answers, or the data is damaged.
pub async fn run(args: &Args, advertise: SocketAddr) -> anyhow::Result<()> {
    let dir = &args.data_dir;
    if !Store::has_data(&dir.join("store"))? {
        bail!("{} holds no master's data, so there is nothing to recover from", dir.display());
    }
    let _lock = super::lock(dir)?;
    let pki = Pki::load(&dir.join(pki::DIRECTORY))?;
    let config = identity::config(args, advertise, &pki)?;
    let begun = Store::recover(config, args.force).await.map_err(|error| match error {
        StoreError::Membership(why) => anyhow::anyhow!("not recovered: {why} (--force recovers all the same)"),
        other => anyhow::Error::new(other).context("not recovered"),
    })?;
    println!("recovered with the data of {}", args.name()?);
    println!("lineage  {} (follows {})", begun.lineage, begun.former);
    println!("revision {} (was {}; everything before counts as compacted)", begun.revision, begun.former_revision);
    if let Some(kept) = &begun.kept {
        println!("the former data is kept in {}; remove it when all is well", kept.display());
    }
    println!("\nNext:\n");
    println!("    start this master again, without --recover; it leads alone");
    println!(
        "    trireme master reset                # on each other old master that is found again: it cannot come back"
    );
    println!(
        "    trireme member add NAME             # prints what another one joins with, until there are three again"
    );
    Ok(())
}
