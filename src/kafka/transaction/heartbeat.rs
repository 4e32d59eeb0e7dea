//! When a fence has to be renewed, as a function of times.

use std::time::Duration;

/// How long brokers remember what a fence is made of.
///
/// A partition's leader forgets the epochs of a producer id some time after its newest batch or
/// marker (`producer.id.expiration.ms`), and the coordinator forgets a transactional id some time
/// after its newest transaction (`transactional.id.expiration.ms`), however busy its owner is
/// without transactions. After either, a former owner can write again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    expiry: Duration,
}

/// What the fence needs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing for that long.
    In(Duration),
    /// A beat, whenever no transaction is open.
    Now,
    /// A beat before anything else is sent: by now others may have come and gone.
    BeforeAppend,
}

/// What brokers do by default.
const PRODUCER_ID_EXPIRATION: Duration = Duration::from_secs(24 * 3600);

impl Default for Heartbeat {
    /// The policy for brokers with the default expirations.
    fn default() -> Self {
        Self {
            expiry: PRODUCER_ID_EXPIRATION,
        }
    }
}

impl Heartbeat {
    /// The policy for brokers with these expirations.
    pub(crate) fn new(producer_id: Duration, transactional_id: Duration) -> Self {
        Self {
            expiry: producer_id.min(transactional_id),
        }
    }

    /// The same, for brokers that forget at the latest after `expiry`.
    #[must_use]
    pub(crate) fn at_most(self, expiry: Duration) -> Self {
        Self {
            expiry: self.expiry.min(expiry),
        }
    }

    /// From when on a beat has to come before anything else is sent.
    pub(crate) fn overdue_from(self, beat: Duration) -> Duration {
        beat.saturating_add(self.expiry / 2)
    }

    /// From when on a beat is due, whenever no transaction is open.
    pub(crate) fn due_from(self, beat: Duration) -> Duration {
        beat.saturating_add(self.expiry / 4)
    }

    /// What is due at `now`, when the newest successful beat was sent at `beat`; both by a clock
    /// that counts suspended time.
    pub(crate) fn due(self, beat: Duration, now: Duration) -> Due {
        let due_from = self.due_from(beat);
        if now >= self.overdue_from(beat) {
            Due::BeforeAppend
        } else if now >= due_from {
            Due::Now
        } else {
            // A beat that is recorded as later than now is as fresh as can be.
            Due::In(due_from.saturating_sub(now).min(self.expiry / 4))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_due_at_a_quarter_and_overdue_at_half_of_the_shorter_expiry() {
        let seconds = Duration::from_secs;
        for policy in [
            Heartbeat::new(seconds(40), seconds(1000)),
            Heartbeat::new(seconds(1000), seconds(40)),
        ] {
            let due = |age| policy.due(seconds(100), seconds(100) + age);
            assert_eq!(due(seconds(0)), Due::In(seconds(10)));
            assert_eq!(due(seconds(9)), Due::In(seconds(1)));
            assert_eq!(due(seconds(10)), Due::Now);
            assert_eq!(due(Duration::from_millis(19_999)), Due::Now);
            assert_eq!(due(seconds(20)), Due::BeforeAppend);
            assert_eq!(due(seconds(100_000)), Due::BeforeAppend);
            // A beat that is recorded as later than now is as fresh as can be.
            assert_eq!(policy.due(seconds(100), seconds(99)), Due::In(seconds(10)));
        }
    }
}
