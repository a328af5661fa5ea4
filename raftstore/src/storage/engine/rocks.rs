//! RocksDB.

use std::path::Path;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DBPinnableSlice,
    DBRawIterator, FlushOptions, Options, ReadOptions, Snapshot, WriteBatch, WriteOptions,
};

use super::{Family, Measure, Reading, cf};

type Result<T> = std::result::Result<T, rocksdb::Error>;

/// A database.
pub(crate) struct Rocks(DB);

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
    options.set_db_write_buffer_size(24 << 20);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
}

fn column_family(family: Family) -> ColumnFamilyDescriptor {
    let mut options = Options::default();
    options.set_write_buffer_size(12 << 20);
    ColumnFamilyDescriptor::new(family.name(), options)
}

impl Rocks {
    pub(super) fn open(path: &Path, create: bool) -> Result<Self> {
        DB::open_cf_descriptors(&options(create), path, cf::ALL.map(column_family)).map(Self)
    }

    /// Nothing is written, compacted or removed, except for what the database logs of itself.
    pub(super) fn open_to_read(path: &Path) -> Result<Self> {
        DB::open_cf_descriptors_read_only(&options(false), path, cf::ALL.map(column_family), false).map(Self)
    }

    fn cf(&self, family: Family) -> &ColumnFamily {
        self.0.cf_handle(family.name()).expect("column families are opened together")
    }

    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>> {
        self.0.get_pinned_cf(self.cf(family), key)
    }

    pub(super) fn view(&self) -> View<'_> {
        View { db: self, snapshot: self.0.snapshot() }
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { db: self, batch: WriteBatch::default() }
    }

    pub(super) fn write(&self, batch: Batch<'_>) -> Result<()> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.0.write_opt(batch.batch, &options)
    }

    pub(super) fn flush(&self) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families: Vec<&ColumnFamily> = cf::ALL.iter().map(|family| self.cf(*family)).collect();
        self.0.flush_cfs_opt(&families, &options)
    }

    pub(super) fn checkpoint(&self, path: &Path) -> Result<()> {
        Checkpoint::new(&self.0)?.create_checkpoint(path)
    }

    pub(super) fn measure(&self, family: Family, what: Measure) -> u64 {
        let of = |name: &str| self.0.property_int_value_cf(self.cf(family), name).ok().flatten().unwrap_or(0);
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
            self.0.compact_range_cf_opt(self.cf(family), None::<&[u8]>, None::<&[u8]>, &options);
        }
    }

    pub(super) fn remove(&self, path: &Path) {
        self.0.cancel_all_background_work(true);
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

    pub(super) fn delete_range(&mut self, family: Family, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        self.batch.delete_range_cf(self.db.cf(family), from.as_ref(), to.as_ref());
    }
}
