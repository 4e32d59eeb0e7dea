//! The durable journal of edits.
//!
//! A manifest file is a journal of one segment: a snapshot of the state, then an edit a record.
//! CURRENT names the one that counts. A manifest that grew too long, failed a write, or was found
//! by an open is never appended to: the next append *rolls*, which is to write the state it leads
//! to into a new manifest. The order makes that safe: the new manifest is durable, then its name,
//! then CURRENT names it, and only then the old one goes. Layout: `docs/format.md`, "Manifest".

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::env::{Env, create_dir_all};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{self, Kind, Lsn, SegmentFile, SegmentHeader, Writer};
use crate::planted::{Bug, planted};

use super::TableStore;
use super::current::{CURRENT_LEN, Current, synced};
use super::directory::{
    CURRENT_TMP_NAME, FILE_NUMBER_MAX, Listing, Presence, detect, manifest_name,
};
use super::edit::VersionEdit;
use super::state::{Draft, State};

pub(crate) const KIND: Kind = *b"MANI";
/// Number of a store's first manifest. Manifests are numbered apart from tables.
pub(super) const FIRST_MANIFEST: u64 = 1;
/// A manifest is never rolled for its length below this one,
const ROLL_BYTES_MIN: u64 = 64 << 10;
/// nor below so many times its snapshot.
const ROLL_RATIO: u64 = 4;

/// The manifest of an open store.
pub(crate) struct Manifest {
    store: TableStore,
    /// What CURRENT says, unless a roll failed at its very end: then it may name another one of
    /// `replaced`.
    current: Current,
    /// `None` if the next append has to roll.
    writer: Option<Writer>,
    /// Length of the file when it held nothing but the snapshot.
    snapshot_len: u64,
    /// The newest state that is known to be in the manifest.
    state: State,
    /// True if `state` is durable although there is no writer.
    settled: bool,
    next_number: u64,
    /// Manifests that go once CURRENT surely names none of them.
    replaced: Vec<u64>,
    orphans: Vec<PathBuf>,
    health: Health,
    bytes_written: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// A sync failed.
    Poisoned,
    Closed,
}

impl Manifest {
    /// Creates the store: its directory, the first manifest with `state`, and last CURRENT. All
    /// of it is durable on return. A failure or crash leaves a store, or none.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if there is a store already; those of
    /// [`detect`](super::directory::detect) and of [`append`](Self::append).
    pub(crate) fn create(store: &TableStore, state: &State) -> Result<Self> {
        if detect(&*store.env, &store.dir)? == Presence::Present {
            return Err(Error::invalid(format!(
                "{} is a store already",
                store.dir.display()
            )));
        }
        create_dir_all(&*store.env, &store.dir)?;
        let current = Current {
            db_id: state.db_id,
            manifest: 0,
            manifest_id: 0,
            manifest_end: Lsn::ZERO,
            wal_id: state.wal_id,
            wal_end: Lsn::ZERO,
            clean: false,
        };
        let mut manifest = Self::with(store, current, state.clone(), FIRST_MANIFEST);
        // A crashed creation may have left a manifest of the same name.
        manifest.remove(FIRST_MANIFEST);
        manifest.guard(|manifest| manifest.roll(state))?;
        Ok(manifest)
    }

    fn with(store: &TableStore, current: Current, state: State, next_number: u64) -> Self {
        Self {
            store: store.clone(),
            current,
            writer: None,
            snapshot_len: 0,
            state,
            settled: false,
            next_number,
            replaced: Vec::new(),
            orphans: Vec::new(),
            health: Health::Good,
            bytes_written: 0,
        }
    }

