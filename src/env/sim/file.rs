//! An open file of the simulated disk.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::disk::NodeId;
use super::state::State;
use super::{Access, Shared};
use crate::env::{File, SharedMap};
use crate::error::{Error, Result};
use crate::slice::Slice;
use crate::sync::Arc;

/// Counts as a holder of its node until it is dropped.
pub(super) struct SimFile {
    pub(super) shared: Arc<Shared>,
    pub(super) id: NodeId,
    pub(super) path: PathBuf,
    pub(super) access: Access,
}

impl SimFile {
    fn call<T>(&self, operation: &str, act: impl FnOnce(&mut State) -> io::Result<T>) -> Result<T> {
        let done = act(&mut self.shared.state.lock());
        done.map_err(|error| Error::io(operation, &self.path, error))
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::Read => Err(rustix::io::Errno::BADF.into()),
        }
    }
}

impl File for SimFile {
    fn read_exact_at(&self, pos: u64, buf: &mut [u8]) -> Result<()> {
        self.call("read", |state| {
            if state.read_bytes(self.id, pos, buf)? {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        })
    }

    fn write_all_at(&self, pos: u64, bytes: &[u8]) -> Result<()> {
        self.call("write", |state| {
            self.check_writable()?;
            state.write(self.id, pos, bytes)
        })
    }

    fn sync(&self) -> Result<()> {
        self.call("sync", |state| state.sync(self.id))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.call("set length of", |state| {
            self.check_writable()?;
            state.set_len(self.id, len)
        })
    }

    fn len(&self) -> Result<u64> {
        self.call("look up", |state| {
            Ok(state.read()?.file(self.id).visible.len())
        })
    }

    /// Never maps, so that every read can fail.
    fn map(&self, _len: u64) -> Option<Slice> {
        None
    }

    /// One read, by which it can fail.
    fn map_shared(&self, len: u64) -> Option<Box<dyn SharedMap>> {
        let mut state = self.shared.state.lock();
        self.check_writable().ok()?;
        let len_stored = state.read().ok()?.file(self.id).visible.len();
        if len == 0 || len_stored < len {
            return None;
        }
        state.hold(self.id);
        Some(Box::new(SimMap {
            file: Self {
                shared: Arc::clone(&self.shared),
                id: self.id,
                path: self.path.clone(),
                access: self.access,
            },
            len,
        }))
    }
}

/// Writes into a file's front, which is there already.
#[derive(Debug)]
struct SimMap {
    file: SimFile,
    len: u64,
}

impl SharedMap for SimMap {
    fn write(&mut self, pos: u64, bytes: &[u8]) {
        let end = pos.checked_add(bytes.len() as u64);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{} bytes at {pos} of a map of {}",
            bytes.len(),
            self.len
        );
        self.file
            .shared
            .state
            .lock()
            .store(self.file.id, pos, bytes);
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.shared.state.lock().release(self.id);
    }
}
