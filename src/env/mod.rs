//! Everything a store asks of the outside: files, directories, locks, time, threads, randomness.
//!
//! All I/O of the crate goes through [`Env`]. [`OsEnv`] is the real one; with the feature `sim`,
//! `SimEnv` keeps a whole file system in memory, can lose, tear and reorder what was not synced,
//! and fails calls on demand, so that every I/O of a program can be its last.

#[cfg(test)]
mod contract;
mod os;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::error::Result;
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::Arc;

pub use os::OsEnv;

/// The outside world of a store.
///
/// Errors name the operation and the path. A missing file is
/// [`NotFound`](crate::ErrorKind::NotFound), everything else that the system fails is
/// [`Io`](crate::ErrorKind::Io), a lock that is taken is [`Locked`](crate::ErrorKind::Locked).
pub trait Env: Send + Sync + fmt::Debug {
    /// Creates a file that must not exist, for reading and writing. Its name is durable only
    /// after [`sync_dir`](Self::sync_dir) of its directory.
    ///
    /// # Errors
    ///
    /// `Io`, of the kind `AlreadyExists` if the name is taken; `NotFound` without its directory.
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// `NotFound` without the file; `Io`, also for a directory.
    fn open(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    ///
    /// `NotFound` without the file; `Io`, also for a directory.
    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Creates one directory; its parent must exist, it must not. Durable after a sync of the
    /// parent.
    ///
    /// # Errors
    ///
    /// `Io`, of the kind `AlreadyExists` if the name is taken; `NotFound` without its parent.
    fn create_dir(&self, path: &Path) -> Result<()>;

    /// Renames a file, replacing `to`. Durable after a sync of the directory.
    ///
    /// # Errors
    ///
    /// `NotFound` without `from`; `Io`.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Gives a file a second name. Durable after a sync of the directory.
    ///
    /// # Errors
    ///
    /// `NotFound` without `existing`; `Io`, of the kind `AlreadyExists` if `new` is taken.
    fn hard_link(&self, existing: &Path, new: &Path) -> Result<()>;

    /// Removes a file's name. Open handles go on.
    ///
    /// # Errors
    ///
    /// `NotFound` without the file; `Io`, also for a directory.
    fn remove_file(&self, path: &Path) -> Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// `NotFound` without the directory; `Io`, also if it is not empty.
    fn remove_dir(&self, path: &Path) -> Result<()>;

    /// The names in a directory that are valid UTF-8, sorted; others are not ours and left alone.
    ///
    /// # Errors
    ///
    /// `NotFound` without the directory; `Io`.
    fn list_dir(&self, path: &Path) -> Result<Vec<String>>;

    /// What a path names, or `NotFound`.
    ///
    /// # Errors
    ///
    /// `NotFound` if the path names nothing; `Io`.
    fn metadata(&self, path: &Path) -> Result<Metadata>;

    /// Makes the creations, renames and removals in a directory durable.
    ///
    /// # Errors
    ///
    /// `NotFound` without the directory; `Io`.
    fn sync_dir(&self, path: &Path) -> Result<()>;

    /// Takes the exclusive lock of the file at `path`, creating it if it is missing. Never waits:
    /// a second holder, in this process or another, is told `Locked` at once. The lock ends with
    /// the guard, or with the process.
    ///
    /// # Errors
    ///
    /// `Locked` if it is taken; `NotFound` without the directory; `Io`.
    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>>;

    /// Milliseconds since 1970, by a clock that may jump.
    fn wall_clock_ms(&self) -> u64;

    /// Time since some fixed moment, by a clock that never goes back. It goes on while the machine
    /// is suspended, where the system has such a clock (Linux has): what others may do meanwhile,
    /// a deadline must count.
    fn monotonic(&self) -> Duration;

    /// Sixty-four random bits.
    fn random_u64(&self) -> u64;

    /// Starts a thread.
    ///
    /// # Errors
    ///
    /// `Io` if the system starts no more threads.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<Box<dyn JoinHandle>>;
}

/// An open file. All calls may come from any thread.
#[expect(
    clippy::len_without_is_empty,
    reason = "a length that may fail, of no collection"
)]
pub trait File: Send + Sync + fmt::Debug {
    /// Reads exactly `buf.len()` bytes at `pos`; an end of file before that is an `Io` error of
    /// the kind `UnexpectedEof`.
    ///
    /// # Errors
    ///
    /// `Io`.
    fn read_exact_at(&self, pos: u64, buf: &mut [u8]) -> Result<()>;

