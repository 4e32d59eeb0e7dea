//! Everything that the manifest knows at one moment, and how an edit makes the next moment.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::error::{Error, Result};
use crate::key::{KEY_LEN_MAX, SeqNo};
use crate::options::{LEVELS, Wal};
use crate::planted::{Bug, planted};
use crate::sync::Arc;

use super::directory::FILE_NUMBER_MAX;
use super::edit::{Change, KEYSPACE_NAME_LEN_MAX, VersionEdit};
use super::{Level, Run, Table, TableMeta, TableStore, Version};

/// A keyspace as the manifest knows it.
#[derive(Debug, Clone)]
pub(crate) struct KeyspaceState {
    pub(crate) name: String,
    pub(crate) version: Arc<Version>,
    /// Every write of the keyspace up to this one is in tables.
    pub(crate) flushed: SeqNo,
}

/// Everything that the manifest knows, immutable.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Random, never zero: tells this store from any other.
    pub(crate) db_id: u64,
    pub(crate) wal: Wal,
    /// Id of the write-ahead log's journal; 0 where there never was one.
    pub(crate) wal_id: u64,
    /// By id. Names are unique.
    pub(crate) keyspaces: BTreeMap<u32, KeyspaceState>,
    /// Above every keyspace id that was ever used.
    pub(crate) next_keyspace: u32,
    /// Above every table number that was ever used.
    pub(crate) next_file: u64,
    /// At or above every sequence number in the tables.
    pub(crate) last_seqno: SeqNo,
    /// The position of the changelog that the tables cover, as bytes of the layer above.
    pub(crate) position: Option<Vec<u8>>,
    /// The first segment of the write-ahead log that is still needed.
    pub(crate) wal_first: u64,
}

impl State {
    /// An empty store.
    ///
    /// # Panics
    ///
    /// If `db_id` is zero.
    pub(crate) fn new(db_id: u64, wal: Wal, wal_id: u64) -> Self {
        assert_ne!(db_id, 0, "a store's id is never zero");
        Self {
            db_id,
            wal,
            wal_id,
            ..Self::nothing()
        }
    }

    /// What is there before the first edit of a manifest.
    pub(crate) fn nothing() -> Self {
        Self {
            db_id: 0,
            wal: Wal::On,
            wal_id: 0,
            keyspaces: BTreeMap::new(),
            next_keyspace: 0,
            next_file: 1,
            last_seqno: SeqNo::ZERO,
            position: None,
            wal_first: 0,
        }
    }

    /// The state after `edit`. Tables that stay or move are the same objects as before.
    ///
    /// # Errors
    ///
    /// `Corruption` if the edit cannot follow this state; it names why.
    pub(crate) fn apply(&self, edit: &VersionEdit, tables: &TableStore) -> Result<Self> {
        let mut draft = Draft::new(self.clone(), tables);
        draft.apply(edit)?;
        draft.finish()
    }

    /// One edit that makes this state from nothing.
    pub(crate) fn to_edit(&self) -> VersionEdit {
        let mut changes = vec![
            Change::DbId(self.db_id),
            Change::WalMode(self.wal),
            Change::WalId(self.wal_id),
        ];
        for (&id, keyspace) in &self.keyspaces {
            changes.push(Change::CreateKeyspace {
                id,
                name: keyspace.name.clone(),
            });
            changes.push(Change::Flushed {
                keyspace: id,
                seqno: keyspace.flushed,
            });
            for (level, runs) in (0..).zip(&keyspace.version.levels) {
                for run in &runs.runs {
                    changes.extend(run.tables().iter().map(|table| Change::AddTable {
                        keyspace: id,
                        level,
                        run: run.number(),
                        meta: table.meta.clone(),
                    }));
                }
            }
        }
        changes.extend([
            Change::NextKeyspace(self.next_keyspace),
            Change::NextFile(self.next_file),
            Change::LastSeqNo(self.last_seqno),
            Change::WalFirst(self.wal_first),
            Change::Position(self.position.clone()),
        ]);
        VersionEdit::new(changes)
    }

