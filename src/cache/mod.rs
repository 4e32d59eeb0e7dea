//! Memory that all stores of a process share: the block cache, and the budget (`budget`) of
//! everything that is no cache.

mod budget;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::slice::Slice;
use crate::sync::{AtomicU64, Ordering};

pub(crate) use budget::{Account, Charge, MemoryBudget};

/// Names a block: the number of its open file in this process, and its position there.
type BlockKey = (u64, u64);

#[derive(Clone)]
struct BlockWeighter;

/// What an entry costs beside its bytes: key, slot and the slice's own header.
const ENTRY_OVERHEAD_BYTES: u64 = 96;

impl Weighter<BlockKey, Slice> for BlockWeighter {
    fn weight(&self, _: &BlockKey, block: &Slice) -> u64 {
        block.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// Checked, decompressed blocks, by the frequency and recency of their use.
///
/// A block that a reader holds stays alive after its eviction.
pub(crate) struct BlockCache {
    blocks: Cache<BlockKey, Slice, BlockWeighter>,
    next_file: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl BlockCache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let blocks_expected = usize::try_from(bytes_max / 4096)
            .unwrap_or(usize::MAX)
            .max(16);
        Self {
            blocks: Cache::with_weighter(blocks_expected, bytes_max, BlockWeighter),
            next_file: AtomicU64::new(1),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// A number for a newly opened file, never given twice.
    pub(crate) fn new_file(&self) -> u64 {
        // Relaxed: only the uniqueness of the number counts.
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn get(&self, file: u64, pos: u64) -> Option<Slice> {
        let found = self.blocks.get(&(file, pos));
        // Relaxed: statistics that nothing is ordered by.
        let counter = if found.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(crate) fn insert(&self, file: u64, pos: u64, block: Slice) {
        self.blocks.insert((file, pos), block);
    }

    /// Bytes held now.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// Lookups that found a block, and those that did not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (
            self.hits.load(Ordering::Relaxed),
            self.misses.load(Ordering::Relaxed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_no_more_than_its_bytes() {
        let cache = BlockCache::new(64 << 10);
        let file = cache.new_file();
        for pos in 0..1000 {
            cache.insert(file, pos, Slice::from(vec![1; 4096]));
            assert!(cache.bytes() <= 64 << 10);
        }
        assert!((0..1000).any(|pos| cache.get(file, pos).is_some()));
        assert!(cache.get(cache.new_file(), 999).is_none());
    }
}
