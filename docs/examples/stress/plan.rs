//! How a round is run: everything that follows from its seed.

use siltstone::changelog::FileOptions;
use siltstone::{
    Compression, KeyspaceOptions, Options, ReadMode, Result, Runtime, RuntimeOptions, Strategy,
};

use crate::random::Random;

/// What a worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Write,
    Get,
    Scan,
    Snapshot,
    Sync,
    Flush,
    Compact,
}

/// The actions and how often each is chosen, where it is.
const ACTIONS: [(Action, u32); 7] = [
    (Action::Write, 400),
    (Action::Get, 60),
    (Action::Scan, 12),
    (Action::Snapshot, 8),
    (Action::Sync, 6),
    (Action::Flush, 3),
    (Action::Compact, 1),
];

/// What stays the same for a whole round.
#[derive(Debug, Clone)]
pub(crate) struct RoundPlan {
    pub(crate) workers: u32,
    /// One write in so many is synced.
    pub(crate) synced_one_in: u32,
    /// One write in so many is to keys that all workers write; 0: none.
    pub(crate) shared_one_in: u32,
    /// Most writes of one batch.
    pub(crate) batch_len_max: u32,
    pub(crate) actions: Vec<(Action, u32)>,
}

impl RoundPlan {
    pub(crate) fn new(seed: u64, round: u64) -> Self {
        let mut random = Random::of(&[seed, round, 1]);
        let mut actions = ACTIONS.to_vec();
        // Each round leaves something out, so that the rest happens in other company.
        actions.retain(|(action, _)| *action == Action::Write || !random.one_in(3));
        for (_, weight) in &mut actions {
            *weight *= random.pick(&[1, 1, 1, 2, 5]);
        }
        Self {
            workers: random.pick(&[1, 2, 3, 4, 8]),
            synced_one_in: random.pick(&[1, 4, 20, 20, 1000]),
            shared_one_in: random.pick(&[0, 2, 4, 20]),
            batch_len_max: random.pick(&[1, 4, 4, 30]),
            actions,
        }
    }

    pub(crate) fn action(&self, random: &mut Random) -> Action {
        let sum = self.actions.iter().map(|(_, weight)| weight).sum();
        let mut left = random.below(sum);
        for (action, weight) in &self.actions {
            if left < *weight {
                return *action;
            }
            left -= weight;
        }
        Action::Write
    }
}

/// How the store is opened; each opening has its own.
#[derive(Debug, Clone)]
pub(crate) struct SessionPlan {
    /// Actions of each worker, or commits of the task, before the store is opened anew.
    pub(crate) actions: u32,
    /// Whether the store is closed, or dropped as it is.
    pub(crate) closes: bool,
    background_threads: usize,
    memory_bytes_max: usize,
    cache_bytes: usize,
    memtable_bytes_max: usize,
    wal_bytes_max: u64,
    replay_bytes_max: u64,
    read_mode: ReadMode,
    keyspace: KeyspaceOptions,
    segment_bytes_max: u64,
    tombstone_retention_ms: u64,
}

impl SessionPlan {
    pub(crate) fn new(seed: u64, round: u64, session: u64) -> Self {
        let mut random = Random::of(&[seed, round, 2, session]);
        let memory_bytes_max = random.pick(&[8 << 20, 32 << 20, 256 << 20]);
        Self {
            actions: random.pick(&[20, 300, 3000, 1 << 20]),
            closes: random.one_in(2),
            background_threads: random.pick(&[0, 1, 2, 4]),
            memory_bytes_max,
            cache_bytes: random.pick(&[0, 64 << 10, memory_bytes_max / 4]),
            memtable_bytes_max: random.pick(&[4 << 10, 32 << 10, 256 << 10, 4 << 20]),
            wal_bytes_max: random.pick(&[4 << 10, 64 << 10, 1 << 20, 512 << 20]),
            replay_bytes_max: random.pick(&[64 << 10, 1 << 20, 1 << 30]),
            read_mode: random.pick(&[ReadMode::Mapped, ReadMode::Positional]),
            keyspace: keyspace_options(&mut random),
            segment_bytes_max: random.pick(&[4 << 10, 64 << 10, 16 << 20]),
            tombstone_retention_ms: random.pick(&[0, 50, 60_000]),
        }
    }

    pub(crate) fn runtime(&self) -> Result<Runtime> {
        Runtime::new(
            RuntimeOptions::new()
                .threads(self.background_threads)
                .memory_bytes_max(self.memory_bytes_max)
                .cache_bytes(self.cache_bytes),
        )
    }

    pub(crate) fn options(&self) -> Options {
        Options::new()
            .memtable_bytes_max(self.memtable_bytes_max)
            .wal_bytes_max(self.wal_bytes_max)
            .replay_bytes_max(self.replay_bytes_max)
            .read_mode(self.read_mode)
    }

    pub(crate) fn keyspace(&self) -> KeyspaceOptions {
        self.keyspace.clone()
    }

    pub(crate) fn changelog(&self) -> FileOptions {
        FileOptions::new()
            .segment_bytes_max(self.segment_bytes_max)
            .tombstone_retention_ms(self.tombstone_retention_ms)
    }
}

fn keyspace_options(random: &mut Random) -> KeyspaceOptions {
    let upper = random.pick(&[0, 6, 16]);
    let lazy = Strategy::LazyLeveled {
        runs_max: random.pick(&[2, 4]),
        ratio: random.pick(&[2, 10]),
    };
    KeyspaceOptions::new()
        .block_bytes(random.pick(&[64, 512, 4096, 64 << 10]))
        .table_bytes(random.pick(&[4 << 10, 32 << 10, 1 << 20]))
        .compaction(random.pick(&[Strategy::Leveled, lazy]))
        .level_ratio(random.pick(&[2, 4, 10]))
        .level0_runs_max(random.pick(&[1, 2, 4, 8]))
        .compression(random.pick(&[Compression::None, Compression::Lz4]))
        .uncompressed_levels(random.pick(&[0, 1, 3]))
        .filter_bits(upper, random.pick(&[0, 10]))
}
