//! What a test does to a task: lists of operations, made at random.

use std::fmt;
use std::ops::Range;

use crate::operation::{NAMES, Setup};
use crate::random::Random;
use crate::shrink::Case;

use super::{SOURCES, STORES};

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// No value deletes.
    Write {
        store: usize,
        key: usize,
        value: Option<(usize, usize)>,
    },
    SetInput {
        source: usize,
        position: usize,
    },
    Commit,
    BeginCommit,
    WaitCommit,
    Abort,
    Idle,
    Flush,
    Work(usize),
    Compact,
    Reopen,
    Abandon,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { store, key, value } => match value {
                Some((tag, len)) => write!(f, "put {}.{key}={tag}:({len})", NAMES[*store]),
                None => write!(f, "delete {}.{key}", NAMES[*store]),
            },
            Self::SetInput { source, position } => {
                write!(f, "set input {} to {position}", SOURCES[*source])
            }
            Self::Commit => write!(f, "commit"),
            Self::BeginCommit => write!(f, "begin a commit"),
            Self::WaitCommit => write!(f, "wait for the commit"),
            Self::Abort => write!(f, "abort"),
            Self::Idle => write!(f, "idle"),
            Self::Flush => write!(f, "flush"),
            Self::Work(steps) => write!(f, "work {steps}"),
            Self::Compact => write!(f, "compact the changelog"),
            Self::Reopen => write!(f, "reopen"),
            Self::Abandon => write!(f, "abandon"),
        }
    }
}

/// A test of a task.
#[derive(Debug, Clone)]
pub(crate) struct TaskList {
    pub(crate) seed: u64,
    pub(super) setup: Setup,
    pub(super) segment_bytes: u64,
    pub(super) replay_bytes: u64,
    pub(super) restore_bytes: usize,
    pub(super) operations: Vec<Operation>,
}

#[derive(Clone, Copy)]
enum Kind {
    Write,
    SetInput,
    Commit,
    BeginCommit,
    WaitCommit,
    Abort,
    Idle,
    Flush,
    Work,
    Compact,
    Reopen,
    Abandon,
}

/// How often each kind of operation comes, beside writes and commits.
const WEIGHTS: [(Kind, usize); 9] = [
    (Kind::BeginCommit, 8),
    (Kind::WaitCommit, 4),
    (Kind::Abort, 5),
    (Kind::Idle, 2),
    (Kind::Flush, 2),
    (Kind::Work, 12),
    (Kind::Compact, 2),
    (Kind::Reopen, 2),
    (Kind::Abandon, 2),
];

impl TaskList {
    pub(crate) fn random(seed: u64, len: usize) -> Self {
        let mut random = Random::new(seed);
        let mut setup = Setup::random(&mut random);
        setup.memtable_bytes = setup.memtable_bytes.min(2 << 10);
        let mut kinds = Vec::new();
        for (kind, weight) in WEIGHTS {
            let is_off = random.chance(30);
            kinds.extend((0..if is_off { 0 } else { weight }).map(|_| kind));
        }
        kinds.extend([Kind::Write; 60]);
        kinds.extend([Kind::SetInput; 12]);
        kinds.extend([Kind::Commit; 15]);
        let keys = random.pick(&[2, 3, 20, 200]);
        let len_max = random.pick(&[20, 200, 400]);
        let mut tag = 0;
        let mut operation = |kind| match kind {
            Kind::Write => {
                tag += 1;
                let is_delete = random.chance(25);
                Operation::Write {
                    store: random.below(STORES),
                    key: random.below(keys),
                    value: (!is_delete).then(|| (tag, 1 + random.below(len_max))),
                }
            }
            Kind::SetInput => {
                tag += 1;
                Operation::SetInput {
                    source: random.below(SOURCES.len()),
                    position: tag,
                }
            }
            Kind::Commit => Operation::Commit,
            Kind::BeginCommit => Operation::BeginCommit,
            Kind::WaitCommit => Operation::WaitCommit,
            Kind::Abort => Operation::Abort,
            Kind::Idle => Operation::Idle,
            Kind::Flush => Operation::Flush,
            Kind::Work => Operation::Work(1 + random.below(4)),
            Kind::Compact => Operation::Compact,
            Kind::Reopen => Operation::Reopen,
            Kind::Abandon => Operation::Abandon,
        };
        let mut picks = Random::new(seed ^ 1);
        let operations = (0..len).map(|_| operation(picks.pick(&kinds))).collect();
        Self {
            seed,
            setup,
            segment_bytes: picks.pick(&[200, 1000, 4000]),
            replay_bytes: picks.pick(&[1 << 10, 8 << 10, 1 << 20]),
            restore_bytes: picks.pick(&[1 << 10, 4 << 10, 1 << 20]),
            operations,
        }
    }
}

impl Case for TaskList {
    fn seed(&self) -> u64 {
        self.seed
    }

    fn setup(&self) -> String {
        format!(
            "{:?}, segment_bytes: {}, replay_bytes: {}, restore_bytes: {}",
            self.setup, self.segment_bytes, self.replay_bytes, self.restore_bytes
        )
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

    fn parts(&self, _: usize) -> usize {
        0
    }

    fn remove_part(&mut self, _: usize, _: usize) {}
}
