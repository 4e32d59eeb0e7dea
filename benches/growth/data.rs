//! The records: pure functions of their numbers, so that every answer can be checked.

use crate::Result;
use crate::records::{KEY_LEN, key, mixed};

/// A value is at least so long: its record's number, and how often it was updated.
pub(crate) const VALUE_LEN_MIN: usize = 8;

/// Bytes that do not compress, of which values are cut.
const NOISE_LEN: usize = 1 << 20;

/// Where a record lies and what its value is.
#[derive(Debug)]
pub(crate) struct Data {
    stores: u64,
    /// Between two keys of a store: they are spread over all that 8 bytes can say.
    step: u64,
    value_len: usize,
    noise: Vec<u8>,
    /// What a value ends with.
    zeros: Vec<u8>,
}

/// One of the stores, and a key in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) store: usize,
    pub(crate) key: [u8; KEY_LEN],
}

impl Data {
    pub(crate) fn new(records: u64, stores: u64, value_len: usize) -> Self {
        let words = (0..NOISE_LEN as u64 / 8).map(mixed);
        Self {
            stores,
            step: u64::MAX / records.div_ceil(stores),
            value_len,
            noise: words.flat_map(u64::to_le_bytes).collect(),
            zeros: vec![0; value_len],
        }
    }

    pub(crate) fn place(&self, number: u64) -> Place {
        Place {
            store: usize::try_from(number % self.stores).expect("few stores"),
            key: key(number / self.stores * self.step),
        }
    }

    /// Half of a value does not compress, the rest is zeros.
    pub(crate) fn fill(&self, value: &mut Vec<u8>, number: u64, version: u32) {
        value.clear();
        value.extend_from_slice(&head(number).to_le_bytes());
        value.extend_from_slice(&version.to_le_bytes());
        value.extend_from_slice(self.noise_of(number, version));
        value.resize(self.value_len, 0);
    }

    /// The version of a value, which must be one of that record to the last byte.
    pub(crate) fn check(&self, found: Option<&[u8]>, number: u64) -> Result<u32> {
        let found = found.ok_or_else(|| format!("record {number} is missing"))?;
        self.version(found, number)
            .ok_or_else(|| format!("record {number} has the value {found:02x?}").into())
    }

    fn version(&self, found: &[u8], number: u64) -> Option<u32> {
        let (stored, rest) = found.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let version = u32::from_le_bytes(*version);
        let (noise, zeros) = rest.split_at_checked(self.noise_len())?;
        let is_whole = found.len() == self.value_len
            && u32::from_le_bytes(*stored) == head(number)
            && noise == self.noise_of(number, version)
            && zeros == &self.zeros[..zeros.len()];
        is_whole.then_some(version)
    }

    fn noise_len(&self) -> usize {
        (self.value_len / 2).saturating_sub(VALUE_LEN_MIN)
    }

    fn noise_of(&self, number: u64, version: u32) -> &[u8] {
        let len = self.noise_len();
        let begins = (NOISE_LEN - len) as u64;
        let begin = mixed(number ^ u64::from(version) << 32) % begins;
        let begin = usize::try_from(begin).expect("within the noise");
        &self.noise[begin..begin + len]
    }
}

fn head(number: u64) -> u32 {
    u32::try_from(number).expect("fewer records")
}
