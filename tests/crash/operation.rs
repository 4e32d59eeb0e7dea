//! What a test does to a store: lists of operations, made at random, that stay valid when some of
//! them are left out.

use std::fmt;
use std::ops::Range;

use siltstone::{Compression, KeyspaceOptions, ReadMode, Strategy};

use crate::random::Random;
use crate::shrink::Case;

/// Keyspaces that a list may have at a time.
pub(crate) const SLOTS: usize = 3;
pub(crate) const NAMES: [&str; SLOTS] = ["alpha", "beta", "gamma"];

/// One write of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) slot: usize,
    pub(crate) key: usize,
    /// A number that no other write has, and a length; `None` for a delete.
    pub(crate) value: Option<(usize, usize)>,
}

impl Change {
    pub(crate) fn key_bytes(self) -> Vec<u8> {
        key_bytes(self.key)
    }

    pub(crate) fn value_bytes(self) -> Option<Vec<u8>> {
        self.value.map(|(tag, len)| value_bytes(tag, len))
    }
}

/// Most keys are short and share a prefix; some are long.
pub(crate) fn key_bytes(key: usize) -> Vec<u8> {
    match key % 11 {
        10 => format!("key {}{key:03}", "-".repeat(60)).into_bytes(),
        _ => format!("key {key:03}").into_bytes(),
    }
}

/// The tag in text, and then, of odd tags, bytes that do not compress.
pub(crate) fn value_bytes(tag: usize, len: usize) -> Vec<u8> {
    if len == 0 {
        return Vec::new();
    }
    let mut bytes = format!("{tag}:").into_bytes();
    let mut random = Random::new(tag as u64);
    while bytes.len() < len {
        bytes.push(if tag.is_multiple_of(2) {
            b'.'
        } else {
            random.next().to_le_bytes()[0]
        });
    }
    bytes
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Write {
        changes: Vec<Change>,
        synced: bool,
    },
    Sync,
    Flush,
    Compact(usize),
    /// So many background jobs.
    Work(usize),
    /// Close and open.
    Reopen,
    /// Drop without a close, and open.
    Abandon,
    /// Close, and open with the write-ahead log switched on or off.
    SwitchLog,
    Create(usize),
    Remove(usize),
    TakeSnapshot,
    ReadSnapshot,
    ReleaseSnapshot,
    /// Gets and ranges around a key.
    Read {
        slot: usize,
        key: usize,
    },
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { changes, synced } => {
                write!(f, "write{}", if *synced { " synced" } else { "" })?;
                for change in changes {
                    write!(f, " {}.{}", NAMES[change.slot], change.key)?;
                    match change.value {
                        Some((tag, len)) => write!(f, "={tag}:({len})")?,
                        None => write!(f, " deleted")?,
                    }
                }
                Ok(())
            }
            Self::Sync => write!(f, "sync"),
            Self::Flush => write!(f, "flush"),
            Self::Compact(slot) => write!(f, "compact {}", NAMES[*slot]),
            Self::Work(steps) => write!(f, "work {steps}"),
            Self::Reopen => write!(f, "reopen"),
            Self::Abandon => write!(f, "abandon"),
            Self::SwitchLog => write!(f, "switch log"),
            Self::Create(slot) => write!(f, "create {}", NAMES[*slot]),
            Self::Remove(slot) => write!(f, "remove {}", NAMES[*slot]),
            Self::TakeSnapshot => write!(f, "take snapshot"),
            Self::ReadSnapshot => write!(f, "read snapshot"),
            Self::ReleaseSnapshot => write!(f, "release snapshot"),
            Self::Read { slot, key } => write!(f, "read {}.{key}", NAMES[*slot]),
        }
    }
}

/// How small the store is.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) has_log: bool,
    pub(crate) memtable_bytes: usize,
    pub(crate) log_bytes: u64,
    pub(crate) keyspaces: KeyspaceOptions,
    pub(crate) read_mode: ReadMode,
}

impl Setup {
    pub(crate) fn random(random: &mut Random) -> Self {
        let lazy = Strategy::LazyLeveled {
            runs_max: 2,
            ratio: 2,
        };
        let compression = random.pick(&[Compression::None, Compression::Lz4]);
        let (filter_upper, filter_last) = random.pick(&[(0, 0), (16, 10), (8, 0)]);
        let keyspaces = KeyspaceOptions::new()
            .block_bytes(random.pick(&[64, 128, 256]))
            .table_bytes(random.pick(&[1 << 10, 2 << 10]))
            .compaction(random.pick(&[Strategy::Leveled, lazy]))
            .level_ratio(2)
            .level0_runs_max(random.pick(&[1, 2, 3]))
            .compression(compression)
            .uncompressed_levels(random.pick(&[0, 1, 2]))
            .filter_bits(filter_upper, filter_last);
        Self {
            has_log: !random.chance(15),
            memtable_bytes: random.pick(&[1 << 10, 2 << 10, 4 << 10]),
            log_bytes: random.pick(&[4 << 10, 8 << 10, 16 << 10]),
            keyspaces,
            read_mode: random.pick(&[ReadMode::Mapped, ReadMode::Positional]),
        }
    }
}

