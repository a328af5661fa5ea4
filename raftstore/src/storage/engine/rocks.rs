//! RocksDB.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::compaction_filter::Decision;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    DBPinnableSlice, DBRawIterator, FlushOptions, Options, ReadOptions, Snapshot, WriteBatch, WriteOptions,
};

use super::{Family, Measure, Reading, cf};
use crate::storage::keys;

type Result<T> = std::result::Result<T, rocksdb::Error>;

/// Bytes of blocks that were read, of all families together.
const CACHE_BYTES: usize = 32 << 20;
/// Bytes written lately, of all families together, until they go to files. The more, the fewer files of live records are
/// merged with all others.
const BUFFER_BYTES: usize = 36 << 20;
/// Bytes of a file that is being written after which the disk is told to begin with them, so that a log's fsync does not
/// have to wait for all of it at once.
const SYNC_BYTES: u64 = 512 << 10;
/// Bits for each key in the filters that tell what is surely absent.
const FILTER_BITS: f64 = 10.0;

/// A database.
pub(crate) struct Rocks {
    db: DB,
    /// Rows of history below this revision may go.
    floor: Arc<AtomicU64>,
}

/// A snapshot of it.
pub(crate) struct View<'a> {
    db: &'a Rocks,
    snapshot: Snapshot<'a>,
}

/// A batch for it.
pub(crate) struct Batch<'a> {
    db: &'a Rocks,
    batch: WriteBatch,
}

fn options(create: bool) -> Options {
    let mut options = Options::default();
    // A database that should be there and is not must not be taken for an empty one.
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_paranoid_checks(true);
    // Without a write-ahead log, a crash must not leave one column family newer than another.
    options.set_atomic_flush(true);
    options.set_max_background_jobs(2);
    // RocksDB's own measure of memory: what is not flushed yet is in it.
    options.set_db_write_buffer_size(BUFFER_BYTES);
    options.set_bytes_per_sync(SYNC_BYTES);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
}

fn column_family(family: Family, cache: &Cache, floor: &Arc<AtomicU64>) -> ColumnFamilyDescriptor {
    let mut options = Options::default();
    options.set_write_buffer_size(BUFFER_BYTES / 2);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    if family == cf::LIVE {
        blocks.set_bloom_filter(FILTER_BITS, false);
    }
    options.set_block_based_table_factory(&blocks);
    if cf::BY_KEY.contains(&family) {
        let floor = floor.clone();
        options.set_compaction_filter("history", move |_, key, _| {
            let ended = keys::trailing_revision(key);
            match ended.is_some_and(|revision| revision < floor.load(Ordering::Acquire)) {
                true => Decision::Remove,
                false => Decision::Keep,
            }
        });
    }
    ColumnFamilyDescriptor::new(family.name(), options)
}

fn families(floor: &Arc<AtomicU64>) -> [ColumnFamilyDescriptor; cf::ALL.len()] {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    cf::ALL.map(|family| column_family(family, &cache, floor))
}

/// Adds a family that this version does not know.
#[cfg(test)]
pub(crate) fn add_family(path: &Path, name: &str) {
    let floor = Arc::default();
    let mut all = Vec::from(families(&floor));
    all.push(ColumnFamilyDescriptor::new(name, Options::default()));
    let mut options = options(false);
    options.create_missing_column_families(true);
    DB::open_cf_descriptors(&options, path, all).expect("opened with one more family");
}

impl Rocks {
    pub(super) fn open(path: &Path, create: bool, floor: Arc<AtomicU64>) -> Result<Self> {
        let db = DB::open_cf_descriptors(&options(create), path, families(&floor))?;
        Ok(Self { db, floor })
    }

    /// Nothing is written, compacted or removed, except for what the database logs of itself.
    pub(super) fn open_to_read(path: &Path) -> Result<Self> {
        let floor = Arc::default();
        let db = DB::open_cf_descriptors_read_only(&options(false), path, families(&floor), false)?;
        Ok(Self { db, floor })
    }

    fn cf(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("column families are opened together")
    }

    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>> {
        self.db.get_pinned_cf(self.cf(family), key)
    }

    pub(super) fn view(&self) -> View<'_> {
        View { db: self, snapshot: self.db.snapshot() }
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { db: self, batch: WriteBatch::default() }
    }

    pub(super) fn write(&self, batch: Batch<'_>) -> Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch.batch, &options)
    }

    pub(super) fn flush(&self) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families: Vec<&ColumnFamily> = cf::ALL.iter().map(|family| self.cf(*family)).collect();
        self.db.flush_cfs_opt(&families, &options)
    }

    pub(super) fn checkpoint(&self, path: &Path) -> Result<()> {
        Checkpoint::new(&self.db)?.create_checkpoint(path)
    }

    /// Unlinks files that hold nothing but rows below the floor.
    pub(super) fn forget(&self) -> Result<()> {
        let Some(last) = self.floor.load(Ordering::Acquire).checked_sub(1) else { return Ok(()) };
        for family in cf::BY_REVISION {
            // Both ends belong to it.
            self.db.delete_file_in_range_cf(self.cf(family), 0u64.to_be_bytes(), last.to_be_bytes())?;
        }
        Ok(())
    }

    /// Waits until nothing is compacted in the background.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        let busy = |family: &Family| {
            let of = |name: &str| self.db.property_int_value_cf(self.cf(*family), name).ok().flatten().unwrap_or(0);
            of("rocksdb.compaction-pending") + of("rocksdb.num-running-compactions") > 0
        };
        let begin = std::time::Instant::now();
        while cf::ALL.iter().any(busy) {
            assert!(begin.elapsed().as_secs() < 60, "it is compacted for too long");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub(super) fn measure(&self, family: Family, what: Measure) -> u64 {
        let of = |name: &str| self.db.property_int_value_cf(self.cf(family), name).ok().flatten().unwrap_or(0);
        match what {
            Measure::Bytes => of("rocksdb.total-sst-files-size") + of("rocksdb.cur-size-all-mem-tables"),
            Measure::InUse => of("rocksdb.estimate-live-data-size") + of("rocksdb.cur-size-all-mem-tables"),
            Measure::Keys => of("rocksdb.estimate-num-keys"),
        }
    }

    pub(super) fn compact(&self, families: impl Iterator<Item = Family>) {
        let mut options = CompactOptions::default();
        // The database's own work goes on beside it, or writes would have to wait for it.
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::IfHaveCompactionFilter);
        for family in families {
            self.db.compact_range_cf_opt(self.cf(family), None::<&[u8]>, None::<&[u8]>, &options);
        }
    }

    pub(super) fn remove(&self, path: &Path) {
        self.db.cancel_all_background_work(true);
        // The database still has the files open, which is no obstacle to unlinking them.
        let _ = std::fs::remove_dir_all(path);
    }
}

impl View<'_> {
    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>> {
        self.snapshot.get_pinned_cf(self.db.cf(family), key)
    }

    pub(super) fn scan(
        &self,
        family: Family,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        reading: Reading,
    ) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        if reading != Reading::Some {
            options.fill_cache(false);
        }
        if reading == Reading::Ahead {
            options.set_readahead_size(2 << 20);
        }
        let mut it = self.snapshot.raw_iterator_cf_opt(self.db.cf(family), options);
        it.seek(start);
        it
    }
}

impl Batch<'_> {
    pub(super) fn put(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.batch.put_cf(self.db.cf(family), key, value);
    }

    pub(super) fn delete(&mut self, family: Family, key: impl AsRef<[u8]>) {
        self.batch.delete_cf(self.db.cf(family), key);
    }
}
