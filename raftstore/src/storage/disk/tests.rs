//! Both forms of the disk do the same, and the one in memory loses in a crash what a real one may lose.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::memory::MemoryDisk;
use super::*;

fn both(check: impl Fn(&Disk, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    check(&Disk::Real, dir.path());
    let disk = Disk::Memory(MemoryDisk::new().mount());
    disk.create_dir(Path::new("/m/x")).unwrap();
    check(&disk, Path::new("/m/x"));
}

#[test]
fn both_forms_do_the_same() {
    both(|disk, dir| {
        let (a, b) = (dir.join("a"), dir.join("b"));
        assert!(!disk.exists(&a).unwrap() && disk.read_optional(&a).unwrap().is_none());
        disk.remove_file(&a).unwrap();
        disk.remove_dir(&a).unwrap();
        disk.write_whole(dir, "a", b"one").unwrap();
        disk.write_whole(dir, "a", b"two!").unwrap();
        assert_eq!((disk.read(&a).unwrap(), disk.len(&a).unwrap()), (b"two!".to_vec(), 4));
        let file = disk.open(&a).unwrap();
        file.write_at(4, b"three").unwrap();
        file.write_at(0, b"T").unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.read_at(2, 5).unwrap(), b"o!thr");
        assert_eq!(file.read_at(7, 100).unwrap(), b"ee");
        assert!(file.read_at(100, 1).unwrap().is_empty());
        file.set_len(3).unwrap();
        file.set_len(5).unwrap();
        assert_eq!((disk.read(&a).unwrap(), file.len().unwrap()), (b"Two\0\0".to_vec(), 5));
        disk.create_dir(&dir.join("d/e")).unwrap();
        disk.rename(&a, &dir.join("d/e/f")).unwrap();
        assert_eq!(
            (disk.list(dir).unwrap(), disk.list(&dir.join("d/e")).unwrap()),
            (vec!["d".into()], vec!["f".into()])
        );
        let is_dir = |path: &Path| disk.is_dir(path).unwrap();
        assert!(is_dir(&dir.join("d")) && !is_dir(&dir.join("d/e/f")) && !is_dir(&a));
        disk.rename(&dir.join("d"), &b).unwrap();
        assert_eq!(file.read_at(0, 3).unwrap(), b"Two", "an open file needs no name");
        assert!(
            disk.rename(&a, &b).is_err() && disk.open(&a).is_err() && disk.read(&b).is_err() && disk.list(&a).is_err()
        );
        disk.remove_dir(&b).unwrap();
        assert!(disk.list(dir).unwrap().is_empty());
        let lock = disk.lock(&a).unwrap();
        assert!(disk.lock(&a).unwrap_err().to_string().contains("in use"));
        drop(lock);
        disk.lock(&a).unwrap();
    });
}

/// Does something on a disk in memory whose power fails after each number of changes, and shows what is left to `check`.
fn crash_everywhere(
    prepare: impl Fn(&Disk),
    act: impl Fn(&Disk) -> Result<(), StorageError>,
    check: impl Fn(&Disk, bool),
) {
    for seed in 0..400 {
        let memory = MemoryDisk::new();
        prepare(&Disk::Memory(memory.mount()));
        memory.set_fuse(seed % 12);
        let done = act(&Disk::Memory(memory.mount())).is_ok();
        memory.crash(seed);
        check(&Disk::Memory(memory.mount()), done);
    }
}

#[test]
fn a_file_that_is_written_whole_is_the_old_or_the_new_one() {
    let (dir, path) = (Path::new("/d"), Path::new("/d/f"));
    let (old, new) = (vec![1; 3000], vec![2; 5000]);
    let seen = std::cell::RefCell::new(Vec::new());
    crash_everywhere(
        |disk| {
            disk.create_dir(dir).unwrap();
            disk.write_whole(dir, "f", &old).unwrap();
        },
        |disk| disk.write_whole(dir, "f", &new),
        |disk, done| {
            let found = disk.read(path).unwrap();
            assert!(found == new || (!done && found == old), "{} bytes", found.len());
            seen.borrow_mut().push((done, found == new));
        },
    );
    let seen = seen.into_inner();
    assert!(seen.contains(&(false, true)) && seen.contains(&(false, false)) && seen.contains(&(true, true)));
}