/// A test: what to do, and to what kind of store.
#[derive(Debug, Clone)]
pub(crate) struct List {
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    pub(crate) operations: Vec<Operation>,
}

/// How often each kind of operation comes, beside writes.
const WEIGHTS: [(Kind, usize); 13] = [
    (Kind::Sync, 4),
    (Kind::Flush, 3),
    (Kind::Compact, 2),
    (Kind::Work, 22),
    (Kind::Reopen, 2),
    (Kind::Abandon, 2),
    (Kind::SwitchLog, 1),
    (Kind::Create, 3),
    (Kind::Remove, 1),
    (Kind::TakeSnapshot, 3),
    (Kind::ReadSnapshot, 3),
    (Kind::ReleaseSnapshot, 2),
    (Kind::Read, 4),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Sync,
    Flush,
    Compact,
    Work,
    Reopen,
    Abandon,
    SwitchLog,
    Create,
    Remove,
    TakeSnapshot,
    ReadSnapshot,
    ReleaseSnapshot,
    Read,
}

impl List {
    /// A list of `len` operations. Each list does without a part of the kinds.
    pub(crate) fn random(seed: u64, len: usize) -> Self {
        let mut random = Random::new(seed);
        let setup = Setup::random(&mut random);
        let mut kinds = Vec::new();
        for (kind, weight) in WEIGHTS {
            let is_off = random.chance(if kind == Kind::SwitchLog { 80 } else { 30 });
            kinds.extend((0..if is_off { 0 } else { weight }).map(|_| kind));
        }
        kinds.extend([Kind::Write; 60]);
        let mut writer = Writer {
            keys: random.pick(&[3, 20, 20, 200]),
            len_max: random.pick(&[20, 100, 400, 1500]),
            batch_max: random.pick(&[1, 3, 6]),
            synced_percent: random.pick(&[0, 20, 100]),
            delete_percent: random.pick(&[0, 20, 40]),
            tag: 0,
        };
        let mut operations = vec![Operation::Create(0), Operation::Create(1)];
        for _ in 0..len {
            let kind = random.pick(&kinds);
            operations.push(writer.operation(kind, &mut random));
        }
        Self {
            seed,
            setup,
            operations,
        }
    }
}

/// What the writes of a list are like.
struct Writer {
    keys: usize,
    len_max: usize,
    batch_max: usize,
    synced_percent: usize,
    delete_percent: usize,
    tag: usize,
}

impl Writer {
    fn operation(&mut self, kind: Kind, random: &mut Random) -> Operation {
        match kind {
            Kind::Write => Operation::Write {
                changes: (0..=random.below(self.batch_max))
                    .map(|_| self.change(random))
                    .collect(),
                synced: random.chance(self.synced_percent),
            },
            Kind::Sync => Operation::Sync,
            Kind::Flush => Operation::Flush,
            Kind::Compact => Operation::Compact(random.below(SLOTS)),
            Kind::Work => Operation::Work(1 + random.below(4)),
            Kind::Reopen => Operation::Reopen,
            Kind::Abandon => Operation::Abandon,
            Kind::SwitchLog => Operation::SwitchLog,
            Kind::Create => Operation::Create(random.below(SLOTS)),
            Kind::Remove => Operation::Remove(random.below(SLOTS)),
            Kind::TakeSnapshot => Operation::TakeSnapshot,
            Kind::ReadSnapshot => Operation::ReadSnapshot,
            Kind::ReleaseSnapshot => Operation::ReleaseSnapshot,
            Kind::Read => Operation::Read {
                slot: random.below(SLOTS),
                key: random.below(self.keys),
            },
        }
    }

    fn change(&mut self, random: &mut Random) -> Change {
        self.tag += 1;
        let is_delete = random.chance(self.delete_percent);
        Change {
            slot: random.below(SLOTS),
            key: random.below(self.keys),
            value: (!is_delete).then(|| (self.tag, random.below(self.len_max))),
        }
    }
}

impl Case for List {
    fn seed(&self) -> u64 {
        self.seed
    }

    fn setup(&self) -> String {
        format!("{:?}", self.setup)
    }

    fn lines(&self) -> Vec<String> {
        let operations = self.operations.iter();
        operations
            .map(|operation| format!("{operation:?}"))
            .collect()
    }

    fn remove(&mut self, operations: Range<usize>) {
        self.operations.drain(operations);
    }

    fn parts(&self, operation: usize) -> usize {
        match &self.operations[operation] {
            Operation::Write { changes, .. } => changes.len(),
            _ => 0,
        }
    }

    fn remove_part(&mut self, operation: usize, part: usize) {
        if let Operation::Write { changes, .. } = &mut self.operations[operation] {
            changes.remove(part);
        }
    }
}
