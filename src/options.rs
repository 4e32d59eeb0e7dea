//! How a store, its keyspaces and its runtime are set up: plain data with checked bounds.

use std::fmt;

use crate::env::{Env, OsEnv};
use crate::error::{Error, Result};
use crate::sync::Arc;

/// Bytes that a memtable holds before it is sealed, unless set otherwise.
pub const MEMTABLE_BYTES_MAX: usize = 64 << 20;
/// Bytes of the write-ahead log above which its oldest holder is flushed, unless set otherwise.
pub const WAL_BYTES_MAX: u64 = 512 << 20;
/// Bytes of a data block before compression, unless set otherwise.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a table at which compaction begins the next, unless set otherwise.
pub const TABLE_BYTES: u64 = 64 << 20;
/// How many times larger a level is than the one above it, unless set otherwise.
pub const LEVEL_RATIO: u32 = 10;
/// Runs in level 0 that start a compaction, unless set otherwise.
pub const LEVEL0_RUNS_MAX: usize = 4;
/// Runs that meet in one run of the next size by [`Strategy::lazy_leveled`].
pub const LAZY_RUNS_MAX: usize = 8;
/// How many times larger the last level is than all above it by [`Strategy::lazy_leveled`].
pub const LAZY_RATIO: u32 = 5;
/// Levels of a keyspace, level 0 included.
pub const LEVELS: usize = 7;
/// Milliseconds after which a write held only in memory asks for a flush, unless set otherwise.
pub const FLUSH_AGE_MAX_MS: u64 = 10 * 60 * 1000;
/// Bytes of changelog behind the position that ask for a flush, unless set otherwise.
pub const REPLAY_BYTES_MAX: u64 = 1 << 30;
/// Bytes of all memtables, caches and restores of a process, unless set otherwise.
pub const MEMORY_BYTES_MAX: usize = 512 << 20;

/// What has to have happened when a write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// The write was handed to the operating system: it survives the process, not power loss.
    #[default]
    Buffered,
    /// The write, and every one before it, was synced: it survives power loss.
    Synced,
}

/// Whether a store keeps a write-ahead log of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Wal {
    /// Every write goes to the log first.
    #[default]
    On,
    /// Writes live in memory until they are flushed; something else (a changelog) must be able to
    /// repeat them.
    Off,
}

/// How blocks are stored. The numbers are stored; see `docs/format.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// As they are.
    None = 0,
    /// LZ4, where it saves an eighth or more of a block.
    Lz4 = 1,
}

/// How a keyspace's tables are arranged, and when they are merged.
///
/// A trade between bytes written, bytes held and places to look in. A keyspace may be opened with
/// another strategy than before: what it holds stays readable and is rearranged by and by.
///
/// By default [`lazy_leveled`](Strategy::lazy_leveled).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// One sorted run a level, each level [`level_ratio`](KeyspaceOptions::level_ratio) times
    /// larger than the one above: few places to look in, at the price of more bytes written.
    Leveled,
    /// Several runs in the upper levels, and one in the last, which holds nearly everything: each
    /// byte is written about once a level on its way down, for a few more places to look in.
    LazyLeveled {
        /// Runs of about one size that are merged into one of the next; 2 to 16. A store that is
        /// so large that its levels do not suffice takes more.
        runs_max: usize,
        /// How many times larger the last level is than all above it; 2 to 100. Stored bytes are
        /// about `1 + 1 / ratio` times those of the live entries; a merge into the last level
        /// writes about `1 + ratio / 2` bytes for each byte from above.
        ratio: u32,
    },
}

impl Strategy {
    /// Lazy-leveled with [`LAZY_RUNS_MAX`] runs and a ratio of [`LAZY_RATIO`].
    pub fn lazy_leveled() -> Self {
        Self::LazyLeveled {
            runs_max: LAZY_RUNS_MAX,
            ratio: LAZY_RATIO,
        }
    }

