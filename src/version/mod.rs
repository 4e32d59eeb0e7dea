//! What a keyspace's tables are at one moment: a [`Version`] of levels of runs of tables.
//!
//! A version never changes; an edit (`edit`) makes the next one. All keyspaces' versions and what
//! else has to outlive a crash are a `state`, which the manifest (`manifest`) keeps as edits. The
//! file CURRENT (`current`) names the manifest that counts; `directory` knows a store's files.

mod current;
mod directory;
mod edit;
#[cfg(test)]
mod fixture;
mod manifest;
mod run_cursor;
mod state;

use std::path::PathBuf;

use crate::cache::{Account, BlockCache, Charge};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::key::SeqNo;
use crate::options::{LEVELS, ReadMode};
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sstable;
use crate::sync::{Arc, AtomicBool, Mutex, OnceLock, Ordering};

#[cfg(feature = "cli")]
pub(crate) use current::{Current, MAGIC as CURRENT_MAGIC};
#[cfg(feature = "cli")]
pub(crate) use directory::manifest_name;
pub(crate) use directory::{LOCK_NAME, Presence, detect, remove_leftovers};
pub(crate) use edit::{Change, VersionEdit};
#[cfg(feature = "cli")]
pub(crate) use manifest::KIND as MANIFEST_KIND;
pub(crate) use manifest::Manifest;
pub(crate) use run_cursor::RunCursor;
pub(crate) use state::State;

/// What the manifest knows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableMeta {
    /// Number of its file, unique within the store for ever.
    pub(crate) number: u64,
    /// Random id that its checksums are bound to.
    pub(crate) id: u64,
    /// Length of the file in bytes.
    pub(crate) len: u64,
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    /// Bytes of all keys and values before block layout and compression.
    pub(crate) raw_bytes: u64,
    /// First and last user key, both inclusive.
    pub(crate) smallest: Slice,
    pub(crate) largest: Slice,
    pub(crate) seqno_min: SeqNo,
    pub(crate) seqno_max: SeqNo,
}

impl TableMeta {
    /// True if a key within `low..=high` may be in the table.
    pub(crate) fn overlaps(&self, low: &[u8], high: &[u8]) -> bool {
        *self.smallest <= *high && *self.largest >= *low
    }
}

/// Where tables are and how they are read.
#[derive(Clone)]
pub(crate) struct TableStore {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) dir: PathBuf,
    pub(crate) cache: Arc<BlockCache>,
    pub(crate) read_mode: ReadMode,
    /// Pays for what open tables keep in memory.
    pub(crate) account: Arc<Account>,
}

impl TableStore {
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(table_name(number))
    }
}

/// The one place that names a table's file.
pub(crate) fn table_name(number: u64) -> String {
    format!("{number:08}.sst")
}

/// A table's reader, and the memory that it is counted with.
struct Opened {
    reader: Arc<sstable::Reader>,
    _memory: Charge,
}

/// A table of a version: its facts, and its reader once somebody has read it.
///
/// The last holder of an obsolete table removes its file, so a file outlives every reader.
pub(crate) struct Table {
    pub(crate) meta: TableMeta,
    /// `None` for the fake tables that pickers are tested with.
    store: Option<TableStore>,
    reader: OnceLock<Opened>,
    /// Held by the one who opens the reader.
    opening: Mutex<()>,
    /// Set once the edit that drops the table is durable.
    obsolete: AtomicBool,
}

impl Table {
    pub(crate) fn new(meta: TableMeta, store: TableStore) -> Self {
        Self::with_store(meta, Some(store))
    }

    /// A table that is only looked at, never read.
    #[cfg(test)]
    pub(crate) fn fake(meta: TableMeta) -> Self {
        Self::with_store(meta, None)
    }

    fn with_store(meta: TableMeta, store: Option<TableStore>) -> Self {
        Self {
            meta,
            store,
            reader: OnceLock::new(),
            opening: Mutex::new(()),
            obsolete: AtomicBool::new(false),
        }
    }

    /// The table's reader, opened at its first use.
    pub(crate) fn reader(&self) -> Result<&Arc<sstable::Reader>> {
        if let Some(opened) = self.reader.get() {
            return Ok(&opened.reader);
        }
        let _turn = self.opening.lock();
        if let Some(opened) = self.reader.get() {
            return Ok(&opened.reader);
        }
        let opened = self.open()?;
        Ok(&self.reader.get_or_init(|| opened).reader)
    }

    fn open(&self) -> Result<Opened> {
        let store = self
            .store
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "a fake table has no file"))?;
        let reader = Arc::new(sstable::Reader::open(
            &*store.env,
            &store.path(self.meta.number),
            self.meta.id,
            self.meta.len,
            Arc::clone(&store.cache),
            store.read_mode,
        )?);
        let memory = store.account.charge();
        memory.raise_to(reader.memory_bytes());
        Ok(Opened {
            reader,
            _memory: memory,
        })
    }

    /// Has the file removed when its last holder lets go. Only once no durable edit names it.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
        if planted(Bug::TablesRemovedWhileRead)
            && let Some(store) = &self.store
        {
            let _ = store.env.remove_file(&store.path(self.meta.number));
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if !self.obsolete.load(Ordering::Acquire) {
            return;
        }
        if let Some(store) = &self.store {
            // A file that stays behind is removed by the next open.
            let _ = store.env.remove_file(&store.path(self.meta.number));
        }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.meta.fmt(f)
    }
}

