//! Forgetting compacted history. Each member does it for itself: what the group agrees on is only from where on history may
//! be asked for. Nothing is removed row by row: what lies below the floor goes with whole files, or when RocksDB writes that
//! part of a family anew.

use super::StorageError;
use super::state::StateDb;

impl StateDb {
    /// Notes that history below the compaction revision is to be forgotten, which happens once that is durable; tells how many
    /// revisions that are.
    pub(crate) fn collect(&self) -> Result<u64, StorageError> {
        let (from, compacted) = (self.collected()?, self.applied()?.meta.compacted);
        if from >= compacted {
            return Ok(0);
        }
        let mut batch = self.batch();
        self.put_collected(&mut batch, compacted);
        self.write_batch(batch)?;
        Ok(compacted - from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::disk::Disk;
    use super::super::disk::memory::MemoryDisk;
    use super::super::engine::{Reading, cf};
    use super::super::history::Replay;
    use super::super::read::{Read, Wanted};
    use super::super::records::{AppliedRecord, LogPosition};
    use super::*;
    use crate::machine::{Change, Record};
    use crate::types::{KeyRange, Revision};

    const KEYS: u64 = 7;
    const LAST: Revision = 400;

    /// What each revision from 2 on did: it wrote a key, or deleted it.
    #[derive(Default)]
    struct Model(Vec<(Revision, String, Option<Record>)>);

    impl Model {
        fn at(&self, revision: Revision) -> BTreeMap<String, Record> {
            let mut now = BTreeMap::new();
            for (_, key, record) in self.0.iter().filter(|(at, ..)| *at <= revision) {
                match record {
                    Some(record) => drop(now.insert(key.clone(), record.clone())),
                    None => drop(now.remove(key)),
                }
            }
            now
        }
    }

    fn applied(revision: Revision, compacted: Revision) -> AppliedRecord {
        let mut applied =
            AppliedRecord { at: Some(LogPosition { term: 1, node: 1, index: revision }), ..Default::default() };
        (applied.meta.revision, applied.meta.compacted) = (revision, compacted);
        applied
    }

    /// Every fifth change is a deletion, so that some keys come and go.
    fn fill(state: &StateDb) -> Model {
        let mut model = Model::default();
        for revision in 2..=LAST {
            let key = format!("/registry/things/{}", (revision * revision + revision / 3) % KEYS);
            let before = model.at(revision).get(&key).cloned();
            let value = bytes::Bytes::from(vec![revision as u8; 200]);
            let (created, version) = before.as_ref().map_or((revision, 1), |b| (b.create_revision, b.version + 1));
            let record =
                Record { create_revision: created, mod_revision: revision, version, expires_at_ms: None, value };
            let after = (before.is_none() || revision % 5 != 0).then_some(record);
            let change = Change { key: key.clone().into(), revision, before, after: after.clone(), more: false };
            state.write(&[change], &applied(revision, 0), None).unwrap();
            if revision % 50 == 0 {
                state.flush().unwrap();
            }
            model.0.push((revision, key, after));
        }
        model
    }

    fn read(state: &StateDb, at: Revision) -> Result<BTreeMap<String, Record>, Revision> {
        let wanted = Wanted { limit: 0, piece: None, keys_only: false };
        match state.range(&KeyRange::Prefix("/registry/".into()), Some(at), wanted).unwrap() {
            Read::Found(found) => Ok(found
                .kvs
                .into_iter()
                .map(|kv| {
                    let (create_revision, mod_revision, version, value) =
                        (kv.create_revision, kv.mod_revision, kv.version, kv.value);
                    let record = Record { create_revision, mod_revision, version, expires_at_ms: None, value };
                    (String::from_utf8(kv.key.to_vec()).unwrap(), record)
                })
                .collect()),
            Read::Compacted(compacted) => Err(compacted),
            Read::Future(_) => unreachable!("it is asked for what was written"),
        }
    }

    fn check(state: &StateDb, model: &Model, from: Revision) {
        for at in from.max(1)..=LAST {
            assert_eq!(read(state, at), Ok(model.at(at)), "at {at}");
        }
        let Replay::Events { through, events } = state.replay(&KeyRange::Prefix("/registry/".into()), from).unwrap()
        else {
            panic!("what was asked for is there");
        };
        assert_eq!(through, LAST);
        let told: Vec<_> = model.0.iter().filter(|(at, ..)| *at >= from).collect();
        assert_eq!(events.len(), told.len());
        for (event, (at, key, record)) in events.iter().zip(told) {
            let before = model.at(at - 1).get(key).map(|r| r.key_value(key.clone().into()));
            assert_eq!((event.kv.mod_revision, &event.previous), (*at, &before));
            assert_eq!(event.deleted, record.is_none());
            assert!(record.as_ref().is_none_or(|r| event.kv == r.key_value(key.clone().into())));
        }
    }

    fn rows(state: &StateDb, family: super::super::engine::Family) -> u64 {
        let view = state.view();
        let (mut it, mut rows) = (view.all(family, Reading::All), 0);
        while it.item().is_some() {
            rows += 1;
            it.next();
        }
        rows
    }

    fn history_is_forgotten_once_that_is_durable(disk: &Disk, path: &Path) {
        let state = StateDb::open(disk, path, true).unwrap();
        let model = fill(&state);
        check(&state, &model, 0);
        let compacted = 300;
        state.write(&[], &applied(LAST, compacted), None).unwrap();
        let before = rows(&state, cf::SUPERSEDED);
        assert_eq!(state.collect().unwrap(), compacted);
        assert_eq!(state.collect().unwrap(), 0, "once");
        assert_eq!(state.floor(), 0, "after a crash it would be asked for");
        check(&state, &model, compacted);
        assert_eq!(read(&state, compacted - 1), Err(compacted));
        state.reclaim(true, false).unwrap();
        assert_eq!(state.floor(), compacted);
        let (superseded, former) = (rows(&state, cf::SUPERSEDED), rows(&state, cf::FORMER));
        assert!(superseded < before / 3, "{superseded} of {before} rows are left");
        assert!(former >= superseded);
        assert_eq!(rows(&state, cf::BUCKETS), LAST - compacted + 1);
        check(&state, &model, compacted);
        state.flush().unwrap();
        drop(state);
        let state = StateDb::open(disk, path, false).unwrap();
        assert_eq!(state.floor(), compacted);
        check(&state, &model, compacted);
        // Whoever looks at a moment before the compaction is told of it, instead of being shown what is left.
        state.write(&[], &applied(LAST, 0), None).unwrap();
        assert_eq!(read(&state, compacted - 1), Err(compacted));
        let replayed = state.replay(&KeyRange::Prefix("/registry/".into()), compacted - 1).unwrap();
        assert!(matches!(replayed, Replay::Compacted(at) if at == compacted));
    }

    #[test]
    fn history_is_forgotten_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        history_is_forgotten_once_that_is_durable(&Disk::Real, &dir.path().join("state"));
    }

    #[test]
    fn history_is_forgotten_in_memory() {
        let disk = Disk::Memory(MemoryDisk::new().mount());
        disk.create_dir(Path::new("/d")).unwrap();
        history_is_forgotten_once_that_is_durable(&disk, Path::new("/d/state"));
    }

    /// New history does not make RocksDB write the old anew, and old history goes by whole files.
    #[test]
    fn files_of_history_are_moved_and_unlinked_but_not_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDb::open(&Disk::Real, &dir.path().join("state"), true).unwrap();
        let model = fill(&state);
        let all = rows(&state, cf::FORMER);
        state.write(&[], &applied(LAST, 300), None).unwrap();
        state.collect().unwrap();
        // Files in the first level may overlap, and stay until they are moved.
        state.engine().settle();
        state.flush().unwrap();
        let left = rows(&state, cf::FORMER);
        assert!(left < all / 2, "{left} of {all}");
        check(&state, &model, 300);
    }
}