    fn validate(self) -> Result<()> {
        match self {
            Self::Leveled => Ok(()),
            Self::LazyLeveled { runs_max, ratio } => {
                check("compaction (runs_max)", runs_max, 2, 16)?;
                check("compaction (ratio)", ratio, 2, 100)
            }
        }
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self::lazy_leveled()
    }
}

/// How tables are read by gets and scans. Compaction, recovery and verification always read by
/// position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReadMode {
    /// Through a memory map: uncompressed blocks are returned without a copy. A page that the disk
    /// cannot deliver kills the process (SIGBUS), and the store recovers as from any kill; the
    /// pages count as page cache, outside of the memory budget. An uncompressed block is checked
    /// against its checksum when it is first read after its table was opened.
    #[default]
    Mapped,
    /// By position: an I/O error is an error of that call.
    Positional,
}

/// What to do where there is no store yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IfMissing {
    /// Create it, and its directories.
    #[default]
    Create,
    /// Answer [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    Fail,
}

/// How a [`Db`](crate::Db) is opened.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) wal: Wal,
    pub(crate) if_missing: IfMissing,
    pub(crate) read_mode: ReadMode,
    pub(crate) memtable_bytes_max: usize,
    pub(crate) wal_bytes_max: u64,
    pub(crate) flush_age_max_ms: u64,
    pub(crate) replay_bytes_max: u64,
    pub(crate) memory_bytes_min: usize,
    pub(crate) record_writes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            env: Arc::new(OsEnv::new()),
            wal: Wal::default(),
            if_missing: IfMissing::default(),
            read_mode: ReadMode::default(),
            memtable_bytes_max: MEMTABLE_BYTES_MAX,
            wal_bytes_max: WAL_BYTES_MAX,
            flush_age_max_ms: FLUSH_AGE_MAX_MS,
            replay_bytes_max: REPLAY_BYTES_MAX,
            memory_bytes_min: 256 << 10,
            record_writes_max: 1 << 20,
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The outside world to use instead of the operating system's.
    #[must_use]
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = env;
        self
    }

    /// Whether the store keeps a write-ahead log; for all its keyspaces alike.
    #[must_use]
    pub fn wal(mut self, wal: Wal) -> Self {
        self.wal = wal;
        self
    }

    /// What to do where there is no store yet.
    #[must_use]
    pub fn if_missing(mut self, if_missing: IfMissing) -> Self {
        self.if_missing = if_missing;
        self
    }

    /// How tables are read.
    #[must_use]
    pub fn read_mode(mut self, read_mode: ReadMode) -> Self {
        self.read_mode = read_mode;
        self
    }

    /// Bytes that a keyspace's memtable holds before it is sealed; at least 1 KiB, at most 1 GiB.
    /// [`MEMTABLE_BYTES_MAX`] unless set.
    #[must_use]
    pub fn memtable_bytes_max(mut self, bytes: usize) -> Self {
        self.memtable_bytes_max = bytes;
        self
    }

    /// Bytes of the write-ahead log above which the keyspace that holds its oldest segment is
    /// flushed. [`WAL_BYTES_MAX`] unless set.
    #[must_use]
    pub fn wal_bytes_max(mut self, bytes: u64) -> Self {
        self.wal_bytes_max = bytes;
        self
    }

    /// Without a write-ahead log: milliseconds after which the oldest unflushed write asks for a
    /// flush, at the next commit. [`FLUSH_AGE_MAX_MS`] unless set.
    #[must_use]
    pub fn flush_age_max_ms(mut self, ms: u64) -> Self {
        self.flush_age_max_ms = ms;
        self
    }

    /// Without a write-ahead log: bytes written since the stored position that ask for a flush, at
    /// the next commit, so that a restart never replays more than about that much.
    /// [`REPLAY_BYTES_MAX`] unless set.
    #[must_use]
    pub fn replay_bytes_max(mut self, bytes: u64) -> Self {
        self.replay_bytes_max = bytes;
        self
    }

    /// Bytes of the runtime's memory budget that this store always has for its memtables, whatever
    /// other stores do. 256 KiB unless set.
    #[must_use]
    pub fn memory_bytes_min(mut self, bytes: usize) -> Self {
        self.memory_bytes_min = bytes;
        self
    }

    /// Bytes of memory kept in reserve for the writes of one input record, so that a task can
    /// finish a record and commit when the budget is spent. 1 MiB unless set.
    #[must_use]
    pub fn record_writes_max(mut self, bytes: usize) -> Self {
        self.record_writes_max = bytes;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check(
            "memtable_bytes_max",
            self.memtable_bytes_max,
            1 << 10,
            1 << 30,
        )?;
        check("wal_bytes_max", self.wal_bytes_max, 4 << 10, 1 << 40)?;
        check("replay_bytes_max", self.replay_bytes_max, 1 << 10, 1 << 50)?;
        check("memory_bytes_min", self.memory_bytes_min, 0, 1 << 40)?;
        check("record_writes_max", self.record_writes_max, 0, 1 << 40)
    }
}

