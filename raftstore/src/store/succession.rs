//! New lineages: a restore from a backup, the recovery from one member's data after a majority is lost, and what keeps
//! members of a former lineage out.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use tokio::time::Instant;

use super::Store;
use super::node::Node;
use super::start::{open_log, prepare_empty};
use crate::backup::{self, Ancestor, BackupError, Succession};
use crate::config::{Config, check_address, check_name};
use crate::consensus::machine::Machine;
use crate::faults::Faults;
use crate::machine::Meta;
use crate::machine::digest::Digest;
use crate::metrics::Metrics;
use crate::network::peers::{Lane, PeerError, Peers, Road, Superseded, Target};
use crate::network::tls::PeerTlsConfig;
use crate::network::wire::{HelloReply, path};
use crate::storage::disk::{Disk, Home};
use crate::storage::files::Identity;
use crate::storage::lineage::{STARTED, Succeeding, first_state, prepare, take_over};
use crate::storage::log::{Log, Payload};
use crate::storage::records::{LogPosition, MemberInfo, MembersRecord};
use crate::storage::state::StateDb;
use crate::storage::{StorageError, snapshot};
use crate::types::{Leadership, MemberId, Revision, StoreError};
use crate::watch::Hub;

/// How long other members may take to answer whether they live.
const SURVEY: Duration = Duration::from_secs(3);
/// How often a member that still has its quorum says that there are others who do not belong to it.
const REMIND: Duration = Duration::from_secs(60);
/// How soon it looks again whether it still has it.
const LOOK: Duration = Duration::from_secs(1);

/// Where a backup is to be restored.
#[derive(Clone, Debug)]
pub struct RestoreTarget {
    /// The member's directory, which must hold no member.
    pub data_dir: PathBuf,
    /// Name of the member.
    pub name: String,
    /// `host:port` of its peer server.
    pub peer_address: String,
    /// Opaque address for clients.
    pub client_address: String,
}

/// A lineage that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLineage {
    /// Its identity.
    pub lineage: String,
    /// The one before.
    pub former: String,
    /// The revision that the former one was left at.
    pub former_revision: Revision,
    /// The revision that this one begins with; everything before counts as compacted.
    pub revision: Revision,
    /// The only member.
    pub id: MemberId,
    /// Where the former data was left, if it was.
    pub kept: Option<PathBuf>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be used.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<StorageError> for RestoreError {
    fn from(error: StorageError) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// Makes a member of a new lineage from a backup, in a directory that holds none. It is the only one; [`Store::open`]
    /// starts it and others join it. Nothing is written unless the whole backup is sound. Blocks.
    ///
    /// # Errors
    /// When the backup is not sound, the directory holds a member, or the disk fails.
    pub fn restore(file: &Path, target: &RestoreTarget) -> Result<NewLineage, RestoreError> {
        Self::restore_with(file, target, &Faults::default())
    }

    /// The same with what goes wrong on purpose.
    #[doc(hidden)]
    pub fn restore_with(file: &Path, target: &RestoreTarget, faults: &Faults) -> Result<NewLineage, RestoreError> {
        check_name(&target.name)?;
        check_address("peer address", &target.peer_address)?;
        let header = backup::verify(file)?.header;
        prepare_empty(&Disk::Real, &target.data_dir)?;
        restore_into(file, target, &header, faults).inspect_err(|_| {
            // Nothing of it is a member yet.
            for left in ["log", "state-1"] {
                let _ = Disk::Real.remove_dir(&target.data_dir.join(left));
            }
        })
    }

    /// Begins a new lineage with what one member holds, in its place; the former data is kept beside it. For when a
    /// majority of the members is lost for good. Refused while a quorum answers, or a member that has newer data, unless
    /// it is forced. The member must not run.
    ///
    /// # Errors
    /// When it is refused, the data is damaged, or the disk fails.
    pub async fn recover(config: Config, force: bool) -> Result<NewLineage, StoreError> {
        config.validate()?;
        let Home { disk, dir } = config.home();
        if let Some(kept) = take_over(&disk, &dir)? {
            return Ok(recovered(&disk, &dir, Some(kept))?);
        }
        let identity = Identity::read(&disk, &dir)?;
        if identity.name != config.name {
            let (is, wanted) = (&identity.name, &config.name);
            return Err(StoreError::Invalid(format!("the data belongs to member {is:?}, not to {wanted:?}")));
        }
        let has_run = disk.exists(&dir.join(STARTED))?;
        let log = open_log(&config, &identity, has_run)?;
        let (opened, log_of_state) = (config.home(), log.clone());
        let opening = move || -> Result<_, StorageError> {
            let state = snapshot::open_state(&opened.disk, &opened.dir)?;
            let members = newest_members(&log_of_state, &state)?;
            Ok((state, members))
        };
        let (state, members) = blocking(opening).await?;
        if !force {
            let last = log.ends().1;
            let survey = survey(&config, &identity, &members).await?;
            judge(&identity, &members, last, &survey).map_err(StoreError::Membership)?;
        }
        blocking(move || recover_into(&config, &identity, log, state)).await
    }
}

