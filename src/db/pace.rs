//! How fast writers may go while compaction has fallen behind.
//!
//! A plan of time, without clocks and waits of its own: a writer is told until when what was
//! written so far should take.

use std::time::Duration;

/// What merges of level 0 are taken to manage before the first one has shown it, in bytes of keys
/// and values a second.
const BYTES_PER_S_FIRST: u64 = 16 << 20;
/// The least that writers are held back to.
const BYTES_PER_S_MIN: u64 = 64 << 10;
/// So many runs above what level 0 is allowed, writers are as fast as its merges; so many more
/// halve that.
const RUNS_EVEN: u32 = 4;
/// Writers owe up to this much time before they wait, so that small ones do not wait each.
const OWED_MAX: Duration = Duration::from_millis(1);
/// The longest that one write is held back.
const HOLD_BACK_MAX: Duration = Duration::from_secs(1);

/// What level 0 drains at, and what writers owe.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_s: u64,
    /// When what was written so far should be over, by the monotonic clock.
    paid_until: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            bytes_per_s: BYTES_PER_S_FIRST,
            paid_until: Duration::ZERO,
        }
    }
}

impl Pace {
    /// Notes that a merge took so many bytes of keys and values out of level 0. Recent merges
    /// count more.
    pub(super) fn drained(&mut self, bytes: u64, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = bytes.saturating_mul(1_000_000) / us;
        self.bytes_per_s = (self.bytes_per_s / 4 * 3 + rate / 4).max(BYTES_PER_S_MIN);
    }

    /// Until when a writer of `bytes` is to wait at `now`, while level 0 has `excess` runs more
    /// than it is allowed; `None` if it need not.
    pub(super) fn hold_back(
        &mut self,
        now: Duration,
        bytes: usize,
        excess: usize,
    ) -> Option<Duration> {
        let ns = (bytes as u64).saturating_mul(1_000_000_000) / self.allowed(excess);
        let begin = self.paid_until.max(now);
        // What is beyond a wait's end is not owed by those who come later.
        self.paid_until = (begin + Duration::from_nanos(ns)).min(now + HOLD_BACK_MAX);
        (self.paid_until > now + OWED_MAX).then_some(self.paid_until)
    }

    /// Bytes a second that writers may write.
    fn allowed(&self, excess: usize) -> u64 {
        // Twice as fast as merges at no excess, and half as fast with every `RUNS_EVEN` runs:
        // wherever the balance is, the excess comes to rest there. In between in a straight line.
        let excess = u32::try_from(excess).unwrap_or(u32::MAX);
        let halvings = (excess / RUNS_EVEN).min(40);
        let upper = self.bytes_per_s.saturating_mul(2) >> halvings;
        let part = upper / 2 * u64::from(excess % RUNS_EVEN) / u64::from(RUNS_EVEN);
        (upper - part).max(BYTES_PER_S_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: usize = 16 << 20;

    #[test]
    fn the_more_runs_the_slower() {
        let pace = Pace::default();
        let allowed: Vec<u64> = [0, 1, 2, 4, 6, 8, 12, 1000]
            .into_iter()
            .map(|excess| pace.allowed(excess))
            .collect();
        assert!(
            allowed.is_sorted_by(|one, other| one > other),
            "{allowed:?}"
        );
        assert_eq!(allowed[0], 2 * BYTES_PER_S_FIRST);
        assert_eq!(allowed[3], BYTES_PER_S_FIRST);
        assert_eq!(allowed[5], BYTES_PER_S_FIRST / 2);
        assert_eq!(allowed[7], BYTES_PER_S_MIN);
    }

    #[test]
    fn small_writes_wait_now_and_then_and_together_as_long_as_a_large_one() {
        let mut pace = Pace::default();
        let mut now = Duration::from_secs(7);
        let mut waits = 0;
        let count = 10_000;
        for _ in 0..count {
            if let Some(until) = pace.hold_back(now, RATE / count, RUNS_EVEN as usize) {
                assert!(until <= now + 2 * OWED_MAX, "{until:?} at {now:?}");
                now = until;
                waits += 1;
            }
        }
        let end = Duration::from_secs(8);
        assert!(now <= end && now + 2 * OWED_MAX >= end, "{now:?}");
        assert!((400..=1000).contains(&waits), "{waits}");
    }

    #[test]
    fn one_write_waits_for_a_second_at_most_and_leaves_no_more_to_others() {
        let mut pace = Pace::default();
        let now = Duration::from_secs(1);
        let until = pace.hold_back(now, 100 * RATE, RUNS_EVEN as usize);
        assert_eq!(until, Some(now + HOLD_BACK_MAX));
        let next = pace.hold_back(now + HOLD_BACK_MAX, 10, RUNS_EVEN as usize);
        assert_eq!(next, None);
    }

    #[test]
    fn merges_set_the_pace() {
        let mut pace = Pace::default();
        for _ in 0..40 {
            pace.drained(100 << 20, Duration::from_secs(1));
        }
        let fast = pace.allowed(RUNS_EVEN as usize);
        assert!(fast > 99 << 20 && fast <= 100 << 20, "{fast}");
        for _ in 0..80 {
            pace.drained(1, Duration::from_secs(1));
        }
        assert_eq!(pace.allowed(0), 2 * BYTES_PER_S_MIN);
        pace.drained(u64::MAX, Duration::ZERO);
        assert!(pace.allowed(0) > fast);
    }
}
