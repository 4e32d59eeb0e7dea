use std::cmp::Reverse;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::cache::MemoryBudget;
use crate::key::{Cursor, Trailer};
use crate::sync::{Arc, thread};

fn memtable() -> (Arc<MemoryBudget>, Arc<Memtable>) {
    let budget = Arc::new(MemoryBudget::new(1 << 30));
    let account = budget.open_account(0, 0).unwrap();
    (budget, Arc::new(Memtable::new(account.charge())))
}

fn put(memtable: &Memtable, key: &str, seqno: u64, value: &str) {
    let key = InternalKey::new(key.as_bytes(), SeqNo(seqno), ValueKind::Put);
    memtable.insert(key, value.as_bytes(), 1);
}

#[test]
fn reads_see_the_newest_version_at_their_point() {
    let (_budget, memtable) = memtable();
    put(&memtable, "longer than eight", 1, "one");
    put(&memtable, "longer than eighty", 2, "other");
    put(&memtable, "longer than eight", 3, "three");
    let key = b"longer than eight";
    assert_eq!(memtable.get(key, SeqNo(9), &[]).unwrap().1, b"three");
    assert_eq!(memtable.get(key, SeqNo(2), &[]).unwrap().1, b"one");
    assert_eq!(memtable.get(key, SeqNo(0), &[]), None);
    assert_eq!(memtable.get(b"longer", SeqNo(9), &[]), None);
}

#[test]
fn aborted_versions_are_passed_over() {
    let (_budget, memtable) = memtable();
    put(&memtable, "k", 1, "one");
    put(&memtable, "k", 2, "two");
    put(&memtable, "k", 3, "three");
    let dead = [(SeqNo(1), SeqNo(3))];
    assert_eq!(memtable.get(b"k", SeqNo(9), &dead).unwrap().1, b"one");
    assert_eq!(memtable.get(b"k", SeqNo(9), &[(SeqNo(0), SeqNo(3))]), None);
    put(&memtable, "k", 4, "four");
    assert_eq!(memtable.get(b"k", SeqNo(9), &dead).unwrap().1, b"four");
}

#[test]
fn replaced_bytes_are_known() {
    let (_budget, memtable) = memtable();
    for seqno in 1..=100 {
        put(&memtable, "hot", seqno, "12345");
    }
    put(&memtable, "cold", 101, "12345");
    assert_eq!(memtable.live_bytes(), entry_bytes(3, 5) + entry_bytes(4, 5));
    assert_eq!(memtable.entries(), 101);
    assert_eq!(
        (memtable.seqno_first(), memtable.seqno_last()),
        (SeqNo(1), SeqNo(101))
    );
}

#[test]
fn a_cursor_walks_both_ways_and_outlives_its_owner() {
    let (_budget, memtable) = memtable();
    for (seqno, key) in ["b", "d", "a", "c"].iter().enumerate() {
        put(&memtable, key, seqno as u64 + 1, key);
    }
    let mut cursor = MemtableCursor::new(memtable);
    let mut seen = Vec::new();
    cursor.seek_to_first().unwrap();
    while cursor.is_valid() {
        seen.push(cursor.value()[0]);
        cursor.next().unwrap();
    }
    assert_eq!(seen, b"abcd");
    cursor
        .seek(InternalKey::seek_to(b"bb", SeqNo::MAX))
        .unwrap();
    assert_eq!(cursor.key().user, b"c");
    cursor.seek_for_prev(InternalKey::behind(b"bb")).unwrap();
    assert_eq!(cursor.key().user, b"b");
    cursor.prev().unwrap();
    assert_eq!(cursor.key().user, b"a");
    cursor.prev().unwrap();
    assert!(!cursor.is_valid());
}

#[test]
fn memory_is_counted_while_anyone_holds_it() {
    let (budget, memtable) = memtable();
    for seqno in 1..=1000 {
        put(&memtable, &format!("key {seqno}"), seqno, "some value");
    }
    memtable.settle_charge(0);
    assert_eq!(budget.used_bytes(), memtable.memory_bytes());
    let cursor = MemtableCursor::new(Arc::clone(&memtable));
    drop(memtable);
    assert!(budget.used_bytes() > 0);
    drop(cursor);
    assert_eq!(budget.used_bytes(), 0);
}

