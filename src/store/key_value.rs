//! [`KeyValue`]: a typed map that belongs to a task.

use std::borrow::Borrow;
use std::fmt;
use std::ops::{Bound, RangeBounds};

use crate::db::{Entry, Keyspace, Range, Snapshot};
use crate::error::{Error, Result};
use crate::sync::Arc;

use super::codec::Kind;
use super::serde::Serde;
use super::task::{Task, Write};

/// An ordered map from keys to values among the stores of a [`Task`].
///
/// Reads see the newest writes, whether they count yet or not, and may come from any thread;
/// handles are cheap to clone. Writes go through the task that owns the store. Entries are in the
/// order of the keys' bytes.
///
/// ```
/// # use std::sync::Arc;
/// # use siltstone::changelog::Memory;
/// # use siltstone::env::OsEnv;
/// use siltstone::store::serde::{U64, Utf8};
/// use siltstone::store::{KeyValue, Task, TaskOptions};
///
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let changelog = Arc::new(Memory::new(Arc::new(OsEnv::new())));
/// # let options = TaskOptions::new("job", 0, dir.path().join("job-0"), changelog);
/// let mut task = Task::open(options.store("visits"))?;
/// let visits: KeyValue<Utf8, U64> = task.key_value("visits", Utf8, U64)?;
///
/// visits.put(&mut task, "ann", &3)?;
/// visits.put(&mut task, "bob", &5)?;
/// assert_eq!(visits.put_if_absent(&mut task, "bob", &1)?, Some(5));
/// task.commit()?;
///
/// visits.delete(&mut task, "ann")?;
/// assert_eq!(visits.get("ann")?, None);
/// assert_eq!(visits.committed()?.get("ann")?, Some(3));
///
/// let all: Vec<(String, u64)> = visits.range("a"..)?.collect::<Result<_, _>>()?;
/// assert_eq!(all, [("bob".to_owned(), 5)]);
/// # task.close().map(drop)
/// # }
/// ```
pub struct KeyValue<K, V> {
    index: usize,
    keyspace: Keyspace,
    serdes: Arc<Serdes<K, V>>,
}

/// Both ends of a range of encoded keys.
type EncodedBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

#[derive(Debug)]
struct Serdes<K, V> {
    key: K,
    value: V,
}

impl Task {
    /// The store of that name as a map, its keys and values coded by `keys` and `values`.
    ///
    /// # Errors
    ///
    /// `NotFound` if the task was opened without a store of that name; `InvalidArgument` if it is
    /// one of another kind.
    pub fn key_value<K: Serde, V: Serde>(
        &self,
        name: &str,
        keys: K,
        values: V,
    ) -> Result<KeyValue<K, V>> {
        let (index, keyspace) = self.store(name, Kind::KeyValue)?;
        Ok(KeyValue::new(index, keyspace, keys, values))
    }
}

impl<K: Serde, V: Serde> KeyValue<K, V> {
    pub(super) fn new(index: usize, keyspace: &Keyspace, keys: K, values: V) -> Self {
        let serdes = Arc::new(Serdes {
            key: keys,
            value: values,
        });
        Self {
            index,
            keyspace: keyspace.clone(),
            serdes,
        }
    }

    /// The name of the store.
    pub fn name(&self) -> &str {
        self.keyspace.name()
    }

    /// The value of a key, or `None`.
    ///
    /// # Errors
    ///
    /// `Closed`, `Corruption`, `Io`; those of the serdes.
    pub fn get(&self, key: &K::Borrowed) -> Result<Option<V::Item>> {
        let value = self.keyspace.get(self.encode_key(key)?)?;
        value.map(|value| self.decode_value(&value)).transpose()
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_all<Q: Borrow<K::Borrowed>>(&self, keys: &[Q]) -> Result<Vec<Option<V::Item>>> {
        let view = self.snapshot()?;
        keys.iter().map(|key| view.get(key.borrow())).collect()
    }

    /// Puts a value.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the key has no bytes or more than 65,535, if key and value are more
    /// than the changelog or the store takes in one record, or if the handle is of another task;
    /// `MemoryLimit`: nothing has changed then. Those of the serdes. Others: see
    /// [`Task`](Task#when-something-fails).
    pub fn put(&self, task: &mut Task, key: &K::Borrowed, value: &V::Borrowed) -> Result<()> {
        let value = self.encode_value(value)?;
        self.put_all_encoded(task, &[(self.encode_key(key)?, Some(value))])
    }

    /// Deletes a key. A key that is not there is deleted too: the changelog gets a tombstone.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn delete(&self, task: &mut Task, key: &K::Borrowed) -> Result<()> {
        self.put_all_encoded(task, &[(self.encode_key(key)?, None)])
    }

