//! [`Timestamped`]: a typed map whose values have timestamps.

use std::borrow::Borrow;
use std::ops::RangeBounds;

use crate::db::{Keyspace, Snapshot};
use crate::error::{Error, Result};

use super::codec::{Kind, put_timestamp, split_timestamp};
use super::key_value::{Entries, KeyValue, View};
use super::serde::Serde;
use super::task::Task;

/// An ordered map from keys to values with timestamps among the stores of a [`Task`].
///
/// As a [`KeyValue`], but each value has a timestamp, in milliseconds since 1970, which travels as
/// the timestamp of its changelog record. Kafka Streams keeps its timestamped stores in the same
/// form, here and in the changelog.
///
/// ```
/// # use std::sync::Arc;
/// # use siltstone::changelog::Memory;
/// # use siltstone::env::OsEnv;
/// use siltstone::store::serde::{U64, Utf8};
/// use siltstone::store::{StoreOptions, Task, TaskOptions, Timestamped};
///
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let changelog = Arc::new(Memory::new(Arc::new(OsEnv::new())));
/// # let options = TaskOptions::new("job", 0, dir.path().join("job-0"), changelog);
/// let mut task = Task::open(options.store(StoreOptions::timestamped("seen")))?;
/// let seen: Timestamped<Utf8, U64> = task.timestamped("seen", Utf8, U64)?;
///
/// seen.put(&mut task, "ann", &3, 1_700_000_000_000)?;
/// task.commit()?;
/// assert_eq!(seen.get("ann")?, Some((3, 1_700_000_000_000)));
/// # task.close().map(drop)
/// # }
/// ```
#[derive(Debug)]
pub struct Timestamped<K, V> {
    map: KeyValue<K, Stamped<V>>,
}

/// The serde of values with timestamps, as a [`Timestamped`] stores them: the timestamp as eight
/// big-endian bytes, and the value behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamped<V>(V);

/// A value and its timestamp.
pub type Stamp<T> = (T, i64);

impl<V: Serde> Serde for Stamped<V> {
    type Item = Stamp<V::Item>;
    type Borrowed = Stamp<V::Item>;

