//! What a store has written and why, and what it holds.

use crate::compaction::run::Outputs;
use crate::options::LEVELS;
use crate::sync::{AtomicU64, Ordering};

/// Counters of bytes by cause. All relaxed: statistics that nothing is ordered by.
#[derive(Default)]
pub(crate) struct Counters {
    user: AtomicU64,
    flush: AtomicU64,
    restore: AtomicU64,
    compaction_read: [AtomicU64; LEVELS],
    compaction_written: [AtomicU64; LEVELS],
    memory_compactions: AtomicU64,
    flushes: AtomicU64,
    compactions: AtomicU64,
    dropped_entries: AtomicU64,
    stall_us: AtomicU64,
}

impl Counters {
    pub(crate) fn add_user(&self, bytes: u64) {
        self.user.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_flush(&self, bytes: u64) {
        self.flush.fetch_add(bytes, Ordering::Relaxed);
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_restore(&self, bytes: u64) {
        self.restore.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_memory_compaction(&self) {
        self.memory_compactions.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a compaction by its inputs' levels and bytes, and its outputs.
    pub(crate) fn add_compaction(
        &self,
        inputs: impl Iterator<Item = (usize, u64)>,
        output_level: usize,
        outputs: &Outputs,
    ) {
        for (level, bytes) in inputs {
            self.compaction_read[level].fetch_add(bytes, Ordering::Relaxed);
        }
        let written = &self.compaction_written[output_level];
        written.fetch_add(outputs.bytes_written, Ordering::Relaxed);
        let stats = &outputs.stats;
        let dropped = stats.dropped_hidden + stats.dropped_tombstones;
        self.dropped_entries.fetch_add(dropped, Ordering::Relaxed);
        self.compactions.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_stall(&self, us: u64) {
        self.stall_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn fill(&self, stats: &mut Stats) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.user_bytes = get(&self.user);
        stats.flush_bytes = get(&self.flush);
        stats.restore_bytes = get(&self.restore);
        stats.memory_compactions = get(&self.memory_compactions);
        stats.flushes = get(&self.flushes);
        stats.compactions = get(&self.compactions);
        stats.dropped_entries = get(&self.dropped_entries);
        stats.stall_us = get(&self.stall_us);
        stats.compaction_read_bytes = self.compaction_read.iter().map(get).sum();
        stats.compaction_written_bytes = self.compaction_written.iter().map(get).sum();
        for (level, row) in stats.levels.iter_mut().enumerate() {
            row.compaction_read_bytes = get(&self.compaction_read[level]);
            row.compaction_written_bytes = get(&self.compaction_written[level]);
        }
    }
}

/// One level over all keyspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LevelStats {
    /// Sorted runs.
    pub runs: usize,
    /// Tables.
    pub tables: usize,
    /// Bytes of the tables' files.
    pub bytes: u64,
    /// Entries in the tables, tombstones and old versions included.
    pub entries: u64,
    /// Tombstones in the tables.
    pub tombstones: u64,
    /// Bytes that compactions read from this level since the store was opened.
    pub compaction_read_bytes: u64,
    /// Bytes that compactions wrote to this level since the store was opened.
    pub compaction_written_bytes: u64,
}

/// What a store holds, and what it has written since it was opened, by cause.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Keys and values of all writes.
    pub user_bytes: u64,
    /// Written to the write-ahead log, each record once, and to make its stage.
    pub wal_bytes: u64,
    /// Written to the manifest and to CURRENT.
    pub manifest_bytes: u64,
    /// Tables written from memtables.
    pub flush_bytes: u64,
    /// Tables written by restores.
    pub restore_bytes: u64,
    /// Tables read by compactions.
    pub compaction_read_bytes: u64,
    /// Tables written by compactions.
    pub compaction_written_bytes: u64,
    /// Flushes that wrote tables.
    pub flushes: u64,
    /// Compactions that wrote tables.
    pub compactions: u64,
    /// Old versions and tombstones that compactions left out.
    pub dropped_entries: u64,
    /// Memtables that were compacted in memory instead of being flushed.
    pub memory_compactions: u64,
    /// Microseconds that writers were held back because compaction had fallen behind.
    pub stall_us: u64,
    /// Bytes of memory that the store's memtables hold.
    pub memtable_bytes: u64,
    /// Bytes of write-ahead log files.
    pub wal_file_bytes: u64,
    /// The newest sequence number.
    pub last_seqno: u64,
    /// Each level, level 0 first.
    pub levels: Vec<LevelStats>,
    /// The last failure of a flush or compaction, until one succeeds.
    pub background_error: Option<String>,
}

impl Stats {
    /// Bytes written to files for each byte that the user wrote; 0 before the first write.
    pub fn write_amplification(&self) -> f64 {
        let written = self.wal_bytes
            + self.manifest_bytes
            + self.flush_bytes
            + self.restore_bytes
            + self.compaction_written_bytes;
        ratio(written, self.user_bytes)
    }

    /// Bytes of all tables for each byte of the last level; 1 where one level holds everything, 0
    /// for an empty store.
    pub fn space_amplification(&self) -> f64 {
        let last = self.levels.iter().rev().find(|level| level.bytes > 0);
        ratio(self.table_bytes(), last.map_or(0, |level| level.bytes))
    }

    /// Bytes of all tables' files.
    pub fn table_bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.bytes).sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

impl std::fmt::Display for Stats {
    /// The level table and the ratios, for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:<6}{:>6}{:>8}{:>14}{:>14}{:>12}{:>14}{:>14}",
            "level", "runs", "tables", "bytes", "entries", "tombstones", "read", "written"
        )?;
        for (number, level) in self.levels.iter().enumerate() {
            if level.tables == 0 && level.compaction_written_bytes == 0 {
                continue;
            }
            writeln!(
                f,
                "{number:<6}{:>6}{:>8}{:>14}{:>14}{:>12}{:>14}{:>14}",
                level.runs,
                level.tables,
                level.bytes,
                level.entries,
                level.tombstones,
                level.compaction_read_bytes,
                level.compaction_written_bytes
            )?;
        }
        writeln!(f, "memtables            {:>14} bytes", self.memtable_bytes)?;
        writeln!(
            f,
            "write-ahead log      {:>14} bytes in files",
            self.wal_file_bytes
        )?;
        writeln!(f, "written by the user  {:>14} bytes", self.user_bytes)?;
        writeln!(f, "  write-ahead log    {:>14}", self.wal_bytes)?;
        writeln!(f, "  manifest           {:>14}", self.manifest_bytes)?;
        writeln!(f, "  flush              {:>14}", self.flush_bytes)?;
        writeln!(
            f,
            "  compaction         {:>14}",
            self.compaction_written_bytes
        )?;
        writeln!(f, "  restore            {:>14}", self.restore_bytes)?;
        writeln!(
            f,
            "write amplification  {:>14.2}",
            self.write_amplification()
        )?;
        writeln!(
            f,
            "space amplification  {:>14.2}",
            self.space_amplification()
        )?;
        if let Some(error) = &self.background_error {
            writeln!(f, "background error: {error}")?;
        }
        Ok(())
    }
}