    /// Reads the store's state back, and what CURRENT said of its last close. Writes nothing.
    ///
    /// A torn last edit is left out: it was never reported as done. The state may hold edits that
    /// were handed to the operating system and are not durable yet; [`append`](Self::append),
    /// [`settle`](Self::settle) and [`close`](Self::close) make it so.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no store; `Corruption`, naming the file, if a manifest or a table is
    /// missing, damaged, or of another length; `Unsupported` for a newer format.
    pub(crate) fn open(store: &TableStore) -> Result<(Self, State, Current)> {
        let (env, dir) = (&*store.env, &store.dir);
        if detect(env, dir)? != Presence::Present {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("no store in {}", dir.display()),
            ));
        }
        let current = Current::read(env, dir)?;
        if current.manifest >= FILE_NUMBER_MAX {
            return Err(Error::corruption(format!(
                "CURRENT names manifest {}",
                current.manifest
            )));
        }
        let listing = Listing::read(env, dir)?;
        let path = dir.join(manifest_name(current.manifest));
        let (mut state, end) = replay(store, &current)
            .map_err(|error| missing_is_corruption(&error).context(path.display()))?;
        if state.db_id != current.db_id {
            return Err(Error::corruption(format!(
                "{}: of store {:016x}, CURRENT is of {:016x}",
                path.display(),
                state.db_id,
                current.db_id
            )));
        }
        check_tables(store, &state)?;
        let orphans = orphans(store, &listing, &state, &current);
        // A number is never given twice, not even one that no edit names.
        let used = listing.tables.iter().max().map_or(0, |number| number + 1);
        if !planted(Bug::FileNumbersReused) {
            state.next_file = state.next_file.max(used);
        }
        let newest = listing.manifests.iter().copied().max().unwrap_or_default();
        let next_number = newest.max(current.manifest) + 1;
        let mut manifest = Self::with(store, current, state.clone(), next_number);
        // Without a clean close, what was read may still be lost, or what was cut off come back.
        manifest.settled = current.clean && end == current.manifest_end;
        manifest.orphans = orphans;
        Ok((manifest, state, current))
    }

    /// Appends `edit`, which leads from the state of the last success to `state_after`. Durable on
    /// return.
    ///
    /// # Errors
    ///
    /// `Io` if a write failed: the edit did not happen for this process, and the next append
    /// begins a new manifest without it; but an open before that may find it, so the files that
    /// it names, added or removed, must stay until a later append succeeds. `Poisoned` if a sync
    /// failed, now or earlier: nothing is written any more, and the next open may find the edit.
    pub(crate) fn append(&mut self, edit: &VersionEdit, state_after: &State) -> Result<()> {
        assert_eq!(
            self.current.db_id, state_after.db_id,
            "a state of another store"
        );
        self.guard(|manifest| {
            let limit = ROLL_BYTES_MIN.max(manifest.snapshot_len.saturating_mul(ROLL_RATIO));
            match &mut manifest.writer {
                Some(writer) if writer.len() <= limit => manifest.append_record(edit)?,
                _ => manifest.roll(state_after)?,
            }
            manifest.state = state_after.clone();
            Ok(())
        })
    }

    /// Makes the state that [`open`](Self::open) returned durable, if it is not for sure.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.guard(|manifest| match manifest.writer {
            Some(_) => Ok(()),
            None if manifest.settled || planted(Bug::ManifestSettleSkipped) => Ok(()),
            None => manifest.roll(&manifest.state.clone()),
        })
    }

    /// Files by our names that [`open`](Self::open) found and that belong to nothing: tables that
    /// no edit names, of numbers that were given out before; manifests that were replaced or never
    /// took over. Segments of the write-ahead log are not among them.
    #[cfg(test)]
    fn orphans(&self) -> &[PathBuf] {
        &self.orphans
    }

    /// Removes the [`orphans`](Self::orphans), after settling: what an edit has dropped may go
    /// only once that edit is durable. A file that cannot be removed is left to the next open.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub(crate) fn remove_orphans(&mut self) -> Result<()> {
        if self.orphans.is_empty() {
            return Ok(());
        }
        // Also where all is settled: the new manifest tells of numbers that were given out, so
        // that a later open knows for orphans what this one has to keep.
        self.guard(|manifest| match manifest.writer {
            Some(_) => Ok(()),
            None => manifest.roll(&manifest.state.clone()),
        })?;
        for path in self.orphans.drain(..) {
            // Rolling has removed some of them already.
            let _ = self.store.env.remove_file(&path);
        }
        Ok(())
    }

    /// Writes CURRENT with the durable ends of both journals, so that the next open can tell
    /// damage from a torn tail. `wal_end` is the durable end of the write-ahead log. Every later
    /// call fails as `Closed`.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append). The store is closed all the same, only not cleanly.
    pub(crate) fn close(&mut self, wal_end: Lsn) -> Result<()> {
        self.settle()?;
        self.guard(|manifest| {
            let written = manifest.writer.as_ref().map(Writer::end);
            let current = Current {
                manifest_end: written.unwrap_or(manifest.current.manifest_end),
                wal_id: manifest.state.wal_id,
                wal_end,
                clean: true,
                ..manifest.current
            };
            let (env, dir) = (&*manifest.store.env, &manifest.store.dir);
            current.stage(env, dir)?;
            Current::commit_staged(env, dir)?;
            manifest.bytes_written += CURRENT_LEN as u64;
            manifest.health = Health::Closed;
            Ok(())
        })
    }

    /// Bytes written to manifests and CURRENT since this one was created or opened.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Runs `act` if the manifest is in good health, and notes if that ends its health.
    fn guard<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let refused = match self.health {
            Health::Good => {
                let result = act(self);
                if result
                    .as_ref()
                    .is_err_and(|error| error.kind() == ErrorKind::Poisoned)
                {
                    self.health = Health::Poisoned;
                }
                return result;
            }
            Health::Poisoned => ErrorKind::Poisoned,
            Health::Closed => ErrorKind::Closed,
        };
        Err(Error::new(
            refused,
            format!("the manifest of {} is closed", self.store.dir.display()),
        ))
    }

    fn append_record(&mut self, edit: &VersionEdit) -> Result<()> {
        let writer = self.writer.as_mut().expect("only called with one");
        let len_before = writer.len();
        // Every append before this one was synced before it returned.
        let durable = writer.end();
        let appended = writer.append(&[&edit.encode()], durable);
        self.bytes_written += writer.len() - len_before;
        if let Err(error) = appended {
            // Even if the record was cut off again: power loss could take the cut alone.
            self.writer = None;
            self.settled = false;
            return Err(error);
        }
        if planted(Bug::ManifestSyncSkipped) {
            return Ok(());
        }
        synced(writer.file().sync())
    }

    /// Begins a new manifest with `state`.
    fn roll(&mut self, state: &State) -> Result<()> {
        let number = self.next_number;
        self.next_number += 1;
        // From here on the old one is not appended to: the new one may count after a failure.
        self.writer = None;
        self.settled = false;
        let (writer, current) = match self.prepare(number, state) {
            Ok(prepared) => prepared,
            Err(error) => {
                self.remove(number);
                return Err(error);
            }
        };
        self.replaced.push(number);
        if planted(Bug::ManifestRemovedBeforeCurrent) {
            self.remove(self.current.manifest);
        }
        Current::commit_staged(&*self.store.env, &self.store.dir)?;
        if planted(Bug::CurrentBeforeManifest) {
            synced(writer.file().sync())?;
        }
        self.replaced.push(self.current.manifest);
        self.current = current;
        self.snapshot_len = writer.len();
        self.writer = Some(writer);
        for old in std::mem::take(&mut self.replaced) {
            if old != number {
                self.remove(old);
            }
        }
        Ok(())
    }

    /// Writes a manifest with `state` and stages the CURRENT that names it, all of it durable.
    fn prepare(&mut self, number: u64, state: &State) -> Result<(Writer, Current)> {
        let (env, dir) = (&*self.store.env, &self.store.dir);
        let header = SegmentHeader {
            kind: KIND,
            journal_id: env.random_u64(),
            segment: number,
            base: Lsn::ZERO,
            durable: Lsn::ZERO,
            has_stage: false,
        };
        let mut writer = Writer::create(env, &dir.join(manifest_name(number)), header)?;
        writer.append(&[&state.to_edit().encode()], Lsn::ZERO)?;
        self.bytes_written += writer.len();
        let sync_later = planted(Bug::CurrentBeforeManifest);
        if !sync_later && !planted(Bug::ManifestSnapshotSyncSkipped) {
            synced(writer.file().sync())?;
        }
        if !planted(Bug::ManifestNameSyncSkipped) {
            synced(env.sync_dir(dir))?;
        }
        let same_wal = state.wal_id == self.current.wal_id;
        let current = Current {
            db_id: state.db_id,
            manifest: number,
            manifest_id: header.journal_id,
            manifest_end: writer.end(),
            wal_id: state.wal_id,
            wal_end: if same_wal {
                self.current.wal_end
            } else {
                Lsn::ZERO
            },
            clean: false,
        };
        current.stage(env, dir)?;
        self.bytes_written += CURRENT_LEN as u64;
        Ok((writer, current))
    }

    /// Removes a manifest that does not count. One that stays behind is removed by a later open.
    fn remove(&self, number: u64) {
        let _ = self
            .store
            .env
            .remove_file(&self.store.dir.join(manifest_name(number)));
    }
}