async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, StoreError>
where
    StoreError: From<E>,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| StoreError::Storage(Box::new(e)))?.map_err(StoreError::from)
}

fn restore_into(
    file: &Path,
    target: &RestoreTarget,
    header: &backup::BackupHeader,
    faults: &Faults,
) -> Result<NewLineage, RestoreError> {
    let state = StateDb::open(&Disk::Real, &first_state(&target.data_dir), true)?;
    let (mut reader, _) = backup::open(file)?;
    let mut digest = Digest::default();
    while let Some(records) = reader.next_part()? {
        digest.live = digest.live.wrapping_add(state.import(records)?);
    }
    reader.finish()?;
    let info = MemberInfo {
        name: target.name.clone(),
        peer_address: target.peer_address.clone(),
        client_address: target.client_address.clone(),
        ..MemberInfo::default()
    };
    let last = LogPosition { term: header.term, node: 0, index: header.index };
    let meta = Meta {
        revision: header.revision,
        compacted: header.compacted,
        next_member: header.next_member,
        feature_level: header.feature_level,
        digest,
    };
    let mut succeeding =
        Succeeding::new(&header.lineage, header.ancestors.clone(), last, &meta, Succession::Restore, info)?;
    if faults.restore_rewinds {
        (succeeding.meta.revision, succeeding.meta.compacted) = (meta.revision, meta.revision);
    }
    succeeding.complete(&Disk::Real, &target.data_dir, &state)?;
    drop(state);
    Ok(recovered(&Disk::Real, &target.data_dir, None)?)
}

/// What the new identity and the state in a directory tell of the lineage.
fn recovered(disk: &Disk, data_dir: &Path, kept: Option<PathBuf>) -> Result<NewLineage, StorageError> {
    let identity = Identity::read(disk, data_dir)?;
    let state = snapshot::open_state(disk, data_dir)?;
    let former = state.ancestors()?.pop();
    let former = former.ok_or_else(|| StorageError::Damaged("the new lineage has no ancestor".into()))?;
    Ok(NewLineage {
        lineage: identity.lineage,
        former: former.lineage,
        former_revision: former.revision,
        revision: state.applied()?.meta.revision,
        id: identity.id,
        kept,
    })
}

/// The last change of membership that the member knows of, committed or not.
fn newest_members(log: &Log, state: &StateDb) -> Result<MembersRecord, StorageError> {
    let mut members = state.members()?;
    log.for_each(state.applied()?.at, |entries| {
        for entry in entries {
            if let Payload::Members(record) = entry.payload {
                members = *record;
            }
        }
        Ok(())
    })?;
    Ok(members)
}

/// What the other members answered: their hellos, or why there is none.
type Survey = Vec<(MemberId, MemberInfo, Result<HelloReply, PeerError>)>;

