//! The whole group in one thread, under turmoil: real members over disks in memory, with the time, the network, the disks and
//! chance in the hands of a seed. What a seed does it does again, to the byte.
//!
//! | module | what it is |
//! |---|---|
//! | `plan` | what happens, drawn from the seed |
//! | `net`, `member` | the network and the process of a member |
//! | `world` | what all parts share |
//! | `clients`, `watchers`, `operator` | who asks, who watches, who runs the group |
//! | `driver` | time, and faults |
//! | `program` | many seeds, one after another |

mod clients;
mod driver;
mod member;
mod net;
mod operator;
pub mod plan;
mod program;
#[cfg(test)]
mod tests;
mod watchers;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::check::Counts;
use super::verdict::{Verdict, Windows};
use super::watched::Watched;
use driver::Driver;
use plan::Plan;
pub use program::{many, program};
use world::World;

/// The rule that everything works again.
const PROGRESS: &str = "progress";

/// What came of a simulation.
#[derive(Debug)]
pub struct Outcome {
    /// What the checkers say.
    pub verdict: Verdict,
    /// How much time passed in it.
    pub simulated: Duration,
    /// How long it took, after everything was well again, until every member answered.
    pub healed: Duration,
}

impl Outcome {
    /// The history in bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Memory takes everything.
        let _ = self.verdict.history.write(&mut bytes);
        bytes
    }

    /// Whether something untrue was told, besides a group that is only slow.
    pub fn is_untrue(&self) -> bool {
        self.verdict.findings.kept.iter().any(|finding| finding.rule != PROGRESS)
    }

    /// In one line.
    pub fn line(&self) -> String {
        let Counts { revisions, answers, done, not_done, expired } = self.verdict.counts;
        let Watched { events, resumed, .. } = self.verdict.watched;
        format!(
            "{:.1} s; {revisions} revisions, {answers} answers compared, {} unknown writes, {expired} expired; {events} events, \
             {resumed} watches resumed; {} faults; {} findings",
            self.simulated.as_secs_f64(),
            done + not_done,
            self.verdict.history.marks.len(),
            self.verdict.findings.count
        )
    }
}

/// Runs one simulation, and judges it.
pub fn simulate(plan: Plan) -> Outcome {
    let world = World::new(plan);
    let ran = catch_unwind(AssertUnwindSafe(|| Driver::new(&world).run().map_err(|error| error.to_string())));
    let mut simulated = Duration::ZERO;
    match ran {
        Ok(Ok(time)) => simulated = time,
        Ok(Err(error)) => world.find("simulation", error),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            world.find("panic", text.unwrap_or_default());
        }
    }
    let (history, found) = world.take();
    let verdict = Verdict::of(history, found, Windows { count: 1, revisions: 8 });
    Outcome { verdict, simulated, healed: world.healed() }
}
