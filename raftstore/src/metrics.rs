//! What the store counts, under names like etcd's. docs/operations.md has a table of both.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::types::Latency;

/// Another member.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct Peer {
    pub(crate) peer: String,
}

/// Counters and gauges of one member. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) committed: Gauge<i64>,
    pub(crate) applied_index: Gauge<i64>,
    pub(crate) applied: Counter<u64, AtomicU64>,
    pub(crate) pending: Gauge<i64>,
    pub(crate) failed: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) reads: Counter,
    pub(crate) failed_reads: Counter,
    pub(crate) read_duration: Histogram,
    pub(crate) write_duration: Histogram,
    pub(crate) fsync: Histogram,
    pub(crate) recent_fsyncs: Recent,
    pub(crate) apply: Histogram,
    pub(crate) slow_applies: Counter,
    pub(crate) slow_reads: Counter,
    pub(crate) slow_writes: Counter,
    pub(crate) leader_changes: Counter,
    pub(crate) has_leader: Gauge<i64>,
    pub(crate) is_leader: Gauge<i64>,
    pub(crate) is_learner: Gauge<i64>,
    pub(crate) in_contact: Gauge<i64>,
    pub(crate) db_size: Gauge<i64>,
    pub(crate) db_in_use: Gauge<i64>,
    pub(crate) log_size: Gauge<i64>,
    pub(crate) revision: Gauge<i64>,
    pub(crate) compacted: Gauge<i64>,
    pub(crate) reclaim: Histogram,
    pub(crate) watchers: Gauge<i64>,
    pub(crate) slow_watchers: Counter,
    pub(crate) replaying_watches: Counter,
    pub(crate) peer_lag: Family<Peer, Gauge>,
    pub(crate) peer_healthy: Family<Peer, Gauge>,
    pub(crate) snapshots_sent: Counter,
    pub(crate) snapshot_send: Histogram,
    pub(crate) snapshot_sent_bytes: Counter,
    pub(crate) snapshot_resumed_bytes: Counter,
    pub(crate) snapshot_send_failures: Counter,
    pub(crate) snapshot_install: Histogram,
    pub(crate) snapshot_build: Histogram,
    pub(crate) expired: Counter,
    pub(crate) backup_duration: Histogram,
    pub(crate) backup_failures: Counter,
    pub(crate) backup_at: Gauge<i64>,
    pub(crate) verified: Counter,
    pub(crate) damaged: Gauge<i64>,
    pub(crate) rebuilt: Counter,
    pub(crate) alarms: Gauge<i64>,
    pub(crate) disk_room: Gauge<i64>,
    pub(crate) disk_stalled: Gauge<i64>,
    pub(crate) refused_full: Counter,
}

/// From half a millisecond to eight seconds: etcd's buckets for what its disk does are these, doubled from 1 ms.
fn fast() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 15))
}