/// Keys of many shapes: short and long, with and without shared prefixes, runs of zeros, and the
/// longest there can be.
fn key_of(number: u32) -> Vec<u8> {
    let digits = (number / 6).to_be_bytes();
    match number % 6 {
        0 => [b"common/prefix/of/some/length/", &digits[..]].concat(),
        1 => [&[b'p'; 300][..], &digits[2..]].concat(),
        2 => [&b"zz"[..], &vec![0; number as usize / 6 % 37], b"\x01"].concat(),
        3 => vec![digits[3]],
        4 => digits[2..].to_vec(),
        _ if number.is_multiple_of(25) => {
            let mut key = vec![digits[3] & 1; crate::key::KEY_LEN_MAX];
            key[crate::key::KEY_LEN_MAX - 1] = digits[3];
            key
        }
        _ => [b"k".as_slice(), &u64::from(number).to_be_bytes()].concat(),
    }
}

/// Writes of one pattern.
#[derive(Debug, Clone)]
enum Writes {
    Scattered(Vec<u32>),
    Ascending(u32, u32),
    Descending(u32, u32),
    Again(u32, u32),
}

impl Writes {
    fn numbers(&self) -> Vec<u32> {
        match *self {
            Self::Scattered(ref numbers) => numbers.clone(),
            Self::Ascending(from, count) => (from..from + count).collect(),
            Self::Descending(from, count) => (from..from + count).rev().collect(),
            Self::Again(number, count) => vec![number; count as usize],
        }
    }
}

fn any_writes() -> impl Strategy<Value = Writes> {
    let scattered = vec(0_u32..6000, 1..400);
    prop_oneof![
        3 => scattered.prop_map(Writes::Scattered),
        1 => (0_u32..6000, 1_u32..500).prop_map(|(from, count)| Writes::Ascending(from, count)),
        1 => (0_u32..6000, 1_u32..500).prop_map(|(from, count)| Writes::Descending(from, count)),
        1 => (0_u32..6000, 1_u32..60).prop_map(|(key, count)| Writes::Again(key, count)),
    ]
}

/// What is in a memtable, in order.
type Expected = BTreeMap<(Vec<u8>, Reverse<Trailer>), Vec<u8>>;

fn value_of(seqno: u64) -> Vec<u8> {
    let len = match seqno % 7 {
        0 => 0,
        1 if seqno % 1000 == 1 => 300_000,
        _ => seqno % 40,
    };
    (0..len)
        .map(|index| u8::try_from((seqno + index) % 251).unwrap())
        .collect()
}

/// The same writes in a memtable and in a map.
fn written(writes: &[Writes]) -> (Arc<Memtable>, Expected) {
    let (_, memtable) = memtable();
    let mut expected = Expected::new();
    let numbers = writes.iter().flat_map(Writes::numbers);
    for (number, seqno) in numbers.zip(1..) {
        let kind = if seqno % 5 == 0 {
            ValueKind::Delete
        } else {
            ValueKind::Put
        };
        let (user, value) = (key_of(number), value_of(seqno));
        let key = InternalKey::new(&user, SeqNo(seqno), kind);
        memtable.insert(key, &value, 1);
        expected.insert((user, Reverse(Trailer::new(SeqNo(seqno), kind))), value);
    }
    (memtable, expected)
}

fn expected_get(
    expected: &Expected,
    key: &[u8],
    at: SeqNo,
    dead: &DeadRanges,
) -> Option<(ValueKind, Vec<u8>)> {
    let from = (key.to_vec(), Reverse(Trailer(at.0 << 8 | 0xff)));
    let mut versions = expected
        .range(from..)
        .take_while(|((user, _), _)| user == key);
    let found = versions.find(|((_, trailer), _)| !is_dead(dead, trailer.0.seqno()));
    found.map(|((_, trailer), value)| (trailer.0.kind(), value.clone()))
}

fn check_gets(memtable: &Memtable, expected: &Expected, dead: &DeadRanges, points: &[u64]) {
    for number in (0..6000).step_by(7) {
        let key = key_of(number);
        for point in points.iter().map(|point| SeqNo(*point)) {
            let found = memtable.get(&key, point, dead);
            let found = found.map(|(kind, value)| (kind, value.to_vec()));
            let wanted = expected_get(expected, &key, point, dead);
            assert_eq!(found, wanted, "key {number} at {point}");
        }
    }
}

