//! What is in a file of a disk in memory, and how much of it outlives a crash. Knows no names.

/// What a disk writes as a whole.
pub(super) const SECTOR: usize = 512;

/// Numbers that follow from a seed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below a bound, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// What was there at the last fsync.
#[derive(Debug)]
enum Synced {
    /// The first bytes of what is there now.
    Prefix(usize),
    /// Something else.
    Copy(Vec<u8>),
}

/// The content of a file.
#[derive(Debug)]
pub(super) struct Content {
    bytes: Vec<u8>,
    synced: Synced,
    /// What it was before it was made shorter; empty if it was not since the last fsync. The disk may have some of it.
    ghost: Vec<u8>,
}

impl Default for Content {
    fn default() -> Self {
        Self { bytes: Vec::new(), synced: Synced::Prefix(0), ghost: Vec::new() }
    }
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn read(&self, offset: u64, most: usize) -> Vec<u8> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes[start..self.bytes.len().min(start.saturating_add(most))].to_vec()
    }

    /// Keeps a copy of what is synced if bytes before its end are about to change.
    fn touch(&mut self, from: usize) {
        if let Synced::Prefix(len) = self.synced
            && from < len
        {
            self.synced = Synced::Copy(self.bytes[..len].to_vec());
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let start = offset as usize;
        self.touch(start);
        if start == self.bytes.len() {
            return self.bytes.extend_from_slice(bytes);
        }
        self.bytes.resize(self.bytes.len().max(start + bytes.len()), 0);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let len = len as usize;
        self.touch(len);
        if len < self.bytes.len() {
            let longer = self.ghost.get(self.bytes.len()..).unwrap_or_default().to_vec();
            self.ghost.clone_from(&self.bytes);
            self.ghost.extend(longer);
        }
        self.bytes.resize(len, 0);
    }

    pub(super) fn sync(&mut self) {
        self.synced = Synced::Prefix(self.bytes.len());
        self.ghost = Vec::new();
    }

    /// Loses, as the dice fall, none, some or all of what was not synced: whole sectors, and what is beyond a new end. What
    /// was cut off and written anew may be there as it was before.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
        if let Synced::Prefix(len) = self.synced
            && !self.ghost.is_empty()
            && dice.below(2) == 0
        {
            self.haunt(len, dice);
            return self.sync();
        }
        let former = match std::mem::replace(&mut self.synced, Synced::Prefix(0)) {
            Synced::Prefix(len) if len == self.bytes.len() => return self.sync(),
            Synced::Prefix(len) => self.bytes[..len].to_vec(),
            Synced::Copy(former) => former,
        };
        match dice.below(4) {
            0 => self.bytes = former,
            1 => {}
            // The beginning of it, cut anywhere.
            2 if self.bytes.starts_with(&former) => {
                let cut = former.len() + dice.below(self.bytes.len() - former.len() + 1);
                self.bytes.truncate(cut);
            }
            _ => self.lose_sectors(&former, dice),
        }
        self.sync();
    }

    /// Of each sector after what was synced it is what it is, what it was, or nothing that came to the disk.
    fn haunt(&mut self, synced: usize, dice: &mut Dice) {
        if dice.below(2) == 0 {
            self.bytes.resize(self.bytes.len().max(self.ghost.len()), 0);
        }
        let len = self.bytes.len();
        for start in (synced / SECTOR * SECTOR..len).step_by(SECTOR) {
            let what = dice.below(3);
            for at in start.max(synced)..(start + SECTOR).min(len) {
                match what {
                    0 => {}
                    1 => self.bytes[at] = self.ghost.get(at).copied().unwrap_or(0),
                    _ => self.bytes[at] = 0,
                }
            }
        }
    }

    fn lose_sectors(&mut self, former: &[u8], dice: &mut Dice) {
        let (short, long) = (self.bytes.len().min(former.len()), self.bytes.len().max(former.len()));
        let len = short + dice.below(long - short + 1);
        let (len, odds) = (if dice.below(2) == 0 { self.bytes.len() } else { len }, 1 + dice.below(4));
        self.bytes.resize(len, 0);
        let changed = former.iter().zip(&self.bytes).position(|(a, b)| a != b).unwrap_or(short);
        for start in (changed / SECTOR * SECTOR..len).step_by(SECTOR) {
            if dice.below(5) < odds {
                continue;
            }
            for at in start..(start + SECTOR).min(len) {
                self.bytes[at] = former.get(at).copied().unwrap_or(0);
            }
        }
    }
}
