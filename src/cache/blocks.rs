//! The block cache: checked, decompressed blocks of all stores, within a number of bytes.
//!
//! A lookup costs one cache line of the table and the block's own: the table of a shard is open
//! addressing with linear probing, and a block begins right behind the count of its holders. What
//! goes is decided by CLOCK with a few uses remembered, so that a scan, which uses each block
//! once, does not push out what is used again and again. What comes when a shard is full is only
//! kept if it was wanted before, not long ago: to let something go for it, and to fill memory that
//! is cold, costs more than to decompress a block.

use crate::key::Approach;
use crate::prefetch::{prefetch, prefetch_line};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

/// A block as it is shared between the cache and its readers.
pub(crate) type SharedBytes = Arc<[u8]>;

/// What an entry costs beside its bytes: its slot at a usual load, and the count of holders.
const ENTRY_OVERHEAD_BYTES: u64 = 96;
/// A shard has at least so many bytes, as long as there are any, and a cache so many shards.
const SHARD_BYTES_MIN: u64 = 2 << 20;
const SHARDS_MAX: u64 = 64;
/// Slots of an empty shard.
const SLOTS_MIN: usize = 16;
/// A shard has at most one slot for so many of its bytes: tables do not shrink, and those of many
/// tiny blocks would be much beside the larger ones that come later.
const SLOT_BYTES_MIN: u64 = 256;
/// Uses that are remembered; each pass of the hand forgets one.
const USES_MAX: u8 = 3;
const CACHE_LINE_LEN: usize = 64;
/// About as many as the heads, the ends and the keys of a block of 4 KiB take.
const TOUCHED_LINES_MAX: usize = 8;
/// Bytes of a block that are brought nearer when a search for it begins.
pub(crate) const PREFETCHED_LEN_MAX: usize = TOUCHED_LINES_MAX * CACHE_LINE_LEN;
/// In place of the uses of a slot without a block.
const FREE: u8 = u8::MAX;

/// Blocks by the number of their open file in this process, and their position there.
///
/// A block that a reader holds stays alive after its eviction.
pub(crate) struct BlockCache {
    /// As many as a power of two.
    shards: Box<[Mutex<Shard>]>,
    next_file: AtomicU64,
}

/// Bytes of the cache that a reader holds, until this is dropped.
pub(crate) struct Pin {
    cache: Arc<BlockCache>,
    hash: u64,
    bytes: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.cache.shard(self.hash).lock().pinned_bytes -= self.bytes;
    }
}

/// Aligned, so that a slot never lies in two cache lines.
#[repr(align(32))]
#[derive(Default)]
struct Slot {
    file: u64,
    pos: u64,
    block: Option<SharedBytes>,
}

struct Shard {
    /// As many as a power of two.
    slots: Vec<Slot>,
    /// Of each slot, apart from it so that the hand looks at few cache lines.
    uses: Vec<u8>,
    blocks: usize,
    bytes: u64,
    /// Held by readers, beside `bytes`; both together are at most `bytes_max`.
    pinned_bytes: u64,
    bytes_max: u64,
    /// The slot that is looked at next for something to evict.
    hand: usize,
    /// Parts of the hashes of blocks that were wanted and not kept, at the place that the hash
    /// says; newer ones take the place of older ones. As many as slots, once the shard was full.
    wanted: Vec<u32>,
    hits: u64,
    misses: u64,
}

