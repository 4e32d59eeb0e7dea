//! Carries a plan out: reads its inputs, writes its outputs, leaves the edit to the caller.

#[cfg(test)]
mod tests;

use std::cmp::Ordering as KeyOrdering;
use std::io;

use super::cut::{Cut, Cutter};
use super::stream::{Retention, Stats, Stream};
use super::{Kind, Older, Plan};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Cursor, InternalKey, SeqNo};
use crate::merge::{Chain, Links, Merge};
use crate::options::{Compression, KeyspaceOptions, LEVELS};
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sstable::{self, Access, BuilderOptions};
use crate::sync::{Arc, AtomicBool, Ordering};
use crate::version::{Table, TableMeta, TableStore};

/// Entries that are written between two looks for more urgent work: some microseconds of time.
const STEP_LEN: usize = 32;

/// How the tables of `level` are laid out.
pub(crate) fn layout(options: &KeyspaceOptions, level: usize) -> BuilderOptions {
    let is_last = level == LEVELS - 1;
    BuilderOptions {
        block_bytes: options.block_bytes,
        compression: if level < options.uncompressed_levels {
            Compression::None
        } else {
            options.compression
        },
        filter_bits: if is_last {
            options.filter_bits_last
        } else {
            options.filter_bits_upper
        },
    }
}

/// Where tables are written and how they are cut.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) store: &'a TableStore,
    pub(crate) layout: BuilderOptions,
    /// Bytes of a file at which the next begins, or thereabouts where there are borders.
    pub(crate) table_bytes: u64,
    /// See [`Plan::cut`].
    pub(crate) cut: Cut,
    /// See [`Plan::borders`].
    pub(crate) borders: &'a [Slice],
    /// Gives a number that no file of the store ever had.
    pub(crate) allocate: &'a dyn Fn() -> u64,
    /// Ends the work with `Closed` once it is true.
    pub(crate) cancel: &'a AtomicBool,
    /// Called every few entries, without any lock: lets more urgent work go first.
    pub(crate) step_aside: &'a dyn Fn(),
}

/// What a compaction needs to know beside its plan.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) store: &'a TableStore,
    pub(crate) options: &'a KeyspaceOptions,
    /// See [`Retention::boundaries`].
    pub(crate) boundaries: &'a [SeqNo],
    /// See [`Target::allocate`].
    pub(crate) allocate: &'a dyn Fn() -> u64,
    /// See [`Target::cancel`].
    pub(crate) cancel: &'a AtomicBool,
    /// See [`Target::step_aside`].
    pub(crate) step_aside: &'a dyn Fn(),
}

/// What a compaction has made.
#[derive(Debug, Clone)]
pub(crate) struct Outputs {
    /// Disjoint, in key order; none if nothing was kept.
    pub(crate) tables: Vec<TableMeta>,
    /// Bytes of the output files.
    pub(crate) bytes_written: u64,
    pub(crate) stats: Stats,
}

/// Merges the plan's inputs into new tables, which are durable on return, and so are their names.
///
/// # Errors
///
/// `Corruption` also where the inputs hold another number of entries than is known of them: an
/// early end is not the end. `Closed` when cancelled. After any error the outputs are removed and
/// the inputs are as they were.
///
/// # Panics
///
/// If the plan is not a merge.
pub(crate) fn run(plan: &Plan, context: &Context<'_>) -> Result<Outputs> {
    assert_eq!(plan.kind, Kind::Merge, "a trivial move needs no run");
    let target = Target {
        store: context.store,
        layout: layout(context.options, plan.output_level),
        table_bytes: plan.table_bytes.unwrap_or(context.options.table_bytes),
        cut: plan.cut,
        borders: &plan.borders,
        allocate: context.allocate,
        cancel: context.cancel,
        step_aside: context.step_aside,
    };
    let sources = plan.inputs.iter().map(|input| {
        Chain::new(InputTables {
            tables: &input.tables,
            cancel: context.cancel,
        })
    });
    let merge = Merge::new(sources.collect());
    let retention = Retention {
        boundaries: context.boundaries,
        dead: &[],
        zero_seqnos: true,
    };
    let mut older = Older::new(plan);
    let mut stream = Stream::new(merge, retention, |user: &[u8]| older.lacks(user));

    let mut files = NewFiles::new(context.store);
    let tables = write_into(&mut files, &mut stream, &target)?;
    let stats = stream.stats();
    check_entries_read(plan, stats.entries_read)?;
    files.keep()?;
    Ok(Outputs {
        bytes_written: tables.iter().map(|table| table.len).sum(),
        tables,
        stats,
    })
}

/// What tables are written from.
pub(crate) trait Entries {
    /// The next entry in order, or `None` at the end.
    fn next_kept(&mut self) -> Result<Option<(InternalKey<'_>, &[u8])>>;
}

impl<C: Cursor, D: FnMut(&[u8]) -> bool> Entries for Stream<'_, C, D> {
    fn next_kept(&mut self) -> Result<Option<(InternalKey<'_>, &[u8])>> {
        Stream::next_kept(self)
    }
}

/// Writes `entries` into tables, which are durable on return, and so are their names.
/// They are disjoint, in key order; none if nothing is kept.
///
/// # Errors
///
/// Those of the entries and of writing, and `Closed` when cancelled. After any error the files are
/// removed.
pub(crate) fn write_tables(
    entries: &mut impl Entries,
    target: &Target<'_>,
) -> Result<Vec<TableMeta>> {
    let mut files = NewFiles::new(target.store);
    let tables = write_into(&mut files, entries, target)?;
    files.keep()?;
    Ok(tables)
}

