//! Appending to the files of the log. Only the log's writer does.

use std::sync::Arc;

use super::StorageError;
use super::disk::DiskFile;
use super::log::{Log, create_segment, next, segment_path};
use super::log_entry::LogEntry;
use super::log_record::{Batch, Head, LogState, Record};
use super::records::{LogPosition, VoteRecord};

/// Memory that is kept for the next batch.
const KEPT: usize = 1 << 20;

/// What a batch does to what is known of the log, once it is written.
enum Effect {
    Put { index: u64, offset: u64 },
    Truncate { from: u64 },
}

/// The newest segment, to which batches are appended one at a time: `begin`, any number of records, `write`, `sync`.
pub(super) struct Appender {
    log: Arc<Log>,
    file: DiskFile,
    number: u64,
    /// Bytes that were written, and of these those that are surely on the disk.
    len: u64,
    synced: u64,
    /// Where its records begin, as far as is known.
    begun: u64,
    /// What is written says this.
    written: LogState,
    /// With the batch it will.
    state: LogState,
    batch: Batch,
    effects: Vec<Effect>,
    purged: Option<LogPosition>,
}

impl Appender {
    /// Goes on with a log that was opened or begun, and is on the disk as it is known.
    pub(super) fn open(log: Arc<Log>) -> Result<Self, StorageError> {
        let (newest, written) = {
            let index = log.index.lock();
            (index.places.newest(), index.state.clone())
        };
        let newest = newest.ok_or_else(|| StorageError::Damaged("the log has not begun".into()))?;
        let file = log.disk.open(&segment_path(&log.dir, newest.number))?;
        let (number, len) = (newest.number, newest.len);
        let batch = Batch::new(number, len, len, Vec::new());
        let state = written.clone();
        let effects = Vec::new();
        let mut appender =
            Self { log, file, number, len, synced: len, begun: 0, written, state, batch, effects, purged: None };
        appender.remove_unused();
        Ok(appender)
    }

    /// Begins a batch; in a new segment if it is time for one and there is `more` to come.
    pub(super) fn begin(&mut self, more: bool) -> Result<(), StorageError> {
        if more && self.len >= self.log.segment_bytes && self.len > self.begun {
            match self.next_segment() {
                // The former one takes more.
                Err(error) if error.is_full() => tracing::warn!(%error, "no room for another segment of the log"),
                result => result?,
            }
        }
        let memory = std::mem::take(&mut self.batch.bytes);
        let memory = if memory.capacity() > KEPT { Vec::new() } else { memory };
        self.batch = Batch::new(self.number, self.len, self.synced, memory);
        self.state.clone_from(&self.written);
        self.effects.clear();
        self.purged = None;
        Ok(())
    }

    fn next_segment(&mut self) -> Result<(), StorageError> {
        if self.synced < self.len {
            self.sync()?;
        }
        let lineage = self.log.lineage().unwrap_or_default();
        let (number, state) = (self.number + 1, self.written.clone());
        let head = Head { number, lineage, before: Some(self.len), state };
        let (file, len) = create_segment(&self.log.disk, &self.log.dir, &head)?;
        // From here on the new segment counts; this only lets it be missed.
        let mut seal = Batch::new(self.number, self.len, self.len, Vec::new());
        seal.put(&Record::Seal(number));
        let sealed = self.file.write_at(self.len, &seal.bytes).and_then(|()| self.file.sync_data());
        match sealed {
            Ok(()) => {}
            Err(error) if error.is_full() => tracing::warn!(%error, "no room for the end of a segment of the log"),
            Err(error) => return Err(error),
        }
        (self.file, self.number) = (file, number);
        (self.len, self.synced, self.begun) = (len, len, len);
        self.log.index.lock().places.begin(number, len);
        Ok(())
    }

    /// Whether something was written that may not be on the disk.
    pub(super) fn unsynced(&self) -> bool {
        self.synced < self.len
    }

    /// Bytes of the batch.
    pub(super) fn pending(&self) -> usize {
        self.batch.bytes.len()
    }

    pub(super) fn put(&mut self, entry: &LogEntry) {
        let offset = self.batch.put_entry(entry);
        self.effects.push(Effect::Put { index: entry.at.index, offset });
        self.state.last = Some(entry.at);
    }

    pub(super) fn vote(&mut self, vote: VoteRecord) {
        self.batch.put(&Record::Vote(vote));
        self.state.vote = Some(vote);
    }

    pub(super) fn committed(&mut self, at: LogPosition) {
        self.batch.put(&Record::Committed(at));
        self.state.committed = Some(at);
    }

    pub(super) fn truncate(&mut self, after: Option<LogPosition>) {
        self.batch.put(&Record::Truncate(after));
        self.effects.push(Effect::Truncate { from: next(after) });
        self.state.last = after;
    }

    pub(super) fn purge(&mut self, upto: LogPosition) {
        self.batch.put(&Record::Purge(upto));
        self.state.purge(upto);
        self.purged = Some(upto);
    }

    /// Writes the batch. If that fails, `cut_back` comes before anything else is written.
    pub(super) fn write(&mut self) -> Result<(), StorageError> {
        self.file.write_at(self.len, &self.batch.bytes)?;
        self.len += self.batch.bytes.len() as u64;
        self.written.clone_from(&self.state);
        let mut index = self.log.index.lock();
        index.places.grow(self.len);
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Put { index: at, offset } => index.places.put(at, offset),
                Effect::Truncate { from } => index.places.truncate(from),
            }
        }
        Ok(())
    }

    /// Removes what a failed write may have left, durably: a power failure must not find the next batch mixed with this one.
    pub(super) fn cut_back(&mut self) -> Result<(), StorageError> {
        if self.file.len()? == self.len {
            return Ok(());
        }
        self.file.set_len(self.len)?;
        self.file.sync_data()?;
        self.synced = self.len;
        Ok(())
    }

    /// Makes all that was written durable, and removes segments that are not needed any more.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.file.sync_data()?;
        self.synced = self.len;
        if let Some(upto) = self.purged.take() {
            self.log.index.lock().places.purge(upto.index);
            self.remove_unused();
        }
        Ok(())
    }

    fn remove_unused(&mut self) {
        loop {
            let unused = self.log.index.lock().places.unused();
            let Some(number) = unused else { return };
            if let Err(error) = self.log.disk.remove_file(&segment_path(&self.log.dir, number)) {
                // It is tried again when more is removed, and at the next start.
                tracing::warn!(%error, "removing a segment of the log");
                return;
            }
            self.log.index.lock().places.forget_oldest();
        }
    }
}
