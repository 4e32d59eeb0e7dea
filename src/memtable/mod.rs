//! Writes in memory, sorted: one writer at a time, any number of readers without locks.
//!
//! Keys and values live in an [`Arena`](crate::arena::Arena); a `SkipMap` of small keys that point
//! into it gives the order. Nothing is ever overwritten: a new version takes a fresh place, since
//! a reader, a snapshot or an abort may still need the old one.

#![expect(
    unsafe_code,
    reason = "keys of the map point into the arena that the memtable owns"
)]

mod cursor;

use std::cmp::Ordering as Order;
use std::ops::Bound;

use crossbeam_skiplist::SkipMap;

use crate::arena::{Arena, ArenaSlice};
use crate::cache::Charge;
use crate::key::{InternalKey, SeqNo, Trailer, ValueKind};
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

pub(crate) use cursor::MemtableCursor;

/// What an entry costs beside its key and value: the node of the map, measured with the system's
/// allocator at 104 to 136 bytes.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 128;

/// Aborted writes, as ranges of sequence numbers (above the first, up to the second), ascending.
pub(crate) type DeadRanges = [(SeqNo, SeqNo)];

pub(crate) fn is_dead(dead: &DeadRanges, seqno: SeqNo) -> bool {
    if planted(Bug::AbortedWritesReadOffByOne) {
        return dead.iter().any(|(low, high)| *low < seqno && seqno < *high);
    }
    if planted(Bug::AbortedWritesRead) {
        return false;
    }
    // Nearly always empty, and short when it is not.
    dead.iter()
        .any(|(low, high)| *low < seqno && seqno <= *high)
}

/// A key of the map: an internal key whose bytes are in the arena.
#[derive(Clone, Copy)]
struct MapKey {
    /// The first eight bytes, big-endian, padded with zeros: settles most comparisons.
    head: u64,
    user: ArenaSlice,
    trailer: Trailer,
}

impl MapKey {
    fn new(bytes: &[u8], user: ArenaSlice, trailer: Trailer) -> Self {
        let mut head = [0; 8];
        let len = bytes.len().min(8);
        head[..len].copy_from_slice(&bytes[..len]);
        Self {
            head: u64::from_be_bytes(head),
            user,
            trailer,
        }
    }

    /// A key for a lookup that ends before `key` does.
    fn borrow(key: InternalKey<'_>) -> Self {
        Self::new(key.user, ArenaSlice::borrow(key.user), key.trailer)
    }

    fn user(&self) -> &[u8] {
        // SAFETY: keys are in the map of a memtable, which owns the arena and drops the map
        // first, or were made by `borrow` for a lookup that is still running.
        unsafe { self.user.get() }
    }
}

impl Ord for MapKey {
    fn cmp(&self, other: &Self) -> Order {
        self.head
            .cmp(&other.head)
            .then_with(|| self.user().cmp(other.user()))
            .then_with(|| other.trailer.cmp(&self.trailer))
    }
}

impl PartialOrd for MapKey {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for MapKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for MapKey {}

/// Sorted writes of one keyspace.
pub(crate) struct Memtable {
    /// Declared before the arena, so dropped before it.
    map: SkipMap<MapKey, ArenaSlice>,
    arena: Arena,
    /// The memory that the budget knows of; given back when the last reader lets go.
    charge: Charge,
    entries: AtomicUsize,
    /// Bytes of all entries, and of those that a newer version in this memtable has replaced.
    entry_bytes: AtomicUsize,
    replaced_bytes: AtomicUsize,
    /// Sequence number of the first write; 0 while empty.
    seqno_first: AtomicU64,
    /// Sequence number of the newest write.
    seqno_last: AtomicU64,
    /// Wall clock of the first write in ms; 0 while empty.
    first_write_ms: AtomicU64,
}

impl Memtable {
    /// An empty memtable, which costs next to nothing; its memory is counted in `charge`.
    pub(crate) fn new(charge: Charge) -> Self {
        Self {
            map: SkipMap::new(),
            arena: Arena::default(),
            charge,
            entries: AtomicUsize::new(0),
            entry_bytes: AtomicUsize::new(0),
            replaced_bytes: AtomicUsize::new(0),
            seqno_first: AtomicU64::new(0),
            seqno_last: AtomicU64::new(0),
            first_write_ms: AtomicU64::new(0),
        }
    }

