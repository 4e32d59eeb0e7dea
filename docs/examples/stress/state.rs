//! What a store should hold, and how it differs from what it does hold.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use siltstone::Slice;

use crate::Result;
use crate::random::Random;

/// Names one write for ever; its value follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) round: u32,
    pub(crate) worker: u32,
    pub(crate) change: u32,
    /// Which write of the change.
    pub(crate) part: u32,
}

const STAMP_LEN: usize = 16;

impl Stamp {
    fn numbers(self) -> [u32; 4] {
        [self.round, self.worker, self.change, self.part]
    }

    fn encode(self, out: &mut Vec<u8>) {
        for number in self.numbers() {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// The stamp that a value begins with.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (stamp, _) = value.split_first_chunk::<STAMP_LEN>()?;
        let mut numbers = [0; 4];
        for (number, bytes) in numbers.iter_mut().zip(stamp.as_chunks::<4>().0) {
            *number = u32::from_le_bytes(*bytes);
        }
        let [round, worker, change, part] = numbers;
        Some(Self {
            round,
            worker,
            change,
            part,
        })
    }

    /// The value that was written: the stamp, and bytes that compress well or not at all.
    pub(crate) fn value(self, seed: u64) -> Vec<u8> {
        let [round, worker, change, part] = self.numbers().map(u64::from);
        let mut random = Random::of(&[seed, round, worker, change, part]);
        let rest = match random.below(500) {
            0 => random.below(70_000),
            1..30 => random.below(6000),
            _ => random.below(120),
        };
        let mut value = Vec::with_capacity(STAMP_LEN + rest as usize + 8);
        self.encode(&mut value);
        let compresses = random.one_in(2);
        let len = STAMP_LEN + rest as usize;
        while value.len() < len {
            let bits = random.next();
            let bits = if compresses { bits & 0x0101 } else { bits };
            value.extend_from_slice(&bits.to_le_bytes());
        }
        value.truncate(len);
        value
    }
}

/// The key of a number. Keys are in the order of their numbers; some are long.
pub(crate) fn key(number: u32) -> Vec<u8> {
    let mut key = format!("key-{number:06}").into_bytes();
    if number.is_multiple_of(16) {
        key.resize(300, b'-');
    }
    key
}

fn number(bytes: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(bytes.get(4..10)?).ok()?;
    let number = digits.parse().ok()?;
    (key(number) == bytes).then_some(number)
}

/// What one keyspace should hold, by the numbers of keys.
pub(crate) type Entries = BTreeMap<u32, Stamp>;
/// What one keyspace holds.
pub(crate) type Found = BTreeMap<u32, Slice>;

/// Reads entries in key order, in either direction, and checks that they are.
pub(crate) fn collect<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    entries: impl Iterator<Item = siltstone::Result<(K, V)>>,
    backward: bool,
) -> Result<Found> {
    let mut found = Found::new();
    let mut last = None;
    for entry in entries {
        let (key, value) = entry?;
        let key = key.as_ref();
        let number =
            number(key).ok_or_else(|| format!("key {} was never written", key.escape_ascii()))?;
        if last.is_some_and(|last| (number > last) == backward || number == last) {
            return Err(format!("key {number} comes after {last:?}").into());
        }
        last = Some(number);
        found.insert(number, Slice::from(value.as_ref()));
    }
    Ok(found)
}

/// A key that does not hold what it should.
#[derive(Debug)]
pub(crate) struct Difference {
    keyspace: String,
    key: u32,
    expected: Option<Stamp>,
    found: Option<Slice>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keyspace, key) = (&self.keyspace, self.key);
        write!(f, "{keyspace}, key {key}: ")?;
        match self.expected {
            Some(stamp) => write!(f, "expected {stamp:?}")?,
            None => write!(f, "expected nothing")?,
        }
        let Some(found) = &self.found else {
            return write!(f, ", found nothing");
        };
        let stamp = Stamp::decode(found);
        write!(f, ", found {} bytes of {stamp:?}", found.len())
    }
}

/// The first key, of those that `is_meant`, that does not hold what it should.
pub(crate) fn difference(
    seed: u64,
    keyspace: &str,
    expected: &Entries,
    found: &Found,
    is_meant: impl Fn(u32) -> bool,
) -> Option<Difference> {
    let differs = |key: u32| Difference {
        keyspace: keyspace.to_owned(),
        key,
        expected: expected.get(&key).copied(),
        found: found.get(&key).cloned(),
    };
    for (key, stamp) in expected.iter().filter(|(key, _)| is_meant(**key)) {
        if found
            .get(key)
            .is_none_or(|value| *value != stamp.value(seed))
        {
            return Some(differs(*key));
        }
    }
    let extra = |key: &&u32| is_meant(**key) && !expected.contains_key(key);
    found.keys().find(extra).map(|key| differs(*key))
}

/// One put or delete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write {
    pub(crate) keyspace: usize,
    pub(crate) key: u32,
    /// What is put; nothing deletes.
    pub(crate) stamp: Option<Stamp>,
}

/// What a whole store should hold.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) keyspaces: Vec<Entries>,
    /// Commits of a task so far.
    pub(crate) commits: u64,
}

impl State {
    pub(crate) fn new(keyspaces: usize) -> Self {
        Self {
            keyspaces: vec![Entries::new(); keyspaces],
            commits: 0,
        }
    }

    pub(crate) fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            let entries = &mut self.keyspaces[write.keyspace];
            match write.stamp {
                Some(stamp) => entries.insert(write.key, stamp),
                None => entries.remove(&write.key),
            };
        }
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut bytes = self.commits.to_le_bytes().to_vec();
        for (keyspace, entries) in (0_u32..).zip(&self.keyspaces) {
            for (key, stamp) in entries {
                bytes.extend_from_slice(&keyspace.to_le_bytes());
                bytes.extend_from_slice(&key.to_le_bytes());
                stamp.encode(&mut bytes);
            }
        }
        Ok(fs::write(path, bytes)?)
    }

    pub(crate) fn load(path: &Path, keyspaces: usize) -> Result<Self> {
        let bytes = fs::read(path)?;
        let mut state = Self::new(keyspaces);
        let (commits, entries) = bytes
            .split_first_chunk::<8>()
            .ok_or("the expected state is cut short")?;
        state.commits = u64::from_le_bytes(*commits);
        for entry in entries.as_chunks::<{ 8 + STAMP_LEN }>().0 {
            // A keyspace and a key, then the stamp.
            let (numbers, stamp) = entry.split_at(8);
            let [keyspace, key] = [0, 1].map(|at| u32::from_le_bytes(numbers.as_chunks().0[at]));
            let stamp = Stamp::decode(stamp).ok_or("a stamp is cut short")?;
            state.keyspaces[keyspace as usize].insert(key, stamp);
        }
        Ok(state)
    }
}
