//! The input of a task: records by number, each of one key, and what counting them comes to.

use std::collections::BTreeMap;

/// How many keys there are.
const KEYS: u64 = 5000;

/// The name by which tasks know their position in it.
pub(crate) const NAME: &str = "numbers";

/// The key of a task's record (a step of splitmix64).
pub(crate) fn key(task: u32, number: u64) -> u64 {
    let mut mixed = (u64::from(task) << 48 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)) % KEYS
}

/// How often each key is among the first records of a task.
pub(crate) fn counts(task: u32, records: u64) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for number in 0..records {
        *counts.entry(key(task, number)).or_default() += 1;
    }
    counts
}
