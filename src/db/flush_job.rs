//! Turning sealed memtables into tables, or, where most of their bytes were overwritten since,
//! into one smaller memtable.

use crate::compaction::cut::Cut;
use crate::compaction::run::{self, Context, Target, layout, write_tables};
use crate::compaction::stream::{Retention, Stream, never};
use crate::compaction::{Input, Plan};
use crate::error::Result;
use crate::key::SeqNo;
use crate::memtable::{Memtable, MemtableCursor};
use crate::merge::Merge;
use crate::options::KeyspaceOptions;
use crate::planted::{Bug, planted};
use crate::sync::{Arc, Ordering};
use crate::version::{Change, TableMeta};

use super::DbInner;
use super::seal::Group;
use super::view::{KeyspaceView, View};

/// Settled groups on their way out of memory, as one.
struct Outgoing {
    /// How many groups.
    count: usize,
    mark: SeqNo,
    position: Option<Vec<u8>>,
    bytes_written: u64,
    forced: bool,
    /// Of each keyspace, the newest memtable first.
    memtables: Vec<(u32, Vec<Arc<Memtable>>)>,
}

impl Outgoing {
    fn of(groups: &[&Group]) -> Self {
        let newest = groups.last().expect("there is a settled group");
        let mut memtables: Vec<(u32, Vec<Arc<Memtable>>)> = Vec::new();
        for (id, memtable) in groups.iter().rev().flat_map(|group| &group.memtables) {
            match memtables.iter_mut().find(|(keyspace, _)| keyspace == id) {
                Some((_, of_keyspace)) => of_keyspace.push(Arc::clone(memtable)),
                None => memtables.push((*id, vec![Arc::clone(memtable)])),
            }
        }
        Self {
            count: groups.len(),
            mark: newest.mark,
            position: newest.position.clone(),
            bytes_written: newest.bytes_written,
            forced: groups.iter().any(|group| group.forced),
            memtables,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        self.memtables.iter().flat_map(|(_, memtables)| memtables)
    }

    /// The newest write of a keyspace that goes out. Not the mark: the keyspace may have been
    /// written between its own seal and that of the newest group.
    fn newest_of(&self, id: u32) -> SeqNo {
        if planted(Bug::FlushedUpToMark) {
            return self.mark;
        }
        let of_keyspace = self.memtables.iter().find(|(keyspace, _)| *keyspace == id);
        of_keyspace
            .into_iter()
            .flat_map(|(_, memtables)| memtables)
            .map(|memtable| memtable.seqno_last())
            .max()
            .unwrap_or(SeqNo::ZERO)
    }

    /// Bytes of all entries, and of those that nothing newer in the same memtable has replaced.
    fn entry_and_live_bytes(&self) -> (usize, usize) {
        let all = self.all().map(|memtable| memtable.entry_bytes()).sum();
        let live = self.all().map(|memtable| memtable.live_bytes()).sum();
        (all, live)
    }
}

fn merge_of(memtables: &[Arc<Memtable>]) -> Merge<MemtableCursor> {
    Merge::new(
        memtables
            .iter()
            .map(|it| MemtableCursor::new(Arc::clone(it)))
            .collect(),
    )
}

impl DbInner {
    /// Moves everything that is settled out of memory, or makes it smaller. False if there was
    /// nothing to do.
    pub(crate) fn flush_once(&self) -> Result<bool> {
        let outgoing = {
            let state = self.commit.lock();
            if !state.wants_flush() {
                return Ok(false);
            }
            let settled: Vec<&Group> = state.groups.iter().take(state.settled_groups()).collect();
            Outgoing::of(&settled)
        };
        let (all, live) = outgoing.entry_and_live_bytes();
        let is_mostly_replaced = live < all / 2 && live <= self.options.memtable_bytes_max;
        if is_mostly_replaced && !outgoing.forced {
            self.compact_in_memory(&outgoing, all)?;
        } else {
            self.flush_to_tables(outgoing)?;
        }
        Ok(true)
    }