impl BlockCache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let shards = (bytes_max / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let shards = 1_u64 << shards.ilog2();
        Self {
            shards: (0..shards)
                .map(|_| Mutex::new(Shard::new(bytes_max / shards)))
                .collect(),
            next_file: AtomicU64::new(1),
        }
    }

    /// A number for a newly opened file, never given twice.
    pub(crate) fn new_file(&self) -> u64 {
        // Relaxed: only the uniqueness of the number counts.
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn get(&self, file: u64, pos: u64) -> Option<SharedBytes> {
        let hash = hash(file, pos);
        self.shard(hash).lock().get(hash, file, pos)
    }

    /// Has the slot of a block, and then the block, brought nearer that is about to be asked for.
    pub(crate) fn approach(&self, file: u64, pos: u64, step: Approach) {
        let hash = hash(file, pos);
        let shard = self.shard(hash).lock();
        match step {
            Approach::Place => {
                let at = index(hash) & (shard.slots.len() - 1);
                prefetch_line(&shard.slots[at]);
                prefetch_line(&shard.uses[at]);
            }
            Approach::Memory => {
                let at = shard.probe(hash, file, pos);
                if let Some(block) = &shard.slots[at].block {
                    prefetch(&block[..block.len().min(PREFETCHED_LEN_MAX)]);
                }
            }
        }
    }

    /// Keeps a block, if it is no longer than a shard may be.
    pub(crate) fn insert(&self, file: u64, pos: u64, block: SharedBytes) {
        let hash = hash(file, pos);
        self.shard(hash).lock().insert(hash, file, pos, block);
    }

    /// Takes bytes from the cache for a block that a reader of the file holds as long as it is
    /// open, so that it need not be looked up. `None` once half of what blocks at such places may
    /// use is held so: the block goes the way of all others then.
    pub(crate) fn pin(self: &Arc<Self>, file: u64, pos: u64, bytes: usize) -> Option<Pin> {
        let hash = hash(file, pos);
        let bytes = bytes as u64 + ENTRY_OVERHEAD_BYTES;
        self.shard(hash).lock().pin(bytes).then(|| Pin {
            cache: Arc::clone(self),
            hash,
            bytes,
        })
    }

    /// Bytes held now.
    pub(crate) fn bytes(&self) -> u64 {
        let of_shard = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.bytes + shard.pinned_bytes
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// Lookups that found a block, and those that did not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(hits, misses), shard| {
            let shard = shard.lock();
            (hits + shard.hits, misses + shard.misses)
        })
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The upper half: slots are chosen by the lower one.
        &self.shards[index(hash >> 32) & (self.shards.len() - 1)]
    }
}

