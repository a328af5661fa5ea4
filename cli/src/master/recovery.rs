//! `trireme master --recover`: one master goes on alone after a majority is lost for good.

use std::net::SocketAddr;
use std::path::Path;

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
    let begun = Store::recover(config, args.force).await.map_err(|error| refused(dir, error))?;
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

/// Why there is no new lineage, and what is left to do.
fn refused(dir: &Path, error: StoreError) -> anyhow::Error {
    let why = match error {
        StoreError::Membership(why) => {
            return anyhow::anyhow!("not recovered: {why} (--force recovers all the same)");
        }
        // Its own words are for a group that goes on.
        StoreError::Damaged { reason, .. } => reason,
        damage @ (StoreError::StateDamaged(_) | StoreError::Storage(_)) => crate::sentence(&anyhow::Error::new(damage)),
        other => return anyhow::Error::new(other).context("not recovered"),
    };
    anyhow::anyhow!(
        "not recovered: {why}\n\
         The data in {} cannot be recovered from; keep it for now. What is left:\n  \
         trireme master --recover …          on another of the old masters, whose data is sound\n  \
         trireme snapshot restore FILE …     with a snapshot: those that this master took are listed by\n  \
         trireme snapshot list --dir {}\n\
         See \"A majority is lost\" and \"Restore\" in docs/operations.md",
        dir.display(),
        dir.join("snapshots").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cannot_recover_with_damaged_data_is_told_the_ways_out() {
        let corrupt = || std::io::Error::other("Corruption: block checksum mismatch");
        let damaged = [
            StoreError::Storage(Box::new(corrupt())),
            StoreError::StateDamaged(corrupt().to_string()),
            StoreError::Damaged { name: "m".into(), reason: corrupt().to_string() },
        ];
        for error in damaged {
            let told = crate::sentence(&refused(Path::new("/data/m"), error));
            for part in ["block checksum mismatch", "master --recover", "snapshot restore", "/data/m/snapshots"] {
                assert!(told.contains(part), "{told}");
            }
            assert!(!told.contains("join anew"), "{told}");
        }
        let told = crate::sentence(&refused(Path::new("/data/m"), StoreError::Membership("b answers".into())));
        assert!(told.contains("b answers") && told.contains("--force") && !told.contains("snapshot"), "{told}");
    }
}