/// Walks as `moves` say, beside the sorted entries.
fn check_walk(memtable: &Arc<Memtable>, expected: &Expected, moves: &[(u32, i32)]) {
    let entries: Vec<_> = expected.iter().collect();
    let position_of = |user: &[u8], trailer: Trailer| {
        entries.partition_point(|((key, found), _)| (&key[..], *found) < (user, Reverse(trailer)))
    };
    let mut cursor = MemtableCursor::new(Arc::clone(memtable));
    for (number, steps) in moves {
        let user = key_of(*number);
        let target = InternalKey::new(&user, SeqNo(u64::from(number % 900)), ValueKind::Put);
        let at = position_of(&user, target.trailer);
        let mut at = if number % 2 == 0 {
            cursor.seek(target).unwrap();
            (at < entries.len()).then_some(at)
        } else {
            cursor.seek_for_prev(target).unwrap();
            let is_there = entries
                .get(at)
                .is_some_and(|((key, trailer), _)| *key == user && trailer.0 == target.trailer);
            if is_there {
                Some(at)
            } else {
                at.checked_sub(1)
            }
        };
        let mut forward = *steps > 0;
        for step in 0..steps.unsigned_abs() {
            check_entry(&cursor, at.map(|at| entries[at]));
            let Some(index) = at else { break };
            // Turns now and then.
            forward ^= step % 11 == 7;
            at = if forward {
                cursor.next().unwrap();
                Some(index + 1).filter(|next| *next < entries.len())
            } else {
                cursor.prev().unwrap();
                index.checked_sub(1)
            };
        }
    }
}

type Entry<'a> = (&'a (Vec<u8>, Reverse<Trailer>), &'a Vec<u8>);

fn check_entry(cursor: &MemtableCursor, wanted: Option<Entry<'_>>) {
    assert_eq!(cursor.is_valid(), wanted.is_some());
    if let Some(((user, trailer), value)) = wanted {
        assert_eq!(cursor.key().user, &user[..]);
        assert_eq!(cursor.key().trailer, trailer.0);
        assert_eq!(cursor.value(), &value[..]);
    }
}

fn check_all_entries(memtable: &Arc<Memtable>, expected: &Expected) {
    let mut cursor = MemtableCursor::new(Arc::clone(memtable));
    cursor.seek_to_first().unwrap();
    for entry in expected {
        check_entry(&cursor, Some(entry));
        cursor.next().unwrap();
    }
    assert!(!cursor.is_valid());
    cursor.seek_to_last().unwrap();
    for entry in expected.iter().rev() {
        check_entry(&cursor, Some(entry));
        cursor.prev().unwrap();
    }
    assert!(!cursor.is_valid());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map(
        writes in vec(any_writes(), 0..12),
        points in vec(0_u64..3000, 1..4),
        dead in vec((0_u64..3000, 1_u64..200), 0..3),
        moves in vec((0_u32..6000, -60_i32..60), 1..40),
    ) {
        let (memtable, expected) = written(&writes);
        let mut dead: Vec<_> = dead
            .iter()
            .map(|(low, len)| (SeqNo(*low), SeqNo(low + len)))
            .collect();
        dead.sort();
        check_gets(&memtable, &expected, &dead, &points);
        check_all_entries(&memtable, &expected);
        check_walk(&memtable, &expected, &moves);
        prop_assert_eq!(memtable.entries(), expected.len());
        // The newest version of a key comes first, so going back it is the last to stay.
        let newest: BTreeMap<_, _> = expected
            .iter()
            .rev()
            .map(|((key, _), value)| (key, value))
            .collect();
        let live: usize = newest
            .iter()
            .map(|(key, value)| entry_bytes(key.len(), value.len()))
            .sum();
        prop_assert_eq!(memtable.live_bytes(), live);
    }

    /// As an in-memory compaction does: newer versions of a key come before older ones.
    #[test]
    fn a_copy_in_the_order_of_keys_is_the_same(
        writes in vec(any_writes(), 0..12),
        moves in vec((0_u32..6000, -60_i32..60), 1..20),
    ) {
        let (_, expected) = written(&writes);
        let (_, copy) = memtable();
        for ((user, trailer), value) in &expected {
            let key = InternalKey { user, trailer: trailer.0 };
            copy.insert(key, value, 1);
        }
        check_all_entries(&copy, &expected);
        check_gets(&copy, &expected, &[], &[900, u64::MAX >> 8]);
        check_walk(&copy, &expected, &moves);
    }
}

/// Numbers in an order that looks random.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// A history of writes: which key each sequence number writes, and what each key has when.
struct History {
    keys: Vec<Vec<u8>>,
    written: Vec<usize>,
    versions: Vec<Vec<u64>>,
}

