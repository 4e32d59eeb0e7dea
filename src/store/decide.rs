//! Whether the local state of a store may be used, decided by facts alone.

use crate::changelog::{Bounds, Offset, Partition};
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{Bug, planted};

use super::codec::Kind;
use super::positions::Covered;

/// Why local state is replaced by what the changelog has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RebuildReason {
    /// The changelog begins above the local position: what was between them is gone.
    Trimmed,
    /// The local position is so old, or of so doubtful an age, that the changelog may have dropped
    /// tombstones which it has not seen.
    Stale,
    /// The changelog has dropped tombstones that the local position has not seen.
    TombstonesDropped,
    /// Local state and changelog do not belong together, and the caller asked for a rebuild
    /// ([`TaskOptions::rebuild`](super::TaskOptions::rebuild)).
    Asked,
}

/// What is known of a store and its partition at one moment.
#[derive(Debug, Clone)]
pub(super) struct Facts<'a> {
    pub(super) store: &'a str,
    /// What it is opened as.
    pub(super) kind: Kind,
    pub(super) partition: &'a Partition,
    /// What the tables cover.
    pub(super) covered: Option<&'a Covered>,
    /// True if the store has any entry.
    pub(super) has_entries: bool,
    /// `None` if the partition does not exist.
    pub(super) bounds: Option<&'a Bounds>,
    pub(super) now_ms: u64,
    /// The caller wishes a rebuild where local state does not belong to the changelog.
    pub(super) rebuild: bool,
}

/// What to do to have a store up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// There is no local state: read everything.
    Full,
    /// Read what came after the local position.
    Tail(Offset),
    /// Read everything into a new generation, which then takes the place of the old one.
    Rebuild(RebuildReason),
}

/// Decides.
///
/// # Errors
///
/// `Diverged` if the local state does not belong to the changelog and no rebuild was asked for.
pub(super) fn decide(facts: &Facts<'_>) -> Result<Decision> {
    if facts.covered.is_none() && !facts.has_entries {
        return Ok(Decision::Full);
    }
    match (foreign(facts), facts.covered, facts.bounds) {
        (Some(_), ..) if facts.rebuild => Ok(Decision::Rebuild(RebuildReason::Asked)),
        (Some(why), ..) => Err(Error::new(
            ErrorKind::Diverged,
            format!(
                "store {}: {why}. Nothing was changed: check the options and the changelog's \
                 address, or ask for a rebuild from the changelog",
                facts.store
            ),
        )),
        (None, Some(covered), Some(bounds)) => Ok(usable(covered, bounds, facts.now_ms)),
        (None, ..) => unreachable!("state without a position or a partition is foreign"),
    }
}

/// Why the local state and the changelog do not belong together, if they do not.
fn foreign(facts: &Facts<'_>) -> Option<String> {
    let partition = facts.partition;
    let Some(covered) = facts.covered else {
        return Some(
            "it has entries, but no changelog position to tell where they are from".into(),
        );
    };
    if covered.kind != facts.kind {
        return Some(format!(
            "it is kept as a {} store and was opened as a {} one",
            covered.kind.name(),
            facts.kind.name()
        ));
    }
    let position = &covered.position;
    if position.partition != *partition {
        return Some(format!(
            "its state is of partition {}, not {partition}",
            position.partition
        ));
    }
    let Some(bounds) = facts.bounds else {
        return Some(format!(
            "its changelog partition {partition} does not exist"
        ));
    };
    if position.cluster != bounds.cluster {
        return Some(format!(
            "its state is of the cluster {:?}, the changelog is of {:?}",
            position.cluster, bounds.cluster
        ));
    }
    if position.topic_id != bounds.topic_id {
        return Some(format!(
            "topic {} was created anew (id {:02x?}, the state is of {:02x?})",
            partition.topic, bounds.topic_id, position.topic_id
        ));
    }
    if bounds.end < position.next {
        return Some(format!(
            "changelog partition {partition} ends at {}, the state at {}",
            bounds.end, position.next
        ));
    }
    None
}

/// Whether a position can be resumed from, its partition being the right one.
fn usable(covered: &Covered, bounds: &Bounds, now_ms: u64) -> Decision {
    let position = &covered.position;
    if bounds.start > position.next {
        return Decision::Rebuild(RebuildReason::Trimmed);
    }
    staleness(covered, bounds, now_ms).map_or(Decision::Tail(position.next), Decision::Rebuild)
}

