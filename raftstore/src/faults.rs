//! Deliberate faults, so that tests can prove that they would see real ones. All are off unless a test's own server of the
//! store (`examples/store-server.rs`) turns one on; the program that ships cannot, and the test `tidy` looks that it does
//! not even name this module.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::types::Revision;

/// What is to go wrong on this member.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Appends are acknowledged before they are written, which then takes this long.
    pub ack_before_fsync: Option<Duration>,
    /// Appends are written and acknowledged, but never fsynced.
    pub no_fsync: bool,
    /// A leader answers for how far it has committed without asking whether it still leads.
    pub read_without_quorum: bool,
    /// The first transaction at this log index or later that is sure to change something is not applied.
    pub skip_entry: Option<Once>,
    /// The first event of this revision or later is not shown to watches that are up to date.
    pub drop_event: Option<Once>,
    /// Each fsync of the log takes this much longer.
    pub slow_fsync: Option<Duration>,
    /// What is applied reaches the state before the note that it is applied does, by this long.
    pub torn_apply: Option<Duration>,
    /// A watch whose events have left memory goes on with those that are there.
    pub no_replay: bool,
    /// Events in memory survive a state that replaces the one they belong to.
    pub keep_ring: bool,
    /// Between finding expired keys and proposing to remove them.
    pub expiry_pause: Option<Duration>,
    /// Expired keys are removed whether or not they were written since.
    pub blind_expiry: bool,
    /// A member that has lost its log starts all the same.
    pub accept_lost_log: bool,
    /// The log is shortened as if all of the state were on disk. No snapshot can be sent then.
    pub purge_unflushed: bool,
    /// A restored store goes on with the revision of the backup, as if nothing had been written since.
    pub restore_rewinds: bool,
    /// A member that was left behind by a recovery neither asks whether it was nor goes when it is told.
    pub stay_behind: bool,
}

/// Something that goes wrong once, from a point on.
#[derive(Clone, Debug)]
pub struct Once {
    from: u64,
    happened: Arc<AtomicBool>,
}

impl Once {
    fn now(&self, at: u64) -> bool {
        at >= self.from && !self.happened.swap(true, Ordering::Relaxed)
    }
}

impl Faults {
    /// Turns one on by its name, with a number where it takes one: milliseconds, a log index or a revision.
    ///
    /// # Errors
    /// When there is no such fault, or the number is missing or superfluous.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let (name, number) = match text.split_once('=') {
            Some((name, number)) => (name, Some(number.parse::<u64>().map_err(|e| format!("fault {text}: {e}"))?)),
            None => (text, None),
        };
        let ms = number.map(Duration::from_millis);
        let once = number.map(|from| Once { from, happened: Arc::default() });
        let flag = match name {
            "read-without-quorum" => Some(&mut self.read_without_quorum),
            "no-replay" => Some(&mut self.no_replay),
            "keep-ring" => Some(&mut self.keep_ring),
            "blind-expiry" => Some(&mut self.blind_expiry),
            "accept-lost-log" => Some(&mut self.accept_lost_log),
            "purge-unflushed" => Some(&mut self.purge_unflushed),
            "no-fsync" => Some(&mut self.no_fsync),
            "restore-rewinds" => Some(&mut self.restore_rewinds),
            "stay-behind" => Some(&mut self.stay_behind),
            _ => None,
        };
        if let Some(flag) = flag {
            *flag = true;
            return if number.is_none() { Ok(()) } else { Err(format!("fault {name} takes no number")) };
        }
        match name {
            "ack-before-fsync" => self.ack_before_fsync = ms,
            "skip-entry" => self.skip_entry = once,
            "drop-event" => self.drop_event = once,
            "slow-fsync" => self.slow_fsync = ms,
            "torn-apply" => self.torn_apply = ms,
            "expiry-pause" => self.expiry_pause = ms,
            _ => return Err(format!("there is no fault {name:?}")),
        }
        if number.is_some() { Ok(()) } else { Err(format!("fault {name} takes a number")) }
    }

    /// Whether the entry with this index is to be skipped.
    pub(crate) fn skips(&self, index: u64) -> bool {
        self.skip_entry.as_ref().is_some_and(|once| once.now(index))
    }

    /// Whether the event with this revision is to be dropped.
    pub(crate) fn drops(&self, revision: Revision) -> bool {
        self.drop_event.as_ref().is_some_and(|once| once.now(revision))
    }
}

/// Holds up the calling thread, which may be one that runs other tasks: that is part of the fault.
pub(crate) fn pause(time: Option<Duration>) {
    if let Some(time) = time {
        std::thread::sleep(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_exactly() {
        let mut faults = Faults::default();
        assert_eq!(faults.set("slow-fsync=40"), Ok(()));
        assert_eq!(faults.slow_fsync, Some(Duration::from_millis(40)));
        assert_eq!(faults.set("no-replay"), Ok(()));
        assert_eq!(faults.set("drop-event=7"), Ok(()));
        assert!(faults.no_replay && !faults.keep_ring);
        assert!(!faults.drops(6) && faults.drops(8) && !faults.drops(9), "once");
        for wrong in ["", "slow-fsync", "no-replay=1", "slow-fsync=x", "fast-fsync=1"] {
            assert!(faults.set(wrong).is_err(), "{wrong}");
        }
        assert!(!Faults::default().skips(u64::MAX) && !Faults::default().drops(u64::MAX));
    }
}