    fn encode(&self, (value, timestamp_ms): &Self::Borrowed, out: &mut Vec<u8>) -> Result<()> {
        put_timestamp(*timestamp_ms, out);
        self.0.encode(value.borrow(), out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Item> {
        let (timestamp_ms, value) = split_timestamp(bytes)?;
        Ok((self.0.decode(value)?, timestamp_ms))
    }
}

impl Task {
    /// The timestamped store of that name, its keys and values coded by `keys` and `values`.
    ///
    /// # Errors
    ///
    /// `NotFound` if the task was opened without a store of that name; `InvalidArgument` if it is
    /// one of another kind.
    pub fn timestamped<K: Serde, V: Serde>(
        &self,
        name: &str,
        keys: K,
        values: V,
    ) -> Result<Timestamped<K, V>> {
        let (index, keyspace) = self.store(name, Kind::Timestamped)?;
        Ok(Timestamped::new(index, keyspace, keys, values))
    }
}

impl<K: Serde, V: Serde> Timestamped<K, V> {
    pub(super) fn new(index: usize, keyspace: &Keyspace, keys: K, values: V) -> Self {
        Self {
            map: KeyValue::new(index, keyspace, keys, Stamped(values)),
        }
    }

    /// The name of the store.
    pub fn name(&self) -> &str {
        self.map.name()
    }

    /// The value of a key and its timestamp, or `None`. A value whose timestamp nobody knew when
    /// it was written elsewhere has the timestamp -1.
    ///
    /// # Errors
    ///
    /// As [`KeyValue::get`].
    pub fn get(&self, key: &K::Borrowed) -> Result<Option<Stamp<V::Item>>> {
        self.map.get(key)
    }

    /// The values of several keys with their timestamps, in the order of the keys.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_all<Q: Borrow<K::Borrowed>>(
        &self,
        keys: &[Q],
    ) -> Result<Vec<Option<Stamp<V::Item>>>> {
        self.map.get_all(keys)
    }

    /// Puts a value with its timestamp, in milliseconds since 1970. Any timestamp replaces any
    /// other: the last put wins.
    ///
    /// # Errors
    ///
    /// As [`KeyValue::put`]; `InvalidArgument` if the timestamp is negative.
    pub fn put(
        &self,
        task: &mut Task,
        key: &K::Borrowed,
        value: &V::Borrowed,
        timestamp_ms: i64,
    ) -> Result<()> {
        self.put_all(task, [(key, Some((value, timestamp_ms)))])
    }

    /// Deletes a key. The tombstone in the changelog has the time of the task's records
    /// ([`Task::set_record_time`]).
    ///
    /// # Errors
    ///
    /// As [`KeyValue::delete`].
    pub fn delete(&self, task: &mut Task, key: &K::Borrowed) -> Result<()> {
        self.map.delete(task, key)
    }

    /// Deletes a key and returns what it held.
    ///
    /// # Errors
    ///
    /// As [`KeyValue::take`].
    pub fn take(&self, task: &mut Task, key: &K::Borrowed) -> Result<Option<Stamp<V::Item>>> {
        self.map.take(task, key)
    }

    /// Puts a value if the key has none, and returns the one that it has, which stays as it is.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`put`](Self::put).
    pub fn put_if_absent(
        &self,
        task: &mut Task,
        key: &K::Borrowed,
        value: &V::Borrowed,
        timestamp_ms: i64,
    ) -> Result<Option<Stamp<V::Item>>> {
        let old = self.get(key)?;
        if old.is_none() {
            self.put(task, key, value, timestamp_ms)?;
        }
        Ok(old)
    }

    /// Puts values with their timestamps, or deletes where there is none, visible all at once; the
    /// last of one key wins. All of it is checked before any of it is written.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn put_all<'a>(
        &self,
        task: &mut Task,
        entries: impl IntoIterator<Item = (&'a K::Borrowed, Option<(&'a V::Borrowed, i64)>)>,
    ) -> Result<()> {
        let mut encoded = Vec::new();
        for (key, value) in entries {
            let stored = value.map(|(value, time)| self.encode(value, time));
            encoded.push((self.map.encode_key(key)?, stored.transpose()?));
        }
        self.map.put_all_encoded(task, &encoded)
    }

    /// The entries of a range of keys, as [`KeyValue::range`] has them, with their timestamps.
    ///
    /// # Errors
    ///
    /// As [`KeyValue::range`].
    pub fn range<Q: Borrow<K::Borrowed>>(
        &self,
        range: impl RangeBounds<Q>,
    ) -> Result<Entries<K, Stamped<V>>> {
        self.map.range(range)
    }

    /// All entries as of now.
    ///
    /// # Errors
    ///
    /// As [`range`](Self::range).
    pub fn entries(&self) -> Result<Entries<K, Stamped<V>>> {
        self.map.entries()
    }

    /// The entries whose encoded keys begin with the bytes `prefix`, as of now.
    ///
    /// # Errors
    ///
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Entries<K, Stamped<V>>> {
        self.map.prefix(prefix)
    }

    /// About how many entries there are; see [`KeyValue::approximate_len`].
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn approximate_len(&self) -> Result<u64> {
        self.map.approximate_len()
    }

    /// The store as of now, frozen.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn snapshot(&self) -> Result<View<K, Stamped<V>>> {
        self.map.snapshot()
    }

    /// The store as of the task's last commit, frozen.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn committed(&self) -> Result<View<K, Stamped<V>>> {
        self.map.committed()
    }

    /// The store as a snapshot of the task's state has it; see [`KeyValue::at`].
    pub fn at(&self, snapshot: &Snapshot) -> View<K, Stamped<V>> {
        self.map.at(snapshot)
    }

    fn encode(&self, value: &V::Borrowed, timestamp_ms: i64) -> Result<Vec<u8>> {
        if timestamp_ms < 0 {
            return Err(Error::invalid(format!(
                "timestamp {timestamp_ms}: a changelog holds none below zero"
            )));
        }
        self.map.encode_stored(|stamped, out| {
            put_timestamp(timestamp_ms, out);
            stamped.0.encode(value, out)
        })
    }
}

impl<K, V> Clone for Timestamped<K, V> {
    fn clone(&self) -> Self {
        Self {
            map: self.map.clone(),
        }
    }
}
