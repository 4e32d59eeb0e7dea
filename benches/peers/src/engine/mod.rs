//! What a workload may ask of an engine, and one adapter for each.

mod fjall;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod siltstone;

use std::path::Path;

use crate::Result;
use crate::records::{Key, Value};
use crate::settings::Settings;

pub(crate) use fjall::Fjall;
pub(crate) use redb::Redb;
#[cfg(feature = "rocksdb")]
pub(crate) use rocksdb::Rocksdb;
pub(crate) use siltstone::Siltstone;

/// The engines by name, in the order of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    Siltstone,
    Rocksdb,
    Fjall,
    Redb,
}

impl Name {
    /// Whether this build has it.
    pub(crate) fn is_built(self) -> bool {
        self != Self::Rocksdb || cfg!(feature = "rocksdb")
    }

    pub(crate) const ALL: [Self; 4] = [Self::Siltstone, Self::Rocksdb, Self::Fjall, Self::Redb];

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Siltstone => "siltstone",
            Self::Rocksdb => "rocksdb",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
        }
    }
}

/// Which end a scan begins at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Reverse,
}

/// An ordered map on disk.
pub(crate) trait Engine: Send + Sync + Sized {
    /// Opens what is in the directory, or creates it there.
    fn open(dir: &Path, settings: &Settings) -> Result<Self>;

    /// Puts one entry; it survives a kill of the process, as far as the engine can do that.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Puts one entry; it survives power loss.
    fn put_synced(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Puts all entries at once.
    fn put_batch(&self, entries: &[(Key, Value)]) -> Result<()>;

    /// Hands the value to `read` in the cheapest way that the engine has.
    fn get<T>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> T) -> Result<T>;

    /// Visits up to `limit` entries, from the first key that is not below `from` on or from the
    /// end of the map. Returns how many there were. Makes a cursor of its own.
    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<u64>;

    /// Moves what is in memory to tables.
    fn flush(&self) -> Result<()>;

    fn close(self) -> Result<()>;
}
