//! How much room the state takes, and giving back what nothing needs any more.

use super::StorageError;
use super::engine::{Family, Measure};
use super::state::{StateDb, cf};

/// History that is not in the order of revisions, and therefore does not go by itself.
const HISTORY: [Family; 2] = [cf::SUPERSEDED, cf::BUCKETS];
/// Removals below this number are not worth the work.
const WORTH: u64 = 20_000;

/// What was removed since space was last given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Revisions of history.
    pub(crate) revisions: u64,
    /// Live keys.
    pub(crate) keys: u64,
}

impl Removed {
    /// Whether as much was removed as is left: what is left has to be written anew for it, so that it costs as much for each
    /// removal however much there is.
    pub(crate) fn due(self, revisions_left: u64, keys_left: u64) -> (bool, bool) {
        (self.revisions >= WORTH.max(revisions_left), self.keys >= WORTH.max(keys_left / 2))
    }
}

impl StateDb {
    /// Bytes that hold something, as far as the database knows without looking.
    pub(crate) fn in_use_bytes(&self) -> u64 {
        self.engine().measure(&cf::ALL, Measure::InUse)
    }

    /// Number of live keys, roughly.
    pub(crate) fn keys(&self) -> u64 {
        self.engine().measure(&[cf::LIVE], Measure::Keys)
    }

    /// Gives the room of what was removed back to the file system. Reads and writes go on meanwhile.
    pub(crate) fn reclaim(&self, history: bool, live: bool) -> Result<(), StorageError> {
        self.flush()?;
        let families = HISTORY.iter().filter(|_| history).chain([cf::LIVE, cf::EXPIRY].iter().filter(|_| live));
        self.engine().compact(families.copied());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_given_back_when_it_is_worth_it() {
        let removed = |revisions, keys| Removed { revisions, keys };
        assert_eq!(removed(WORTH - 1, WORTH - 1).due(0, 0), (false, false));
        assert_eq!(removed(WORTH, WORTH).due(0, 0), (true, true));
        assert_eq!(removed(100_000, 100_000).due(100_001, 200_002), (false, false));
        assert_eq!(removed(100_000, 100_000).due(100_000, 200_000), (true, true));
    }
}
