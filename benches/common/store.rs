//! A store in a temporary directory.

use siltstone::{Db, Keyspace, KeyspaceOptions, Options};
use tempfile::TempDir;

pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) keyspace: Keyspace,
    /// Removed last.
    _dir: TempDir,
}

impl Store {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Db::open(dir.path().join("store"), Options::new()).expect("open");
        let keyspace = db.keyspace("bench", KeyspaceOptions::new());
        Self {
            keyspace: keyspace.expect("keyspace"),
            db,
            _dir: dir,
        }
    }
}
