//! Blocked Bloom filters: whether a key may be in a partition, for one cache line's price.
//!
//! The layout and the probes are told in `docs/format.md`, section "Filter". They are those of
//! RocksDB's `FastLocalBloom`, which gives about 1.1% of false positives at 10 bits a key and
//! 0.25% at 16.

use crate::planted::{Bug, planted};

use xxhash_rust::xxh3::xxh3_64;

const LINE_LEN: usize = 64;
const LINE_BITS_LOG2: u32 = 9;
const PROBES_MAX: u32 = 24;
const PROBE_MULTIPLIER: u32 = 0x9e37_79b9;

/// The hash by which filters know `user_key`; one serves all tables.
pub(crate) fn hash(user_key: &[u8]) -> u64 {
    xxh3_64(user_key)
}

/// Gathers the hashes of a filter's keys.
#[derive(Default)]
pub(crate) struct Builder {
    hashes: Vec<u64>,
}

impl Builder {
    pub(crate) fn add(&mut self, hash: u64) {
        self.hashes.push(hash);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Length of the filter if it were finished now.
    pub(crate) fn estimated_len(&self, bits_per_key: u32) -> usize {
        self.lines(bits_per_key) * LINE_LEN + 1
    }

    /// The filter's bytes; the builder is empty again.
    pub(crate) fn finish(&mut self, bits_per_key: u32) -> Vec<u8> {
        let lines = self.lines(bits_per_key);
        let probes = probes_for(bits_per_key);
        let mut out = vec![0; lines * LINE_LEN];
        for hash in self.hashes.drain(..) {
            let line = line_of(hash, lines) * LINE_LEN;
            for bit in bits_of(hash, probes) {
                out[line + bit / 8] |= 1 << (bit % 8);
            }
        }
        out.push(u8::try_from(probes).expect("at most PROBES_MAX"));
        out
    }

    fn lines(&self, bits_per_key: u32) -> usize {
        let bits = self
            .hashes
            .len()
            .saturating_mul(usize::try_from(bits_per_key).unwrap_or(1));
        bits.div_ceil(LINE_LEN * 8).max(1)
    }
}

/// False only if no key with `hash` was added to the filter. Any bytes will do: those that are no
/// filter exclude nothing.
pub(crate) fn may_contain(filter: &[u8], hash: u64) -> bool {
    let Some((probes, lines)) = filter.split_last() else {
        return true;
    };
    let probes = u32::from(*probes);
    if lines.is_empty() || lines.len() % LINE_LEN != 0 || !(1..=PROBES_MAX).contains(&probes) {
        return true;
    }
    let start = line_of(hash, lines.len() / LINE_LEN) * LINE_LEN;
    let line = &lines[start..start + LINE_LEN];
    let probes = probes + u32::from(planted(Bug::FilterProbesOneMore));
    // All of them, without a branch: where an absent key's first zero is nobody can foretell.
    let is_set = |bit: usize| line[bit / 8] >> (bit % 8) & 1;
    bits_of(hash, probes).fold(1, |all, bit| all & is_set(bit)) == 1
}

/// The number of probes that fits `bits_per_key` best in lines of 512 bits.
fn probes_for(bits_per_key: u32) -> u32 {
    let probes = match bits_per_key {
        0..=2 => 1,
        3 => 2,
        4..=5 => 3,
        6 => 4,
        7..=8 => 5,
        9..=10 => 6,
        11 => 7,
        12..=14 => 8,
        15..=16 => 9,
        17..=18 => 10,
        19..=22 => 11,
        23..=25 => 12,
        more => more / 2,
    };
    probes.min(PROBES_MAX)
}

fn line_of(hash: u64, lines: usize) -> usize {
    let scaled = (u128::from(hash >> 32) * lines as u128) >> 32;
    usize::try_from(scaled).expect("below the number of lines")
}

fn bits_of(hash: u64, probes: u32) -> impl Iterator<Item = usize> {
    // The lower half alone: the upper one has chosen the line.
    let mut state = u32::try_from(hash & u64::from(u32::MAX)).expect("masked to 32 bits");
    (0..probes).map(move |_| {
        let bit = state >> (u32::BITS - LINE_BITS_LOG2);
        state = state.wrapping_mul(PROBE_MULTIPLIER);
        usize::try_from(bit).expect("nine bits")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_hash(number: u32) -> u64 {
        hash(&number.to_be_bytes())
    }

    #[test]
    fn every_key_is_found_and_few_others() {
        for (bits, rate_max) in [(1, 1.0), (5, 0.15), (10, 0.02), (16, 0.006), (64, 0.001)] {
            for keys in [1, 10, 3000] {
                let mut builder = Builder::default();
                (0..keys).for_each(|number| builder.add(key_hash(number)));
                let filter = builder.finish(bits);
                assert!(builder.is_empty());
                assert!((0..keys).all(|number| may_contain(&filter, key_hash(number))));
                let others = 20_000_u32;
                let found = (keys..keys + others)
                    .filter(|number| may_contain(&filter, key_hash(*number)))
                    .count();
                let rate = f64::from(u32::try_from(found).unwrap()) / f64::from(others);
                assert!(rate <= rate_max, "{bits} bits, {keys} keys: {rate}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_filter_exclude_nothing() {
        for len in 0..200 {
            for last in [0, 1, 24, 25, 255] {
                let mut bytes = vec![0; len];
                if let Some(byte) = bytes.last_mut() {
                    *byte = last;
                }
                let is_filter = len > 1 && len % 64 == 1 && (1..=24).contains(&last);
                assert_eq!(may_contain(&bytes, key_hash(1)), !is_filter, "{len} {last}");
            }
        }
    }

    #[test]
    fn the_stored_form_never_changes() {
        let mut builder = Builder::default();
        (0..100).for_each(|number| builder.add(key_hash(number)));
        let filter = builder.finish(10);
        assert_eq!(filter.len(), 2 * LINE_LEN + 1);
        // XXH3's own test vector.
        assert_eq!(hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(crc32fast::hash(&filter), 666_104_549);
    }
}
