//! What all checkers together say of a history.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::check::{self, Counts, Judgement};
use super::evidence::Findings;
use super::general;
use super::history::{History, Revision};
use super::watched::{self, Watched};

/// A history that was judged.
#[derive(Debug)]
pub struct Verdict {
    /// What was asked and told.
    pub history: History,
    /// What does not hold.
    pub findings: Findings,
    /// What was checked.
    pub counts: Counts,
    /// What was checked of watches.
    pub watched: Watched,
    /// Windows that the general checker confirmed.
    pub confirmed: usize,
}

/// What the general checker is to confirm of a history in which nothing was found.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// How many windows, which begin where the history's seed says.
    pub count: usize,
    /// How many revisions each has.
    pub revisions: u64,
}

impl Verdict {
    /// Judges a history of which something may have been found already.
    pub fn of(history: History, found: Findings, windows: Windows) -> Verdict {
        let judgement = check::check(&history);
        let (told, watched) = watched::check(&history, &judgement);
        let Judgement { findings: answered, sequence, counts, .. } = judgement;
        let mut findings = found;
        findings.extend(answered);
        findings.extend(told);
        let mut confirmed = 0;
        if findings.is_empty() && sequence.last() > sequence.base {
            let mut random = StdRng::seed_from_u64(history.head.seed);
            let mut begin = || random.random_range(sequence.base..sequence.last());
            let begins: Vec<Revision> = (0..windows.count).map(|_| begin()).collect();
            let (count, denied) = general::confirm(&history, &sequence, &begins, windows.revisions);
            confirmed = count;
            for what in denied {
                findings.add("checkers", || format!("the general checker disagrees: {what}"));
            }
        }
        Verdict { history, findings, counts, watched, confirmed }
    }
}
