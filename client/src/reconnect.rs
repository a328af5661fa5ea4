//! How long to wait before a watch that failed is begun anew.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use rand::Rng;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3);

/// Waits that double up to a few seconds, each by chance somewhat shorter. Who was cut off is soon back, and a thousand
/// that were do not come at the same instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reconnect {
    failures: u32,
}

impl Iterator for Reconnect {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let longest = SHORTEST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        Some(longest.mul_f64(rand::rng().random_range(0.5..=1.0)))
    }
}

impl Backoff for Reconnect {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_few_seconds_and_begin_anew() {
        let mut waits = Reconnect::default();
        let first = waits.next();
        assert!(first.is_some_and(|wait| wait <= SHORTEST));
        let late = waits.by_ref().nth(20);
        assert!(late.is_some_and(|wait| (LONGEST / 2..=LONGEST).contains(&wait)));
        waits.reset();
        assert!(waits.next().is_some_and(|wait| wait <= SHORTEST));
    }
}