fn write_into(
    files: &mut NewFiles<'_>,
    entries: &mut impl Entries,
    target: &Target<'_>,
) -> Result<Vec<TableMeta>> {
    let mut cutter = Cutter::new(target.table_bytes, target.cut, target.borders);
    let mut tables = Vec::new();
    let mut open: Option<NewTable> = None;
    let mut last_user: Vec<u8> = Vec::new();
    let mut entries_left = STEP_LEN;
    while let Some((key, value)) = entries.next_kept()? {
        entries_left -= 1;
        if entries_left == 0 {
            (target.step_aside)();
            entries_left = STEP_LEN;
        }
        check_cancelled(target.cancel)?;
        match last_user.as_slice().cmp(key.user) {
            KeyOrdering::Less => {
                // All versions of a key go into one table: only here a table may end.
                let bytes = open
                    .as_ref()
                    .map_or(0, |table| table.builder.file_len_estimate());
                if cutter.cuts_before(key.user, bytes)
                    && let Some(table) = open.take()
                {
                    tables.push(table.finish()?);
                }
                last_user.clear();
                last_user.extend_from_slice(key.user);
            }
            KeyOrdering::Equal => {}
            KeyOrdering::Greater => {
                return Err(Error::corruption(format!(
                    "tables that should be disjoint overlap: {key:?} comes behind {}",
                    last_user.escape_ascii()
                )));
            }
        }
        let table = match &mut open {
            Some(table) => table,
            none => none.insert(files.create(target)?),
        };
        table.builder.add(key, value)?;
    }
    if let Some(table) = open {
        tables.push(table.finish()?);
    }
    Ok(tables)
}

fn check_cancelled(cancel: &AtomicBool) -> Result<()> {
    // Relaxed: nothing is read on the strength of the flag.
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::new(
            ErrorKind::Closed,
            "cancelled: the store is being closed",
        ));
    }
    Ok(())
}

fn check_entries_read(plan: &Plan, read: u64) -> Result<()> {
    let known: u64 = plan.tables().map(|table| table.meta.entries).sum();
    if read == known {
        return Ok(());
    }
    let numbers: Vec<u64> = plan.tables().map(|table| table.meta.number).collect();
    Err(Error::corruption(format!(
        "tables {numbers:?}: {read} entries read, {known} are known of them"
    )))
}

/// The tables of one input, opened as the merge reaches them.
struct InputTables<'a> {
    tables: &'a [Arc<Table>],
    cancel: &'a AtomicBool,
}

impl Links for InputTables<'_> {
    type Cursor = sstable::Cursor;

    fn len(&self) -> usize {
        self.tables.len()
    }

    fn largest(&self, index: usize) -> &[u8] {
        &self.tables[index].meta.largest
    }

    fn smallest(&self, index: usize) -> &[u8] {
        &self.tables[index].meta.smallest
    }

    fn open(&self, index: usize) -> Result<sstable::Cursor> {
        // Here too: where nothing is kept, nothing is written.
        check_cancelled(self.cancel)?;
        Ok(self.tables[index].reader()?.cursor(Access::Positional))
    }
}

/// A table that is being written.
struct NewTable {
    number: u64,
    id: u64,
    builder: sstable::Builder,
}

impl NewTable {
    fn finish(self) -> Result<TableMeta> {
        let summary = self.builder.finish()?;
        Ok(TableMeta {
            number: self.number,
            id: self.id,
            len: summary.len,
            entries: summary.entries,
            tombstones: summary.tombstones,
            raw_bytes: summary.raw_bytes,
            smallest: summary.smallest,
            largest: summary.largest,
            seqno_min: summary.seqno_min,
            seqno_max: summary.seqno_max,
        })
    }
}

/// The files that a job has created. They are removed with it, unless it comes to its end.
struct NewFiles<'a> {
    store: &'a TableStore,
    numbers: Vec<u64>,
}

impl<'a> NewFiles<'a> {
    fn new(store: &'a TableStore) -> Self {
        Self {
            store,
            numbers: Vec::new(),
        }
    }

    fn create(&mut self, target: &Target<'_>) -> Result<NewTable> {
        let number = (target.allocate)();
        let created = self.store.env.create_new(&self.store.path(number));
        let is_foreign = |error: &Error| error.io_kind() == Some(io::ErrorKind::AlreadyExists);
        if !created.as_ref().is_err_and(is_foreign) {
            // After any other error the file may be there all the same.
            self.numbers.push(number);
        }
        let file = created?;
        let id = self.store.env.random_u64();
        Ok(NewTable {
            number,
            id,
            builder: sstable::Builder::new(file, id, target.layout),
        })
    }

    /// Makes the files' names durable and leaves the files to the caller.
    fn keep(mut self) -> Result<()> {
        if !self.numbers.is_empty() && !planted(Bug::TableNameSyncSkipped) {
            self.store.env.sync_dir(&self.store.dir)?;
        }
        self.numbers.clear();
        Ok(())
    }
}

impl Drop for NewFiles<'_> {
    fn drop(&mut self) {
        for number in &self.numbers {
            // A file that stays behind is removed by the next open.
            let _ = self.store.env.remove_file(&self.store.path(*number));
        }
    }
}
