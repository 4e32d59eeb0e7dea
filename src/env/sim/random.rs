//! Reproducible random numbers.

use std::ops::Range;

/// A stream of numbers that its seed decides.
///
/// `SplitMix64` of Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for the part `id` of what `seed` decides.
    pub(super) fn part(seed: u64, id: u64) -> Self {
        let mut base = Self(seed);
        Self(base.next_u64() ^ Self(id).next_u64())
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `range`, which must not be empty. The slight bias of a remainder is no matter.
    pub(super) fn index(&mut self, range: Range<usize>) -> usize {
        assert!(range.start < range.end);
        let count = (range.end - range.start) as u64;
        let chosen = self.next_u64() % count;
        range.start + usize::try_from(chosen).expect("below a usize")
    }

    /// True `percent` times in a hundred.
    pub(super) fn chance(&mut self, percent: u8) -> bool {
        self.next_u64() % 100 < u64::from(percent)
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next_u64().to_le_bytes()[..part.len()]);
        }
    }
}
