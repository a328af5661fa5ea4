//! The handle through which everything above uses the store.

mod background;
mod backup;
pub(crate) mod election;
mod integrity;
mod leadership;
mod levels;
mod members;
mod membership;
pub(crate) mod node;
mod propose;
mod reads;
mod rebuild;
mod space;
mod start;
mod stream;
mod succession;
pub(crate) mod timeline;
mod validate;

#[cfg(test)]
mod tests_chaos;
#[cfg(test)]
mod tests_disk;
#[cfg(test)]
mod tests_group;
#[cfg(test)]
mod tests_integrity;
#[cfg(test)]
mod tests_levels;
#[cfg(test)]
mod tests_log;
#[cfg(test)]
mod tests_single;
#[cfg(test)]
mod tests_space;
#[cfg(test)]
mod tests_succession;
#[cfg(test)]
pub(crate) mod tests_tls;

pub use backup::{Backup, SaveError};
pub use stream::RangeStream;
pub use succession::{NewLineage, RestoreError, RestoreTarget};

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::command::{Command, Outcome};
use crate::config::{AddOptions, Config, JoinGrant, NewMember, PeerTls};
use crate::network::wire::{AddMemberMessage, RemoveMemberMessage};
use crate::storage::disk::Disk;
use crate::storage::files::Identity;
use crate::storage::read::Wanted;
use crate::types::*;
use crate::watch::Watch;
use node::Handle;

/// A member of the group, running in this process. Cloning gives another handle to the same member; when the last one
/// is dropped the member stops at once, as if it had crashed (see [`Store::shutdown`] for the friendly way).
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let identity = &self.handle.node.identity;
        write!(f, "Store({} {})", identity.id, identity.name)
    }
}

impl Store {
    /// Whether the directory holds a member's data.
    pub fn has_data(dir: &Path) -> Result<bool, StoreError> {
        Ok(Identity::exists(&Disk::Real, dir)?)
    }

    /// Whose data a directory holds; nobody's if there is no member in it.
    pub fn owner(dir: &Path) -> Result<Option<Owner>, StoreError> {
        if !Identity::exists(&Disk::Real, dir)? {
            return Ok(None);
        }
        let Identity { id, name, lineage, .. } = Identity::read(&Disk::Real, dir)?;
        Ok(Some(Owner { id, name, lineage }))
    }

    /// Whether the directory knows of other members, as far as it can be read.
    pub fn knows_others(dir: &Path) -> bool {
        crate::storage::rebuild::remembered(&Disk::Real, dir).is_ok_and(|addresses| addresses.len() > 1)
    }

    /// Starts a new group (a new lineage) whose only member is this one. Returns once it leads.
    pub async fn bootstrap(config: Config) -> Result<Store, StoreError> {
        Ok(Self { handle: start::bootstrap(config).await? })
    }

    /// Starts a member that has data. Returns once everything known to be committed before is applied.
    pub async fn open(config: Config) -> Result<Store, StoreError> {
        Ok(Self { handle: start::open(config).await? })
    }

    /// Starts a new member in an empty directory; it begins as a learner and is promoted when it has caught up.
    /// Returns once it has heard from the leader and applied its own admission. If that takes too long the directory
    /// keeps the identity, and [`Store::open`] goes on from there.
    pub async fn join(config: Config, grant: JoinGrant) -> Result<Store, StoreError> {
        Ok(Self { handle: start::join(config, grant).await? })
    }

    /// Admits a new member. Works on any member. The name must be free; a learner of that name that never came up is
    /// replaced under a new id.
    pub async fn add_member(&self, member: NewMember) -> Result<JoinGrant, StoreError> {
        self.add_member_with(member, AddOptions::default()).await
    }

    /// The same, held back from voting or in the place of a dead member.
    pub async fn add_member_with(&self, member: NewMember, options: AddOptions) -> Result<JoinGrant, StoreError> {
        self.handle.node.add_member(AddMemberMessage { member, options }).await
    }

    /// Gives a member a vote that was added without one, if it has caught up. Works on any member.
    pub async fn promote_member(&self, id: MemberId) -> Result<(), StoreError> {
        self.handle.node.promote_member(id).await
    }

    /// Removes a member for good; its id is never used again. Works on any member.
    pub async fn remove_member(&self, id: MemberId) -> Result<(), StoreError> {
        self.handle.node.remove_member(RemoveMemberMessage { id, only_dead: false }).await
    }

    /// The same for a member that is dead; refused for one that lives.
    pub async fn remove_dead_member(&self, id: MemberId) -> Result<(), StoreError> {
        self.handle.node.remove_member(RemoveMemberMessage { id, only_dead: true }).await
    }

    /// All members with health and lag as the leader sees them. Works on any member.
    pub async fn members(&self) -> Result<Vec<Member>, StoreError> {
        self.handle.node.members().await
    }