/// How a keyspace is laid out. Chosen when it is created or opened; stored data of other settings
/// stays readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyspaceOptions {
    pub(crate) block_bytes: usize,
    pub(crate) table_bytes: u64,
    pub(crate) compaction: Strategy,
    pub(crate) level_ratio: u32,
    pub(crate) level0_runs_max: usize,
    pub(crate) compression: Compression,
    pub(crate) uncompressed_levels: usize,
    pub(crate) filter_bits_upper: u32,
    pub(crate) filter_bits_last: u32,
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        Self {
            block_bytes: BLOCK_BYTES,
            table_bytes: TABLE_BYTES,
            compaction: Strategy::default(),
            level_ratio: LEVEL_RATIO,
            level0_runs_max: LEVEL0_RUNS_MAX,
            compression: Compression::Lz4,
            uncompressed_levels: 0,
            filter_bits_upper: 16,
            filter_bits_last: 10,
        }
    }
}

impl KeyspaceOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a store whose writes are the bound: more of them are gathered in level 0 before they are
    /// merged, at the price of space and of places to look in.
    pub fn for_writes() -> Self {
        Self {
            level0_runs_max: 8,
            ..Self::default()
        }
    }

    /// For a store whose disk is the bound: little beside the live entries, in larger blocks.
    pub fn for_space() -> Self {
        Self {
            compaction: Strategy::LazyLeveled {
                runs_max: 4,
                ratio: 20,
            },
            block_bytes: 4 * BLOCK_BYTES,
            ..Self::default()
        }
    }

    /// For a store that is mostly read: few runs, so that a range has few sources and a get few
    /// places to look in.
    pub fn for_scans() -> Self {
        Self {
            compaction: Strategy::Leveled,
            level0_runs_max: 2,
            ..Self::default()
        }
    }

    /// Bytes of a data block before compression; 64 B to 64 KiB. [`BLOCK_BYTES`] unless set.
    #[must_use]
    pub fn block_bytes(mut self, bytes: usize) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Bytes of a table at which compaction begins the next; 1 KiB to 1 GiB. [`TABLE_BYTES`]
    /// unless set.
    #[must_use]
    pub fn table_bytes(mut self, bytes: u64) -> Self {
        self.table_bytes = bytes;
        self
    }

    /// How tables are arranged. [`Strategy::lazy_leveled`] unless set.
    #[must_use]
    pub fn compaction(mut self, strategy: Strategy) -> Self {
        self.compaction = strategy;
        self
    }

    /// How many times larger a level is than the one above it under [`Strategy::Leveled`]; 2 to
    /// 100. [`LEVEL_RATIO`] unless set.
    #[must_use]
    pub fn level_ratio(mut self, ratio: u32) -> Self {
        self.level_ratio = ratio;
        self
    }

    /// Runs in level 0 that start a compaction; 1 to 64. [`LEVEL0_RUNS_MAX`] unless set. With
    /// [`Strategy::LazyLeveled`] fewer do, from two on, once reads have spent more on them than
    /// that will cost.
    #[must_use]
    pub fn level0_runs_max(mut self, runs: usize) -> Self {
        self.level0_runs_max = runs;
        self
    }

    /// How the blocks of the lower levels are stored. LZ4 unless set.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// How many levels from the top are stored uncompressed. None unless set.
    #[must_use]
    pub fn uncompressed_levels(mut self, levels: usize) -> Self {
        self.uncompressed_levels = levels;
        self
    }

    /// Bloom filter bits a key in the upper levels and in the last one; 0 for no filter, at most
    /// 64. 16 and 10 unless set.
    #[must_use]
    pub fn filter_bits(mut self, upper: u32, last: u32) -> Self {
        self.filter_bits_upper = upper;
        self.filter_bits_last = last;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check("block_bytes", self.block_bytes, 64, 64 << 10)?;
        check("table_bytes", self.table_bytes, 1 << 10, 1 << 30)?;
        self.compaction.validate()?;
        check("level_ratio", self.level_ratio, 2, 100)?;
        check("level0_runs_max", self.level0_runs_max, 1, 64)?;
        check("uncompressed_levels", self.uncompressed_levels, 0, LEVELS)?;
        check("filter_bits (upper)", self.filter_bits_upper, 0, 64)?;
        check("filter_bits (last)", self.filter_bits_last, 0, 64)
    }
}