    /// Copies the versions that somebody may still read into fresh memtables. One store of the
    /// runtime at a time: its arena is what the budget may be exceeded by.
    fn compact_in_memory(&self, outgoing: &Outgoing, bytes_before: usize) -> Result<()> {
        let _turn = self.runtime.arena_turn();
        let view = self.view();
        let mut fresh = Vec::new();
        for (id, memtables) in &outgoing.memtables {
            let oldest_ms = memtables
                .iter()
                .map(|it| it.first_write_ms())
                .min()
                .unwrap_or(0);
            let copy = Arc::new(Memtable::new(self.account.charge()));
            let mut boundaries = self.boundaries();
            if planted(Bug::MemoryCompactionIgnoresSnapshots) {
                boundaries.clear();
            }
            let retention = Retention {
                boundaries: &boundaries,
                dead: view.dead(),
                zero_seqnos: false,
            };
            let mut stream = Stream::new(merge_of(memtables), retention, never);
            while let Some((key, value)) = stream.next_kept()? {
                copy.insert(key, value, oldest_ms);
            }
            copy.settle_charge(0);
            fresh.push((*id, copy));
        }
        let bytes_after: usize = fresh
            .iter()
            .map(|(_, memtable)| memtable.entry_bytes())
            .sum();
        self.counters.add_memory_compaction();

        let mut state = self.commit.lock();
        self.update_view(|view| {
            for (id, copy) in &fresh {
                forget(view, *id, outgoing);
                if let Some(keyspace) = view.keyspace_mut(*id)
                    && !copy.is_empty()
                {
                    if planted(Bug::MemoryCompactionGoesFirst) {
                        keyspace.sealed.insert(0, Arc::clone(copy));
                        continue;
                    }
                    // Older than what was sealed meanwhile.
                    keyspace.sealed.push(Arc::clone(copy));
                }
            }
        });
        let replaced: Vec<Group> = state.groups.drain(..outgoing.count).collect();
        fresh.retain(|(_, memtable)| !memtable.is_empty());
        state.groups.push_front(Group {
            mark: outgoing.mark,
            position: outgoing.position.clone(),
            memtables: fresh,
            // Old versions that snapshots hold, say: another round would gain nothing.
            forced: replaced.iter().any(|group| group.forced) || bytes_after > bytes_before / 2,
            compacted: true,
            bytes_written: outgoing.bytes_written,
        });
        Ok(())
    }

    /// Writes tables, installs them with the position that belongs to them, and lets the
    /// memtables go.
    fn flush_to_tables(&self, outgoing: Outgoing) -> Result<()> {
        if let Some(wal) = &self.wal {
            // First, for where the log finds no room, tables must not take more of it.
            if !planted(Bug::TableBeforeWal) {
                wal.sync_for_tables()?;
            }
        }
        // Only now: the sync above needs no processor.
        let flushing = self.runtime.begin_flush();
        let mut written = self.write_runs(&outgoing)?;
        let bytes = written
            .iter()
            .flat_map(|(_, tables)| tables)
            .map(|table| table.len)
            .sum();
        let first_needed = self.first_needed(&outgoing);
        self.go_ahead(&outgoing, &mut written, first_needed)?;
        let run = self.next_file();
        self.install(
            |state| {
                let mut changes = vec![Change::LastSeqNo(outgoing.mark)];
                for (id, tables) in written {
                    if !state.keyspaces.contains_key(&id) {
                        continue;
                    }
                    changes.extend(tables.into_iter().map(|meta| Change::AddTable {
                        keyspace: id,
                        level: 0,
                        run,
                        meta,
                    }));
                    changes.push(Change::Flushed {
                        keyspace: id,
                        seqno: outgoing.newest_of(id),
                    });
                }
                if self.manual_release {
                    changes.push(Change::Position(self.position_of(&outgoing)));
                }
                changes.extend(first_needed.map(Change::WalFirst));
                Ok(changes)
            },
            |view| {
                for (id, _) in &outgoing.memtables {
                    forget(view, *id, &outgoing);
                }
            },
        )?;
        self.counters.add_flush(bytes);
        let flushed: Vec<Group> = {
            let mut state = self.commit.lock();
            state.bytes_at_position = outgoing.bytes_written;
            state.groups.drain(..outgoing.count).collect()
        };
        // Memory first, for what is written meanwhile takes more of it; and outside of the commit
        // lock, for it takes the system a while to take it back.
        drop((flushed, outgoing, flushing));
        if let (Some(wal), Some(first_needed)) = (&self.wal, first_needed) {
            // Segments that stay behind are removed by the next open.
            let _ = wal.remove_before(first_needed);
        }
        Ok(())
    }

    /// The first segment of the log that is still needed behind the flush.
    fn first_needed(&self, outgoing: &Outgoing) -> Option<u64> {
        self.wal.as_ref()?.retirable(&|id| {
            if planted(Bug::WalRetiredBelowMark) {
                return outgoing.mark;
            }
            self.view().flushed(id).max(outgoing.newest_of(id))
        })
    }