/// True if the first manifest at `path` tells of anything behind its snapshot: a store's work.
pub(super) fn holds_edits(env: &dyn Env, path: &Path) -> Result<bool> {
    let Some(header) = journal::peek_header(env, path)? else {
        return Ok(false);
    };
    let segment = journal::read_segment(env, path, KIND, header.journal_id, FIRST_MANIFEST)?;
    // An edit tells that the snapshot was durable, also where it is not whole itself.
    let told = segment.told_durable(Lsn::ZERO);
    Ok(told > Lsn::ZERO || segment.records(Lsn(u64::MAX)).count() > 1)
}

/// The state at the end of the manifest that `current` names, and that end.
fn replay(store: &TableStore, current: &Current) -> Result<(State, Lsn)> {
    let path = store.dir.join(manifest_name(current.manifest));
    let mut draft = Draft::new(State::nothing(), store);
    let segment = SegmentFile {
        number: current.manifest,
        path,
    };
    let recovered = journal::recover(
        &*store.env,
        KIND,
        current.manifest_id,
        &[segment],
        None,
        current.manifest_end,
        &mut |_, end, payload| {
            VersionEdit::decode(payload)
                .and_then(|edit| draft.apply(&edit))
                .map_err(|error| error.context(format!("edit before position {end}")))
        },
    )?;
    if recovered.start != Lsn::ZERO {
        return Err(Error::corruption(format!(
            "begins at position {}, not 0",
            recovered.start
        )));
    }
    Ok((draft.finish()?, recovered.end))
}

