//! Restoring: sorted runs go straight into tables, never through the write path.

use crate::compaction::run::{Target, layout, write_tables};
use crate::compaction::stream::{Retention, Stream, never};
use crate::error::{Error, Result};
use crate::key::{Cursor, InternalKey, SeqNo, ValueKind};
use crate::sync::Ordering;
use crate::version::Change;

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

    /// Adds `entries`, whose keys ascend strictly, as the newest data of the keyspace, and records
    /// `position` in the same edit. Durable and visible on return.
    ///
    /// Only between writes: nothing may be unreleased, and nobody else may write.
    ///
    /// # Errors
    ///
    /// `Io`, `Poisoned`, `Closed`, `NotFound`. Nothing has changed then.
    pub(crate) fn add_restored_run<'a>(
        &self,
        keyspace: &Keyspace,
        entries: &'a [RestoreEntry<'a>],
        position: Vec<u8>,
    ) -> Result<()> {
        self.inner()
            .add_restored_run(keyspace.id_in(self.inner())?, entries, position)
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

    fn add_restored_run(
        &self,
        id: u32,
        entries: &[RestoreEntry<'_>],
        position: Vec<u8>,
    ) -> Result<()> {
        self.health.check_write()?;
        let view = self.view();
        let keyspace = super::read::view_of(&view, id)?;
        let seqno = {
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
            state.last_seqno
        };
        let target = Target {
            store: &self.tables,
            layout: layout(&keyspace.options, 0),
            table_bytes: keyspace.options.table_bytes,
            borders: &[],
            allocate: &|| self.next_file(),
            cancel: self.work.stopping(),
        };
        let cursor = RestoreCursor {
            entries,
            index: None,
            seqno,
        };
        let boundaries = [];
        let retention = Retention {
            boundaries: &boundaries,
            dead: &[],
            zero_seqnos: false,
        };
        let tables = write_tables(&mut Stream::new(cursor, retention, never), &target)?;
        let bytes = tables.iter().map(|meta| meta.len).sum();
        let run = self.next_file();
        self.install(
            |_| {
                let add = tables.into_iter().map(|meta| Change::AddTable {
                    keyspace: id,
                    level: 0,
                    run,
                    meta,
                });
                let rest = [
                    Change::Flushed {
                        keyspace: id,
                        seqno,
                    },
                    Change::LastSeqNo(seqno),
                    Change::Position(Some(position.clone())),
                ];
                Ok(add.chain(rest).collect())
            },
            |_| {},
        )?;
        self.counters.add_restore(bytes);
        self.commit.lock().position = Some(position);
        self.visible.store(seqno.0, Ordering::Release);
        Ok(())
    }
}

/// Walks restored entries forward, all with one sequence number.
struct RestoreCursor<'a> {
    entries: &'a [RestoreEntry<'a>],
    index: Option<usize>,
    seqno: SeqNo,
}

impl RestoreCursor<'_> {
    fn entry(&self) -> &RestoreEntry<'_> {
        &self.entries[self.index.expect("the cursor is valid")]
    }

    fn place(&mut self, index: usize) {
        self.index = (index < self.entries.len()).then_some(index);
    }
}

impl Cursor for RestoreCursor<'_> {
    fn is_valid(&self) -> bool {
        self.index.is_some()
    }

    fn key(&self) -> InternalKey<'_> {
        let entry = self.entry();
        let kind = if entry.value.is_some() {
            ValueKind::Put
        } else {
            ValueKind::Delete
        };
        InternalKey::new(entry.key, self.seqno, kind)
    }

    fn value(&self) -> &[u8] {
        self.entry().value.unwrap_or_default()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.place(0);
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.place(self.entries.len().wrapping_sub(1));
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let kind = ValueKind::Put;
        self.place(
            self.entries
                .partition_point(|entry| InternalKey::new(entry.key, self.seqno, kind) < target),
        );
        Ok(())
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        let kind = ValueKind::Put;
        let behind = self
            .entries
            .partition_point(|entry| InternalKey::new(entry.key, self.seqno, kind) <= target);
        self.place(behind.wrapping_sub(1));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.place(self.index.expect("the cursor is valid") + 1);
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        self.place(self.index.expect("the cursor is valid").wrapping_sub(1));
        Ok(())
    }
}
