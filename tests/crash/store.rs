//! Opening a store in a simulated environment, and reading all of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::env::sim::SimEnv;
use siltstone::{Db, Keyspace, Options, Result, Runtime, RuntimeOptions, Snapshot, Wal};

use crate::model::{Hashes, Tree, entry_hash};
use crate::operation::{NAMES, SLOTS, Setup};

pub(crate) const DIR: &str = "/stores/db";

/// An open store; its background work is done by its callers.
pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) runtime: Runtime,
    pub(crate) keyspaces: [Option<Keyspace>; SLOTS],
}

impl Store {
    pub(crate) fn open(env: &SimEnv, setup: &Setup, has_log: bool) -> Result<Self> {
        let env = Arc::new(env.clone());
        let options = RuntimeOptions::new()
            .env(env.clone())
            .threads(0)
            .memory_bytes_max(4 << 20)
            .cache_bytes(64 << 10);
        let runtime = Runtime::new(options)?;
        let options = Options::new()
            .env(env)
            .wal(if has_log { Wal::On } else { Wal::Off })
            .read_mode(setup.read_mode)
            .memtable_bytes_max(setup.memtable_bytes)
            .wal_bytes_max(setup.log_bytes)
            .record_writes_max(64 << 10);
        let db = Db::open_with(Path::new(DIR), options, &runtime)?;
        let mut keyspaces = [const { None }; SLOTS];
        for name in db.keyspace_names()? {
            let slot = NAMES.iter().position(|known| *known == name);
            let slot = slot.expect("only known keyspaces are created");
            keyspaces[slot] = Some(db.keyspace(&name, setup.keyspaces.clone())?);
        }
        Ok(Self {
            db,
            runtime,
            keyspaces,
        })
    }

    /// Reads all entries, forwards.
    pub(crate) fn hashes(&self) -> Result<Hashes> {
        let mut hashes = [None; SLOTS];
        for (hash, keyspace) in hashes.iter_mut().zip(&self.keyspaces) {
            let Some(keyspace) = keyspace else { continue };
            let mut sum = 0_u64;
            let mut previous = Vec::new();
            for entry in keyspace.entries()? {
                let entry = entry?;
                assert!(*entry.key > *previous, "keys out of order");
                previous.clear();
                previous.extend_from_slice(&entry.key);
                sum = sum.wrapping_add(entry_hash(&entry.key, &entry.value));
            }
            *hash = Some(sum);
        }
        Ok(hashes)
    }

    pub(crate) fn trees(&self) -> Result<[Option<Tree>; SLOTS]> {
        let mut trees = [const { None }; SLOTS];
        for (tree, keyspace) in trees.iter_mut().zip(&self.keyspaces) {
            if let Some(keyspace) = keyspace {
                *tree = Some(collect(keyspace.entries()?)?);
            }
        }
        Ok(trees)
    }
}

/// Everything that a range yields.
pub(crate) fn collect(entries: impl Iterator<Item = Result<siltstone::Entry>>) -> Result<Tree> {
    let mut tree = Tree::default();
    for entry in entries {
        let entry = entry?;
        tree.set(entry.key.to_vec(), Some(entry.value.to_vec()));
    }
    Ok(tree)
}

/// A keyspace as a snapshot sees it.
pub(crate) fn snapshot_tree(snapshot: &Snapshot, keyspace: &Keyspace) -> Result<Tree> {
    collect(snapshot.range::<&[u8]>(keyspace, ..)?)
}

/// The store's files, by kind.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) tables: usize,
    pub(crate) logs: Vec<String>,
    pub(crate) manifests: Vec<String>,
    pub(crate) temporary: usize,
}

impl Files {
    pub(crate) fn of(paths: &[PathBuf]) -> Self {
        let mut files = Self::default();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match () {
                () if name.ends_with(".sst") => files.tables += 1,
                () if name.ends_with(".wal") => files.logs.push(name.into_owned()),
                () if name.starts_with("MANIFEST") => files.manifests.push(name.into_owned()),
                () if name.ends_with(".tmp") => files.temporary += 1,
                () => {}
            }
        }
        files
    }
}