    /// The planted bugs that take a step of a flush before its edit.
    fn go_ahead(
        &self,
        outgoing: &Outgoing,
        written: &mut Vec<(u32, Vec<TableMeta>)>,
        first_needed: Option<u64>,
    ) -> Result<()> {
        if planted(Bug::WalRemovedBeforeEdit)
            && let (Some(wal), Some(first_needed)) = (&self.wal, first_needed)
        {
            wal.remove_before(first_needed)?;
        }
        if planted(Bug::PositionBeforeTables) && self.manual_release {
            let position = Change::Position(outgoing.position.clone());
            self.install(|_| Ok(vec![position]), |_| {})?;
        }
        if planted(Bug::KeyspaceInstalledAlone) && self.wal.is_none() && written.len() > 1 {
            let (id, tables) = written.remove(0);
            let (run, level) = (self.next_file(), 0);
            let add = tables.into_iter().map(|meta| Change::AddTable {
                keyspace: id,
                level,
                run,
                meta,
            });
            let seqno = outgoing.newest_of(id);
            let flushed = Change::Flushed {
                keyspace: id,
                seqno,
            };
            self.install(|_| Ok(add.chain([flushed]).collect()), |_| {})?;
        }
        Ok(())
    }

    /// Writes a run of each keyspace. The view is let go with it: it holds the memtables that are
    /// to go.
    fn write_runs(&self, outgoing: &Outgoing) -> Result<Vec<(u32, Vec<TableMeta>)>> {
        let view = self.view();
        let mut written = Vec::new();
        for (id, memtables) in &outgoing.memtables {
            // Dropped keyspaces need no tables.
            if let Some(keyspace) = view.keyspace(*id) {
                written.push((*id, self.write_run(keyspace, memtables, &view)?));
            }
        }
        Ok(written)
    }

    fn write_run(
        &self,
        keyspace: &KeyspaceView,
        memtables: &[Arc<Memtable>],
        view: &View,
    ) -> Result<Vec<TableMeta>> {
        let target = Target {
            store: &self.tables,
            layout: layout(&keyspace.options, 0),
            table_bytes: keyspace.options.table_bytes,
            cut: Cut::Near,
            borders: &[],
            allocate: &|| self.next_file(),
            cancel: self.work.stopping(),
            step_aside: &|| {},
        };
        let boundaries = self.boundaries();
        let retention = Retention {
            boundaries: &boundaries,
            dead: if planted(Bug::AbortedWritesFlushed) {
                &[]
            } else {
                view.dead()
            },
            zero_seqnos: false,
        };
        write_tables(
            &mut Stream::new(merge_of(memtables), retention, never),
            &target,
        )
    }

    /// Merges a plan's tables and installs what comes out.
    pub(crate) fn merge_tables(
        &self,
        id: u32,
        options: &KeyspaceOptions,
        plan: &Plan,
    ) -> Result<()> {
        let mut boundaries = self.boundaries();
        if planted(Bug::CompactionIgnoresSnapshots) {
            boundaries.clear();
        }
        let merging = self.runtime.begin_merge();
        let is_urgent = || self.is_merge_urgent();
        let outputs = run::run(
            plan,
            &Context {
                store: &self.tables,
                options,
                boundaries: &boundaries,
                allocate: &|| self.next_file(),
                cancel: self.work.stopping(),
                step_aside: &|| merging.step_aside(&is_urgent),
            },
        )?;
        drop(merging);
        self.install_outputs(id, plan, outputs.tables.iter().cloned())?;
        let bytes_of = |input: &Input| input.tables.iter().map(|table| table.meta.len).sum();
        let inputs = plan
            .inputs
            .iter()
            .map(|input| (input.level, bytes_of(input)));
        self.counters
            .add_compaction(inputs, plan.output_level, &outputs);
        Ok(())
    }

    /// The position that belongs to the tables of a flush.
    fn position_of(&self, outgoing: &Outgoing) -> Option<Vec<u8>> {
        if planted(Bug::PositionAheadOfTables) {
            return self.commit.lock().position.clone();
        }
        outgoing.position.clone()
    }

    /// What somebody may read at, now and later: to be asked after the input was chosen.
    fn boundaries(&self) -> Vec<SeqNo> {
        let released = self.commit.lock().released;
        let mut boundaries = self
            .snapshots
            .boundaries(|| SeqNo(self.visible.load(Ordering::Acquire)));
        if let Err(index) = boundaries.binary_search(&released) {
            boundaries.insert(index, released);
        }
        boundaries
    }
}

/// Takes the outgoing memtables of a keyspace out of a view.
fn forget(view: &mut View, id: u32, outgoing: &Outgoing) {
    let Some(keyspace) = view.keyspace_mut(id) else {
        return;
    };
    keyspace
        .sealed
        .retain(|sealed| !outgoing.all().any(|gone| Arc::ptr_eq(gone, sealed)));
}