    /// Writes all of `bytes` at `pos`, growing the file as needed. After an error any part of
    /// them may have been written.
    ///
    /// # Errors
    ///
    /// `Io`.
    fn write_all_at(&self, pos: u64, bytes: &[u8]) -> Result<()>;

    /// Makes the file's bytes and its length durable. After an error nothing written since the
    /// last success may be relied on, ever.
    ///
    /// # Errors
    ///
    /// `Io`.
    fn sync(&self) -> Result<()>;

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    ///
    /// `Io`; the length may be either.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    ///
    /// `Io`.
    fn len(&self) -> Result<u64>;

    /// Maps the first `len` bytes of an immutable file for reading. `None` where the environment
    /// does not map or the map failed: read by position then.
    fn map(&self, len: u64) -> Option<Slice>;

    /// Maps the first `len` bytes of this file, which was opened for writing and holds them all,
    /// each written before, to be written through the map. `None` where the environment has no
    /// such maps, where storing into one could fail for lack of room, or where the map failed:
    /// write by position then. Nobody may cut the file while the map is there.
    fn map_shared(&self, len: u64) -> Option<Box<dyn SharedMap>> {
        let _ = len;
        None
    }
}

/// The front of a file, to be written without a call to the system.
pub trait SharedMap: Send + Sync + fmt::Debug {
    /// Writes `bytes` at `pos`. On return they are the file's: they are what a read by position
    /// finds, and they survive the end of the process. Nothing of them is durable, not even after
    /// a [`sync`](File::sync).
    ///
    /// # Panics
    ///
    /// If they reach beyond the map.
    fn write(&mut self, pos: u64, bytes: &[u8]);
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Length of the file in bytes; of no meaning for a directory.
    pub len: u64,
    /// True for a directory.
    pub is_dir: bool,
}

/// Holds a lock taken by [`Env::lock`] until it is dropped.
pub trait LockGuard: Send + Sync + fmt::Debug {}

/// A thread started by [`Env::spawn`].
pub trait JoinHandle: Send {
    /// Waits for the thread's end. A thread that panicked has ended too.
    fn join(self: Box<Self>);
}

/// The error for a lock that has a holder.
fn taken(path: &Path) -> crate::Error {
    crate::Error::new(
        crate::ErrorKind::Locked,
        format!("{} is locked by another handle or process", path.display()),
    )
}

/// Reads a whole file, of at most `len_max` bytes.
pub(crate) fn read_file(env: &dyn Env, path: &Path, len_max: u64) -> Result<Vec<u8>> {
    let file = env.open(path)?;
    let len = file.len()?;
    if len > len_max {
        return Err(crate::Error::corruption(format!(
            "{}: {len} bytes long, at most {len_max} expected",
            path.display()
        )));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_exact_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Creates `path` and its missing parents, each made durable in its own parent.
///
/// A directory that is there may be one whose creation was cut short before it became durable, so
/// the lowest of them is synced too.
pub(crate) fn create_dir_all(env: &dyn Env, path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    match env.metadata(path) {
        Ok(metadata) if metadata.is_dir => return sync_if_allowed(env, parent),
        Ok(_) => {
            return Err(crate::Error::invalid(format!(
                "{} is no directory",
                path.display()
            )));
        }
        Err(error) if error.kind() == crate::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    create_dir_all(env, parent)?;
    match env.create_dir(path) {
        Err(error) if error.io_kind() == Some(std::io::ErrorKind::AlreadyExists) => {}
        other => other?,
    }
    if planted(Bug::DirectoryNameSyncSkipped) {
        return Ok(());
    }
    env.sync_dir(parent)
}

/// A directory that may not even be read is no place where this user created anything.
fn sync_if_allowed(env: &dyn Env, path: &Path) -> Result<()> {
    match env.sync_dir(path) {
        Err(error) if error.io_kind() == Some(std::io::ErrorKind::PermissionDenied) => Ok(()),
        other => other,
    }
}