/// From ten milliseconds to five minutes.
fn slow() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            committed: Gauge::default(),
            applied_index: Gauge::default(),
            applied: Counter::default(),
            pending: Gauge::default(),
            failed: Counter::default(),
            forwarded: Counter::default(),
            reads: Counter::default(),
            failed_reads: Counter::default(),
            read_duration: fast(),
            write_duration: fast(),
            fsync: fast(),
            recent_fsyncs: Recent::default(),
            apply: fast(),
            slow_applies: Counter::default(),
            slow_reads: Counter::default(),
            slow_writes: Counter::default(),
            leader_changes: Counter::default(),
            has_leader: Gauge::default(),
            is_leader: Gauge::default(),
            is_learner: Gauge::default(),
            in_contact: Gauge::default(),
            db_size: Gauge::default(),
            db_in_use: Gauge::default(),
            log_size: Gauge::default(),
            revision: Gauge::default(),
            compacted: Gauge::default(),
            reclaim: slow(),
            watchers: Gauge::default(),
            slow_watchers: Counter::default(),
            replaying_watches: Counter::default(),
            peer_lag: Family::default(),
            peer_healthy: Family::default(),
            snapshots_sent: Counter::default(),
            snapshot_send: slow(),
            snapshot_sent_bytes: Counter::default(),
            snapshot_resumed_bytes: Counter::default(),
            snapshot_send_failures: Counter::default(),
            snapshot_install: slow(),
            snapshot_build: slow(),
            expired: Counter::default(),
            backup_duration: slow(),
            backup_failures: Counter::default(),
            backup_at: Gauge::default(),
            verified: Counter::default(),
            damaged: Gauge::default(),
            rebuilt: Counter::default(),
            alarms: Gauge::default(),
            disk_room: Gauge::default(),
            disk_stalled: Gauge::default(),
            refused_full: Counter::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("trireme_store");
        self.register_requests(r);
        self.register_group(r);
        self.register_disk(r);
        self.register_integrity(r);
    }

    fn register_integrity(&self, r: &mut Registry) {
        r.register("state_verifications", "Times that the whole state was read and found right", self.verified.clone());
        r.register("state_damaged", "Whether this member's state was found to be wrong", self.damaged.clone());
        r.register("state_rebuilds", "States built anew since the start", self.rebuilt.clone());
        r.register("disk_full", "Whether this member's disk is nearly full", self.disk_room.clone());
        r.register("disk_stalled", "Whether this member's disk does not answer in time", self.disk_stalled.clone());
        r.register("proposals_refused_full", "Writes refused since disks are full", self.refused_full.clone());
        r.register("alarms", "Alarms of this member, as its status lists them", self.alarms.clone());
    }

    fn register_requests(&self, r: &mut Registry) {
        r.register("proposals_committed", "Log index of the last committed entry", self.committed.clone());
        r.register("proposals_applied_index", "Log index of the last applied entry", self.applied_index.clone());
        r.register("proposals_applied", "Entries applied since the start", self.applied.clone());
        r.register("proposals_pending", "Writes that wait for their commit", self.pending.clone());
        r.register("proposals_failed", "Writes that failed or timed out", self.failed.clone());
        r.register("proposals_forwarded", "Writes that were forwarded to the leader", self.forwarded.clone());
        r.register("write_duration_seconds", "Duration of writes proposed here", self.write_duration.clone());
        r.register("linearizable_reads", "Linearizable reads", self.reads.clone());
        r.register("linearizable_reads_failed", "Those that no quorum confirmed", self.failed_reads.clone());
        r.register("read_index_duration_seconds", "Duration of their confirmation", self.read_duration.clone());
        r.register("slow_writes", "Writes that were logged as slow", self.slow_writes.clone());
        r.register("slow_read_indexes", "Reads that were logged as slow", self.slow_reads.clone());
        r.register("slow_applies", "Batches whose apply was logged as slow", self.slow_applies.clone());
        r.register("watchers", "Open watches", self.watchers.clone());
        r.register("slow_watchers", "Watches closed for falling behind", self.slow_watchers.clone());
        r.register("replayed_watches", "Times that a watch was moved to history", self.replaying_watches.clone());
        r.register("expired_keys", "Keys removed because of their expiry", self.expired.clone());
    }

    fn register_group(&self, r: &mut Registry) {
        r.register("leader_changes_seen", "Changes of the leader seen", self.leader_changes.clone());
        r.register("has_leader", "Whether a leader is known", self.has_leader.clone());
        r.register("is_leader", "Whether this member leads", self.is_leader.clone());
        r.register("is_learner", "Whether this member has no vote", self.is_learner.clone());
        r.register("in_contact", "Whether it leads with a quorum or hears of a leader", self.in_contact.clone());
        r.register("peer_lag_entries", "Entries a member is behind; told by the leader", self.peer_lag.clone());
        r.register("peer_healthy", "Whether a member answers; told by the leader", self.peer_healthy.clone());
        r.register("snapshots_sent", "Snapshots sent to other members", self.snapshots_sent.clone());
        r.register("snapshot_send_duration_seconds", "Duration of that", self.snapshot_send.clone());
        r.register(
            "snapshot_send_failures",
            "Snapshots that did not arrive whole",
            self.snapshot_send_failures.clone(),
        );
        r.register("snapshot_sent_bytes", "Bytes of snapshots sent", self.snapshot_sent_bytes.clone());
        r.register(
            "snapshot_resumed_bytes",
            "Bytes of snapshots that were there from an earlier attempt",
            self.snapshot_resumed_bytes.clone(),
        );
        r.register("snapshot_install_duration_seconds", "Duration of taking one over", self.snapshot_install.clone());
    }

    fn register_disk(&self, r: &mut Registry) {
        r.register("wal_fsync_duration_seconds", "Duration of the log's write and fsync", self.fsync.clone());
        r.register("apply_duration_seconds", "Duration of applying a batch of entries", self.apply.clone());
        r.register("db_total_size_in_bytes", "Bytes of state and log", self.db_size.clone());
        r.register("db_total_size_in_use_in_bytes", "Bytes of the state that hold something", self.db_in_use.clone());
        r.register("log_size_in_bytes", "Bytes of the log", self.log_size.clone());
        r.register("current_revision", "Newest applied revision", self.revision.clone());
        r.register("compact_revision", "Compaction revision", self.compacted.clone());
        r.register("reclaim_duration_seconds", "Duration of giving back compacted space", self.reclaim.clone());
        r.register("checkpoint_duration_seconds", "Duration of a checkpoint of the state", self.snapshot_build.clone());
        r.register("snapshot_save_duration_seconds", "Duration of snapshots into files", self.backup_duration.clone());
        r.register("snapshot_save_failures", "Snapshots into files that failed", self.backup_failures.clone());
        r.register("snapshot_saved_timestamp_seconds", "When the last one succeeded", self.backup_at.clone());
    }

    /// Notes how long a write and fsync of the log took.
    pub(crate) fn synced(&self, seconds: f64) {
        self.fsync.observe(seconds);
        self.recent_fsyncs.note(seconds);
    }
}

/// How many durations are remembered.
const REMEMBERED: usize = 1024;

/// The last durations of something, for people who look now. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(Arc<Mutex<VecDeque<f32>>>);

impl Recent {
    pub(crate) fn note(&self, seconds: f64) {
        let mut last = self.0.lock();
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(seconds as f32);
    }

    pub(crate) fn summary(&self) -> Latency {
        let mut sorted: Vec<f32> = self.0.lock().iter().copied().collect();
        sorted.sort_by(f32::total_cmp);
        let at = |share: f64| {
            let last = sorted.len().saturating_sub(1);
            let i = (sorted.len() as f64 * share) as usize;
            sorted.get(i.min(last)).map_or(Duration::ZERO, |s| Duration::from_secs_f32(*s))
        };
        Latency { count: sorted.len() as u64, p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_durations_are_summed_up() {
        let recent = Recent::default();
        assert_eq!(recent.summary(), Latency::default());
        for i in 0..3000u32 {
            recent.note(f64::from(i));
        }
        let summary = recent.summary();
        let seconds = [summary.p50, summary.p99, summary.max].map(|d| d.as_secs());
        assert_eq!((summary.count, seconds), (1024, [2488, 2989, 2999]));
    }
}
