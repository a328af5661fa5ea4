//! The handle through which everything above uses the store.

use std::path::Path;

use tokio::sync::watch;

use crate::config::{Config, JoinGrant, NewMember};
use crate::types::*;

/// A member of the group, running in this process. Cloning gives another handle to the same member.
#[derive(Clone)]
pub struct Store {
    leadership: watch::Receiver<Leadership>,
}

fn starting() -> StoreError {
    StoreError::Unavailable { reason: "the member is starting".into(), maybe_applied: false }
}

impl Store {
    /// Whether the directory holds a member's data.
    pub fn has_data(dir: &Path) -> Result<bool, StoreError> {
        Ok(dir.join("member").exists())
    }

    /// Starts a new group (a new lineage) whose only member is this one.
    pub async fn bootstrap(config: Config) -> Result<Store, StoreError> {
        config.validate()?;
        Err(starting())
    }

    /// Starts a member that has data. Returns once everything known to be committed before is applied.
    pub async fn open(config: Config) -> Result<Store, StoreError> {
        config.validate()?;
        Err(starting())
    }

    /// Starts a new member in an empty directory; it begins as a learner and is promoted when it has caught up.
    pub async fn join(config: Config, grant: JoinGrant) -> Result<Store, StoreError> {
        config.validate()?;
        Err(StoreError::Membership(format!("cannot join as {}", grant.id)))
    }

    /// Admits a new member. Works on any member.
    pub async fn add_member(&self, member: NewMember) -> Result<JoinGrant, StoreError> {
        Err(StoreError::Membership(member.name))
    }

    /// Removes a member for good; its id is never used again. Works on any member.
    pub async fn remove_member(&self, id: MemberId) -> Result<(), StoreError> {
        Err(StoreError::Membership(id.to_string()))
    }

    /// All members with health and lag as the leader sees them. Works on any member.
    pub async fn members(&self) -> Result<Vec<Member>, StoreError> {
        Err(starting())
    }

    /// Reads a key or range.
    pub async fn range(&self, _request: RangeRequest) -> Result<RangeResponse, StoreError> {
        Err(starting())
    }

    /// Applies a transaction. Works on any member.
    pub async fn txn(&self, _txn: Txn) -> Result<TxnResponse, StoreError> {
        Err(starting())
    }

    /// Reports changes.
    pub async fn watch(&self, _request: WatchRequest) -> Result<Watch, StoreError> {
        Err(starting())
    }

    /// Forgets all history up to and including the revision, but the newest state of each key. Works on any member.
    pub async fn compact(&self, _revision: Revision) -> Result<(), StoreError> {
        Err(starting())
    }

    /// A revision that is at least as new as every write acknowledged before the call; it is applied here.
    pub async fn linearizable_revision(&self) -> Result<Revision, StoreError> {
        Err(starting())
    }

    /// Newest revision applied on this member.
    pub fn applied_revision(&self) -> Revision {
        1
    }

    /// Whether this member leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// A summary of this member.
    pub fn status(&self) -> Status {
        Status {
            id: 0,
            name: String::new(),
            lineage: String::new(),
            term: 0,
            leader: None,
            revision: 1,
            compacted: 0,
            last_log_index: 0,
            applied_index: 0,
            db_size_bytes: 0,
            members: Vec::new(),
        }
    }

    /// Registers this member's metrics.
    pub fn register_metrics(&self, _registry: &mut prometheus_client::registry::Registry) {}

    /// Hands leadership to another voter, if this member leads and there is one.
    pub async fn transfer_leadership(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Hands over leadership, stops taking requests, and flushes.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A stream of changes. Dropping it ends the watch.
pub struct Watch {
    _private: (),
}

impl Watch {
    /// The next batch; `None` after the watch has ended. An error is the last thing that a watch delivers.
    pub async fn next(&mut self) -> Option<Result<WatchBatch, StoreError>> {
        None
    }
}