/// Why a tombstone may have gone that a reader from this position on should have seen. Asked
/// before a restore, and again behind it of what it began with.
pub(super) fn staleness(covered: &Covered, bounds: &Bounds, now_ms: u64) -> Option<RebuildReason> {
    if planted(Bug::StaleStateAccepted) {
        return None;
    }
    let position = &covered.position;
    let dropped = bounds.tombstones_dropped_below;
    if covered.since < dropped && covered.dropped_below < dropped {
        return Some(RebuildReason::TombstonesDropped);
    }
    let is_old = bounds.tombstone_retention_ms.is_some_and(|retention| {
        // A time in the future is no time to reckon with. A fifth is left for clocks that differ.
        position.time_ms > now_ms || now_ms - position.time_ms > retention - retention / 5
    });
    is_old.then_some(RebuildReason::Stale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changelog::{Owner, Position};

    const NOW_MS: u64 = 1_700_000_000_000;

    fn covered() -> Covered {
        let position = Position {
            cluster: "c".into(),
            topic_id: [1; 16],
            partition: Partition::new("t", 0),
            next: Offset(100),
            leader_epoch: 0,
            owner: Owner::default(),
            time_ms: NOW_MS - 1000,
        };
        Covered {
            position,
            dropped_below: Offset(0),
            since: Offset(100),
            kind: Kind::KeyValue,
        }
    }

    fn bounds() -> Bounds {
        Bounds {
            cluster: "c".into(),
            topic_id: [1; 16],
            start: Offset(0),
            end: Offset(200),
            leader_epoch: 0,
            tombstone_retention_ms: Some(10_000),
            tombstones_dropped_below: Offset(0),
        }
    }

    fn ask(covered: Option<&Covered>, bounds: Option<&Bounds>, rebuild: bool) -> Result<Decision> {
        decide(&Facts {
            store: "s",
            kind: Kind::KeyValue,
            partition: &Partition::new("t", 0),
            covered,
            has_entries: covered.is_some(),
            bounds,
            now_ms: NOW_MS,
            rebuild,
        })
    }

    #[track_caller]
    fn rebuilds(covered: &Covered, bounds: &Bounds, reason: RebuildReason) {
        let decision = ask(Some(covered), Some(bounds), false).unwrap();
        assert_eq!(decision, Decision::Rebuild(reason));
    }

    #[track_caller]
    fn diverges(covered: &Covered, bounds: Option<&Bounds>) {
        let error = ask(Some(covered), bounds, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Diverged);
        let asked = ask(Some(covered), bounds, true).unwrap();
        assert_eq!(asked, Decision::Rebuild(RebuildReason::Asked));
    }

    #[test]
    fn without_local_state_everything_is_read() {
        assert_eq!(ask(None, Some(&bounds()), false).unwrap(), Decision::Full);
        assert_eq!(ask(None, None, false).unwrap(), Decision::Full);
    }

    #[test]
    fn entries_without_a_position_are_not_thrown_away_unasked() {
        let partition = Partition::new("t", 0);
        let bounds = bounds();
        let mut facts = Facts {
            store: "s",
            kind: Kind::KeyValue,
            partition: &partition,
            covered: None,
            has_entries: true,
            bounds: Some(&bounds),
            now_ms: NOW_MS,
            rebuild: false,
        };
        assert_eq!(decide(&facts).unwrap_err().kind(), ErrorKind::Diverged);
        facts.rebuild = true;
        assert_eq!(
            decide(&facts).unwrap(),
            Decision::Rebuild(RebuildReason::Asked)
        );
    }

    #[test]
    fn a_fresh_position_within_the_log_is_resumed_from() {
        let ok = |covered: &Covered, bounds: &Bounds| {
            assert_eq!(
                ask(Some(covered), Some(bounds), false).unwrap(),
                Decision::Tail(covered.position.next)
            );
        };
        ok(&covered(), &bounds());
        ok(
            &covered(),
            &Bounds {
                start: Offset(100),
                ..bounds()
            },
        );
        ok(
            &covered(),
            &Bounds {
                end: Offset(100),
                ..bounds()
            },
        );
        ok(
            &covered(),
            &Bounds {
                tombstones_dropped_below: Offset(100),
                ..bounds()
            },
        );
        let mut old = covered();
        old.position.time_ms = NOW_MS - 8000;
        ok(&old, &bounds());
        old.position.time_ms = 0;
        ok(
            &old,
            &Bounds {
                tombstone_retention_ms: None,
                ..bounds()
            },
        );
    }

    #[test]
    fn a_restore_that_began_after_the_drop_may_go_on() {
        let began = Covered {
            dropped_below: Offset(150),
            ..covered()
        };
        let dropped = |below| Bounds {
            tombstones_dropped_below: Offset(below),
            ..bounds()
        };
        assert_eq!(
            ask(Some(&began), Some(&dropped(150)), false).unwrap(),
            Decision::Tail(Offset(100))
        );
        rebuilds(&began, &dropped(151), RebuildReason::TombstonesDropped);
        // Cut short behind the drop, it may have missed what was dropped.
        let cut_short = Covered {
            since: Offset(50),
            ..covered()
        };
        rebuilds(&cut_short, &dropped(51), RebuildReason::TombstonesDropped);
    }

    #[test]
    fn a_trimmed_log_means_a_rebuild() {
        let bounds = Bounds {
            start: Offset(101),
            ..bounds()
        };
        rebuilds(&covered(), &bounds, RebuildReason::Trimmed);
    }

    #[test]
    fn a_stale_position_means_a_rebuild() {
        let mut stale = covered();
        stale.position.time_ms = NOW_MS - 8001;
        rebuilds(&stale, &bounds(), RebuildReason::Stale);
        let dropped = Bounds {
            tombstones_dropped_below: Offset(101),
            ..bounds()
        };
        rebuilds(&covered(), &dropped, RebuildReason::TombstonesDropped);
    }

    #[test]
    fn a_time_in_the_future_is_stale() {
        let mut future = covered();
        future.position.time_ms = NOW_MS + 1;
        rebuilds(&future, &bounds(), RebuildReason::Stale);
    }

    #[test]
    fn foreign_state_is_an_error_unless_a_rebuild_is_asked_for() {
        diverges(&covered(), None);
        diverges(
            &covered(),
            Some(&Bounds {
                cluster: "d".into(),
                ..bounds()
            }),
        );
        diverges(
            &covered(),
            Some(&Bounds {
                topic_id: [2; 16],
                ..bounds()
            }),
        );
        diverges(
            &covered(),
            Some(&Bounds {
                end: Offset(99),
                ..bounds()
            }),
        );
        let mut other = covered();
        other.position.partition.partition = 1;
        diverges(&other, Some(&bounds()));
        let mut kind = covered();
        kind.kind = Kind::Timestamped;
        diverges(&kind, Some(&bounds()));
    }
}
