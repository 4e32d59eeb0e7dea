//! The records of one run: collected as they come, then sorted.

use std::cmp::Ordering as KeyOrdering;
use std::fmt;

use crate::cache::Account;
use crate::changelog::RecordRef;
use crate::db::RestoreEntry;
use crate::error::Result;
use crate::planted::{Bug, planted};
use crate::runtime::Runtime;
use crate::store::codec::Kind;
use crate::sync::Arc;

/// The least that an arena holds, whatever the budget has left.
const ARENA_BYTES_MIN: usize = 64 << 10;
/// The most: places in it are numbers of 32 bits.
const ARENA_BYTES_MAX: usize = 1 << 30;
/// The part of the budget that the arenas of one restore may take all together, so that there is
/// room for restores of several tasks.
const BUDGET_PART: usize = 2;

/// Records of one run. Its memory is taken from the budget, all of it at the start, and used again
/// for the next run.
pub(super) struct Arena {
    /// Of each record the key, then the length of the stored value plus one (0 for a tombstone) in
    /// four bytes, then the stored value.
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    bytes_max: usize,
    /// Gives the memory back when it is dropped.
    _account: Arc<Account>,
}

/// Where a record lies, and what it is sorted by.
#[derive(Clone, Copy)]
struct Slot {
    /// The first bytes of the key, as numbers of the same order.
    head: [u64; 2],
    /// Rises with every record, so the newest of a key has the highest.
    start: u32,
    key_len: u16,
}

const HEAD_LEN: usize = 16;
const LEN_LEN: usize = size_of::<u32>();
/// How many records that lie anywhere in an arena are asked of memory at a time.
const FETCHED_TOGETHER: usize = 16;
const LINE_LEN: usize = 64;
const LINES_FETCHED: usize = 2;
/// What a record costs beside its bytes.
const RECORD_OVERHEAD: usize = size_of::<Slot>() + LEN_LEN;

impl Arena {
    /// One of `count` arenas that are used at the same time, of `bytes_max` each if the budget has
    /// as much.
    pub(super) fn new(runtime: &Runtime, bytes_max: usize, count: usize) -> Result<Self> {
        let budget = runtime.budget();
        let account = budget.open_account(0, 0)?;
        let part = budget.bytes_max() / BUDGET_PART / count;
        let mut bytes_max = bytes_max.min(part).min(ARENA_BYTES_MAX);
        while bytes_max > ARENA_BYTES_MIN && !account.try_take(bytes_max) {
            bytes_max /= 2;
        }
        if bytes_max <= ARENA_BYTES_MIN {
            // A restore must be able to go on, or nobody's memory would ever be flushed.
            account.take_anyway(bytes_max);
        }
        Ok(Self {
            bytes: Vec::new(),
            slots: Vec::new(),
            bytes_max,
            _account: account,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds a record of a store of that kind, whose lengths are checked; false if there is no room
    /// for it. One that is larger than the whole arena fits into an empty one.
    pub(super) fn push(&mut self, kind: Kind, record: &RecordRef<'_>) -> bool {
        let stored_len = kind.stored_len(record);
        let len = record.key.len() + stored_len.unwrap_or(0);
        let used = self.bytes.len() + self.slots.len() * size_of::<Slot>();
        if !self.slots.is_empty() && used + len + RECORD_OVERHEAD > self.bytes_max {
            return false;
        }
        if self.bytes.capacity() == 0 {
            // Address space only: pages come with their first use.
            self.bytes.reserve(self.bytes_max);
        }
        let start = self.bytes.len();
        self.slots.push(Slot {
            head: head(record.key),
            start: u32::try_from(start).expect("an arena's places have 32 bits"),
            key_len: u16::try_from(record.key.len()).expect("keys have at most 65,535 bytes"),
        });
        self.bytes.extend_from_slice(record.key);
        let len_plus_one = stored_len.map_or(0, |len| len + 1);
        let len_plus_one = u32::try_from(len_plus_one).expect("values have at most 256 MiB");
        self.bytes.extend_from_slice(&len_plus_one.to_le_bytes());
        kind.put_stored(record, &mut self.bytes);
        true
    }

    /// Puts the records in the order of their keys, those of one key the oldest first.
    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.slots.sort_unstable_by(|a, b| {
            let order = number(a.head).cmp(&number(b.head));
            if order == KeyOrdering::Equal {
                return a.key(bytes).cmp(b.key(bytes)).then(a.start.cmp(&b.start));
            }
            order
        });
    }

    /// The newest record of every key, in the order of keys, of a sorted arena.
    pub(super) fn newest(&self) -> impl Iterator<Item = RestoreEntry<'_>> {
        let bytes = &self.bytes;
        let mut slots = self.slots.iter().peekable();
        let mut ahead = self.slots.chunks(FETCHED_TOGETHER);
        let mut left = 0;
        std::iter::from_fn(move || {
            if left == 0 {
                left = fetch_ahead(ahead.next().unwrap_or_default(), bytes);
            }
            let mut slot = slots.next()?;
            left = left.saturating_sub(1);
            while let Some(newer) = slots.next_if(|next| next.has_key_of(slot, bytes)) {
                left = left.saturating_sub(1);
                if !planted(Bug::RestoreKeepsOldest) {
                    slot = newer;
                }
            }
            Some(slot.entry(bytes))
        })
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        // A huge record must not keep its memory for the rest of the restore.
        self.bytes.shrink_to(self.bytes_max);
        self.slots.clear();
    }
}

/// Reads a byte of each cache line that most records of `slots` lie in, so that the machine waits
/// for all of them together and not for one after the other. Tells how many records they are.
fn fetch_ahead(slots: &[Slot], bytes: &[u8]) -> usize {
    let mut sum = 0_u8;
    for slot in slots {
        let start = slot.start as usize;
        for line in 0..LINES_FETCHED {
            sum ^= bytes.get(start + line * LINE_LEN).copied().unwrap_or(0);
        }
    }
    // Else the compiler would find out that nobody needs it.
    std::hint::black_box(sum);
    slots.len()
}

impl Slot {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        &bytes[start..start + usize::from(self.key_len)]
    }

