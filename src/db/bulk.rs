//! Restoring: sorted runs go straight into tables, never through the write path.

use crate::compaction::cut::Cut;
use crate::compaction::run::{Entries, Target, layout, write_tables};
use crate::error::{Error, Result};
use crate::key::{InternalKey, SeqNo, ValueKind};
use crate::sstable::BuilderOptions;
use crate::sync::Ordering;
use crate::version::{Change, TableMeta};

use super::keyspace::Keyspace;
use super::{Db, DbInner};

/// What a restore knows of a key: its newest value, or that it was deleted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RestoreEntry<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

impl Db {
    /// Keeps compaction away from a keyspace while runs are added to it.
    pub(crate) fn begin_restore(&self, keyspace: &Keyspace) -> Result<()> {
        self.inner()
            .set_restoring(keyspace.id_in(self.inner())?, true)
    }

    /// Takes the place of a run among those of its keyspace: later ones are newer.
    ///
    /// Several keyspaces may be restored at the same time, and several runs of one be written;
    /// nothing may be unreleased, and nobody else may write.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is something in memory; `Poisoned`, `Closed`, `NotFound`.
    pub(crate) fn begin_restored_run(&self, keyspace: &Keyspace) -> Result<RestoredRun> {
        self.inner()
            .begin_restored_run(keyspace.id_in(self.inner())?)
    }

    /// Writes `entries`, whose keys ascend strictly, as tables that are durable on return. They
    /// count once they are [installed](Self::install_restored_run).
    ///
    /// # Errors
    ///
    /// `Io`, `Poisoned`, `Closed`, `NotFound`. Nothing has changed then.
    pub(crate) fn write_restored_run<'a>(
        &self,
        run: &mut RestoredRun,
        entries: impl Iterator<Item = RestoreEntry<'a>>,
    ) -> Result<()> {
        self.inner().write_restored_run(run, entries)
    }

    /// Adds a run that was written as the newest data of its keyspace, so after all that were begun
    /// before, and records `position` in
    /// the same edit. Durable and visible on return.
    ///
    /// # Errors
    ///
    /// `Io`, `Poisoned`, `Closed`, `NotFound`. Nothing has changed then.
    pub(crate) fn install_restored_run(&self, run: RestoredRun, position: Vec<u8>) -> Result<()> {
        self.inner().install_restored_run(run, position)
    }

    /// Lets compaction back in. Runs that were added are merged into the last level in the
    /// background where there are more than level 0 should hold.
    pub(crate) fn end_restore(&self, keyspace: &Keyspace) -> Result<()> {
        let id = keyspace.id_in(self.inner())?;
        self.inner().set_restoring(id, false)?;
        self.inner().submit_compaction();
        Ok(())
    }

    /// Puts each keyspace `from` in the place of `name`, which goes with all it holds, and records
    /// `position`, in one edit.
    pub(crate) fn replace_keyspaces(
        &self,
        replacements: &[(String, String)],
        position: Vec<u8>,
    ) -> Result<()> {
        self.inner().replace_keyspaces(replacements, position)
    }
}

impl DbInner {
    fn set_restoring(&self, id: u32, restoring: bool) -> Result<()> {
        self.health.check_write()?;
        let view = self.view();
        super::read::view_of(&view, id)?
            .restoring
            .store(restoring, Ordering::Release);
        Ok(())
    }

    fn begin_restored_run(&self, id: u32) -> Result<RestoredRun> {
        self.health.check_write()?;
        let view = self.view();
        let keyspace = super::read::view_of(&view, id)?;
        let mut state = self.commit.lock();
        if state.last_seqno != state.released
            || !state.groups.is_empty()
            || !keyspace.active.is_empty()
        {
            return Err(Error::invalid(
                "a restore needs a store with nothing in memory",
            ));
        }
        state.last_seqno.0 += 1;
        state.released = state.last_seqno;
        Ok(RestoredRun {
            keyspace: id,
            seqno: state.last_seqno,
            tables: Vec::new(),
        })
    }

    fn write_restored_run<'a>(
        &self,
        run: &mut RestoredRun,
        entries: impl Iterator<Item = RestoreEntry<'a>>,
    ) -> Result<()> {
        self.health.check_write()?;
        let view = self.view();
        let keyspace = super::read::view_of(&view, run.keyspace)?;
        let target = Target {
            store: &self.tables,
            layout: BuilderOptions {
                // They hold what soon will be the last level.
                filter_bits: keyspace.options.filter_bits_last,
                ..layout(&keyspace.options, 0)
            },
            table_bytes: keyspace.options.table_bytes,
            cut: Cut::Near,
            borders: &[],
            allocate: &|| self.next_file(),
            cancel: self.work.stopping(),
            step_aside: &|| {},
        };
        let mut entries = RestoreEntries {
            entries,
            current: None,
            seqno: run.seqno,
        };
        run.tables = write_tables(&mut entries, &target)?;
        Ok(())
    }

    fn install_restored_run(&self, run: RestoredRun, position: Vec<u8>) -> Result<()> {
        self.health.check_write()?;
        let RestoredRun {
            keyspace,
            seqno,
            tables,
        } = run;
        let bytes = tables.iter().map(|meta| meta.len).sum();
        let number = self.next_file();
        self.install(
            |_| {
                let add = tables.into_iter().map(|meta| Change::AddTable {
                    keyspace,
                    level: 0,
                    run: number,
                    meta,
                });
                let rest = [
                    Change::Flushed { keyspace, seqno },
                    Change::LastSeqNo(seqno),
                    Change::Position(Some(position.clone())),
                ];
                Ok(add.chain(rest).collect())
            },
            |_| {},
        )?;
        self.counters.add_restore(bytes);
        self.commit.lock().position = Some(position);
        // Runs of several keyspaces are not installed in the order of their numbers.
        self.visible.fetch_max(seqno.0, Ordering::Release);
        Ok(())
    }
}

/// Tables of a run that is not installed yet.
#[derive(Debug)]
pub(crate) struct RestoredRun {
    keyspace: u32,
    seqno: SeqNo,
    tables: Vec<TableMeta>,
}

/// Restored entries in their order, all with one sequence number.
struct RestoreEntries<'a, I> {
    entries: I,
    current: Option<RestoreEntry<'a>>,
    seqno: SeqNo,
}

impl<'a, I: Iterator<Item = RestoreEntry<'a>>> Entries for RestoreEntries<'a, I> {
    fn next_kept(&mut self) -> Result<Option<(InternalKey<'_>, &[u8])>> {
        self.current = self.entries.next();
        Ok(self.current.as_ref().map(|entry| {
            let kind = match entry.value {
                Some(_) => ValueKind::Put,
                None => ValueKind::Delete,
            };
            let key = InternalKey::new(entry.key, self.seqno, kind);
            (key, entry.value.unwrap_or_default())
        }))
    }
}
