//! The index: a list of fences over two levels of inner nodes over leaves, and its one writer.

use crossbeam_epoch::{self as epoch, Guard};
use crossbeam_skiplist::base::SkipList;

use crate::arena::Arena;
use crate::key::{InternalKey, SeqNo};
use crate::planted::{Bug, planted};
use crate::sync::{AtomicPtr, AtomicUsize, Mutex, Ordering};

use super::descent::{Descent, Fence, Seek};
use super::inner::{Child, Inner};
use super::leaf::{Leaf, Snapshot};
use super::record::{Record, RecordPtr};
use super::split::Halves;

/// The lower and the upper kind of inner nodes.
pub(super) type Twig = Inner<Leaf>;
pub(super) type Branch = Inner<Twig>;

/// What a fence costs, with the allocator's share: about one for a thousand records.
const FENCE_BYTES: usize = 128;

/// Records in order.
pub(super) struct Index {
    /// Declared before the arenas, so dropped before them.
    pub(super) fences: SkipList<Fence, AtomicPtr<Branch>>,
    /// Taken by whoever writes, so that there is one at a time. Readers never take it.
    writer: Mutex<Writer>,
    memory_bytes: AtomicUsize,
}

/// What only the writer touches. All nodes and records stay in its arenas until the index is
/// dropped, those that were replaced too: readers may still be there.
pub(super) struct Writer {
    records: Arena<u8>,
    pub(super) leaves: Arena<Leaf>,
    pub(super) twigs: Arena<Twig>,
    pub(super) branches: Arena<Branch>,
    fences: usize,
    /// The newest write.
    newest: SeqNo,
}

impl Writer {
    fn memory_bytes(&self) -> usize {
        self.records.allocated_bytes()
            + self.leaves.allocated_bytes()
            + self.twigs.allocated_bytes()
            + self.branches.allocated_bytes()
            + self.fences * FENCE_BYTES
    }
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            fences: SkipList::new(epoch::default_collector().clone()),
            writer: Mutex::new(Writer {
                records: Arena::new(1 << 10, 256 << 10),
                leaves: Arena::new(2, 1 << 10),
                twigs: Arena::new(1, 1 << 8),
                branches: Arena::new(1, 1 << 8),
                fences: 0,
                newest: SeqNo::ZERO,
            }),
            memory_bytes: AtomicUsize::new(0),
        }
    }

    /// Bytes of memory that the index holds.
    pub(super) fn memory_bytes(&self) -> usize {
        // Relaxed: an estimate for accounting.
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Adds a record, whose key with its trailer is not there yet. Returns the next older version
    /// of the same key.
    pub(super) fn insert(&self, key: InternalKey<'_>, value: &[u8]) -> Option<Record<'_>> {
        let writer = &mut *self.writer.lock();
        let record = RecordPtr::new(&mut writer.records, key, value);
        // SAFETY: the arena is the index's own.
        let record = unsafe { record.get() };
        // Writes come in the order of their numbers, but for an in-memory compaction's, which
        // come in the order of keys.
        let is_newest = key.seqno() > writer.newest;
        let seek = if is_newest || planted(Bug::MemtableTakesAllForNewest) {
            writer.newest = key.seqno();
            Seek::Newest
        } else {
            Seek::Exact
        };
        let guard = &epoch::pin();
        let mut older = None;
        if let Some((descent, leaf, place)) = self.descend(key, seek, guard) {
            let snapshot = leaf.snapshot();
            let rank = snapshot.rank_of(key, seek);
            older = version_at(key, &descent, snapshot, rank);
            if snapshot.order().is_full() {
                let halves = writer.split_leaf(&descent, snapshot, rank, record);
                let stays = std::ptr::eq(halves.left, leaf);
                if let Some(halves) = writer.hand_up(&descent, &halves) {
                    self.replace_branch(writer, place, &halves, guard);
                }
                if stays {
                    // Only now that the right half can be reached.
                    leaf.end_at(record);
                }
            } else {
                leaf.add(snapshot, rank, record);
            }
        } else {
            self.plant(writer, record, guard);
        }
        // Relaxed, as it is read.
        self.memory_bytes
            .store(writer.memory_bytes(), Ordering::Relaxed);
        older
    }

    /// The first record.
    fn plant(&self, writer: &mut Writer, record: Record<'_>, guard: &Guard) {
        let leaf = writer.leaves.push(Leaf::new([record], 0, None));
        let twig = writer.twigs.push(Twig::new([Child::first(leaf)], 0));
        let branch = Branch::new([Child::first(twig)], 0);
        let branch = writer.branches.push(branch);
        writer.fences += 1;
        self.fences
            .insert(Fence::first(), AtomicPtr::new(branch.as_ptr()), guard)
            .release(guard);
    }

    /// Puts two branches in the place of one.
    fn replace_branch(
        &self,
        writer: &mut Writer,
        place: &AtomicPtr<Branch>,
        halves: &Halves<'_, Branch>,
        guard: &Guard,
    ) {
        if planted(Bug::MemtableLeftBeforeRight) {
            place.store(halves.left, Ordering::Release);
        }
        let low = halves.right.low.expect("a right half begins at a record");
        let right = AtomicPtr::new(halves.right.node);
        // A new key: no fence is ever taken out of the list.
        self.fences
            .insert(Fence::at(low), right, guard)
            .release(guard);
        writer.fences += 1;
        // Only now: a reader that finds the left half must be able to find the right one.
        place.store(halves.left, Ordering::Release);
    }

    /// The newest version of a key at or below a sequence number, both of which `target` tells.
    pub(super) fn newest(&self, target: InternalKey<'_>) -> Option<Record<'_>> {
        let guard = &epoch::pin();
        let (descent, leaf, _) = self.descend(target, Seek::Exact, guard)?;
        let snapshot = leaf.snapshot();
        let rank = snapshot.rank_of(target, Seek::Exact);
        version_at(target, &descent, snapshot, rank)
    }
}

/// The record at a rank of a leaf, or where the leaf ends, if it is of the same key.
#[inline(always)]
fn version_at<'a>(
    key: InternalKey<'_>,
    descent: &Descent<'a>,
    snapshot: Snapshot<'a>,
    rank: usize,
) -> Option<Record<'a>> {
    let found = if rank == snapshot.len() {
        // What the parents tell, and not the leaf, which may have been cut short meanwhile.
        descent.high()?
    } else if snapshot.head(rank) == snapshot.leaf().head_of(key.user) {
        snapshot.record(rank)
    } else {
        return None;
    };
    (found.user() == key.user).then_some(found)
}