    fn has_key_of(&self, other: &Self, bytes: &[u8]) -> bool {
        self.head == other.head && self.key(bytes) == other.key(bytes)
    }

    fn entry<'a>(&self, bytes: &'a [u8]) -> RestoreEntry<'a> {
        let (key, rest) = bytes[self.start as usize..].split_at(usize::from(self.key_len));
        let (len, rest) = rest
            .split_first_chunk::<LEN_LEN>()
            .expect("a length is behind the key");
        let value = match u32::from_le_bytes(*len) {
            0 => None,
            len => Some(&rest[..len as usize - 1]),
        };
        RestoreEntry { key, value }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("records", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// The first bytes of a key, filled with zeros behind a shorter one.
fn head(key: &[u8]) -> [u64; 2] {
    let mut head = [0; HEAD_LEN];
    match key.first_chunk::<HEAD_LEN>() {
        Some(first) => head = *first,
        None => head[..key.len()].copy_from_slice(key),
    }
    let number = u128::from_be_bytes(head);
    let low = u64::try_from(number & u128::from(u64::MAX)).expect("masked to 64 bits");
    let high = u64::try_from(number >> 64).expect("shifted to 64 bits");
    [high, low]
}

fn number(head: [u64; 2]) -> u128 {
    u128::from(head[0]) << 64 | u128::from(head[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::RuntimeOptions;

    fn arena() -> Arena {
        let runtime = Runtime::new(RuntimeOptions::new().threads(0)).unwrap();
        Arena::new(&runtime, 1 << 20, 1).unwrap()
    }

    #[test]
    fn an_arena_sorts_and_keeps_the_newest() {
        let mut arena = arena();
        let records: [(&[u8], Option<&[u8]>); 9] = [
            (b"longer-than-sixteen-b", Some(b"1")),
            (b"a", Some(b"old")),
            (b"longer-than-sixteen-a", Some(b"2")),
            (b"a\0", Some(b"")),
            (b"a", None),
            (b"longer-than-sixteen-a", Some(b"3")),
            (b"b", None),
            (b"b", Some(b"new")),
            (b"longer-than-sixt", Some(b"4")),
        ];
        for round in 0..2 {
            for (key, value) in records {
                assert!(arena.push(Kind::KeyValue, &RecordRef::new(key, value)));
            }
            arena.sort();
            let sorted: Vec<_> = arena
                .newest()
                .map(|entry| (entry.key, entry.value))
                .collect();
            let expected: [(&[u8], Option<&[u8]>); 6] = [
                (b"a", None),
                (b"a\0", Some(b"")),
                (b"b", Some(b"new")),
                (b"longer-than-sixt", Some(b"4")),
                (b"longer-than-sixteen-a", Some(b"3")),
                (b"longer-than-sixteen-b", Some(b"1")),
            ];
            assert_eq!(sorted, expected, "round {round}");
            arena.clear();
            assert!(arena.is_empty());
        }
    }

    #[test]
    fn an_arena_keeps_what_its_kind_of_store_keeps() {
        let mut arena = arena();
        let record = RecordRef::new(b"k", Some(b"v")).at(7);
        assert!(arena.push(Kind::Timestamped, &record));
        assert!(arena.push(Kind::Timestamped, &RecordRef::new(b"l", None).at(8)));
        let entries: Vec<_> = arena.newest().map(|entry| entry.value).collect();
        assert_eq!(entries, [Some(&[0, 0, 0, 0, 0, 0, 0, 7, b'v'][..]), None]);
    }

    #[test]
    fn an_arena_takes_what_the_budget_has() {
        let options = RuntimeOptions::new()
            .threads(0)
            .memory_bytes_max(1 << 20)
            .cache_bytes(0);
        let runtime = Runtime::new(options).unwrap();
        let mut large = Arena::new(&runtime, 64 << 20, 2).unwrap();
        assert_eq!(large.bytes_max, 256 << 10);
        let others: Vec<_> = (0..8)
            .map(|_| Arena::new(&runtime, 64 << 20, 2).unwrap())
            .collect();
        assert_eq!(others.last().unwrap().bytes_max, ARENA_BYTES_MIN);
        let huge = vec![0; 1 << 20];
        let huge = RecordRef::new(&[1; 1000], Some(&huge));
        assert!(large.push(Kind::KeyValue, &huge));
        assert!(!large.push(Kind::KeyValue, &RecordRef::new(b"k", None)));
        large.clear();
        assert!(large.bytes.capacity() <= 256 << 10);
        drop((large, others));
        assert_eq!(runtime.budget().used_bytes(), 0);
    }
}