fn missing_is_corruption(error: &Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => error.into_kind(ErrorKind::Corruption),
        _ => error.clone(),
    }
}

/// Checks that every table is there with its length.
fn check_tables(store: &TableStore, state: &State) -> Result<()> {
    for table in state.tables() {
        let path = store.path(table.meta.number);
        let found = store.env.metadata(&path).map_err(|error| {
            missing_is_corruption(&error).context(format!("table {}", path.display()))
        })?;
        if found.is_dir || found.len != table.meta.len {
            return Err(Error::corruption(format!(
                "{}: {} bytes long, the manifest knows a file of {}",
                path.display(),
                found.len,
                table.meta.len
            )));
        }
    }
    Ok(())
}

fn orphans(
    store: &TableStore,
    listing: &Listing,
    state: &State,
    current: &Current,
) -> Vec<PathBuf> {
    let named: BTreeSet<_> = state.tables().map(|table| table.meta.number).collect();
    // A table above every number that was given out may be newer than this manifest: it stays.
    let unnamed = |number: &u64| *number < state.next_file && !named.contains(number);
    let tables = listing
        .tables
        .iter()
        .copied()
        .filter(unnamed)
        .map(|number| store.path(number));
    let others = listing
        .manifests
        .iter()
        .filter(|number| **number != current.manifest);
    let manifests = others.map(|number| store.dir.join(manifest_name(*number)));
    let tmp = listing
        .current_tmp
        .then(|| store.dir.join(CURRENT_TMP_NAME));
    tables.chain(manifests).chain(tmp).collect()
}

#[cfg(test)]
mod tests;
