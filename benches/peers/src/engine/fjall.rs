//! fjall.

use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Direction, Engine};
use crate::Result;
use crate::records::{Key, Value};
use crate::settings::{BLOCK_BYTES, FILTER_BITS, Settings, THREADS};

pub(crate) struct Fjall {
    db: Database,
    keyspace: Keyspace,
}

fn layout(settings: &Settings) -> KeyspaceCreateOptions {
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let bloom = BloomConstructionPolicy::BitsPerKey(FILTER_BITS as f32);
    let levels = Leveled::default().with_table_target_size(settings.table_bytes());
    KeyspaceCreateOptions::default()
        .max_memtable_size(settings.memtable_bytes as u64)
        .data_block_size_policy(BlockSizePolicy::all(
            u32::try_from(BLOCK_BYTES).unwrap_or(u32::MAX),
        ))
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(bloom)))
        .compaction_strategy(Arc::new(levels))
}

impl Engine for Fjall {
    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        if !settings.wal {
            return Err("fjall has no way to switch its journal off".into());
        }
        let db = Database::builder(dir)
            .cache_size(settings.cache_bytes as u64)
            .worker_threads(THREADS)
            .open()?;
        let keyspace = db.keyspace("bench", || layout(settings))?;
        Ok(Self { db, keyspace })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.keyspace.insert(key, value)?)
    }

    fn put_synced(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn put_batch(&self, entries: &[(Key, Value)]) -> Result<()> {
        let mut batch = self.db.batch();
        for (key, value) in entries {
            batch.insert(&self.keyspace, &key[..], &value[..]);
        }
        Ok(batch.commit()?)
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
        let mut range = match from {
            Some(from) => self.keyspace.range(from..),
            None => self.keyspace.iter(),
        };
        let mut visited = 0;
        while visited < limit {
            let next = match direction {
                Direction::Forward => range.next(),
                Direction::Reverse => range.next_back(),
            };
            let Some((key, value)) = next.map(Guard::into_inner).transpose()? else {
                break;
            };
            visit(&key, &value);
            visited += 1;
        }
        Ok(visited)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.keyspace.rotate_memtable_and_wait()?)
    }

    fn close(self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}
