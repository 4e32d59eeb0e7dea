//! Installing: an edit goes into the manifest, durable, and then into the view.

use std::cell::Cell;

use crate::error::{Error, ErrorKind, Result};
use crate::journal::Lsn;
use crate::key::SeqNo;
use crate::memtable::Memtable;
use crate::options::KeyspaceOptions;
use crate::planted::{Bug, planted};
use crate::sync::{Arc, Ordering};
use crate::version::{Change, Manifest, State, VersionEdit};
use crate::wal::Wal;

use super::DbInner;
use super::view::{KeyspaceView, View};

/// The manifest and what it says; one edit at a time.
pub(crate) struct Installed {
    manifest: Manifest,
    state: State,
}

impl Installed {
    pub(crate) fn new(manifest: Manifest, state: State) -> Self {
        Self { manifest, state }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn bytes_written(&self) -> u64 {
        self.manifest.bytes_written()
    }

    pub(crate) fn close(&mut self, wal_end: Lsn) -> Result<()> {
        self.manifest.close(wal_end)
    }
}

impl DbInner {
    /// Makes an edit durable, then visible. `change` makes the edit from the state as it is under
    /// the lock; `adapt` changes the view beyond what the edit says of tables.
    ///
    /// # Errors
    ///
    /// Those of `change`; `Io` if nothing was installed, though the files that the edit names must
    /// stay, for the next open may find it; `Poisoned`.
    pub(crate) fn install(
        &self,
        change: impl FnOnce(&State) -> Result<Vec<Change>>,
        adapt: impl FnOnce(&mut View),
    ) -> Result<()> {
        let mut installed = self.installed.lock();
        let mut changes = change(&installed.state)?;
        changes.push(Change::NextFile(self.next_file.load(Ordering::Relaxed)));
        let edit = VersionEdit::new(changes);
        let state = installed.state.apply(&edit, &self.tables)?;
        if planted(Bug::TablesRemovedBeforeEdit) {
            for table in installed.state.removed_tables(&edit) {
                let _ = self
                    .tables
                    .env
                    .remove_file(&self.tables.path(table.meta.number));
            }
        }
        installed
            .manifest
            .append(&edit, &state)
            .inspect_err(|error| self.health.observe(error))?;
        let removed = installed.state.removed_tables(&edit);
        installed.state = state;
        self.update_view(|view| {
            for (id, keyspace) in &installed.state.keyspaces {
                // To change a keyspace is to copy it: most are as they were.
                let is_shown = view.keyspace(*id).is_some_and(|shown| {
                    Arc::ptr_eq(&shown.version, &keyspace.version)
                        && shown.flushed == keyspace.flushed
                });
                if is_shown {
                    continue;
                }
                if let Some(shown) = view.keyspace_mut(*id) {
                    shown.version = Arc::clone(&keyspace.version);
                    shown.flushed = keyspace.flushed;
                }
            }
            adapt(view);
        });
        for table in removed {
            table.mark_obsolete();
        }
        self.note_level0();
        Ok(())
    }

    /// Installs an edit that takes entries away. Where that fails, it is made certain that no open
    /// finds the edit nevertheless, with what will be written to the same place from now on.
    fn install_removal(
        &self,
        change: impl FnOnce(&State) -> Result<Vec<Change>>,
        adapt: impl FnOnce(&mut View),
    ) -> Result<()> {
        let result = self.install(change, adapt);
        if result
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Io)
            && let Err(error) = self.installed.lock().manifest.settle()
        {
            let error = error
                .into_kind(ErrorKind::Poisoned)
                .context("a removal failed, and the next open may find it");
            self.health.poison(error.clone());
            return Err(error);
        }
        result
    }

    /// Ends the log, with nothing in it where all of it is in tables. Returns its end.
    pub(crate) fn close_wal(&self, wal: &Wal) -> Result<Lsn> {
        let flushed = |id| self.view().flushed(id);
        let end = wal.close(&flushed)?;
        let Some(first_needed) = wal.retirable(&flushed) else {
            return Ok(end);
        };
        match self.install(|_| Ok(vec![Change::WalFirst(first_needed)]), |_| {}) {
            // What stays behind is removed by the next open.
            Ok(()) => drop(wal.remove_before(first_needed)),
            Err(error) if error.kind() == ErrorKind::Poisoned => return Err(error),
            // The segments are there still, whichever of them the next open takes for the first.
            Err(_) => {}
        }
        Ok(end)
    }