    /// The tables of this state that `edit` drops: obsolete once the edit is durable.
    pub(crate) fn removed_tables(&self, edit: &VersionEdit) -> Vec<Arc<Table>> {
        let mut removed = BTreeMap::new();
        for change in &edit.changes {
            match change {
                Change::RemoveTable { keyspace, number } => {
                    let version = self.keyspaces.get(keyspace).map(|found| &found.version);
                    let table = version.and_then(|version| find(version, *number));
                    removed.extend(table.map(|table| (*number, Arc::clone(table))));
                }
                Change::DropKeyspace { id } => {
                    let version = self.keyspaces.get(id).map(|found| &found.version);
                    let tables = version.into_iter().flat_map(|version| version.tables());
                    removed.extend(tables.map(|table| (table.meta.number, Arc::clone(table))));
                }
                Change::AddTable { meta, .. } => {
                    removed.remove(&meta.number);
                }
                _ => {}
            }
        }
        removed.into_values().collect()
    }

    /// Every table of every keyspace.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.keyspaces
            .values()
            .flat_map(|keyspace| keyspace.version.tables())
    }
}

fn find(version: &Version, number: u64) -> Option<&Arc<Table>> {
    version.tables().find(|table| table.meta.number == number)
}

/// A table and where it belongs.
struct Placed {
    level: u8,
    run: u64,
    table: Arc<Table>,
}

