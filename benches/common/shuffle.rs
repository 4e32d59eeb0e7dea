//! A random order of many numbers that takes no memory.

/// A permutation of the numbers below `count` that looks random.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shuffle {
    count: u64,
    mask: u64,
}

impl Shuffle {
    pub(crate) fn new(count: u64) -> Self {
        Self {
            count,
            mask: count.next_power_of_two().max(4) - 1,
        }
    }

    /// Where `number`, which is below the count, goes.
    pub(crate) fn of(&self, number: u64) -> u64 {
        let shift = self.mask.count_ones() / 2;
        let mut shuffled = number;
        loop {
            // Each step can be undone within the mask.
            for odd in [
                0x9e37_79b9_7f4a_7c15,
                0xbf58_476d_1ce4_e5b9,
                0x94d0_49bb_1331_11eb_u64,
            ] {
                shuffled = shuffled.wrapping_mul(odd).wrapping_add(odd >> 32) & self.mask;
                shuffled ^= shuffled >> shift;
            }
            if shuffled < self.count {
                return shuffled;
            }
        }
    }
}