    /// A number for a table or a run, never used before.
    pub(crate) fn next_file(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// The keyspace of that name, created if there is none.
    pub(crate) fn keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<(u32, Arc<str>)> {
        self.health.check_read()?;
        options.validate()?;
        check_name(name)?;
        let options = Arc::new(options);
        let adapt = |view: &mut View, id: u32| {
            if let Some(keyspace) = view.keyspace_mut(id) {
                keyspace.options = Arc::clone(&options);
                keyspace.has_options = true;
            }
        };
        if let Some((id, keyspace)) = find(&self.view(), name) {
            self.update_view(|view| adapt(view, id));
            self.note_level0();
            self.submit_compaction();
            return Ok((id, keyspace));
        }
        self.health.check_write()?;
        let created = Cell::new(None);
        self.install(
            |state| {
                if state
                    .keyspaces
                    .values()
                    .any(|keyspace| keyspace.name == name)
                {
                    return Ok(Vec::new());
                }
                let id = state.next_keyspace;
                created.set(Some(id));
                Ok(vec![Change::CreateKeyspace {
                    id,
                    name: name.to_owned(),
                }])
            },
            |view| {
                if let Some(id) = created.get() {
                    view.keyspaces
                        .insert(id, Arc::new(self.empty_keyspace(name, &options)));
                }
            },
        )?;
        find(&self.view(), name)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "the keyspace was dropped meanwhile"))
    }

    fn empty_keyspace(&self, name: &str, options: &Arc<KeyspaceOptions>) -> KeyspaceView {
        KeyspaceView {
            name: Arc::from(name),
            options: Arc::clone(options),
            has_options: true,
            active: Arc::new(Memtable::new(self.account.charge())),
            sealed: Vec::new(),
            version: Arc::default(),
            flushed: SeqNo::ZERO,
            restoring: Arc::default(),
            runs_asked: Arc::default(),
        }
    }

    /// Drops a keyspace by name.
    pub(crate) fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.health.check_write()?;
        self.install_removal(
            |state| {
                let id = id_of(state, name)?;
                Ok(vec![Change::DropKeyspace { id }])
            },
            |view| {
                if let Some((id, _)) = find(view, name) {
                    view.keyspaces.remove(&id);
                }
            },
        )
    }

    /// Puts the keyspace `from` in the place of `name`, which goes, together with a position: the
    /// end of a rebuild, in one edit.
    pub(crate) fn replace_keyspaces(
        &self,
        replacements: &[(String, String)],
        position: Vec<u8>,
    ) -> Result<()> {
        self.health.check_write()?;
        self.install_removal(
            |state| {
                let mut changes = vec![Change::Position(Some(position))];
                for (from, name) in replacements {
                    changes.push(Change::DropKeyspace {
                        id: id_of(state, name)?,
                    });
                    changes.push(Change::RenameKeyspace {
                        id: id_of(state, from)?,
                        name: name.clone(),
                    });
                }
                Ok(changes)
            },
            |view| {
                for (from, name) in replacements {
                    if let Some((old, _)) = find(view, name) {
                        view.keyspaces.remove(&old);
                    }
                    if let Some((id, _)) = find(view, from)
                        && let Some(keyspace) = view.keyspace_mut(id)
                    {
                        keyspace.name = Arc::from(name.as_str());
                    }
                }
            },
        )
    }

    /// Writes a position if no memtable holds anything, so that the tables cover it.
    pub(crate) fn publish_position(&self, position: Vec<u8>) -> Result<bool> {
        self.health.check_write()?;
        // Held over the edit: no write may come in between. The task that calls is the only
        // writer, so nobody waits for it.
        let mut state = self.commit.lock();
        let view = self.view();
        let is_quiet = state.groups.is_empty()
            && state.last_seqno == state.released
            && view.memtables().all(|memtable| memtable.is_empty());
        if !is_quiet {
            return Ok(false);
        }
        if state.position.as_deref() != Some(&position) || self.installed_position() != position {
            self.install(
                |_| Ok(vec![Change::Position(Some(position.clone()))]),
                |_| {},
            )?;
        }
        state.position = Some(position);
        state.bytes_at_position = state.bytes_written;
        Ok(true)
    }

    fn installed_position(&self) -> Vec<u8> {
        self.installed
            .lock()
            .state
            .position
            .clone()
            .unwrap_or_default()
    }

    /// Notes how far level 0 has grown above what compaction should allow.
    pub(crate) fn note_level0(&self) {
        let excess = |keyspace: &Arc<KeyspaceView>| {
            if !keyspace.has_options || keyspace.restoring.load(Ordering::Acquire) {
                // Nothing is written to it, or all of it is merged in the end.
                return 0;
            }
            let runs = keyspace.version.levels[0].runs.len();
            runs.saturating_sub(3 * keyspace.options.level0_runs_max)
        };
        let most = self
            .view()
            .keyspaces
            .values()
            .map(excess)
            .max()
            .unwrap_or(0);
        // Relaxed: a hint for writers.
        self.level0_excess.store(most, Ordering::Relaxed);
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 255 {
        return Err(Error::invalid(format!(
            "keyspace name of {} bytes; allowed are 1 to 255",
            name.len()
        )));
    }
    Ok(())
}

fn find(view: &View, name: &str) -> Option<(u32, Arc<str>)> {
    let (id, keyspace) = view
        .keyspaces
        .iter()
        .find(|(_, keyspace)| &*keyspace.name == name)?;
    Some((*id, Arc::clone(&keyspace.name)))
}

fn id_of(state: &State, name: &str) -> Result<u32> {
    let found = state
        .keyspaces
        .iter()
        .find(|(_, keyspace)| keyspace.name == name);
    found.map(|(id, _)| *id).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("there is no keyspace named {name}"),
        )
    })
}
