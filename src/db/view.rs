//! What readers see: memtables and versions of all keyspaces at one moment, immutable.

use std::collections::BTreeMap;

use crate::key::SeqNo;
use crate::memtable::{DeadRanges, Memtable};
use crate::options::KeyspaceOptions;
use crate::planted::{Bug, planted};
use crate::sync::{Arc, AtomicBool};
use crate::version::Version;

use super::asked::RunsAsked;

/// The memtables and tables of one keyspace.
#[derive(Clone)]
pub(crate) struct KeyspaceView {
    pub(crate) name: Arc<str>,
    pub(crate) options: Arc<KeyspaceOptions>,
    /// Whether the options are those that somebody asked for, not yet the defaults: else
    /// compaction would arrange tables by a strategy that is not theirs.
    pub(crate) has_options: bool,
    /// Takes the writes.
    pub(crate) active: Arc<Memtable>,
    /// No longer written, not yet in tables; the newest first.
    pub(crate) sealed: Vec<Arc<Memtable>>,
    pub(crate) version: Arc<Version>,
    /// Every write of the keyspace up to this one is in tables.
    pub(crate) flushed: SeqNo,
    /// Set while a restore adds runs that are merged at its end: compaction keeps away.
    pub(crate) restoring: Arc<AtomicBool>,
    /// What reads have paid for runs of level 0.
    pub(crate) runs_asked: Arc<RunsAsked>,
}

impl KeyspaceView {
    /// All memtables, the newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.sealed)
    }
}

/// All keyspaces at one moment.
///
/// A change makes a new view and swaps it in; whoever holds an older one keeps its memtables and
/// tables alive.
#[derive(Clone, Default)]
pub(crate) struct View {
    pub(crate) keyspaces: BTreeMap<u32, Arc<KeyspaceView>>,
    /// Aborted writes that a memtable of this view may still hold.
    pub(crate) dead: Vec<(SeqNo, SeqNo)>,
    /// How many aborts came before the view.
    pub(crate) aborts: u64,
    /// Set in the view that a closed store is left with, which has no keyspaces.
    pub(crate) closed: bool,
}

impl View {
    pub(crate) fn keyspace(&self, id: u32) -> Option<&Arc<KeyspaceView>> {
        self.keyspaces.get(&id)
    }

    /// Up to where a keyspace's writes are in tables; a dropped one needs nothing any more.
    pub(crate) fn flushed(&self, id: u32) -> SeqNo {
        self.keyspace(id)
            .map_or(SeqNo::MAX, |keyspace| keyspace.flushed)
    }

    pub(crate) fn dead(&self) -> &DeadRanges {
        &self.dead
    }

    /// Changes one keyspace of a view that is about to be swapped in.
    pub(crate) fn keyspace_mut(&mut self, id: u32) -> Option<&mut KeyspaceView> {
        self.keyspaces.get_mut(&id).map(Arc::make_mut)
    }

    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        self.keyspaces
            .values()
            .flat_map(|keyspace| keyspace.memtables())
    }

    /// Forgets aborted ranges that no memtable can hold writes of any more.
    pub(crate) fn prune_dead(&mut self) {
        if self.dead.is_empty() {
            return;
        }
        let oldest = self
            .memtables()
            .filter(|memtable| !memtable.is_empty())
            .map(|memtable| memtable.seqno_first())
            .min()
            .unwrap_or(SeqNo::MAX);
        if planted(Bug::AbortedWritesForgotten) {
            self.dead.clear();
        }
        self.dead.retain(|(_, high)| *high >= oldest);
    }
}