#[test]
fn what_was_not_synced_may_be_lost_and_what_was_is_not() {
    let path = Path::new("/d/f");
    let (mut kept, mut torn, mut lost, mut gone, mut holes) = (0, 0, 0, 0, 0);
    for seed in 0..2000 {
        let memory = MemoryDisk::new();
        let disk = Disk::Memory(memory.mount());
        disk.create_dir(Path::new("/d")).unwrap();
        let file = disk.create(path).unwrap();
        file.write_at(0, &[1; 700]).unwrap();
        file.sync_data().unwrap();
        if seed % 2 == 0 {
            disk.sync_dir(Path::new("/d")).unwrap();
        }
        file.write_at(700, &[2; 3000]).unwrap();
        memory.crash(seed);
        assert!(file.write_at(0, b"x").is_err() && disk.create(path).is_err(), "who had it open has it no more");
        let disk = Disk::Memory(memory.mount());
        let Some(found) = disk.read_optional(path).unwrap() else {
            assert_eq!(seed % 2, 1, "a name that was synced is there");
            gone += 1;
            continue;
        };
        assert!(found.len() >= 700 && found[..700] == [1; 700], "what was synced is there");
        assert!(found[700..].iter().all(|b| *b == 2 || *b == 0));
        match found.len() {
            700 => lost += 1,
            3700 if !found.contains(&0) => kept += 1,
            _ if found.contains(&0) => holes += 1,
            _ => torn += 1,
        }
    }
    for (what, count) in [("kept", kept), ("torn", torn), ("lost", lost), ("without a name", gone), ("holes", holes)] {
        assert!(count > 50, "{what}: {count}");
    }
}

#[test]
fn what_was_cut_off_may_come_back_until_that_is_synced() {
    let path = Path::new("/d/f");
    let (mut mixed, mut longer) = (0, 0);
    for seed in 0..500 {
        let memory = MemoryDisk::new();
        let disk = Disk::Memory(memory.mount());
        disk.create_dir(Path::new("/d")).unwrap();
        disk.write_whole(Path::new("/d"), "f", &[1; 700]).unwrap();
        let file = disk.open(path).unwrap();
        file.write_at(700, &[2; 3000]).unwrap();
        file.set_len(700).unwrap();
        if seed % 2 == 0 {
            file.sync_data().unwrap();
        }
        file.write_at(700, &[3; 2000]).unwrap();
        memory.crash(seed);
        let found = Disk::Memory(memory.mount()).read(path).unwrap();
        assert!(found.len() >= 700 && found[..700] == [1; 700], "what was synced is there");
        let ghost = found[700..].contains(&2);
        assert!(seed % 2 == 1 || !ghost && found.len() <= 2700, "what was cut off and synced is gone");
        mixed += u32::from(ghost && found.contains(&3));
        longer += u32::from(found.len() > 2700);
    }
    assert!(mixed > 20 && longer > 20, "{mixed} {longer}");
}

#[test]
fn names_come_and_go_in_an_order_that_makes_sense() {
    let at = |name: &str| PathBuf::from("/d").join(name);
    crash_everywhere(
        |disk| {
            disk.create_dir(&at("from")).unwrap();
            disk.create_dir(&at("to")).unwrap();
            disk.write_whole(&at("from"), "x", b"1").unwrap();
            disk.write_whole(&at("to"), "old", b"2").unwrap();
        },
        |disk| {
            disk.rename(&at("from/x"), &at("to/x"))?;
            disk.remove_file(&at("to/old"))?;
            disk.sync_dir(&at("to"))?;
            disk.create(&at("to/y"))?;
            disk.rename(&at("to/y"), &at("to/z"))?;
            disk.sync_dir(&at("to"))?;
            disk.remove_dir(&at("from"))
        },
        |disk, done| {
            let there = |name: &str| disk.exists(&at(name)).unwrap();
            assert!(there("from/x") != there("to/x"), "in one place");
            assert!(!there("to/y") || !there("to/z"));
            assert!(!done || (there("to/z") && there("to/x") && !there("to/old")));
        },
    );
}

#[test]
fn a_full_disk_takes_what_fits() {
    let memory = MemoryDisk::new();
    memory.set_capacity(Some(1000));
    let mounted = memory.mount();
    let disk = Disk::Memory(mounted.clone());
    let file = disk.create(Path::new("/f")).unwrap();
    file.write_at(0, &[1; 900]).unwrap();
    assert!(file.write_at(900, &[2; 200]).unwrap_err().is_full());
    assert_eq!((file.len().unwrap(), mounted.room()), (1000, (0, 1000)));
    file.set_len(900).unwrap();
    file.write_at(800, &[2; 200]).unwrap();
    memory.fail_syncs(true);
    assert!(file.sync_data().is_err() && disk.sync_dir(Path::new("/")).is_err());
    memory.fail_syncs(false);
    file.sync_data().unwrap();
}