async fn survey(config: &Config, identity: &Identity, members: &MembersRecord) -> Result<Survey, StoreError> {
    let tls = PeerTlsConfig::new(&config.tls)?;
    let runtime = tokio::runtime::Handle::current();
    let peers = Peers::new(identity.id, &identity.lineage, Road::Tls(tls.client), SURVEY, runtime);
    let others = members.nodes.iter().filter(|(id, _)| **id != identity.id);
    let asked = others.map(async |(id, info)| {
        let target = Target { id: *id, address: info.peer_address.clone() };
        let reply = peers.call::<_, HelloReply>(&target, Lane::Forward, path::HELLO, &(), SURVEY).await;
        (*id, info.clone(), reply)
    });
    Ok(join_all(asked).await)
}

/// Refuses a recovery that is not needed, or that would lose what another member still has.
fn judge(
    identity: &Identity,
    members: &MembersRecord,
    last: Option<LogPosition>,
    survey: &Survey,
) -> Result<(), String> {
    for (_, info, reply) in survey {
        if let Err(PeerError::Refused { status: StatusCode::CONFLICT, reason, .. }) = reply {
            return Err(format!("{} says: {reason}", info.name));
        }
    }
    let answers = |id: &MemberId| *id == identity.id || survey.iter().any(|(i, _, reply)| i == id && reply.is_ok());
    let quorum =
        |set: &std::collections::BTreeSet<MemberId>| set.iter().filter(|id| answers(id)).count() > set.len() / 2;
    let alone = members.voters.iter().all(|set| set.iter().all(|id| *id == identity.id));
    if alone {
        return Err("this member is the only voter, so nothing is lost: start it as usual".into());
    }
    let up: Vec<_> = survey.iter().filter(|(_, _, reply)| reply.is_ok()).map(|(_, info, _)| &*info.name).collect();
    if members.voters.iter().all(quorum) {
        let answer = if up.len() == 1 { "answers" } else { "answer" };
        return Err(format!("{} {answer}, which is a quorum with this member: start it as usual", up.join(", ")));
    }
    let newer = |at: Option<LogPosition>| match (at, last) {
        (Some(a), Some(b)) => (a.term, a.index).cmp(&(b.term, b.index)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    };
    for (_, info, reply) in survey {
        if let Ok(hello) = reply
            && newer(hello.last) == Ordering::Greater
        {
            let name = &info.name;
            return Err(format!("{name} answers and has newer data: stop it and recover from its data instead"));
        }
    }
    Ok(())
}

/// Makes the new lineage beside the old one, then puts it in its place.
fn recover_into(
    config: &Config,
    identity: &Identity,
    log: Arc<Log>,
    state: Arc<StateDb>,
) -> Result<NewLineage, StorageError> {
    let Home { disk, dir: data_dir } = config.home();
    let dir = prepare(&disk, &data_dir, &state)?;
    drop(state);
    let faults = config.faults.clone();
    let hub = Hub::new(1, 1, faults.clone());
    let (state, known) = (snapshot::open_state(&disk, &dir)?, config.feature_level);
    let machine = Machine::open(
        Home { disk: disk.clone(), dir: dir.clone() },
        state,
        &identity.lineage,
        known,
        hub,
        Metrics::default(),
        faults,
    )?;
    // Everything that this member has accepted counts: what of it was acknowledged, nobody can say any more.
    log.for_each(machine.applied().at, |entries| {
        machine.apply(entries).map(drop).map_err(|e| StorageError::io("applying the log", e))
    })?;
    let (applied, members) = (machine.applied(), machine.members());
    let known = members.nodes.get(&identity.id).cloned().unwrap_or_default();
    let info = MemberInfo {
        name: identity.name.clone(),
        peer_address: config.advertise.clone(),
        client_address: config.client_address.clone(),
        ..known
    };
    let state = machine.state();
    let last = log.ends().1.max(applied.at).unwrap_or(LogPosition { term: 0, node: 0, index: 0 });
    let vote = log.vote().map_or(0, |vote| vote.term);
    let last = LogPosition { term: last.term.max(vote), ..last };
    let ancestors = state.ancestors()?;
    let succeeding = Succeeding::new(&identity.lineage, ancestors, last, &applied.meta, Succession::Recovery, info)?;
    succeeding.complete(&disk, &dir, &state)?;
    // Databases are closed before their files move.
    drop((state, machine, log));
    let kept = take_over(&disk, &data_dir)?;
    recovered(&disk, &data_dir, kept)
}

impl Node {
    /// Why a member of another lineage is not heard, and for how long this lineage has followed that one, if it does.
    pub(crate) fn stranger(&self, from: MemberId, lineage: &str) -> (String, Option<Duration>) {
        let ancestors = self.machine.state().ancestors().unwrap_or_default();
        match ancestors.into_iter().find(|a| a.lineage == lineage) {
            Some(ancestor) => {
                let ago = self.config.environment.wall_ms().saturating_sub(ancestor.at_ms);
                (describe(&ancestor, &self.identity), Some(Duration::from_millis(ago)))
            }
            None => {
                (format!("member {from} is of another lineage ({lineage}; here it is {})", self.identity.lineage), None)
            }
        }
    }

    /// The group has gone on without this member. From here on it answers nobody, votes for nobody and leads nobody: what it
    /// acknowledged now would be lost.
    pub(crate) fn leave(&self, why: String) {
        {
            let mut left = self.left.lock();
            if left.is_some() {
                return;
            }
            tracing::error!(reason = why, "this member does not belong to the group any more");
            *left = Some(why);
        }
        self.removed.cancel();
        self.serving.cancel();
        self.leadership.send_replace(Leadership::NotLeader { leader: None });
        let raft = self.raft.clone();
        self.runtime.spawn(async move { drop(raft.shutdown().await) });
    }

    /// Why this member does not belong to the group any more, if so.
    pub(crate) fn has_left(&self) -> Option<String> {
        if self.removed.is_cancelled() { self.left.lock().clone() } else { None }
    }

    /// Acts on what a member says whose lineage follows this one; whether this member leaves for it.
    fn heed(&self, found: Superseded) -> bool {
        let behind = found.was_before(self.started) || !self.in_contact();
        let leaves = behind && !self.config.faults.stay_behind;
        if leaves {
            self.leave(found.why);
        }
        leaves
    }

    /// Asks the others, before this member stands for election for the first time, whether the group goes on without it: two of
    /// three members that were left behind would be a quorum.
    pub(crate) async fn ask_whether_to_stand(&self) {
        if self.config.faults.stay_behind {
            return;
        }
        let patience = self.config.timing.election_max * 3;
        let others = self.machine.members().nodes.into_keys().filter(|id| *id != self.identity.id);
        let asked = others.filter_map(|id| self.target(id)).map(async |target| {
            let answer = self.peers.call::<_, HelloReply>(&target, Lane::Forward, path::HELLO, &(), patience).await;
            if let Err(error) = answer {
                tracing::debug!(member = target.id, %error, "asked before the first election");
            }
        });
        join_all(asked).await;
        let found = self.peers.superseded().borrow().clone();
        if let Some(found) = found {
            self.heed(found);
        }
    }
}

fn describe(ancestor: &Ancestor, identity: &Identity) -> String {
    let Identity { name, lineage, .. } = identity;
    let Ancestor { lineage: former, revision, by, .. } = ancestor;
    format!(
        "the group was {by} at revision {revision} of lineage {former} and goes on as lineage {lineage}, of which {name} is \
         a member; data of the former lineage has to be removed, and its member to join anew"
    )
}

/// Ends this member when it finds that the group goes on in another lineage; runs until the member stops.
///
/// Members that have had a quorum since before then stay: while they served, somebody has recovered or restored one that
/// was merely cut off. Members that came back later do not, or two groups would answer the same clients.
pub(crate) async fn watch_over(node: Arc<Node>) {
    let (mut superseded, mut reminded) = (node.peers.superseded(), None::<Instant>);
    while let Ok(found) = superseded.wait_for(Option::is_some).await.map(|found| found.clone()) {
        let Some(found) = found else { continue };
        let why = found.why.clone();
        if node.heed(found) {
            return;
        }
        if reminded.is_none_or(|at| at.elapsed() >= REMIND) {
            reminded = Some(Instant::now());
            tracing::warn!(reason = why, "a member that was restored or recovered answers in the place of another one");
        }
        tokio::time::sleep(LOOK).await;
    }
}
