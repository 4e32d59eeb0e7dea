//! Keys, values, and the orders in which they are drawn. Every number is a pure function of its
//! place in the run, so that all engines get the same work and every answer can be checked.

use crate::Result;
use crate::shuffle::Shuffle;

pub(crate) const KEY_LEN: usize = 16;
pub(crate) const VALUE_LEN: usize = 100;
/// Bytes of the user in one record.
pub(crate) const RECORD_BYTES: u64 = (KEY_LEN + VALUE_LEN) as u64;

pub(crate) type Key = [u8; KEY_LEN];
pub(crate) type Value = [u8; VALUE_LEN];

/// The mixing step of `SplitMix64`.
pub(crate) fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A sequence that looks random: `SplitMix64`.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mixed(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// From 0 up to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The keys of a map of so many records: 16 hexadecimal digits, spread over all that 16 digits
/// can say, in the order of their numbers. Numbers from `records` on lie between the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    pub(crate) records: u64,
    step: u64,
    shuffle: Shuffle,
}

impl Keys {
    pub(crate) fn new(records: u64) -> Self {
        Self {
            records,
            step: u64::MAX / records,
            shuffle: Shuffle::new(records),
        }
    }

    pub(crate) fn key(&self, number: u64) -> Key {
        if number < self.records {
            digits(number * self.step)
        } else {
            let between = self.shuffled((number - self.records) % self.records);
            let nth = (number - self.records) / self.records;
            digits(between * self.step + self.step / 4 + nth)
        }
    }

    /// A key that no number has, beside that of `number`.
    pub(crate) fn absent(&self, number: u64) -> Key {
        digits(number * self.step + self.step / 2)
    }

    /// A permutation of `0..records` that looks random.
    pub(crate) fn shuffled(&self, number: u64) -> u64 {
        self.shuffle.of(number)
    }
}

fn digits(number: u64) -> Key {
    let mut key = [0; KEY_LEN];
    for (digit, nibble) in key.iter_mut().zip((0..16).rev()) {
        *digit = b"0123456789abcdef"[usize::from((number >> (4 * nibble)) as u8 & 0xf)];
    }
    key
}

/// Fills a value of any length from 8 bytes on: the record's number, the version where there is
/// room for it, then bytes that do not compress up to the middle, then zeros.
pub(crate) fn fill_value(value: &mut [u8], number: u64, version: u64) {
    value.fill(0);
    value[..8].copy_from_slice(&number.to_le_bytes());
    if value.len() < 16 {
        return;
    }
    value[8..16].copy_from_slice(&version.to_le_bytes());
    let middle = (value.len() / 2).max(16);
    let mut random = Random::new(number ^ version.rotate_left(32));
    for chunk in value[16..middle].chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
}

pub(crate) fn value(number: u64, version: u64) -> Value {
    let mut value = [0; VALUE_LEN];
    fill_value(&mut value, number, version);
    value
}

fn word(value: &[u8], pos: usize) -> Option<u64> {
    let bytes = value.get(pos..pos + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// The record that a value says it belongs to.
pub(crate) fn number_of(value: &[u8]) -> Option<u64> {
    word(value, 0)
}

pub(crate) fn version_of(value: &[u8]) -> Option<u64> {
    word(value, 8)
}

/// Fails unless the value is one of that record, to the last byte.
pub(crate) fn check_value(found: Option<&[u8]>, number: u64) -> Result<()> {
    let found = found.ok_or_else(|| format!("record {number} is missing"))?;
    let expected = value(number, version_of(found).unwrap_or(0));
    if found != expected {
        return Err(format!("record {number} has the value {found:02x?}").into());
    }
    Ok(())
}

/// Ranks from 0 on, the lower the likelier: the generator of YCSB (Gray et al., "Quickly
/// generating billion-record synthetic databases", 1994), constant 0.99.
pub(crate) struct Zipfian {
    items: f64,
    zeta: f64,
    eta: f64,
    alpha: f64,
}

const THETA: f64 = 0.99;

impl Zipfian {
    #[expect(clippy::cast_precision_loss, reason = "counts of records fit")]
    pub(crate) fn new(items: u64) -> Self {
        let zeta = |items: u64| {
            (1..=items)
                .map(|rank| (rank as f64).powf(-THETA))
                .sum::<f64>()
        };
        let (two, all) = (zeta(2), zeta(items));
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - THETA)) / (1.0 - two / all);
        Self {
            items: items as f64,
            zeta: all,
            eta,
            alpha: 1.0 / (1.0 - THETA),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the number of items"
    )]
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let unit = random.unit();
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let rank = self.items * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.items as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_is_a_permutation() {
        for records in [1, 2, 3, 5, 1000, 4096] {
            let keys = Keys::new(records);
            let mut seen: Vec<u64> = (0..records).map(|number| keys.shuffled(number)).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..records), "{records}");
        }
    }

    #[test]
    fn keys_are_in_order_and_none_is_absent() {
        let keys = Keys::new(1000);
        let mut all: Vec<Key> = (0..2500).map(|number| keys.key(number)).collect();
        assert!(all[..1000].is_sorted());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2500);
        assert!((0..1000).all(|number| all.binary_search(&keys.absent(number)).is_err()));
    }

    #[test]
    fn a_value_is_checked_to_its_last_byte() {
        let mut value = value(7, 3);
        check_value(Some(&value), 7).unwrap();
        assert!(check_value(Some(&value), 8).is_err());
        assert!(check_value(None, 7).is_err());
        value[VALUE_LEN - 1] = 1;
        assert!(check_value(Some(&value), 7).is_err());
    }

    #[test]
    fn low_ranks_are_likely() {
        let zipfian = Zipfian::new(1000);
        let mut random = Random::new(1);
        let mut counts = [0_u32; 1000];
        for _ in 0..100_000 {
            counts[usize::try_from(zipfian.draw(&mut random)).unwrap()] += 1;
        }
        // 1 / zeta(1000) is 13.2%, and a hundredth of the items get more than a third.
        assert!((12_000..14_500).contains(&counts[0]), "{}", counts[0]);
        assert!(counts[..10].iter().sum::<u32>() > 33_000);
        assert!(counts[500..].iter().sum::<u32>() > 5_000);
    }
}
