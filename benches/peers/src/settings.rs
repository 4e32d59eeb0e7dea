//! What every engine is told. The adapters in `engine` translate it, each in its `open`.
//!
//! | | Siltstone | RocksDB | fjall | redb |
//! |---|---|---|---|---|
//! | memtable | `memtable_bytes_max` | `write_buffer_size`, 2 | `max_memtable_size` | none |
//! | table | `table_bytes` | `target_file_size_base` | `with_table_target_size` | none |
//! | first level | as it likes | `max_bytes_for_level_base` | 4 tables, its fixed rule | none |
//! | cache | `cache_bytes` | LRU block cache | `cache_size` | `set_cache_size` |
//! | blocks | 4 KiB | 4 KiB | 4 KiB | pages of 4 KiB |
//! | LZ4 | all levels | all levels | below level 1 | none: it has no compression |
//! | Bloom filter | 10 bits, all levels | 10 bits, all levels | 10 bits, all levels | none |
//! | background threads | 2 | 2 jobs | 2 | none |
//! | a put | WAL, no sync | WAL, no sync | journal, no sync | `Durability::None` |
//! | a synced put | `Durability::Synced` | `sync` | `SyncData` | `Durability::Immediate` |
//!
//! Everything else is the engine's default. Which levels go uncompressed is each engine's own
//! advice. A put of redb promises less than one of the others: a kill may lose it.

/// Sizes that all engines share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// A table, in all engines, is as large as a memtable; the first level four times that.
    pub(crate) memtable_bytes: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) wal: bool,
}

pub(crate) const BLOCK_BYTES: usize = 4096;
pub(crate) const FILTER_BITS: u32 = 10;
pub(crate) const THREADS: usize = 2;

impl Default for Settings {
    fn default() -> Self {
        Self {
            memtable_bytes: 64 << 20,
            cache_bytes: 256 << 20,
            wal: true,
        }
    }
}

impl Settings {
    pub(crate) fn table_bytes(&self) -> u64 {
        self.memtable_bytes as u64
    }

    pub(crate) fn first_level_bytes(&self) -> u64 {
        4 * self.memtable_bytes as u64
    }
}