    /// Deletes a key and returns what it held.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`put`](Self::put).
    pub fn take(&self, task: &mut Task, key: &K::Borrowed) -> Result<Option<V::Item>> {
        let old = self.get(key)?;
        self.delete(task, key)?;
        Ok(old)
    }

    /// Puts a value if the key has none, and returns the one that it has. Nothing is written, in
    /// the changelog neither, if there is one.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`put`](Self::put).
    pub fn put_if_absent(
        &self,
        task: &mut Task,
        key: &K::Borrowed,
        value: &V::Borrowed,
    ) -> Result<Option<V::Item>> {
        let old = self.get(key)?;
        if old.is_none() {
            self.put(task, key, value)?;
        }
        Ok(old)
    }

    /// Puts or deletes (where there is no value) any number of keys, visible all at once; the last
    /// of one key wins. All of it is checked before any of it is written.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn put_all<'a>(
        &self,
        task: &mut Task,
        entries: impl IntoIterator<Item = (&'a K::Borrowed, Option<&'a V::Borrowed>)>,
    ) -> Result<()> {
        let mut encoded = Vec::new();
        for (key, value) in entries {
            let value = value.map(|value| self.encode_value(value)).transpose()?;
            encoded.push((self.encode_key(key)?, value));
        }
        self.put_all_encoded(task, &encoded)
    }

    /// Writes keys and values as the store keeps them.
    pub(super) fn put_all_encoded(
        &self,
        task: &mut Task,
        encoded: &[(Vec<u8>, Option<Vec<u8>>)],
    ) -> Result<()> {
        let writes: Vec<Write<'_>> = encoded
            .iter()
            .map(|(key, value)| Write {
                key,
                value: value.as_deref(),
            })
            .collect();
        task.write(self.index, &self.keyspace, &writes)
    }

    /// The entries of a range of keys as of now, decoded one by one, from either end. A range
    /// whose start lies behind its end is empty. What is written meanwhile is not seen.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); the items may fail in the same ways, and with `Aborted`.
    pub fn range<Q: Borrow<K::Borrowed>>(
        &self,
        range: impl RangeBounds<Q>,
    ) -> Result<Entries<K, V>> {
        let bounds = self.serdes.bounds(&range)?;
        Ok(self.decoded(self.keyspace.range(bounds)?))
    }

    /// All entries as of now.
    ///
    /// # Errors
    ///
    /// As [`range`](Self::range).
    pub fn entries(&self) -> Result<Entries<K, V>> {
        Ok(self.decoded(self.keyspace.entries()?))
    }

    /// The entries whose encoded keys begin with the bytes `prefix`, as of now.
    ///
    /// # Errors
    ///
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Entries<K, V>> {
        Ok(self.decoded(self.keyspace.prefix(prefix)?))
    }

    /// About how many entries there are. Overwritten and deleted ones may be counted until they
    /// are compacted.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn approximate_len(&self) -> Result<u64> {
        self.keyspace.approximate_len()
    }

    /// The store as of now, frozen.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn snapshot(&self) -> Result<View<K, V>> {
        Ok(self.at(&self.keyspace.db().snapshot()?))
    }

    /// The store as of the task's last commit, frozen: what will be there whatever happens.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn committed(&self) -> Result<View<K, V>> {
        Ok(self.at(&self.keyspace.db().released_snapshot()?))
    }

    /// The store as a snapshot of the task's state has it ([`Task::snapshot`],
    /// [`Task::committed`], [`View::as_of`]), so that several stores can be read as of one moment.
    pub fn at(&self, snapshot: &Snapshot) -> View<K, V> {
        View {
            snapshot: snapshot.clone(),
            store: self.clone(),
        }
    }

    fn decoded(&self, range: Range) -> Entries<K, V> {
        Entries {
            range,
            store: self.clone(),
        }
    }

    pub(super) fn encode_key(&self, key: &K::Borrowed) -> Result<Vec<u8>> {
        self.serdes
            .encode_key(key)
            .map_err(|error| self.named(&error))
    }

    fn encode_value(&self, value: &V::Borrowed) -> Result<Vec<u8>> {
        self.encode_stored(|serde, out| serde.encode(value, out))
    }

    /// What `encode` makes of a value by means of the values' serde.
    pub(super) fn encode_stored(
        &self,
        encode: impl FnOnce(&V, &mut Vec<u8>) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        encode(&self.serdes.value, &mut out).map_err(|error| self.named(&error))?;
        Ok(out)
    }

    fn decode_value(&self, value: &[u8]) -> Result<V::Item> {
        self.serdes
            .value
            .decode(value)
            .map_err(|error| self.named(&error))
    }

    fn decode(&self, entry: &Entry) -> Result<(K::Item, V::Item)> {
        let key = self
            .serdes
            .key
            .decode(&entry.key)
            .map_err(|error| self.named(&error))?;
        Ok((key, self.decode_value(&entry.value)?))
    }

    fn named(&self, error: &Error) -> Error {
        error.context(format_args!("store {}", self.name()))
    }
}

