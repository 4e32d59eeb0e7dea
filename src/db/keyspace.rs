//! [`Keyspace`]: one of the ordered maps of a store.

use std::ops::RangeBounds;

use crate::batch::WriteBatch;
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, check_key};
use crate::options::Durability;
use crate::slice::Slice;
use crate::sync::Arc;

use super::cursor::Cursor;
use super::range::{Bounds, Range};
use super::{Db, DbInner};

/// An ordered map from keys to values within a [`Db`].
///
/// Keys have 1 to 65,535 bytes and are ordered as bytes; values have up to 256 MiB. Handles are
/// cheap to clone and may be used from any thread; the store stays open while one is left.
#[derive(Clone)]
pub struct Keyspace {
    db: Db,
    id: u32,
    name: Arc<str>,
}

impl Keyspace {
    pub(crate) fn new(db: Db, id: u32, name: Arc<str>) -> Self {
        Self { db, id, name }
    }

    /// The name under which the keyspace was created.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The store that the keyspace belongs to.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The id, for a call on `db`.
    pub(crate) fn id_in(&self, db: &DbInner) -> Result<u32> {
        if self.db.inner().instance == db.instance {
            return Ok(self.id);
        }
        Err(Error::invalid("the keyspace belongs to another store"))
    }

    /// The newest value of a key, or `None`.
    ///
    /// # Errors
    ///
    /// `Closed`, `NotFound` if the keyspace was dropped, `Corruption`, `Io`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.db.inner().get(self.id, key.as_ref())
    }

    /// Puts one value, buffered: it survives the process once this returns, not power loss. For
    /// other durability, and for several writes at once, see [`Db::write`].
    ///
    /// # Errors
    ///
    /// As [`Db::write`]; `InvalidArgument` also for a key or value of a length that is not
    /// allowed.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.put(self, key, value)?;
        self.db.write(batch, Durability::Buffered)
    }

    /// Deletes one key, buffered. Deleting a key that does not exist is allowed.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        check_key(key)?;
        let mut batch = WriteBatch::new();
        batch.delete(self, key)?;
        self.db.write(batch, Durability::Buffered)
    }

    /// The entries of a range of keys as of now, in key order from either end. A range whose
    /// start lies behind its end is empty.
    ///
    /// ```
    /// # fn main() -> siltstone::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use siltstone::{Db, KeyspaceOptions, Options};
    /// let db = Db::open(dir.path().join("db"), Options::new())?;
    /// let fruit = db.keyspace("fruit", KeyspaceOptions::new())?;
    /// for name in ["apple", "cherry", "plum"] {
    ///     fruit.put(name, "1")?;
    /// }
    /// let last = fruit.range("a".."d")?.next_back().unwrap()?;
    /// assert_eq!(last.key, b"cherry");
    /// # db.close()
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `Closed`, `NotFound`; the iterator's items may also fail with `Corruption`, `Io` or
    /// `Aborted`.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<Range> {
        Range::newest(&self.db, self.id, Bounds::from_range(&range))
    }

    /// A cursor over the entries as of now, on none of them yet.
    ///
    /// # Errors
    ///
    /// `Closed`, `NotFound`.
    pub fn cursor(&self) -> Result<Cursor> {
        Cursor::newest(&self.db, self.id)
    }

    /// All entries as of now.
    ///
    /// # Errors
    ///
    /// As [`range`](Self::range).
    pub fn entries(&self) -> Result<Range> {
        self.range::<&[u8]>(..)
    }

    /// The entries whose keys begin with `prefix`, as of now.
    ///
    /// # Errors
    ///
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Range> {
        Range::newest(&self.db, self.id, Bounds::from_prefix(prefix.as_ref()))
    }

    /// About how many entries there are. Overwritten and deleted ones count until they are
    /// compacted.
    ///
    /// # Errors
    ///
    /// `Closed`, `NotFound` if the keyspace was dropped.
    pub fn approximate_len(&self) -> Result<u64> {
        let db = self.db.inner();
        db.health.check_read()?;
        let view = db.view();
        let keyspace = super::read::view_of(&view, self.id)?;
        let memtables = keyspace
            .memtables()
            .map(|memtable| memtable.entries() as u64);
        // Each tombstone stands for itself and for what it hides.
        let tables = keyspace.version.tables();
        let tables = tables.map(|t| t.meta.entries.saturating_sub(2 * t.meta.tombstones));
        Ok(memtables.sum::<u64>() + tables.sum::<u64>())
    }

    /// Compacts the whole keyspace into its last level, and waits for it. Old versions that no
    /// snapshot needs and tombstones are gone afterwards.
    ///
    /// # Errors
    ///
    /// `Closed`, `Poisoned`, `Corruption`, `Io`.
    pub fn compact(&self) -> Result<()> {
        self.db.inner().compact_keyspace(self.id)
    }
}

impl From<&Keyspace> for KeyspaceId {
    fn from(keyspace: &Keyspace) -> Self {
        Self {
            db: keyspace.db.inner().instance,
            id: keyspace.id,
        }
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