/// Disjoint tables in key order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// Within a level a higher number is a newer run. In the last level it is 0.
    number: u64,
    tables: Vec<Arc<Table>>,
    /// Of each table's largest key the head: a search among them looks at few cache lines.
    ends: Vec<u64>,
}

/// The first eight bytes of a key as an integer that orders as they do.
fn head_of(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(head) => u64::from_be_bytes(*head),
        None => key
            .iter()
            .chain(&[0; 8])
            .take(8)
            .fold(0, |head, byte| head << 8 | u64::from(*byte)),
    }
}

impl Run {
    /// # Panics
    ///
    /// If the tables overlap or are not in key order.
    #[cfg(test)]
    pub(crate) fn new(tables: Vec<Arc<Table>>) -> Self {
        Self::numbered(0, tables)
    }

    /// A run with its number.
    ///
    /// # Panics
    ///
    /// If the tables overlap or are not in key order.
    pub(crate) fn numbered(number: u64, tables: Vec<Arc<Table>>) -> Self {
        for pair in tables.windows(2) {
            assert!(
                pair[0].meta.largest < pair[1].meta.smallest,
                "tables of one run overlap: {:?} and {:?}",
                pair[0],
                pair[1]
            );
        }
        let ends = tables.iter().map(|table| head_of(&table.meta.largest));
        Self {
            number,
            ends: ends.collect(),
            tables,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// The table that may hold `key`.
    pub(crate) fn table_for(&self, key: &[u8]) -> Option<&Arc<Table>> {
        let head = head_of(key);
        let below = self.ends.partition_point(|end| *end < head);
        let equal = self.ends[below..].partition_point(|end| *end == head);
        let tables = &self.tables[below..];
        let index = tables[..equal].partition_point(|table| *table.meta.largest < *key);
        tables
            .get(index)
            .filter(|table| *table.meta.smallest <= *key)
    }

    /// The tables that may hold a key within `low..=high`.
    pub(crate) fn overlapping(&self, low: &[u8], high: &[u8]) -> &[Arc<Table>] {
        let start = self
            .tables
            .partition_point(|table| *table.meta.largest < *low);
        let end = self
            .tables
            .partition_point(|table| *table.meta.smallest <= *high);
        &self.tables[start..end.max(start)]
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.meta.len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

/// Runs, the newest first. In the last level there is at most one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Level {
    pub(crate) runs: Vec<Run>,
}

impl Level {
    pub(crate) fn bytes(&self) -> u64 {
        self.runs.iter().map(Run::bytes).sum()
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.runs.iter().flat_map(Run::tables)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.iter().all(Run::is_empty)
    }

    /// Where a table of keys within `low..=high` goes that is newer than all of the level: the
    /// lowest run above every table that overlaps, but for those that leave.
    pub(crate) fn run_above(
        &self,
        low: &[u8],
        high: &[u8],
        leaves: impl Fn(&Arc<Table>) -> bool,
    ) -> u64 {
        let holds = |run: &&Run| !run.overlapping(low, high).iter().all(&leaves);
        let highest = self.runs.iter().find(holds);
        highest.map_or(0, |run| run.number + 1)
    }
}

/// All tables of a keyspace, immutable.
///
/// For any key, every version in level `n` is newer than every version in level `n + 1`, and
/// within a level every version in an earlier run is newer than those in later runs. A run below
/// level 0 may have gaps, and its tables may have come there at different times.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) levels: Vec<Level>,
}

impl Default for Version {
    fn default() -> Self {
        Self {
            levels: vec![Level::default(); LEVELS],
        }
    }
}

impl Version {
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.levels.iter().flat_map(Level::tables)
    }

    /// All runs, the newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.levels.iter().flat_map(|level| &level.runs)
    }

    /// The deepest level that has tables.
    pub(crate) fn last_level(&self) -> Option<usize> {
        self.levels.iter().rposition(|level| !level.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_finds_the_one_table_that_may_hold_a_key() {
        // Long ones with one head, and some that end within it.
        let keys = [
            "a",
            "a\0",
            "ab",
            "abcdefg",
            "abcdefgh",
            "abcdefgh0",
            "abcdefgh1",
            "abcdefgh2",
            "abcdefgh3",
            "abcdefgi",
            "abd",
            "b",
        ];
        let table = |ends: &[&str]| {
            let meta = fixture::meta(1, ends[0], ends[ends.len() - 1], 1, 1);
            Arc::new(Table::fake(meta))
        };
        for tables in [keys.chunks(1), keys.chunks(2), keys.chunks(12)] {
            let run = Run::new(tables.map(table).collect());
            for key in keys
                .iter()
                .chain(&["", "aa", "abcdefgh1x", "abcdefghi", "c"])
            {
                let key = key.as_bytes();
                let holds = |table: &&Arc<Table>| table.meta.overlaps(key, key);
                let expected = run.tables().iter().find(holds);
                let found = run.table_for(key);
                assert_eq!(
                    found.map(|table| &table.meta.smallest),
                    expected.map(|table| &table.meta.smallest),
                    "{key:?}"
                );
            }
        }
    }
}
