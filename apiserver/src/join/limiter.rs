//! A bounded memory of who showed wrong tokens.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Wrong tokens that an address may show at once.
const BURST: f64 = 20.0;
/// After that, one more for each of these.
const REFILL: Duration = Duration::from_secs(3);
/// Addresses remembered; the one that failed longest ago is forgotten first.
const ADDRESSES: usize = 1024;

/// Counts failures for each address; successes cost nothing.
#[derive(Default)]
pub(super) struct Limiter {
    failures: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    used: f64,
    at: Instant,
}

impl Bucket {
    fn used_at(&self, now: Instant) -> f64 {
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() / REFILL.as_secs_f64();
        (self.used - refilled).max(0.0)
    }
}

impl Limiter {
    /// Seconds to wait before this address is listened to again; `None` when it may try now.
    pub(super) fn blocked(&self, address: IpAddr, now: Instant) -> Option<u32> {
        let used = self.failures.lock().get(&address).map_or(0.0, |bucket| bucket.used_at(now));
        (used > BURST - 1.0).then(|| ((used - BURST + 1.0) * REFILL.as_secs_f64()).ceil().max(1.0) as u32)
    }

    /// Notes a wrong token.
    pub(super) fn failed(&self, address: IpAddr, now: Instant) {
        let mut failures = self.failures.lock();
        if failures.len() >= ADDRESSES && !failures.contains_key(&address) {
            failures.retain(|_, bucket| bucket.used_at(now) > 0.0);
            if failures.len() >= ADDRESSES
                && let Some(oldest) = failures.iter().min_by_key(|(_, bucket)| bucket.at).map(|(ip, _)| *ip)
            {
                failures.remove(&oldest);
            }
        }
        let bucket = failures.entry(address).or_insert(Bucket { used: 0.0, at: now });
        *bucket = Bucket { used: bucket.used_at(now) + 1.0, at: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_after_a_burst_and_forgives_with_time() {
        let limiter = Limiter::default();
        let (bad, good) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(limiter.blocked(bad, start), None);
            limiter.failed(bad, start);
        }
        assert_eq!(limiter.blocked(bad, start), Some(3));
        assert_eq!(limiter.blocked(good, start), None);
        assert_eq!(limiter.blocked(bad, start + Duration::from_secs(4)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::default();
        let start = Instant::now();
        for n in 0..5000u32 {
            limiter.failed(IpAddr::from(n.to_be_bytes()), start + Duration::from_millis(u64::from(n)));
        }
        assert!(limiter.failures.lock().len() <= ADDRESSES);
    }
}
