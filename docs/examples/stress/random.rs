//! Pseudorandom numbers that follow from a seed (`SplitMix64` of Steele, Lea and Flood).

pub(crate) struct Random(u64);

impl Random {
    /// The numbers that belong to these ones; near ones give others.
    pub(crate) fn of(numbers: &[u64]) -> Self {
        let mut random = Self(0x9e37_79b9_7f4a_7c15);
        for number in numbers {
            random.0 ^= number.wrapping_mul(0xff51_afd7_ed55_8ccd);
            random.0 = random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        let upper = u32::try_from(self.next() >> 32).expect("32 bits are left");
        let product = u64::from(upper) * u64::from(limit);
        u32::try_from(product >> 32).expect("less than the limit")
    }

    pub(crate) fn one_in(&mut self, count: u32) -> bool {
        self.below(count) == 0
    }

    /// An index into so many choices.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        self.below(u32::try_from(count).expect("few choices")) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }
}