    /// Adds a write. One writer at a time; readers see it at once, if they look at its sequence
    /// number. `written_ms` is the wall clock of the write.
    pub(crate) fn insert(&self, key: InternalKey<'_>, value: &[u8], written_ms: u64) {
        let user = self.arena.push(key.user);
        let stored = self.arena.push(value);
        let entry = self
            .map
            .insert(MapKey::new(key.user, user, key.trailer), stored);
        let replaced = match entry.next() {
            Some(older) if older.key().user() == key.user => {
                entry_bytes(older.key().user.len(), older.value().len())
            }
            _ => 0,
        };
        // Relaxed, here and below: one writer, and readers want estimates.
        self.replaced_bytes.fetch_add(replaced, Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
        let bytes = entry_bytes(key.user.len(), value.len());
        self.entry_bytes.fetch_add(bytes, Ordering::Relaxed);
        match self.seqno_first.load(Ordering::Relaxed) {
            0 => {
                self.first_write_ms.store(written_ms, Ordering::Relaxed);
                self.seqno_first.store(key.seqno().0, Ordering::Release);
            }
            // An in-memory compaction inserts in the order of keys.
            first if first > key.seqno().0 => {
                self.seqno_first.store(key.seqno().0, Ordering::Release);
            }
            _ => {}
        }
        self.seqno_last.fetch_max(key.seqno().0, Ordering::Release);
    }

    /// Counts in the budget what the memtable really holds, after `expected` bytes more were
    /// counted ahead of the writes.
    pub(crate) fn settle_charge(&self, expected: usize) {
        self.charge.adopt(expected);
        self.charge.raise_to(self.memory_bytes());
    }

    /// The newest version of `key` at or below `seqno` that was not aborted.
    pub(crate) fn get(
        &self,
        key: &[u8],
        seqno: SeqNo,
        dead: &DeadRanges,
    ) -> Option<(ValueKind, Slice)> {
        if self.is_empty() {
            return None;
        }
        let target = MapKey::borrow(InternalKey::seek_to(key, seqno));
        let mut entry = self.map.lower_bound(Bound::Included(&target))?;
        loop {
            let found = *entry.key();
            if found.head != target.head || found.user() != key {
                return None;
            }
            if !is_dead(dead, found.trailer.seqno()) {
                // SAFETY: the arena lives as long as `self`, and the bytes are copied here.
                let value = unsafe { entry.value().get() };
                return Some((found.trailer.kind(), Slice::copy_from(value)));
            }
            entry = entry.next()?;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seqno_first.load(Ordering::Acquire) == 0
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of memory that the memtable holds.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.arena.allocated_bytes() + self.entries() * ENTRY_OVERHEAD_BYTES
    }

    /// Bytes of all entries, their share of the map included.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.entry_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the newest versions alone.
    pub(crate) fn live_bytes(&self) -> usize {
        self.entry_bytes()
            .saturating_sub(self.replaced_bytes.load(Ordering::Relaxed))
    }

    /// Sequence number of the oldest write; 0 while empty.
    pub(crate) fn seqno_first(&self) -> SeqNo {
        SeqNo(self.seqno_first.load(Ordering::Acquire))
    }

    /// Sequence number of the newest write; 0 while empty.
    pub(crate) fn seqno_last(&self) -> SeqNo {
        SeqNo(self.seqno_last.load(Ordering::Acquire))
    }

    /// Wall clock of the oldest write, in ms; 0 while empty.
    pub(crate) fn first_write_ms(&self) -> u64 {
        self.first_write_ms.load(Ordering::Relaxed)
    }
}

/// What an entry will cost a memtable.
pub(crate) fn entry_bytes(key_len: usize, value_len: usize) -> usize {
    key_len + value_len + ENTRY_OVERHEAD_BYTES
}

impl std::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memtable")
            .field("entries", &self.entries())
            .field("seqno_first", &self.seqno_first())
            .field("seqno_last", &self.seqno_last())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
