//! Siltstone.

use std::path::Path;

use siltstone::{
    Db, Durability, Keyspace, KeyspaceOptions, Options, Runtime, RuntimeOptions, Wal, WriteBatch,
};

use super::{Direction, Engine};
use crate::Result;
use crate::records::{Key, Value};
use crate::settings::{BLOCK_BYTES, FILTER_BITS, Settings, THREADS};

pub(crate) struct Siltstone {
    db: Db,
    keyspace: Keyspace,
}

impl Engine for Siltstone {
    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        // The budget holds the memtables too: four of them, where a cache that may
        // be half of it at most leaves no more.
        let memory = settings.cache_bytes + settings.cache_bytes.max(4 * settings.memtable_bytes);
        let runtime = RuntimeOptions::new()
            .threads(THREADS)
            .memory_bytes_max(memory)
            .cache_bytes(settings.cache_bytes);
        let runtime = Runtime::new(runtime)?;
        let wal = if settings.wal { Wal::On } else { Wal::Off };
        let options = Options::new()
            .memtable_bytes_max(settings.memtable_bytes)
            // What it keeps aside for single stores must fit beside small memtables.
            .memory_bytes_min(settings.memtable_bytes.min(256 << 10))
            .record_writes_max(settings.memtable_bytes.min(1 << 20))
            .wal(wal);
        let db = Db::open_with(dir, options, &runtime)?;
        let layout = KeyspaceOptions::new()
            .block_bytes(BLOCK_BYTES)
            .table_bytes(settings.table_bytes())
            .filter_bits(FILTER_BITS, FILTER_BITS);
        let keyspace = db.keyspace("bench", layout)?;
        Ok(Self { db, keyspace })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.keyspace.put(key, value)?)
    }

    fn put_synced(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.put(&self.keyspace, key, value)?;
        Ok(self.db.write(batch, Durability::Synced)?)
    }

    fn put_batch(&self, entries: &[(Key, Value)]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in entries {
            batch.put(&self.keyspace, key, value)?;
        }
        Ok(self.db.write(batch, Durability::Buffered)?)
    }

    fn get<T>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> T) -> Result<T> {
        Ok(read(self.keyspace.get(key)?.as_deref()))
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<u64> {
        let mut cursor = self.keyspace.cursor()?;
        match (from, direction) {
            (Some(from), Direction::Forward) => cursor.seek(from)?,
            (Some(from), Direction::Reverse) => cursor.seek_for_prev(from)?,
            (None, Direction::Forward) => cursor.seek_to_first()?,
            (None, Direction::Reverse) => cursor.seek_to_last()?,
        }
        let mut visited = 0;
        while let Some((key, value)) = cursor.entry() {
            visit(key, value);
            visited += 1;
            if visited == limit {
                break;
            }
            match direction {
                Direction::Forward => cursor.next()?,
                Direction::Reverse => cursor.prev()?,
            }
        }
        Ok(visited)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.db.flush()?)
    }

    fn close(self) -> Result<()> {
        Ok(self.db.close()?)
    }
}
