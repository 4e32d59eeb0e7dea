//! Which entries of a merge are kept: the one place that drops data.

use crate::error::{Error, Result};
use crate::key::{Cursor, InternalKey, SeqNo, Trailer, ValueKind};
use crate::planted::{Bug, planted};

/// What a stream may leave out, apart from what `droppable` tells of single keys.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Retention<'a> {
    /// What somebody may read at, ascending: the live snapshots. For each, the newest version of
    /// a key that is not above it is kept, and the newest of all always is.
    ///
    /// They are collected after the version whose tables are merged was chosen, and together with
    /// the newest visible and the newest released number of that moment: nobody can take a
    /// snapshot between two of them later.
    pub(crate) boundaries: &'a [SeqNo],
    /// Aborted writes, as ranges without their lower and with their upper end. Only memtables
    /// hold such entries.
    pub(crate) dead: &'a [(SeqNo, SeqNo)],
    /// Whether entries that are the last of their key, and that no boundary tells from others,
    /// give up their sequence numbers.
    pub(crate) zero_seqnos: bool,
}

/// What went through a stream; bytes are those of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stats {
    pub(crate) entries_read: u64,
    pub(crate) bytes_read: u64,
    pub(crate) entries_kept: u64,
    pub(crate) bytes_kept: u64,
    /// Entries of aborted writes.
    pub(crate) dropped_dead: u64,
    /// Versions that a newer one hides from every reader.
    pub(crate) dropped_hidden: u64,
    /// Tombstones with nothing left to hide.
    pub(crate) dropped_tombstones: u64,
}

/// The entries of a sorted source that are kept, in order.
///
/// `droppable` is asked with ascending user keys whether no older entry of the key exists outside
/// of the source: only then a tombstone may go, or a sequence number.
pub(crate) struct Stream<'a, C, D> {
    cursor: C,
    retention: Retention<'a>,
    droppable: D,
    stats: Stats,
    /// The user key of the newest entry read, and the number of boundaries below that entry; the
    /// next version of the key is kept only if fewer are below it.
    last: Option<(Vec<u8>, usize)>,
    state: State,
    /// The trailer of the entry that the stream stands on.
    trailer: Trailer,
}

enum State {
    Start,
    OnEntry,
    End,
    /// An error is never taken for the end: it is told again.
    Failed(Error),
}

/// For sources that are not known to hold the last data of any key: a flush.
pub(crate) fn never(_: &[u8]) -> bool {
    false
}

