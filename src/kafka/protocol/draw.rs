//! Values for the tests of the protocol, drawn from a seed that a failure prints.

use std::collections::BTreeMap;

/// The seed of a random test: `SILTSTONE_SEED`, or 1.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("SILTSTONE_SEED").map_or(1, |text| text.parse().unwrap());
    eprintln!("SILTSTONE_SEED={seed}");
    seed
}

/// `SplitMix64`, as in the public domain code by Sebastiano Vigna (2015).
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// An index below `count`, or 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count.max(1) as u64).unwrap()
    }

    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub(crate) fn i8(&mut self) -> i8 {
        i8::from_le_bytes([self.byte()])
    }

    /// A quarter of the numbers are at an edge.
    pub(crate) fn i64(&mut self) -> i64 {
        let any = self.next().cast_signed();
        match any & 3 {
            0 => self.pick(&[0, 1, -1, i64::MIN, i64::MAX]),
            _ => any >> self.below(64),
        }
    }

    pub(crate) fn i32(&mut self) -> i32 {
        if self.bool() {
            self.pick(&[0, 1, -1, i32::MIN, i32::MAX])
        } else {
            i32::from_le_bytes(self.next().to_le_bytes()[..4].try_into().unwrap())
        }
    }

    pub(crate) fn i16(&mut self) -> i16 {
        i16::from_le_bytes(self.next().to_le_bytes()[..2].try_into().unwrap())
    }

    /// Empty ones, short ones, and lengths at which the length itself grows.
    pub(crate) fn len(&mut self) -> usize {
        match self.below(8) {
            0 => 0,
            1 => self.pick(&[1, 126, 127, 128, 129]),
            2 if self.below(20) == 0 => self.pick(&[16_382, 16_383, 16_384, 20_000]),
            _ => self.below(12),
        }
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        (0..self.len()).map(|_| self.byte()).collect()
    }

    /// Letters of one to four bytes, and of one where there are many.
    pub(crate) fn text(&mut self) -> String {
        let letters = ['a', 'z', '.', '-', '\0', '\u{e9}', '\u{20ac}', '\u{1faa8}'];
        let len = self.len();
        let letters = if self.bool() || len > 200 {
            &letters[..5]
        } else {
            &letters[..]
        };
        (0..len).map(|_| self.pick(letters)).collect()
    }

    pub(crate) fn option<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.bool().then(|| value(self))
    }

    /// None, one or a few.
    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| item(self)).collect()
    }

    /// Tagged fields of a future that nobody knows.
    pub(crate) fn tags<B: From<Vec<u8>>>(&mut self) -> BTreeMap<i32, B> {
        let mut tags = BTreeMap::new();
        if self.below(3) == 0 {
            for tag in [90, 127, 128, 70_000] {
                if self.bool() {
                    tags.insert(tag, B::from(self.bytes()));
                }
            }
        }
        tags
    }

    /// Changes up to three bytes, or puts a run of large bytes somewhere.
    pub(crate) fn damage(&mut self, bytes: &mut [u8]) {
        for _ in 0..=self.below(3) {
            let pos = self.below(bytes.len());
            match self.below(4) {
                0 => bytes[pos] ^= 1 << self.below(8),
                1 => bytes[pos] = self.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                2 => bytes[pos] = self.byte(),
                _ => {
                    let end = bytes.len().min(pos + 4);
                    bytes[pos..end].fill(0xff);
                }
            }
        }
    }
}
