//! The records that all benchmarks write: 16 bytes of key, 100 of value.

pub(crate) const KEY_LEN: usize = 16;
pub(crate) const VALUE_LEN: usize = 100;

/// The mixing step of `SplitMix64`: numbers in an order that looks random, each once.
pub(crate) fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// In the order of the numbers.
pub(crate) fn key(number: u64) -> [u8; KEY_LEN] {
    let mut key = *b"bench-k-        ";
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Half of it compresses well.
pub(crate) fn value(number: u64) -> [u8; VALUE_LEN] {
    let mut value = [0; VALUE_LEN];
    for (index, chunk) in (0..).zip(value[..VALUE_LEN / 2].chunks_mut(8)) {
        let bytes = mixed(number + index).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    value
}
