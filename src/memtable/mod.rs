//! Writes in memory, sorted: one writer at a time, any number of readers without locks.
//!
//! A [`Record`](record) holds key, trailer and value; nothing is ever overwritten: a new version
//! takes a fresh place, since a reader, a snapshot or an abort may still need the old one. Records
//! are kept in order by an [index](index::Index): a list of fences (a crossbeam `SkipList`, about
//! one fence for a thousand records) over two levels of [inner nodes](inner::Inner) over
//! [leaves](leaf::Leaf). Nodes have few [slots](node), and one word that tells their order.
//! Records and nodes are in arenas that live as long as the index, so that readers may hold plain
//! pointers.
//!
//! # What makes a read right beside the writer
//!
//! 1. An insert fills a free slot of a leaf and publishes it with the leaf's order (Release). A
//!    slot that was published never changes.
//! 2. A [split](split) fills two fresh nodes, publishes the right one (in a slot of the parent, or
//!    as a new fence), and only then puts the left one in the place of the old. Where the parent
//!    is full too, two fresh parents come in its place, one level up, in the same way. Nodes that
//!    were replaced stay as they were.
//! 3. A [descent](descent::Descent) loads a node's order, chooses a child, loads it, and loads the
//!    order **again**: if it changed, the node is searched once more. Else a left half could be
//!    found that was put there since, by a reader that does not know of the right one.
//! 4. Every leaf knows where its own contents end, and a [walk](place::Place) goes on from there,
//!    never from where the parent says. Else it would see records twice between the two steps of
//!    a split.
//! 5. Where keys are ascending, the full leaf stays as the left half. It is cut short once the
//!    right half can be reached, and before the record that it begins with is visible.
//! 6. `visible` of the store moves (Release) after a whole batch; a reader loads it (Acquire)
//!    before its first pointer. So each pointer that it loads is at least as new as its point, and
//!    each node complete up to that point over the keys that it was found for; nodes that were
//!    replaced meanwhile were complete when they were.
//! 7. Fences and separators are keys with trailers: versions of one key may span leaves.

#![expect(
    unsafe_code,
    reason = "nodes and cursors point into the arenas that the index owns"
)]
#![expect(
    clippy::inline_always,
    reason = "what is looked for is known to each caller, and settles branches within a node"
)]

mod cursor;
mod descent;
mod index;
mod inner;
mod leaf;
mod node;
mod place;
mod record;
mod split;

use crate::cache::Charge;
use crate::key::{InternalKey, SeqNo, ValueKind};
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

use index::Index;

pub(crate) use cursor::MemtableCursor;

/// What an entry costs beside its key and value: the header of its record and its share of the
/// nodes, those that were replaced included. Measured at 56 bytes where keys come in order and 76
/// where they do not; a little more, since what is taken from the budget ahead of a write must
/// not be too little.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 80;

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

/// Sorted writes of one keyspace.
pub(crate) struct Memtable {
    index: Index,
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
            index: Index::new(),
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
    /// number. `written_ms` is the wall clock of the write; that of the first one is kept.
    pub(crate) fn insert(&self, key: InternalKey<'_>, value: &[u8], written_ms: u64) {
        if let Some(older) = self.index.insert(key, value) {
            let replaced = older.len() + ENTRY_OVERHEAD_BYTES;
            add(&self.replaced_bytes, replaced);
        }
        add(&self.entries, 1);
        add(&self.entry_bytes, entry_bytes(key.user.len(), value.len()));
        let seqno = key.seqno().0;
        match self.seqno_first.load(Ordering::Relaxed) {
            0 => {
                self.first_write_ms.store(written_ms, Ordering::Relaxed);
                self.seqno_first.store(seqno, Ordering::Release);
            }
            // An in-memory compaction inserts in the order of keys.
            first if first > seqno => self.seqno_first.store(seqno, Ordering::Release),
            _ => {}
        }
        if seqno > self.seqno_last.load(Ordering::Relaxed) {
            self.seqno_last.store(seqno, Ordering::Release);
        }
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
        let target = InternalKey::seek_to(key, seqno);
        let mut record = self.index.newest(target)?;
        if is_dead(dead, record.trailer().seqno()) {
            let mut place = self.index.first_at(target)?;
            loop {
                record = place.record();
                if record.user() != key {
                    return None;
                }
                if !is_dead(dead, record.trailer().seqno()) {
                    break;
                }
                if !place.advance(&self.index) {
                    return None;
                }
            }
        }
        let value = Slice::copy_from(record.value());
        Some((record.trailer().kind(), value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seqno_first.load(Ordering::Acquire) == 0
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of memory that the memtable holds.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
    }

    /// Bytes of all entries, their share of the index included.
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

/// Adds to a count that only the one writer changes. Relaxed, as it is read: readers want
/// estimates.
fn add(count: &AtomicUsize, more: usize) {
    let before = count.load(Ordering::Relaxed);
    count.store(before + more, Ordering::Relaxed);
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
#[cfg(shuttle)]
mod models;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
