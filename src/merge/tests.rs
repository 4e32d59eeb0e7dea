use proptest::prelude::*;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::key::{SeqNo, ValueKind};

/// A sorted vector as a source that can be told to fail at its n-th move.
struct Source {
    entries: Vec<(Vec<u8>, SeqNo, usize)>,
    value: Vec<Vec<u8>>,
    pos: Option<usize>,
    moves_left: Option<usize>,
}

impl Source {
    fn new(mut entries: Vec<(u8, u64)>, tag: usize, moves_left: Option<usize>) -> Self {
        entries.sort_by_key(|(user, seqno)| (*user, u64::MAX - seqno));
        entries.dedup();
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(user, seqno)| (vec![user], SeqNo(seqno), tag))
            .collect();
        let value = vec![tag.to_string().into_bytes(); entries.len()];
        Self {
            entries,
            value,
            pos: None,
            moves_left,
        }
    }

    fn moved_to(&mut self, pos: Option<usize>) -> Result<()> {
        self.pos = None;
        if let Some(left) = &mut self.moves_left {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| Error::new(ErrorKind::Io, "source failed on demand"))?;
        }
        self.pos = pos.filter(|pos| *pos < self.entries.len());
        Ok(())
    }

    fn key_at(&self, pos: usize) -> InternalKey<'_> {
        InternalKey::new(&self.entries[pos].0, self.entries[pos].1, ValueKind::Put)
    }
}

impl Cursor for Source {
    fn is_valid(&self) -> bool {
        self.pos.is_some()
    }

    fn key(&self) -> InternalKey<'_> {
        self.key_at(self.pos.unwrap())
    }

    fn value(&self) -> &[u8] {
        &self.value[self.pos.unwrap()]
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.moved_to(Some(0))
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.moved_to(self.entries.len().checked_sub(1))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let pos = (0..self.entries.len()).find(|pos| self.key_at(*pos) >= target);
        self.moved_to(pos)
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        let pos = (0..self.entries.len()).rfind(|pos| self.key_at(*pos) <= target);
        self.moved_to(pos)
    }

    fn next(&mut self) -> Result<()> {
        self.moved_to(Some(self.pos.unwrap() + 1))
    }

    fn prev(&mut self) -> Result<()> {
        self.moved_to(self.pos.unwrap().checked_sub(1))
    }
}

/// A run of sources whose user keys follow one another.
struct Tables(Vec<Vec<(u8, u64)>>, usize);

impl Links for Tables {
    type Cursor = Source;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn largest(&self, index: usize) -> &[u8] {
        std::slice::from_ref(&self.0[index].last().unwrap().0)
    }

    fn smallest(&self, index: usize) -> &[u8] {
        std::slice::from_ref(&self.0[index][0].0)
    }

    fn open(&self, index: usize) -> Result<Source> {
        Ok(Source::new(self.0[index].clone(), self.1, None))
    }
}