impl History {
    fn new(keys: u64, writes: u64, pattern: u64) -> Self {
        let names: Vec<Vec<u8>> = (0..keys)
            .map(|number| match number % 3 {
                0 => format!("a common prefix/{number:06}").into_bytes(),
                1 => [
                    &mixed(number).to_be_bytes()[..3],
                    &number.to_be_bytes()[4..],
                ]
                .concat(),
                _ => format!("k{number:012}").into_bytes(),
            })
            .collect();
        let mut sorted: Vec<usize> = (0..names.len()).collect();
        sorted.sort_by_key(|index| &names[*index]);
        let mut history = Self {
            versions: vec![Vec::new(); names.len()],
            keys: names,
            written: Vec::new(),
        };
        for seqno in 1..=writes {
            let place = match pattern {
                0 => mixed(seqno) % keys,
                1 => seqno % keys,
                2 => keys - 1 - seqno % keys,
                // A hot key among runs in both directions.
                _ if seqno.is_multiple_of(4) => keys / 2,
                _ if (seqno / keys).is_multiple_of(2) => seqno % keys,
                _ => keys - 1 - seqno % keys,
            };
            let key = sorted[usize::try_from(place).unwrap()];
            history.written.push(key);
            history.versions[key].push(seqno);
        }
        history
    }

    fn newest(&self, key: usize, at: u64) -> Option<u64> {
        let versions = &self.versions[key];
        let count = versions.partition_point(|seqno| *seqno <= at);
        Some(versions[count.checked_sub(1)?])
    }

    /// What the writer does: batches of several sizes, each visible as a whole.
    fn write(&self, memtable: &Memtable, visible: &AtomicU64) {
        let mut seqno = 0;
        while seqno < self.written.len() as u64 {
            let batch = 1 + mixed(seqno) % 20;
            for _ in 0..batch.min(self.written.len() as u64 - seqno) {
                let key = &self.keys[self.written[usize::try_from(seqno).unwrap()]];
                seqno += 1;
                let key = InternalKey::new(key, SeqNo(seqno), ValueKind::Put);
                memtable.insert(key, &seqno.to_le_bytes(), 1);
            }
            visible.store(seqno, Ordering::Release);
        }
    }

    /// What a reader does once: gets, and a walk over everything.
    fn read(&self, memtable: &Arc<Memtable>, visible: &AtomicU64, round: u64) {
        for number in 0..200 {
            let at = visible.load(Ordering::Acquire);
            let random = mixed(round * 1000 + number);
            // Mostly what was just written or is about to be.
            let near = (at + random % 8).saturating_sub(4);
            let key = match self.written.get(usize::try_from(near).unwrap()) {
                Some(key) if number % 4 != 0 => *key,
                _ => usize::try_from(random).unwrap_or(0) % self.keys.len(),
            };
            let found = memtable.get(&self.keys[key], SeqNo(at), &[]);
            let found = found.map(|(_, value)| u64::from_le_bytes(value[..].try_into().unwrap()));
            assert_eq!(found, self.newest(key, at), "key {key} at {at}");
        }
        let at = visible.load(Ordering::Acquire);
        let mut cursor = MemtableCursor::new(Arc::clone(memtable));
        let forward = round.is_multiple_of(2);
        if forward {
            cursor.seek_to_first().unwrap();
        } else {
            cursor.seek_to_last().unwrap();
        }
        let mut seen = 0;
        let mut last: Option<(Vec<u8>, Trailer)> = None;
        while cursor.is_valid() {
            let key = cursor.key();
            if let Some((user, trailer)) = &last {
                let before = InternalKey {
                    user,
                    trailer: *trailer,
                };
                assert!(
                    if forward { before < key } else { before > key },
                    "out of order"
                );
            }
            last = Some((key.user.to_vec(), key.trailer));
            seen += u64::from(key.seqno() <= SeqNo(at));
            if forward {
                cursor.next().unwrap();
            } else {
                cursor.prev().unwrap();
            }
        }
        assert_eq!(seen, at, "versions that a walk saw");
    }
}

#[test]
fn readers_see_exactly_what_is_visible_while_it_is_written() {
    for (pattern, keys, writes) in [
        (0, 3000, 15_000),
        (1, 7000, 15_000),
        (2, 7000, 15_000),
        (3, 40, 6000),
    ] {
        let history = History::new(keys, writes, pattern);
        let (_, memtable) = memtable();
        let visible = AtomicU64::new(0);
        thread::scope(|scope| {
            for reader in 0..2 {
                let (history, memtable, visible) = (&history, &memtable, &visible);
                scope.spawn(move || {
                    let mut round = reader;
                    // Once more when all is written.
                    let mut is_last = false;
                    while !is_last {
                        is_last = visible.load(Ordering::Acquire) == writes;
                        history.read(memtable, visible, round);
                        round += 1;
                    }
                });
            }
            history.write(&memtable, &visible);
        });
        assert_eq!(memtable.entries() as u64, writes);
    }
}
