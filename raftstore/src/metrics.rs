//! What the store counts, under names like etcd's.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters and gauges of one member. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) committed: Gauge<i64>,
    pub(crate) applied: Counter<u64, AtomicU64>,
    pub(crate) pending: Gauge<i64>,
    pub(crate) failed: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) reads: Counter,
    pub(crate) fsync: Histogram,
    pub(crate) leader_changes: Counter,
    pub(crate) has_leader: Gauge<i64>,
    pub(crate) is_leader: Gauge<i64>,
    pub(crate) db_size: Gauge<i64>,
    pub(crate) revision: Gauge<i64>,
    pub(crate) compacted: Gauge<i64>,
    pub(crate) watchers: Gauge<i64>,
    pub(crate) slow_watchers: Counter,
    pub(crate) replaying_watches: Counter,
    pub(crate) snapshots_sent: Counter,
    pub(crate) expired: Counter,
    pub(crate) verified: Counter,
    pub(crate) damaged: Gauge<i64>,
    pub(crate) rebuilt: Counter,
    pub(crate) alarms: Gauge<i64>,
    pub(crate) disk_room: Gauge<i64>,
    pub(crate) disk_stalled: Gauge<i64>,
    pub(crate) refused_full: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            committed: Gauge::default(),
            applied: Counter::default(),
            pending: Gauge::default(),
            failed: Counter::default(),
            forwarded: Counter::default(),
            reads: Counter::default(),
            fsync: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
            leader_changes: Counter::default(),
            has_leader: Gauge::default(),
            is_leader: Gauge::default(),
            db_size: Gauge::default(),
            revision: Gauge::default(),
            compacted: Gauge::default(),
            watchers: Gauge::default(),
            slow_watchers: Counter::default(),
            replaying_watches: Counter::default(),
            snapshots_sent: Counter::default(),
            expired: Counter::default(),
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
        r.register("proposals_committed", "Log index of the last committed entry", self.committed.clone());
        r.register("proposals_applied", "Entries applied since the start", self.applied.clone());
        r.register("proposals_pending", "Writes that wait for their commit", self.pending.clone());
        r.register("proposals_failed", "Writes that failed or timed out", self.failed.clone());
        r.register("proposals_forwarded", "Writes that were forwarded to the leader", self.forwarded.clone());
        r.register("linearizable_reads", "Linearizable reads", self.reads.clone());
        r.register("wal_fsync_duration_seconds", "Duration of the log's write and fsync", self.fsync.clone());
        r.register("leader_changes_seen", "Changes of the leader seen", self.leader_changes.clone());
        r.register("has_leader", "Whether a leader is known", self.has_leader.clone());
        r.register("is_leader", "Whether this member leads", self.is_leader.clone());
        r.register("db_total_size_in_bytes", "Bytes of state and log", self.db_size.clone());
        r.register("current_revision", "Newest applied revision", self.revision.clone());
        r.register("compact_revision", "Compaction revision", self.compacted.clone());
        r.register("watchers", "Open watches", self.watchers.clone());
        r.register("slow_watchers", "Watches closed for falling behind", self.slow_watchers.clone());
        r.register("replayed_watches", "Times that a watch was moved to history", self.replaying_watches.clone());
        r.register("snapshots_sent", "Snapshots sent to other members", self.snapshots_sent.clone());
        r.register("expired_keys", "Keys removed because of their expiry", self.expired.clone());
        r.register("state_verifications", "Times that the whole state was read and found right", self.verified.clone());
        r.register("state_damaged", "Whether this member's state was found to be wrong", self.damaged.clone());
        r.register("state_rebuilds", "States built anew since the start", self.rebuilt.clone());
        r.register("disk_full", "Whether this member's disk is nearly full", self.disk_room.clone());
        r.register("disk_stalled", "Whether this member's disk does not answer in time", self.disk_stalled.clone());
        r.register("proposals_refused_full", "Writes refused since disks are full", self.refused_full.clone());
        r.register("alarms", "Alarms of this member, as its status lists them", self.alarms.clone());
    }
}
