//! A walk over the visible entries of a keyspace, in either direction: what ranges and cursors are
//! made of.

use crate::error::Result;
use crate::key::{Cursor as _, InternalKey, SeqNo, ValueKind};
use crate::memtable::is_dead;
use crate::merge::Merge;
use crate::slice::Slice;
use crate::sync::Arc;

use super::DbInner;
use super::read::{Source, merge_of, view_of};
use super::snapshot::ReadPoint;
use super::view::{KeyspaceView, View};

/// How a walk backwards keeps a value that its sources have gone past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Copied into memory that is used again, unless it is long.
    Copied,
    /// Shared with its source, for a caller who takes it along.
    Shared,
}

/// The longest value that is copied where copying is asked for.
const COPIED_LEN_MAX: usize = 1024;

/// Where the walk's entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// On no entry.
    Nowhere,
    /// The merge stands on it.
    Merge,
    /// The merge has gone past it backwards; `key` and `value` have it.
    Kept,
}

/// A position among the entries that a read point sees.
pub(super) struct Walk {
    /// Declared before the view, whose tables and memtables it reads.
    merge: Merge<Source>,
    view: Arc<View>,
    keyspace: Arc<KeyspaceView>,
    point: ReadPoint,
    keeping: Keeping,
    /// Entries passed since the walk was last placed.
    passed: u64,
    at: At,
    /// The key whose versions are passed over; of the entry, while that is kept.
    key: Vec<u8>,
    value: Kept,
}

/// A value that outlives the move of its source.
enum Kept {
    Copied(Vec<u8>),
    Shared(Slice),
}

impl Walk {
    /// A walk that stands nowhere yet.
    ///
    /// # Errors
    ///
    /// `NotFound` if the view does not have the keyspace, `Closed`.
    pub(super) fn new(
        db: &DbInner,
        view: Arc<View>,
        id: u32,
        point: ReadPoint,
        keeping: Keeping,
    ) -> Result<Self> {
        let keyspace = Arc::clone(view_of(&view, id)?);
        db.merge_level0_if_paid(&keyspace);
        Ok(Self {
            merge: merge_of(&keyspace),
            view,
            keyspace,
            point,
            keeping,
            passed: 0,
            at: At::Nowhere,
            key: Vec::new(),
            value: Kept::Copied(Vec::new()),
        })
    }

    pub(super) fn point(&self) -> ReadPoint {
        self.point
    }

    pub(super) fn is_valid(&self) -> bool {
        self.at != At::Nowhere
    }

    /// Stands nowhere from here on.
    pub(super) fn leave(&mut self) {
        self.at = At::Nowhere;
    }

    /// The entry's key. The walk must be on one, as for its value.
    pub(super) fn key(&self) -> &[u8] {
        match self.at {
            At::Kept => &self.key,
            At::Merge | At::Nowhere => self.merge.key().user,
        }
    }

    pub(super) fn value(&self) -> &[u8] {
        match (self.at, &self.value) {
            (At::Kept, Kept::Copied(value)) => value,
            (At::Kept, Kept::Shared(value)) => value,
            (At::Merge | At::Nowhere, _) => self.merge.value(),
        }
    }

    pub(super) fn value_slice(&self) -> Slice {
        match (self.at, &self.value) {
            (At::Kept, Kept::Copied(value)) => Slice::copy_from(value),
            (At::Kept, Kept::Shared(value)) => value.clone(),
            (At::Merge | At::Nowhere, _) => self.merge.value_slice(),
        }
    }

    /// Leaves the entry that the walk is on, to be placed anew.
    fn begin(&mut self) {
        self.at = At::Nowhere;
        let passed = std::mem::take(&mut self.passed);
        self.keyspace.count_walk(1, passed);
    }

    pub(super) fn seek_to_first(&mut self) -> Result<()> {
        self.begin();
        self.merge.seek_to_first()?;
        self.find_forward()
    }

    pub(super) fn seek_to_last(&mut self) -> Result<()> {
        self.begin();
        self.merge.seek_to_last()?;
        self.find_backward()
    }

    /// Goes to the first entry at or behind `target`.
    pub(super) fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.begin();
        self.merge.seek(target)?;
        self.find_forward()
    }

    /// Goes to the last entry at or before `target`, which must not lie between two versions of a
    /// key.
    pub(super) fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.begin();
        self.merge.seek_for_prev(target)?;
        self.find_backward()
    }

    /// Goes to the next entry. The walk must be on one, as for `prev`.
    pub(super) fn next(&mut self) -> Result<()> {
        self.passed += 1;
        let at = std::mem::replace(&mut self.at, At::Nowhere);
        if at == At::Kept {
            self.merge.seek(InternalKey::behind(&self.key))?;
        } else {
            self.pass_versions()?;
        }
        self.find_forward()
    }

    pub(super) fn prev(&mut self) -> Result<()> {
        self.passed += 1;
        let at = std::mem::replace(&mut self.at, At::Nowhere);
        if at != At::Kept {
            self.remember_key();
            let before = InternalKey::seek_to(&self.key, SeqNo::MAX);
            self.merge.seek_for_prev(before)?;
        }
        self.find_backward()
    }

    /// Goes on to the first visible version of a key, and on to the next key if it is a tombstone.
    fn find_forward(&mut self) -> Result<()> {
        while self.merge.is_valid() {
            let key = self.merge.key();
            if !self.is_visible(key.seqno()) {
                self.merge.next()?;
            } else if key.kind() == ValueKind::Put {
                self.at = At::Merge;
                return Ok(());
            } else {
                self.pass_versions()?;
            }
        }
        Ok(())
    }

    /// Goes back over the versions of a key, the oldest first, and stops behind them if the newest
    /// visible one is no tombstone.
    fn find_backward(&mut self) -> Result<()> {
        while self.merge.is_valid() {
            self.remember_key();
            let mut has_value = false;
            loop {
                let key = self.merge.key();
                if self.is_visible(key.seqno()) {
                    has_value = key.kind() == ValueKind::Put;
                    if has_value {
                        self.keep_value();
                    }
                }
                self.merge.prev()?;
                if !self.merge.is_valid() || self.merge.key().user != &self.key[..] {
                    break;
                }
            }
            if has_value {
                self.at = At::Kept;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Moves behind all versions of the key that the merge stands on.
    fn pass_versions(&mut self) -> Result<()> {
        self.remember_key();
        loop {
            self.merge.next()?;
            if !self.merge.is_valid() || self.merge.key().user != &self.key[..] {
                return Ok(());
            }
        }
    }

    fn remember_key(&mut self) {
        self.key.clear();
        self.key.extend_from_slice(self.merge.key().user);
    }

    fn keep_value(&mut self) {
        let value = self.merge.value();
        if self.keeping == Keeping::Shared || value.len() > COPIED_LEN_MAX {
            self.value = Kept::Shared(self.merge.value_slice());
            return;
        }
        match &mut self.value {
            Kept::Copied(kept) => {
                kept.clear();
                kept.extend_from_slice(value);
            }
            Kept::Shared(_) => self.value = Kept::Copied(value.to_vec()),
        }
    }

    fn is_visible(&self, seqno: SeqNo) -> bool {
        seqno <= self.point.seqno && !is_dead(self.view.dead(), seqno)
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.keyspace.count_walk(0, self.passed);
    }
}