#[derive(Debug, Clone)]
enum Move {
    First,
    Last,
    Seek(u8, u64),
    SeekForPrev(u8, u64),
    Next(u8),
    Prev(u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let target = (0_u8..14, 0_u64..9);
    let one = prop_oneof![
        1 => Just(Move::First),
        1 => Just(Move::Last),
        2 => target.clone().prop_map(|(user, seqno)| Move::Seek(user, seqno)),
        2 => target.prop_map(|(user, seqno)| Move::SeekForPrev(user, seqno)),
        4 => (1_u8..6).prop_map(Move::Next),
        4 => (1_u8..6).prop_map(Move::Prev),
    ];
    prop::collection::vec(one, 1..40)
}

fn sources() -> impl Strategy<Value = Vec<Vec<(u8, u64)>>> {
    prop::collection::vec(prop::collection::vec((1_u8..13, 1_u64..8), 0..12), 0..7)
}

/// What a merge of `sources` walks over, in order.
fn model(sources: &[Vec<(u8, u64)>]) -> Vec<(u8, u64, usize)> {
    let mut all = Vec::new();
    for (tag, entries) in sources.iter().enumerate() {
        all.extend(entries.iter().map(|(user, seqno)| (*user, *seqno, tag)));
    }
    all.sort_by_key(|(user, seqno, tag)| (*user, u64::MAX - seqno, *tag));
    all.dedup();
    all
}

/// Makes one move of the cursor and of its place in the model, checking each step.
fn make<C: Cursor>(
    cursor: &mut C,
    all: &[(u8, u64, usize)],
    place: &mut Option<usize>,
    a_move: &Move,
) -> Result<()> {
    let at = |user: u8, seqno: u64| (user, u64::MAX - seqno);
    let key = |entry: &(u8, u64, usize)| at(entry.0, entry.1);
    let mut steps = 1;
    match a_move {
        Move::First => {
            cursor.seek_to_first()?;
            *place = Some(0);
        }
        Move::Last => {
            cursor.seek_to_last()?;
            *place = all.len().checked_sub(1);
        }
        Move::Seek(user, seqno) => {
            cursor.seek(InternalKey::new(&[*user], SeqNo(*seqno), ValueKind::Put))?;
            *place = all.iter().position(|entry| key(entry) >= at(*user, *seqno));
        }
        Move::SeekForPrev(user, seqno) => {
            cursor.seek_for_prev(InternalKey::new(&[*user], SeqNo(*seqno), ValueKind::Put))?;
            *place = all
                .iter()
                .rposition(|entry| key(entry) <= at(*user, *seqno));
        }
        Move::Next(count) | Move::Prev(count) => steps = *count,
    }
    for _ in 0..steps {
        if place.is_some() {
            match a_move {
                Move::Next(_) => {
                    cursor.next()?;
                    *place = place.map(|pos| pos + 1);
                }
                Move::Prev(_) => {
                    cursor.prev()?;
                    *place = place.and_then(|pos| pos.checked_sub(1));
                }
                _ => {}
            }
        }
        *place = place.filter(|pos| *pos < all.len());
        assert_eq!(cursor.is_valid(), place.is_some());
        if let Some(pos) = *place {
            let (user, seqno, tag) = all[pos];
            assert_eq!(
                cursor.key(),
                InternalKey::new(&[user], SeqNo(seqno), ValueKind::Put)
            );
            assert_eq!(cursor.value(), tag.to_string().as_bytes());
            assert_eq!(cursor.value_slice(), tag.to_string().as_bytes());
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn walks_like_a_sorted_vector(sources in sources(), moves in moves()) {
        let all = model(&sources);
        let cursors = sources.into_iter().enumerate();
        let mut merge = Merge::new(cursors.map(|(tag, s)| Source::new(s, tag, None)).collect());
        let mut place = None;
        prop_assert!(!merge.is_valid());
        for a_move in &moves {
            make(&mut merge, &all, &mut place, a_move).unwrap();
        }
    }

    #[test]
    fn a_failing_source_ends_the_walk(
        sources in sources(),
        moves in moves(),
        failing in 0_usize..7,
        moves_left in 0_usize..30,
    ) {
        let all = model(&sources);
        let cursors = sources.into_iter().enumerate().map(|(tag, entries)| {
            Source::new(entries, tag, (tag == failing).then_some(moves_left))
        });
        let mut merge = Merge::new(cursors.collect());
        let mut place = None;
        for a_move in &moves {
            if make(&mut merge, &all, &mut place, a_move).is_err() {
                prop_assert!(!merge.is_valid());
                for source in &mut merge.sources {
                    source.moves_left = None;
                }
                place = None;
            }
        }
    }

    #[test]
    fn a_chain_walks_like_a_sorted_vector(entries in sources(), moves in moves()) {
        // Cut between user keys only, as the tables of a run are.
        let mut entries: Vec<(u8, u64)> = entries.concat();
        entries.sort_by_key(|(user, seqno)| (*user, u64::MAX - seqno));
        entries.dedup();
        let all = model(std::slice::from_ref(&entries));
        let mut tables: Vec<Vec<(u8, u64)>> = Vec::new();
        for (user, seqno) in entries {
            match tables.last_mut() {
                Some(table) if table.last().unwrap().0 == user || user % 3 != 0 => {
                    table.push((user, seqno));
                }
                _ => tables.push(vec![(user, seqno)]),
            }
        }
        let mut chain = Chain::new(Tables(tables, 0));
        let mut place = None;
        for a_move in &moves {
            make(&mut chain, &all, &mut place, a_move).unwrap();
        }
    }
}

#[test]
fn one_source_that_wins_again_is_compared_once() {
    // Counted by a cursor whose key is asked for: twice a comparison.
    struct Counted(Source, std::cell::Cell<usize>);
    impl Cursor for Counted {
        fn is_valid(&self) -> bool {
            self.0.is_valid()
        }
        fn key(&self) -> InternalKey<'_> {
            self.1.set(self.1.get() + 1);
            self.0.key()
        }
        fn value(&self) -> &[u8] {
            self.0.value()
        }
        fn seek_to_first(&mut self) -> Result<()> {
            self.0.seek_to_first()
        }
        fn seek_to_last(&mut self) -> Result<()> {
            self.0.seek_to_last()
        }
        fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
            self.0.seek(target)
        }
        fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
            self.0.seek_for_prev(target)
        }
        fn next(&mut self) -> Result<()> {
            self.0.next()
        }
        fn prev(&mut self) -> Result<()> {
            self.0.prev()
        }
    }
    let long = (1..=100).map(|user| (user, 1)).collect();
    let sources = [long, vec![(200, 1)], vec![(201, 1)], vec![(202, 1)]];
    let counted = |(tag, s)| Counted(Source::new(s, tag, None), std::cell::Cell::new(0));
    let mut merge = Merge::new(sources.into_iter().enumerate().map(counted).collect());
    merge.seek_to_first().unwrap();
    merge.next().unwrap();
    merge.next().unwrap();
    let before: usize = merge.sources.iter().map(|source| source.1.get()).sum();
    for _ in 0..90 {
        merge.next().unwrap();
    }
    let after: usize = merge.sources.iter().map(|source| source.1.get()).sum();
    assert_eq!(after - before, 2 * 90);
}