/// How a [`Runtime`](crate::Runtime) is set up.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) threads: usize,
    pub(crate) memory_bytes_max: usize,
    pub(crate) cache_bytes: usize,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            env: Arc::new(OsEnv::new()),
            threads: 2,
            memory_bytes_max: MEMORY_BYTES_MAX,
            cache_bytes: MEMORY_BYTES_MAX / 4,
        }
    }
}

impl RuntimeOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where threads and time come from.
    #[must_use]
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = env;
        self
    }

    /// Background threads for flushes and compactions; at most 256. 2 unless set. With 0 the work
    /// is done by callers: where a write would wait for it, and in
    /// [`Runtime::run_pending`](crate::Runtime::run_pending), so that a run can be repeated
    /// exactly.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The memory budget in bytes: memtables, block cache, pinned indexes and restores of all
    /// stores of this runtime. [`MEMORY_BYTES_MAX`] unless set.
    #[must_use]
    pub fn memory_bytes_max(mut self, bytes: usize) -> Self {
        self.memory_bytes_max = bytes;
        self
    }

    /// The part of the budget that is the block cache. A quarter of [`MEMORY_BYTES_MAX`] unless
    /// set.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        check("threads", self.threads, 0, 256)?;
        check("memory_bytes_max", self.memory_bytes_max, 64 << 10, 1 << 46)?;
        check(
            "cache_bytes",
            self.cache_bytes,
            0,
            self.memory_bytes_max / 2,
        )
    }
}

fn check<T: PartialOrd + fmt::Display + Copy>(name: &str, value: T, low: T, high: T) -> Result<()> {
    if value < low || value > high {
        return Err(Error::invalid(format!(
            "{name} is {value}, allowed are {low} to {high}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Options::new().validate().unwrap();
        KeyspaceOptions::new().validate().unwrap();
        KeyspaceOptions::for_writes().validate().unwrap();
        KeyspaceOptions::for_space().validate().unwrap();
        KeyspaceOptions::for_scans().validate().unwrap();
        RuntimeOptions::new().validate().unwrap();
    }

    #[test]
    fn a_bad_option_is_named() {
        let error = KeyspaceOptions::new()
            .block_bytes(1)
            .validate()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "block_bytes is 1, allowed are 64 to 65536"
        );
        assert!(Options::new().memtable_bytes_max(1).validate().is_err());
        assert!(
            RuntimeOptions::new()
                .cache_bytes(usize::MAX)
                .validate()
                .is_err()
        );
    }
}