impl<K: Serde, V: Serde> Serdes<K, V> {
    fn encode_key(&self, key: &K::Borrowed) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.key.encode(key, &mut out)?;
        Ok(out)
    }

    fn bounds<Q: Borrow<K::Borrowed>>(&self, range: &impl RangeBounds<Q>) -> Result<EncodedBounds> {
        let encode = |bound: Bound<&Q>| {
            Ok(match bound {
                Bound::Included(key) => Bound::Included(self.encode_key(key.borrow())?),
                Bound::Excluded(key) => Bound::Excluded(self.encode_key(key.borrow())?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        Ok((encode(range.start_bound())?, encode(range.end_bound())?))
    }
}

impl<K, V> Clone for KeyValue<K, V> {
    fn clone(&self) -> Self {
        let (keyspace, serdes) = (self.keyspace.clone(), Arc::clone(&self.serdes));
        Self {
            index: self.index,
            keyspace,
            serdes,
        }
    }
}

impl<K, V> fmt::Debug for KeyValue<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("name", &self.keyspace.name())
            .finish_non_exhaustive()
    }
}

/// A [`KeyValue`] at one moment: what it saw, it goes on seeing. It keeps old versions of entries
/// from being dropped, so let go of it when done.
#[derive(Debug)]
pub struct View<K, V> {
    snapshot: Snapshot,
    store: KeyValue<K, V>,
}

impl<K, V> Clone for View<K, V> {
    fn clone(&self) -> Self {
        Self {
            snapshot: self.snapshot.clone(),
            store: self.store.clone(),
        }
    }
}

impl<K: Serde, V: Serde> View<K, V> {
    /// The moment, for [`KeyValue::at`] of another store.
    pub fn as_of(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The value of a key, or `None`.
    ///
    /// # Errors
    ///
    /// As [`KeyValue::get`]; `Aborted` if the view saw writes that were taken back since.
    pub fn get(&self, key: &K::Borrowed) -> Result<Option<V::Item>> {
        let value = self
            .snapshot
            .get(&self.store.keyspace, self.store.encode_key(key)?)?;
        value
            .map(|value| self.store.decode_value(&value))
            .transpose()
    }

    /// The entries of a range of keys, as [`KeyValue::range`] has them.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn range<Q: Borrow<K::Borrowed>>(
        &self,
        range: impl RangeBounds<Q>,
    ) -> Result<Entries<K, V>> {
        let bounds = self.store.serdes.bounds(&range)?;
        Ok(self
            .store
            .decoded(self.snapshot.range(&self.store.keyspace, bounds)?))
    }

    /// All entries.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn entries(&self) -> Result<Entries<K, V>> {
        Ok(self
            .store
            .decoded(self.snapshot.range::<&[u8]>(&self.store.keyspace, ..)?))
    }

    /// The entries whose encoded keys begin with the bytes `prefix`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Entries<K, V>> {
        Ok(self
            .store
            .decoded(self.snapshot.prefix(&self.store.keyspace, prefix)?))
    }
}

/// Entries of a store, decoded one by one, from either end. What it needs stays alive until it is
/// dropped.
#[derive(Debug)]
pub struct Entries<K, V> {
    range: Range,
    store: KeyValue<K, V>,
}

impl<K: Serde, V: Serde> Entries<K, V> {
    fn decode(&self, entry: Result<Entry>) -> Result<(K::Item, V::Item)> {
        self.store.decode(&entry?)
    }
}

impl<K: Serde, V: Serde> Iterator for Entries<K, V> {
    type Item = Result<(K::Item, V::Item)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.range.next()?;
        Some(self.decode(entry))
    }
}

impl<K: Serde, V: Serde> DoubleEndedIterator for Entries<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let entry = self.range.next_back()?;
        Some(self.decode(entry))
    }
}

impl<K: Serde, V: Serde> std::iter::FusedIterator for Entries<K, V> {}