impl<'a, C: Cursor, D: FnMut(&[u8]) -> bool> Stream<'a, C, D> {
    /// # Panics
    ///
    /// If the boundaries are not in ascending order.
    pub(crate) fn new(cursor: C, retention: Retention<'a>, droppable: D) -> Self {
        assert!(retention.boundaries.is_sorted(), "boundaries out of order");
        Self {
            cursor,
            retention,
            droppable,
            stats: Stats::default(),
            last: None,
            state: State::Start,
            trailer: Trailer(0),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.stats
    }

    /// The next entry that is kept, or `None` at the end.
    pub(crate) fn next_kept(&mut self) -> Result<Option<(InternalKey<'_>, &[u8])>> {
        match self.advance() {
            Err(error) => {
                self.state = State::Failed(error.clone());
                Err(error)
            }
            Ok(false) => Ok(None),
            Ok(true) => {
                let key = InternalKey {
                    user: self.cursor.key().user,
                    trailer: self.trailer,
                };
                Ok(Some((key, self.cursor.value())))
            }
        }
    }

    /// Moves to the next entry that is kept; false at the end.
    fn advance(&mut self) -> Result<bool> {
        match &self.state {
            State::Start => self.cursor.seek_to_first()?,
            State::OnEntry => self.cursor.next()?,
            State::End => return Ok(false),
            State::Failed(error) => return Err(error.clone()),
        }
        self.state = State::OnEntry;
        while self.cursor.is_valid() {
            if let Some(trailer) = self.judge() {
                self.trailer = trailer;
                return Ok(true);
            }
            self.cursor.next()?;
        }
        self.state = State::End;
        Ok(false)
    }

    /// Decides on the entry under the cursor: the trailer that it goes on with, or `None`.
    fn judge(&mut self) -> Option<Trailer> {
        let key = self.cursor.key();
        let bytes = (key.user.len() + self.cursor.value().len()) as u64;
        self.stats.entries_read += 1;
        self.stats.bytes_read += bytes;
        let seqno = key.seqno();
        if self
            .retention
            .dead
            .iter()
            .any(|(low, high)| *low < seqno && seqno <= *high)
        {
            self.stats.dropped_dead += 1;
            return None;
        }
        let boundaries_below = self.retention.boundaries.partition_point(|b| *b < seqno);
        match &mut self.last {
            Some((user, below)) if user.as_slice() == key.user => {
                if boundaries_below == *below {
                    self.stats.dropped_hidden += 1;
                    return None;
                }
                *below = boundaries_below;
            }
            Some((user, below)) => {
                user.clear();
                user.extend_from_slice(key.user);
                *below = boundaries_below;
            }
            None => self.last = Some((key.user.to_vec(), boundaries_below)),
        }
        let kind = key.kind();
        let mut trailer = key.trailer;
        // Below every boundary all readers see the same of the key, and what is older than this
        // entry none of them.
        let may_simplify = match kind {
            ValueKind::Delete => true,
            ValueKind::Put => self.retention.zero_seqnos,
        };
        let drops_early = planted(Bug::TombstoneDroppedEarly) && kind == ValueKind::Delete;
        let zeroes_early = planted(Bug::SeqNoZeroedUnderSnapshot) && kind == ValueKind::Put;
        if (boundaries_below == 0 || zeroes_early)
            && may_simplify
            && (drops_early || (self.droppable)(key.user))
        {
            if kind == ValueKind::Delete {
                self.stats.dropped_tombstones += 1;
                return None;
            }
            trailer = Trailer::new(SeqNo::ZERO, kind);
        }
        self.stats.entries_kept += 1;
        self.stats.bytes_kept += bytes;
        Some(trailer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::key::ValueKind::{Delete, Put};

    /// Entries in order, of which the one at `fails_at` cannot be read.
    struct Source(Vec<(u8, u64, ValueKind)>, usize, Option<usize>);

    impl Cursor for Source {
        fn is_valid(&self) -> bool {
            self.1 < self.0.len() && self.2 != Some(self.1)
        }
        fn key(&self) -> InternalKey<'_> {
            let (user, seqno, kind) = &self.0[self.1];
            InternalKey::new(std::slice::from_ref(user), SeqNo(*seqno), *kind)
        }
        fn value(&self) -> &[u8] {
            b"value"
        }
        fn seek_to_first(&mut self) -> Result<()> {
            self.1 = usize::MAX;
            self.next()
        }
        fn next(&mut self) -> Result<()> {
            self.1 = self.1.wrapping_add(1);
            if self.2 == Some(self.1) {
                return Err(Error::corruption("unreadable entry"));
            }
            Ok(())
        }
        fn seek_to_last(&mut self) -> Result<()> {
            unreachable!("a stream only walks forward")
        }
        fn seek(&mut self, _: InternalKey<'_>) -> Result<()> {
            unreachable!("a stream only walks forward")
        }
        fn seek_for_prev(&mut self, _: InternalKey<'_>) -> Result<()> {
            unreachable!("a stream only walks forward")
        }
        fn prev(&mut self) -> Result<()> {
            unreachable!("a stream only walks forward")
        }
    }

    fn kept(
        entries: &[(u8, u64, ValueKind)],
        retention: Retention<'_>,
        droppable: impl FnMut(&[u8]) -> bool,
    ) -> (Vec<(u8, u64, ValueKind)>, Stats) {
        let source = Source(entries.to_vec(), 0, None);
        let mut stream = Stream::new(source, retention, droppable);
        let mut out = Vec::new();
        while let Some((key, value)) = stream.next_kept().unwrap() {
            assert_eq!(value, b"value");
            out.push((key.user[0], key.seqno().0, key.kind()));
        }
        assert!(stream.next_kept().unwrap().is_none());
        (out, stream.stats())
    }

    fn at(boundaries: &[SeqNo]) -> Retention<'_> {
        Retention {
            boundaries,
            ..Retention::default()
        }
    }

    #[test]
    fn without_snapshots_only_the_newest_version_stays() {
        let entries = [
            (1, 9, Put),
            (1, 5, Delete),
            (1, 2, Put),
            (2, 3, Delete),
            (2, 1, Put),
        ];
        let (out, stats) = kept(&entries, at(&[]), never);
        assert_eq!(out, [(1, 9, Put), (2, 3, Delete)]);
        assert_eq!(
            (stats.entries_read, stats.entries_kept, stats.dropped_hidden),
            (5, 2, 3)
        );
        assert_eq!((stats.bytes_read, stats.bytes_kept), (30, 12));
    }

    #[test]
    fn each_snapshot_keeps_what_it_sees() {
        let entries = [
            (1, 9, Put),
            (1, 7, Put),
            (1, 5, Delete),
            (1, 4, Put),
            (1, 2, Put),
        ];
        let (out, _) = kept(&entries, at(&[SeqNo(4), SeqNo(7)]), never);
        assert_eq!(out, [(1, 9, Put), (1, 7, Put), (1, 4, Put)]);
        let (out, _) = kept(&entries, at(&[SeqNo(1), SeqNo(6)]), never);
        assert_eq!(out, [(1, 9, Put), (1, 5, Delete),]);
    }

    #[test]
    fn a_tombstone_goes_only_below_every_snapshot_and_with_nothing_beneath() {
        let entries = [(1, 5, Delete), (1, 2, Put), (2, 5, Delete), (2, 3, Put)];
        let only_one = |user: &[u8]| user == [1];
        let (out, stats) = kept(&entries, at(&[]), only_one);
        assert_eq!(out, [(2, 5, Delete)]);
        assert_eq!((stats.dropped_tombstones, stats.dropped_hidden), (1, 2));
        let (out, _) = kept(&entries, at(&[SeqNo(4)]), |_| true);
        assert_eq!(out, entries);
    }

    #[test]
    fn only_the_last_version_below_every_snapshot_gives_up_its_number() {
        let entries = [
            (1, 9, Put),
            (1, 4, Put),
            (2, 6, Put),
            (3, 4, Put),
            (4, 3, Delete),
        ];
        let retention = Retention {
            zero_seqnos: true,
            ..at(&[SeqNo(4)])
        };
        let (out, _) = kept(&entries, retention, |user| user != [3]);
        assert_eq!(out, [(1, 9, Put), (1, 0, Put), (2, 6, Put), (3, 4, Put)]);
    }

    #[test]
    fn aborted_writes_count_as_never_written() {
        let entries = [(1, 9, Put), (1, 7, Put), (1, 5, Put), (2, 8, Delete)];
        let dead = [(SeqNo(5), SeqNo(8)), (SeqNo(8), SeqNo(9))];
        let (out, stats) = kept(
            &entries,
            Retention {
                dead: &dead,
                ..at(&[])
            },
            never,
        );
        assert_eq!(out, [(1, 5, Put)]);
        assert_eq!(stats.dropped_dead, 3);
    }

    #[test]
    fn an_error_is_not_the_end() {
        let source = Source(vec![(1, 1, Put), (2, 1, Put), (3, 1, Put)], 0, Some(1));
        let mut stream = Stream::new(source, at(&[]), never);
        assert!(stream.next_kept().unwrap().is_some());
        assert!(stream.next_kept().is_err());
        assert!(stream.next_kept().is_err());
    }

    fn visible(entries: &[(u8, u64, ValueKind)], seqno: u64) -> BTreeMap<u8, bool> {
        let mut newest = BTreeMap::new();
        for (user, at, kind) in entries {
            if *at <= seqno {
                newest.entry(*user).or_insert(*kind == Put);
            }
        }
        newest.retain(|_, is_put| *is_put);
        newest
    }

    proptest! {
        #[test]
        fn readers_see_no_difference(
            entries in prop::collection::btree_map((0_u8..6, 1_u64..40), any::<bool>(), 0..60),
            boundaries in prop::collection::btree_set(0_u64..45, 0..5),
            with_older in prop::collection::btree_set(0_u8..6, 0..6),
            zero_seqnos in any::<bool>(),
        ) {
            let mut entries: Vec<_> = entries
                .into_iter()
                .map(|((user, seqno), put)| (user, seqno, if put { Put } else { Delete }))
                .collect();
            entries.sort_by_key(|(user, seqno, _)| (*user, u64::MAX - seqno));
            let seqnos: Vec<SeqNo> = boundaries.iter().copied().map(SeqNo).collect();
            let retention = Retention { zero_seqnos, ..at(&seqnos) };
            let (out, stats) = kept(&entries, retention, |user| !with_older.contains(&user[0]));
            // Older data below: a version of each such key at 0.
            let below = |entries: &[(u8, u64, ValueKind)]| -> Vec<_> {
                let older = with_older.iter().map(|user| (*user, 0, Put));
                entries.iter().copied().chain(older).collect()
            };
            for seqno in boundaries.iter().copied().chain([u64::MAX]) {
                prop_assert_eq!(visible(&below(&out), seqno), visible(&below(&entries), seqno));
            }
            let zeroed: Vec<u8> = out.iter().filter(|e| e.1 == 0).map(|e| e.0).collect();
            prop_assert_eq!(zeroed.iter().collect::<BTreeSet<_>>().len(), zeroed.len());
            let dropped = stats.dropped_hidden + stats.dropped_tombstones;
            prop_assert_eq!(stats.entries_read, stats.entries_kept + dropped);
        }
    }
}
