//! RocksDB, over its C interface as the crate `rocksdb` offers it.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, FlushOptions, Options, WriteBatch,
    WriteOptions,
};

use super::{Direction, Engine};
use crate::Result;
use crate::records::{Key, Value};
use crate::settings::{BLOCK_BYTES, FILTER_BITS, Settings, THREADS};

pub(crate) struct Rocksdb {
    db: DB,
    buffered: WriteOptions,
    synced: WriteOptions,
}

impl Engine for Rocksdb {
    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_size(BLOCK_BYTES);
        blocks.set_block_cache(&Cache::new_lru_cache(settings.cache_bytes));
        blocks.set_bloom_filter(f64::from(FILTER_BITS), false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(settings.memtable_bytes);
        options.set_target_file_size_base(settings.table_bytes());
        options.set_max_bytes_for_level_base(settings.first_level_bytes());
        options.set_max_background_jobs(i32::try_from(THREADS)?);
        let mut buffered = WriteOptions::default();
        buffered.disable_wal(!settings.wal);
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(Self {
            db: DB::open(&options, dir)?,
            buffered,
            synced,
        })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.buffered)?)
    }

    fn put_synced(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.synced)?)
    }

    fn put_batch(&self, entries: &[(Key, Value)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.buffered)?)
    }

    fn get<T>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> T) -> Result<T> {
        Ok(read(self.db.get_pinned(key)?.as_deref()))
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<u64> {
        let mut cursor = self.db.raw_iterator();
        match (from, direction) {
            (Some(from), Direction::Forward) => cursor.seek(from),
            (Some(from), Direction::Reverse) => cursor.seek_for_prev(from),
            (None, Direction::Forward) => cursor.seek_to_first(),
            (None, Direction::Reverse) => cursor.seek_to_last(),
        }
        let mut visited = 0;
        while let Some((key, value)) = cursor.item() {
            visit(key, value);
            visited += 1;
            if visited == limit {
                break;
            }
            match direction {
                Direction::Forward => cursor.next(),
                Direction::Reverse => cursor.prev(),
            }
        }
        cursor.status()?;
        Ok(visited)
    }

    fn flush(&self) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        Ok(self.db.flush_opt(&options)?)
    }

    fn close(self) -> Result<()> {
        self.db.cancel_all_background_work(true);
        Ok(())
    }
}
