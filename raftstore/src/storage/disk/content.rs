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
}

impl Default for Content {
    fn default() -> Self {
        Self { bytes: Vec::new(), synced: Synced::Prefix(0) }
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
        self.touch(len as usize);
        self.bytes.resize(len as usize, 0);
    }

    pub(super) fn sync(&mut self) {
        self.synced = Synced::Prefix(self.bytes.len());
    }

    /// Loses, as the dice fall, none, some or all of what was not synced: whole sectors, and what is beyond a new end.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
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