    /// Reads a key or range.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let wanted = Wanted { limit: request.limit, piece: None, keys_only: request.keys_only };
        self.handle.node.range(request.range, request.revision, request.consistency, wanted).await
    }

    /// Reads a range in pieces of bounded size, however large it is, all of them at one revision.
    pub fn stream(&self, request: RangeRequest) -> RangeStream {
        RangeStream::new(self.handle.clone(), request)
    }

    /// Applies a transaction. Works on any member.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        let node = &self.handle.node;
        validate::txn(&txn, &node.config.limits)?;
        match node.propose(Command::Txn(txn)).await? {
            Outcome::Txn(response) => Ok(response),
            other => Err(propose::unexpected(&other)),
        }
    }

    /// Reports changes. Batches may come without events: they tell how far everything has been reported.
    pub async fn watch(&self, request: WatchRequest) -> Result<Watch, StoreError> {
        let node = &self.handle.node;
        node.check_running()?;
        let limits = &node.config.limits;
        if node.metrics.watchers.get() >= limits.max_watches as i64 {
            let reason = format!("too many watches ({})", limits.max_watches);
            return Err(StoreError::Unavailable { reason, maybe_applied: false });
        }
        let compacted = node.machine.applied().meta.compacted;
        if let Some(requested) = request.start_revision.filter(|r| *r < compacted) {
            return Err(StoreError::Compacted { requested, compacted });
        }
        let (machine, runtime, metrics) = (node.machine.clone(), node.runtime.clone(), node.metrics.clone());
        Ok(Watch::new(machine, runtime, metrics, node.serving.clone(), request, limits.watch_max_lag))
    }

    /// Forgets all history below the revision, but the state that holds at it. Works on any member.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        match self.handle.node.propose(Command::Compact(revision)).await? {
            Outcome::Done => Ok(()),
            Outcome::AlreadyCompacted(compacted) => Err(StoreError::Compacted { requested: revision, compacted }),
            Outcome::FutureRevision(current) => Err(StoreError::FutureRevision { requested: revision, current }),
            other => Err(propose::unexpected(&other)),
        }
    }

    /// A revision that is at least as new as every write acknowledged before the call; it is applied here.
    pub async fn linearizable_revision(&self) -> Result<Revision, StoreError> {
        self.handle.node.linearizable_revision().await
    }

    /// Newest revision applied on this member.
    pub fn applied_revision(&self) -> Revision {
        self.handle.node.machine.progress().revision
    }

    /// Whether this member leads, as far as it may act on it.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.handle.node.leadership.subscribe()
    }

    /// Whether this member leads with a quorum behind it, or has heard of a leader recently.
    pub fn in_contact(&self) -> bool {
        self.handle.node.in_contact()
    }

    /// A counter that goes up whenever the membership of the group has changed.
    pub fn members_changed(&self) -> watch::Receiver<u64> {
        self.handle.node.members_changed.subscribe()
    }

    /// Resolves, with the cause, only when this member cannot go on: the disk failed, an entry cannot be understood, or
    /// it was removed from the group. The process should then end.
    pub async fn failed(&self) -> String {
        self.handle.node.failed().await
    }

    /// Whether it failed because it does not belong to the group any more: only with an empty directory can it join again.
    pub fn is_removed(&self) -> bool {
        self.handle.node.removed.is_cancelled()
    }

    /// Why the state of this member is not used any more, if that is why it failed. The next start builds it anew.
    pub fn state_damage(&self) -> Option<String> {
        self.handle.node.taken_out.borrow().clone()
    }

    /// A summary of this member. Health and lag of other members are what the leader last told.
    pub fn status(&self) -> Status {
        self.handle.node.status()
    }

    /// The newest applied log index, and the hash of the state there: equal on all members.
    #[doc(hidden)]
    pub fn state_mark(&self) -> (u64, u128) {
        self.handle.node.machine.marks().pop().unwrap_or_default()
    }

    /// Registers this member's metrics.
    pub fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        self.handle.node.metrics.register(registry);
    }

    /// Shows another certificate to the peers from now on; connections that are open stay.
    pub fn replace_certificate(&self, tls: &PeerTls) -> Result<(), StoreError> {
        self.handle.node.certificate.as_ref().map_or(Ok(()), |own| own.replace(tls))
    }

    /// Makes the group use the newest feature level that all members know, and answers it. From then on no member can go
    /// back to an older version. Works on any member.
    pub async fn upgrade(&self) -> Result<u32, StoreError> {
        self.handle.node.upgrade().await
    }

    /// Hands leadership to another voter, if this member leads and there is one.
    pub async fn transfer_leadership(&self) -> Result<(), StoreError> {
        self.handle.node.transfer_leadership().await
    }

    /// Hands over leadership, stops taking requests, flushes and ends everything that runs for this member.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.handle.shutdown().await
    }
}