/// A state that is being changed, by one edit or by all edits of a manifest.
pub(super) struct Draft<'a> {
    /// The versions of the keyspaces in `placed` are stale.
    state: State,
    /// The tables by number, of the keyspaces whose tables have changed.
    placed: BTreeMap<u32, BTreeMap<u64, Placed>>,
    /// Tables that the current edit has removed and not put anywhere else.
    removed: BTreeMap<u64, Arc<Table>>,
    tables: &'a TableStore,
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: State, tables: &'a TableStore) -> Self {
        Self {
            state,
            placed: BTreeMap::new(),
            removed: BTreeMap::new(),
            tables,
        }
    }

    /// Makes the changes of one edit. After an error the draft is of no use.
    pub(super) fn apply(&mut self, edit: &VersionEdit) -> Result<()> {
        self.removed.clear();
        edit.changes
            .iter()
            .try_for_each(|change| self.change(change))
    }

    /// The state, its tables put in order and checked.
    pub(super) fn finish(mut self) -> Result<State> {
        if self.state.db_id == 0 {
            return Err(Error::corruption("no edit gives the store's id"));
        }
        for (id, placed) in self.placed {
            let keyspace = self.state.keyspaces.get_mut(&id);
            let keyspace = keyspace.expect("tables are dropped with their keyspace");
            let version = arrange(placed)
                .map_err(|error| error.context(format!("keyspace {:?}", keyspace.name)))?;
            keyspace.version = Arc::new(version);
        }
        Ok(self.state)
    }

    fn change(&mut self, change: &Change) -> Result<()> {
        let state = &mut self.state;
        match change {
            Change::DbId(id) => {
                if *id == 0 || (state.db_id != 0 && state.db_id != *id) {
                    let known = state.db_id;
                    return Err(Error::corruption(format!(
                        "store id {id:016x} in the edits of store {known:016x}"
                    )));
                }
                state.db_id = *id;
            }
            Change::WalMode(wal) => state.wal = *wal,
            Change::WalId(id) => {
                if state.wal_id != *id {
                    state.wal_first = 0;
                }
                state.wal_id = *id;
            }
            Change::NextKeyspace(id) => state.next_keyspace = state.next_keyspace.max(*id),
            Change::NextFile(number) => {
                if *number > FILE_NUMBER_MAX {
                    return Err(Error::corruption(format!("next file number {number}")));
                }
                state.next_file = state.next_file.max(*number);
            }
            Change::LastSeqNo(seqno) => state.last_seqno = state.last_seqno.max(*seqno),
            Change::WalFirst(segment) => state.wal_first = state.wal_first.max(*segment),
            Change::Position(position) => state.position.clone_from(position),
            Change::CreateKeyspace { id, name } => self.create_keyspace(*id, name)?,
            Change::DropKeyspace { id } => self.drop_keyspace(*id)?,
            Change::RenameKeyspace { id, name } => self.rename_keyspace(*id, name)?,
            Change::Flushed { keyspace, seqno } => self.flushed(*keyspace, *seqno)?,
            Change::AddTable {
                keyspace,
                level,
                run,
                meta,
            } => {
                self.add_table(*keyspace, *level, *run, meta)?;
            }
            Change::RemoveTable { keyspace, number } => self.remove_table(*keyspace, *number)?,
        }
        Ok(())
    }

    fn create_keyspace(&mut self, id: u32, name: &str) -> Result<()> {
        if id < self.state.next_keyspace || id == u32::MAX {
            return Err(Error::corruption(format!(
                "keyspace id {id} for {name:?}; the next unused one is {}",
                self.state.next_keyspace
            )));
        }
        self.check_name(id, name)?;
        self.state.next_keyspace = id + 1;
        let keyspace = KeyspaceState {
            name: name.to_owned(),
            version: Arc::default(),
            flushed: SeqNo::ZERO,
        };
        self.state.keyspaces.insert(id, keyspace);
        Ok(())
    }

    fn drop_keyspace(&mut self, id: u32) -> Result<()> {
        self.place(id)?;
        self.state.keyspaces.remove(&id);
        let placed = self.placed.remove(&id).unwrap_or_default();
        self.removed.extend(
            placed
                .into_iter()
                .map(|(number, placed)| (number, placed.table)),
        );
        Ok(())
    }

    fn rename_keyspace(&mut self, id: u32, name: &str) -> Result<()> {
        self.check_name(id, name)?;
        name.clone_into(&mut self.keyspace(id)?.name);
        Ok(())
    }

    fn flushed(&mut self, id: u32, seqno: SeqNo) -> Result<()> {
        let keyspace = self.keyspace(id)?;
        if seqno < keyspace.flushed {
            return Err(Error::corruption(format!(
                "keyspace {:?} flushed up to {seqno}, before that up to {}",
                keyspace.name, keyspace.flushed
            )));
        }
        keyspace.flushed = seqno;
        self.state.last_seqno = self.state.last_seqno.max(seqno);
        Ok(())
    }

    fn add_table(&mut self, id: u32, level: u8, run: u64, meta: &TableMeta) -> Result<()> {
        check_meta(meta)?;
        let number = meta.number;
        let last = LEVELS - 1;
        let run_end = if usize::from(level) == last {
            1
        } else {
            FILE_NUMBER_MAX
        };
        if usize::from(level) > last || run >= run_end {
            return Err(Error::corruption(format!(
                "table {number} in run {run} of level {level}; there are {LEVELS} levels, and \
                 the only run of the last is 0"
            )));
        }
        if self
            .state
            .keyspaces
            .keys()
            .any(|id| self.has_table(*id, number))
        {
            return Err(Error::corruption(format!("table {number} is there twice")));
        }
        let table = match self.removed.remove(&number) {
            Some(table) if table.meta == *meta => table,
            Some(table) => {
                return Err(Error::corruption(format!(
                    "table {number} was {table:?} and is moved as {meta:?}"
                )));
            }
            None => Arc::new(Table::new(meta.clone(), self.tables.clone())),
        };
        self.place(id)?.insert(number, Placed { level, run, table });
        self.state.next_file = self.state.next_file.max(number + 1);
        self.state.last_seqno = self.state.last_seqno.max(meta.seqno_max);
        Ok(())
    }

    fn remove_table(&mut self, id: u32, number: u64) -> Result<()> {
        let placed = self.place(id)?.remove(&number).ok_or_else(|| {
            Error::corruption(format!(
                "table {number} is removed from keyspace {id}, not in it"
            ))
        })?;
        self.removed.insert(number, placed.table);
        Ok(())
    }

    fn check_name(&self, id: u32, name: &str) -> Result<()> {
        if name.is_empty() || name.len() > KEYSPACE_NAME_LEN_MAX {
            return Err(Error::corruption(format!(
                "name of keyspace {id} has {} bytes, not 1 to {KEYSPACE_NAME_LEN_MAX}",
                name.len()
            )));
        }
        let mut others = self
            .state
            .keyspaces
            .iter()
            .filter(|(other, _)| **other != id);
        if let Some((other, _)) = others.find(|(_, keyspace)| keyspace.name == name) {
            return Err(Error::corruption(format!(
                "keyspaces {other} and {id} are both named {name:?}"
            )));
        }
        Ok(())
    }

    fn keyspace(&mut self, id: u32) -> Result<&mut KeyspaceState> {
        let found = self.state.keyspaces.get_mut(&id);
        found.ok_or_else(|| Error::corruption(format!("keyspace {id} does not exist")))
    }

    fn has_table(&self, id: u32, number: u64) -> bool {
        match self.placed.get(&id) {
            Some(placed) => placed.contains_key(&number),
            None => find(&self.state.keyspaces[&id].version, number).is_some(),
        }
    }

    /// The tables of a keyspace, to be changed.
    fn place(&mut self, id: u32) -> Result<&mut BTreeMap<u64, Placed>> {
        let version = Arc::clone(&self.keyspace(id)?.version);
        Ok(match self.placed.entry(id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(placed_of(&version)),
        })
    }
}

