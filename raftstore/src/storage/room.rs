//! Room on the disk. A database that runs out of it in the middle of a write is worse than one that refuses writes in
//! time, so the file system is looked at often, and a reserve file keeps a last bit for what makes room again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::StorageError;
use super::disk::Disk;
use crate::config::Limits;

const RESERVE: &str = "reserve";
/// Of a small file system these parts are kept free, and held in reserve.
const LOW_PART: u64 = 8;
const RESERVE_PART: u64 = 16;

/// How much room there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Room {
    /// Everything goes on.
    #[default]
    Enough,
    /// What would need more room is refused.
    Little,
    /// The reserve was given up for what makes room.
    Hardly,
}

/// What to do with the reserve.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    Nothing,
    Release,
    Reserve,
}

/// Judges free bytes. Knows no disk.
#[derive(Debug)]
struct Gauge {
    /// Below this there is little room.
    low: u64,
    reserve: u64,
    held: bool,
    room: Room,
}

impl Gauge {
    fn new(total: u64, limits: &Limits) -> Self {
        let low = limits.min_free_bytes.min(total / LOW_PART);
        let reserve = limits.reserve_bytes.min(total / RESERVE_PART);
        Self { low, reserve, held: false, room: Room::Enough }
    }

    fn look(&mut self, available: u64) -> Act {
        // What there would be with the reserve in its place.
        let free = if self.held { available } else { available.saturating_sub(self.reserve) };
        self.room = match self.room {
            _ if free < self.low / 4 => Room::Hardly,
            Room::Hardly if free < self.low / 2 => Room::Hardly,
            Room::Enough if free >= self.low => Room::Enough,
            // Not at the very limit, lest it change all the time.
            _ if free >= self.low + self.low / 4 => Room::Enough,
            _ => Room::Little,
        };
        match (self.room, self.held) {
            (Room::Hardly, true) => Act::Release,
            (Room::Enough, false) => Act::Reserve,
            _ => Act::Nothing,
        }
    }
}

/// The file system of a data directory.
pub(crate) struct Space {
    disk: Disk,
    dir: PathBuf,
    gauge: Mutex<Gauge>,
    room: watch::Sender<Room>,
    /// Not even what makes room can be written.
    exhausted: AtomicBool,
    /// What a quorum of the members has.
    quorum: AtomicU8,
    /// Bytes that were free at the last look, and all.
    found: Mutex<(u64, u64)>,
}

fn free(disk: &Disk, dir: &Path) -> Result<(u64, u64), StorageError> {
    if let Disk::Memory(disk) = disk {
        return Ok(disk.room());
    }
    let stat = statvfs(dir).map_err(|e| StorageError::io(dir.display().to_string(), e.into()))?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}

impl Space {
    /// Looks at the file system for the first time.
    pub(crate) fn open(disk: &Disk, dir: &Path, limits: &Limits) -> Result<Self, StorageError> {
        let (_, total) = free(disk, dir)?;
        let mut gauge = Gauge::new(total, limits);
        let reserve = dir.join(RESERVE);
        if disk.exists(&reserve)? {
            gauge.held = disk.len(&reserve)? == gauge.reserve;
            if !gauge.held {
                disk.remove_file(&reserve)?;
            }
        }
        let (gauge, room) = (Mutex::new(gauge), watch::Sender::new(Room::Enough));
        let disk = disk.clone();
        let (exhausted, quorum, found) = (false.into(), 0.into(), Mutex::default());
        let space = Self { disk, dir: dir.to_owned(), gauge, room, exhausted, quorum, found };
        space.look()?;
        Ok(space)
    }

    /// Looks how much room there is, and gives up or takes back the reserve. One call at a time; blocks as long as the file system does.
    pub(crate) fn look(&self) -> Result<Room, StorageError> {
        let (mut available, total) = free(&self.disk, &self.dir)?;
        let (act, room, reserve) = {
            let mut gauge = self.gauge.lock();
            (gauge.look(available), gauge.room, gauge.reserve)
        };
        // Not under the lock: others describe what was found while the disk takes its time.
        match act {
            Act::Nothing => {}
            Act::Release => {
                self.disk.remove_file(&self.dir.join(RESERVE))?;
                self.gauge.lock().held = false;
                available = free(&self.disk, &self.dir)?.0;
            }
            Act::Reserve => {
                let held = self.reserve(reserve);
                self.gauge.lock().held = held;
            }
        }
        *self.found.lock() = (available, total);
        let floor = reserve / 8;
        self.exhausted.store(available < floor, Ordering::Release);
        self.room.send_if_modified(|known| std::mem::replace(known, room) != room);
        Ok(room)
    }

    fn reserve(&self, bytes: u64) -> bool {
        if matches!(self.disk, Disk::Memory(_)) {
            // Nobody else takes its room.
            return false;
        }
        let path = self.dir.join(RESERVE);
        let made = File::create(&path).and_then(|file| {
            fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
            file.sync_all()
        });
        if let Err(error) = &made {
            tracing::debug!(%error, "no reserve on this file system");
            let _ = fs::remove_file(&path);
        }
        made.is_ok()
    }

    /// How much room there was at the last look.
    pub(crate) fn room(&self) -> Room {
        *self.room.borrow()
    }

    /// Notes how much room a quorum of the members has.
    pub(crate) fn set_quorum(&self, room: Room) {
        self.quorum.store(room as u8, Ordering::Relaxed);
    }

    /// How much room a quorum of the members had at the last look.
    pub(crate) fn quorum(&self) -> Room {
        match self.quorum.load(Ordering::Relaxed) {
            0 => Room::Enough,
            1 => Room::Little,
            _ => Room::Hardly,
        }
    }

    /// Whether nothing at all should be written.
    pub(crate) fn exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Acquire)
    }

    /// What was found at the last look, in words for people.
    pub(crate) fn describe(&self) -> String {
        let (available, total) = *self.found.lock();
        let low = self.gauge.lock().low;
        let mib = |bytes: u64| bytes >> 20;
        format!("{} of {} MiB are free in {}, {} are needed", mib(available), mib(total), self.dir.display(), mib(low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_noticed_in_time_and_the_reserve_is_given_up_and_taken_back() {
        let limits = Limits { min_free_bytes: 400, reserve_bytes: 100, ..Limits::default() };
        let mut gauge = Gauge::new(10_000, &limits);
        let mut look = |available: u64| {
            let act = gauge.look(available);
            match act {
                Act::Release => gauge.held = false,
                Act::Reserve => gauge.held = true,
                Act::Nothing => {}
            }
            (gauge.room, act)
        };
        assert_eq!(look(5000), (Room::Enough, Act::Reserve));
        assert_eq!(look(400), (Room::Enough, Act::Nothing));
        assert_eq!(look(399), (Room::Little, Act::Nothing));
        assert_eq!(look(450), (Room::Little, Act::Nothing), "not at once");
        assert_eq!(look(500), (Room::Enough, Act::Nothing));
        assert_eq!(look(90), (Room::Hardly, Act::Release));
        assert_eq!(look(190), (Room::Hardly, Act::Nothing), "that is the reserve itself");
        assert_eq!(look(290), (Room::Hardly, Act::Nothing));
        assert_eq!(look(310), (Room::Little, Act::Nothing));
        assert_eq!(look(590), (Room::Little, Act::Nothing));
        assert_eq!(look(600), (Room::Enough, Act::Reserve));
        // A small disk.
        let small = Gauge::new(800, &limits);
        assert_eq!((small.low, small.reserve), (100, 50));
    }
}
