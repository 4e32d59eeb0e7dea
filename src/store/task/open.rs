//! Bringing a task up: what the local state is worth, claiming the changelog, restoring.

use crate::error::Result;
use crate::store::restore::{Owned, Restored};

use super::Task;
use super::local::Local;
use super::options::TaskOptions;

impl Task {
    /// Opens the task: takes it over from its former owner, wherever that is, and brings every
    /// store up to where the changelog ends. Blocks until then.
    ///
    /// Local state that cannot be resumed from, because the changelog was trimmed or tombstones
    /// may have been dropped from it, is rebuilt unasked, beside the old state, which it then
    /// replaces. An interrupted restore is resumed by the next open.
    ///
    /// # Errors
    ///
    /// `Diverged` if the local state does not belong to the changelog (another cluster or topic,
    /// no partition, one that ends too early), or if a store is kept as one of another kind:
    /// nothing was changed, and the changelog not claimed; see [`TaskOptions::rebuild`]. `Locked`
    /// if the directory is open already; `InvalidArgument` for bad options; `MemoryLimit` if the
    /// runtime has no room; `Changelog` if the changelog cannot be read, or goes on losing what is
    /// being read; `Corruption`, `Unsupported`, `Io`.
    pub fn open(options: TaskOptions) -> Result<Self> {
        Self::take_over(Local::open(options)?)
    }

    /// Claims the changelog, which fences the former owner, and reads what the stores lack.
    /// Nothing may be in memory only.
    fn take_over(mut local: Local) -> Result<Self> {
        let mut session = local.claim()?;
        let all: Vec<usize> = (0..local.stores.len()).collect();
        let restored = Restored {
            stores: local.restore(&mut Owned(&mut *session), &all)?,
            unused: std::mem::take(&mut local.unused),
        };
        local.db.publish_position(local.positions.encode())?;
        Ok(Self::new(local, session, restored))
    }
}