fn placed_of(version: &Version) -> BTreeMap<u64, Placed> {
    let mut all = BTreeMap::new();
    for (level, runs) in (0..).zip(&version.levels) {
        for run in &runs.runs {
            for table in run.tables() {
                let placed = Placed {
                    level,
                    run: run.number(),
                    table: Arc::clone(table),
                };
                all.insert(table.meta.number, placed);
            }
        }
    }
    all
}

fn check_meta(meta: &TableMeta) -> Result<()> {
    let number = meta.number;
    let wrong = if number == 0 || number >= FILE_NUMBER_MAX {
        "its number cannot be"
    } else if meta.smallest.is_empty() || meta.largest.len() > KEY_LEN_MAX {
        "its keys cannot be"
    } else if meta.smallest.len() > KEY_LEN_MAX || meta.smallest > meta.largest {
        "its keys are not in order"
    } else if meta.seqno_min > meta.seqno_max {
        "its sequence numbers are not in order"
    } else if meta.len == 0 || meta.entries == 0 || meta.tombstones > meta.entries {
        "its counts cannot be"
    } else {
        return Ok(());
    };
    Err(Error::corruption(format!(
        "table {number}: {wrong}: {meta:?}"
    )))
}

/// Puts tables into their levels and runs.
fn arrange(placed: BTreeMap<u64, Placed>) -> Result<Version> {
    let mut levels: Vec<BTreeMap<u64, Vec<Arc<Table>>>> = vec![BTreeMap::new(); LEVELS];
    for placed in placed.into_values() {
        let level = &mut levels[usize::from(placed.level)];
        level.entry(placed.run).or_default().push(placed.table);
    }
    let mut version = Version::default();
    for (level, runs) in version.levels.iter_mut().zip(levels) {
        for (number, tables) in runs.into_iter().rev() {
            level.runs.push(arrange_run(number, tables)?);
        }
    }
    if planted(Bug::Level0OldestFirst) {
        version.levels[0].runs.reverse();
        return Ok(version);
    }
    check_ages(&version.levels[0])?;
    Ok(version)
}

fn arrange_run(number: u64, mut tables: Vec<Arc<Table>>) -> Result<Run> {
    tables.sort_by(|left, right| left.meta.smallest.cmp(&right.meta.smallest));
    for pair in tables.windows(2) {
        if pair[0].meta.largest >= pair[1].meta.smallest {
            return Err(Error::corruption(format!(
                "tables of one run overlap: {:?} and {:?}",
                pair[0], pair[1]
            )));
        }
    }
    Ok(Run::numbered(number, tables))
}

/// Checks that every run of level 0 is newer than the next one. Only there is it certain: further
/// down sequence numbers are forgotten (zero) where no reader needs them.
fn check_ages(level: &Level) -> Result<()> {
    for pair in level.runs.windows(2) {
        let newer = pair[0]
            .tables()
            .iter()
            .min_by_key(|table| table.meta.seqno_min);
        let older = pair[1]
            .tables()
            .iter()
            .max_by_key(|table| table.meta.seqno_max);
        let (Some(newer), Some(older)) = (newer, older) else {
            continue;
        };
        if newer.meta.seqno_min <= older.meta.seqno_max {
            return Err(Error::corruption(format!(
                "run {} of level 0 holds writes older than some of run {}: {newer:?} and {older:?}",
                pair[0].number(),
                pair[1].number()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