/// A multiplication, and its upper half folded into the lower.
fn hash(file: u64, pos: u64) -> u64 {
    let mixed = (pos ^ file.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The lower half of a hash.
fn index(hash: u64) -> usize {
    usize::try_from(hash & u64::from(u32::MAX)).expect("masked to 32 bits")
}

fn weight(block: &SharedBytes) -> u64 {
    block.len() as u64 + ENTRY_OVERHEAD_BYTES
}

impl Shard {
    fn new(bytes_max: u64) -> Self {
        Self {
            slots: free_slots(SLOTS_MIN),
            uses: vec![FREE; SLOTS_MIN],
            blocks: 0,
            bytes: 0,
            pinned_bytes: 0,
            bytes_max,
            hand: 0,
            wanted: Vec::new(),
            hits: 0,
            misses: 0,
        }
    }

    fn get(&mut self, hash: u64, file: u64, pos: u64) -> Option<SharedBytes> {
        let at = self.probe(hash, file, pos);
        let Some(block) = &self.slots[at].block else {
            self.misses += 1;
            return None;
        };
        self.hits += 1;
        if self.uses[at] < USES_MAX {
            self.uses[at] += 1;
        }
        touch(block);
        Some(Arc::clone(block))
    }

    fn insert(&mut self, hash: u64, file: u64, pos: u64, block: SharedBytes) {
        let added = weight(&block);
        if self.pinned_bytes + added > self.bytes_max {
            return;
        }
        let at = self.probe(hash, file, pos);
        if self.slots[at].block.is_some() {
            // Read by two at once: the first stays.
            return;
        }
        let is_full = self.bytes + self.pinned_bytes + added > self.bytes_max;
        if is_full && !self.was_wanted(hash) {
            return;
        }
        self.make_room(added);
        while (self.blocks + 1) * 4 > self.slots.len() * 3 {
            if (self.slots.len() as u64) < self.bytes_max / SLOT_BYTES_MIN {
                self.grow();
            } else {
                self.evict_one();
            }
        }
        // What was moved meanwhile may have taken the place.
        let at = self.probe(hash, file, pos);
        self.place(
            at,
            Slot {
                file,
                pos,
                block: Some(block),
            },
            0,
        );
        self.blocks += 1;
        self.bytes += added;
    }

    /// Whether a block was wanted before, not long ago; notes that it was now.
    fn was_wanted(&mut self, hash: u64) -> bool {
        if self.wanted.len() != self.slots.len() {
            self.wanted = vec![0; self.slots.len()];
        }
        let at = index(hash) & (self.wanted.len() - 1);
        let tag = u32::try_from(hash >> 32).expect("the upper half");
        std::mem::replace(&mut self.wanted[at], tag) == tag
    }

    /// Takes `added` bytes for a reader, if that leaves half of all for blocks.
    fn pin(&mut self, added: u64) -> bool {
        if self.pinned_bytes + added > self.bytes_max / 2 {
            return false;
        }
        self.make_room(added);
        self.pinned_bytes += added;
        true
    }

    /// Evicts until `added` bytes more are within the limit.
    fn make_room(&mut self, added: u64) {
        while self.bytes + self.pinned_bytes + added > self.bytes_max {
            self.evict_one();
        }
    }

    /// Where a block is, or else the free slot where it belongs.
    fn probe(&self, hash: u64, file: u64, pos: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = index(hash) & mask;
        loop {
            let slot = &self.slots[at];
            if slot.block.is_none() || (slot.file, slot.pos) == (file, pos) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    fn place(&mut self, at: usize, slot: Slot, uses: u8) {
        self.slots[at] = slot;
        self.uses[at] = uses;
    }

    /// Removes the next block that was not used since the hand last passed it. There must be one.
    fn evict_one(&mut self) {
        assert!(self.blocks > 0, "an empty shard holds no bytes");
        let mask = self.slots.len() - 1;
        loop {
            match self.uses[self.hand] {
                0 => break,
                FREE => {}
                uses => self.uses[self.hand] = uses - 1,
            }
            self.hand = (self.hand + 1) & mask;
        }
        self.remove(self.hand);
    }

    /// Removes the block at `gap`, and closes the gap that its probes would end at.
    fn remove(&mut self, mut gap: usize) {
        let mask = self.slots.len() - 1;
        let removed = std::mem::take(&mut self.slots[gap]);
        self.bytes -= removed.block.as_ref().map_or(0, weight);
        self.blocks -= 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let slot = &self.slots[at];
            if slot.block.is_none() {
                break;
            }
            let home = index(hash(slot.file, slot.pos)) & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                let moved = std::mem::take(&mut self.slots[at]);
                let uses = self.uses[at];
                self.place(gap, moved, uses);
                gap = at;
            }
        }
        self.uses[gap] = FREE;
    }

    /// Doubles the table.
    fn grow(&mut self) {
        let len = self.slots.len() * 2;
        let slots = std::mem::replace(&mut self.slots, free_slots(len));
        let uses = std::mem::replace(&mut self.uses, vec![FREE; len]);
        self.hand = 0;
        for (slot, uses) in slots.into_iter().zip(uses) {
            if slot.block.is_some() {
                let at = self.probe(hash(slot.file, slot.pos), slot.file, slot.pos);
                self.place(at, slot, uses);
            }
        }
    }
}

/// Has the lines that a search of a block begins with brought into the processor's cache side by
/// side. Left to the search they would come one after another, and what counts a block's holders
/// up lets no later load go first.
#[inline]
fn touch(block: &[u8]) {
    let lines = block.chunks(CACHE_LINE_LEN).take(TOUCHED_LINES_MAX);
    let firsts = lines.fold(0, |sum: u8, line| sum ^ line[0]);
    std::hint::black_box(firsts);
}

fn free_slots(len: usize) -> Vec<Slot> {
    std::iter::repeat_with(Slot::default).take(len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn block(len: usize, tag: u8) -> SharedBytes {
        Arc::from(vec![tag; len])
    }

    fn tag(number: u64) -> u8 {
        u8::try_from(number % 251).unwrap()
    }

    #[test]
    fn holds_no_more_than_its_bytes() {
        let cache = BlockCache::new(64 << 10);
        let file = cache.new_file();
        for pos in 0..1000 {
            cache.insert(file, pos, block(4096, 1));
            assert!(cache.bytes() <= 64 << 10);
        }
        assert!((0..1000).any(|pos| cache.get(file, pos).is_some()));
        assert!(cache.get(cache.new_file(), 999).is_none());
        let (hits, misses) = cache.hits_and_misses();
        assert_eq!(hits, 1);
        assert!(misses > 0);
        cache.insert(file, 5000, block(64 << 10, 1));
        assert!(cache.get(file, 5000).is_none(), "longer than the cache");
        BlockCache::new(0).insert(1, 1, block(1, 1));
    }

    #[test]
    fn tiny_blocks_leave_no_large_table() {
        let mut shard = Shard::new(1 << 20);
        for pos in 0..100_000 {
            shard.insert(hash(1, pos), 1, pos, block(1, 1));
        }
        assert_eq!(shard.slots.len(), 4096);
        assert_eq!(shard.blocks, 3072);
        let found = (0..100_000).filter(|pos| shard.get(hash(1, *pos), 1, *pos).is_some());
        assert_eq!(found.count(), 3072);
    }

    #[test]
    fn finds_what_a_map_says_or_nothing() {
        for (bytes_max, keys) in [(16_u64 << 10, 300_u64), (16 << 20, 20_000), (300, 10)] {
            let cache = BlockCache::new(bytes_max);
            let mut inserted = BTreeMap::new();
            let mut state = bytes_max;
            for step in 0..60_000_u64 {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(step);
                let (file, pos) = ((state >> 60) % 3 + 1, (state >> 20) % keys * 64);
                if state >> 62 == 0 {
                    let len = usize::try_from((state >> 40) % 300).unwrap();
                    if cache.get(file, pos).is_none() {
                        cache.insert(file, pos, block(len, tag(step)));
                        inserted.insert((file, pos), (len, tag(step)));
                    }
                } else if let Some(found) = cache.get(file, pos) {
                    let (len, tag) = inserted[&(file, pos)];
                    assert_eq!(
                        found[..],
                        vec![tag; len][..],
                        "seed {bytes_max}, step {step}"
                    );
                }
                assert!(cache.bytes() <= bytes_max);
            }
            let (mut bytes, mut found) = (0, 0);
            for (file, pos) in inserted.keys() {
                if let Some(block) = cache.get(*file, *pos) {
                    bytes += weight(&block);
                    found += 1;
                }
            }
            assert_eq!(
                bytes,
                cache.bytes(),
                "everything that is counted can be found"
            );
            assert!(found > 0 || bytes_max < 400);
        }
    }

    #[test]
    fn readers_hold_up_to_half_of_the_bytes() {
        let cache = Arc::new(BlockCache::new(1 << 20));
        for pos in 0..300 {
            cache.insert(1, pos, block(4000, 1));
        }
        let before = cache.bytes();
        let pins: Vec<Pin> = (0..).map_while(|pos| cache.pin(2, pos, 4000)).collect();
        assert_eq!(pins.len(), (1 << 19) / 4096);
        assert!(cache.bytes() <= 1 << 20);
        let kept = (0..300).filter(|pos| cache.get(1, *pos).is_some()).count();
        assert!(kept > 0 && kept as u64 <= before / 2 / 4096, "{kept}");
        cache.insert(3, 1, block((1 << 19) + 1, 1));
        assert!(cache.get(3, 1).is_none(), "longer than what is left");
        drop(pins);
        assert_eq!(cache.bytes(), kept as u64 * 4096);
        for _ in 0..2 {
            cache.insert(3, 1, block((1 << 19) + 1, 1));
        }
        assert!(cache.get(3, 1).is_some());
        assert!(!Shard::new(0).pin(1));
    }

    #[test]
    fn a_full_shard_keeps_what_comes_a_second_time_soon() {
        let mut shard = Shard::new(1 << 20);
        let insert = |shard: &mut Shard, pos| shard.insert(hash(1, pos), 1, pos, block(4000, 1));
        (0..256).for_each(|pos| insert(&mut shard, pos));
        assert_eq!(shard.blocks, 256);
        insert(&mut shard, 1000);
        assert!(shard.get(hash(1, 1000), 1, 1000).is_none());
        insert(&mut shard, 1000);
        assert!(shard.get(hash(1, 1000), 1, 1000).is_some());
        insert(&mut shard, 2000);
        // So many others that a place for a part of a hash is taken again.
        (10_000..20_000).for_each(|pos| insert(&mut shard, pos));
        insert(&mut shard, 2000);
        assert!(shard.get(hash(1, 2000), 1, 2000).is_none(), "long ago");
        assert!(shard.bytes <= 1 << 20);
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_used_again() {
        let cache = BlockCache::new(1 << 20);
        let hot = 0..50_u64;
        for pos in hot.clone() {
            cache.insert(1, pos, block(4000, 1));
            for _ in 0..USES_MAX {
                cache.get(1, pos);
            }
        }
        for pos in 0..500 {
            for _ in 0..2 {
                cache.insert(2, pos, block(4000, 2));
            }
        }
        let kept = hot.filter(|pos| cache.get(1, *pos).is_some()).count();
        assert!(kept >= 45, "{kept} of 50 were kept");
    }
}
