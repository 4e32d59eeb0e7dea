//! A whole file system in memory that can crash, fail and fill up, the same way for the same seed.
//!
//! [`SimEnv`] is the environment: it counts every I/O, fails those that a [`FaultPlan`] names and
//! can stop at any of them. [`SimImage`] is a copy of its disk at one moment, cheap enough to take
//! before every I/O, and [`SimImage::crash`] makes of it what a machine finds after the power is
//! back, by one of the [`CrashPolicy`]s.
//!
//! A test that covers every crash point runs its work once with [`SimEnv::record`] switched on,
//! and opens what each policy leaves of each image.

mod content;
mod crash;
mod disk;
mod fault;
mod file;
mod image;
mod random;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::fault::ReadFault;
use self::file::SimFile;
use self::state::State;
use super::{Env, File, JoinHandle, LockGuard, Metadata};
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};

pub use self::crash::CrashPolicy;
pub use self::fault::{FaultKind, FaultPlan};
pub use self::image::SimImage;

/// An environment in memory whose disk can lose what was not synced and fail on demand.
///
/// Clones share one disk, one clock and one set of locks. All its choices follow from its seed and
/// the order of the calls. Threads are real ones.
///
/// Every call that changes the disk (creating, writing, syncing, cutting, renaming, linking,
/// removing) is one *mutating I/O*; their indices start at zero. A store into a shared map is one
/// too, but never fails. Opening, mapping, reading and looking up are *reads*, with indices of
/// their own.
///
/// Relative paths start at the root, which always exists.
///
/// # Examples
///
/// ```
/// use std::path::Path;
/// use siltstone::env::Env;
/// use siltstone::env::sim::{CrashPolicy, SimEnv};
///
/// let env = SimEnv::new(1);
/// let file = env.create_new(Path::new("a"))?;
/// file.write_all_at(0, b"saved")?;
/// file.sync()?;
/// env.sync_dir(Path::new("."))?;
/// file.write_all_at(5, b", lost")?;
///
/// let after = env.capture().crash(CrashPolicy::MaxLoss, 1);
/// assert_eq!(after.file_bytes(Path::new("a")).unwrap(), b"saved");
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone)]
pub struct SimEnv {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    /// Guards everything: each call is one step.
    state: Mutex<State>,
}

impl SimEnv {
    /// An empty disk, and a wall clock at the first moment of 2026.
    pub fn new(seed: u64) -> Self {
        Self::from_state(seed, State::new(seed))
    }

    fn from_state(seed: u64, state: State) -> Self {
        let state = Mutex::new(state);
        Self {
            shared: Arc::new(Shared { seed, state }),
        }
    }

    /// The seed that it was made with.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// Mutating I/Os so far: the index of the next one.
    pub fn io_count(&self) -> u64 {
        self.shared.state.lock().faults.io_count
    }

    /// Reads so far: the index of the next one.
    pub fn read_count(&self) -> u64 {
        self.shared.state.lock().faults.read_count
    }

    /// Calls so far that a [`FaultPlan`], a read fault or a flip was meant for.
    pub fn fault_count(&self) -> u64 {
        self.shared.state.lock().faults.fault_count
    }

    /// A copy of the disk as it is now, with what of it is durable.
    pub fn capture(&self) -> SimImage {
        self.shared.state.lock().capture()
    }

    /// Switches recording on or off. While it is on, an image of the disk is kept from before
    /// every mutating I/O.
    pub fn record(&self, on: bool) {
        self.shared.state.lock().is_recording = on;
    }

    /// Hands the recorded images over, each with the index of the I/O that it was taken before.
    /// The disk after the last of them is what [`capture`](Self::capture) gives.
    pub fn take_recorded(&self) -> Vec<(u64, SimImage)> {
        std::mem::take(&mut self.shared.state.lock().recorded)
    }

    /// Fails mutating I/Os by `plan`, in place of any earlier plan.
    pub fn set_fault(&self, plan: FaultPlan) {
        self.shared.state.lock().faults.plan = Some(plan);
    }

    /// Fails the read with the index `at`, once, with an I/O error.
    pub fn set_read_fault(&self, at: u64) {
        self.shared.state.lock().faults.read_fault = Some((at, ReadFault::Eio));
    }

    /// Flips one bit, chosen by the seed, of what the read with the index `at` gives, once: the
    /// disk itself stays as it is. A call that reads no bytes, such as opening, is not touched.
    pub fn set_read_flip(&self, at: u64) {
        self.shared.state.lock().faults.read_fault = Some((at, ReadFault::Flip));
    }

    /// From the mutating I/O with the index `at` on, every call to the disk, reads too, fails with
    /// a "simulated crash" ([`io::ErrorKind::Other`]) and does nothing, so that the threads of a
    /// program unwind and the disk stays as the crash found it.
    pub fn stop_at(&self, at: u64) {
        self.shared.state.lock().faults.stop_at = Some(at);
    }

    /// Takes back all fault plans, read faults and stops.
    pub fn clear_faults(&self) {
        let faults = &mut self.shared.state.lock().faults;
        faults.plan = None;
        faults.read_fault = None;
        faults.stop_at = None;
    }

    /// Bounds the sum of all files' lengths in bytes, or takes the bound back. What would pass it
    /// fails with [`io::ErrorKind::StorageFull`]; of a write, the part that fits is written.
    pub fn set_capacity(&self, bytes_max: Option<u64>) {
        self.shared.state.lock().faults.capacity = bytes_max;
    }

    /// While `on`, mutating I/Os and opening for writing fail with
    /// [`io::ErrorKind::PermissionDenied`].
    pub fn set_read_only(&self, on: bool) {
        self.shared.state.lock().faults.is_read_only = on;
    }

    /// Moves the wall clock by so many milliseconds, backwards too.
    pub fn advance_wall_ms(&self, by: i64) {
        let mut state = self.shared.state.lock();
        state.wall_ms = state.wall_ms.saturating_add_signed(by);
    }

    /// Moves the monotonic clock forward. By itself it only advances by one microsecond with
    /// every I/O.
    pub fn advance(&self, by: Duration) {
        let mut state = self.shared.state.lock();
        state.monotonic = state.monotonic.saturating_add(by);
    }

    /// The bytes of a file as a read would see them; `None` if there is no such file. Not an I/O.
    pub fn file_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        self.capture().file_bytes(path)
    }

    /// Puts a durable file with these bytes at `path`, with directories as needed, in place of
    /// what was there. Not an I/O: this is how a test damages files.
    ///
    /// # Panics
    ///
    /// If a directory is in the way, or a file where a directory is needed.
    pub fn set_file_bytes(&self, path: &Path, bytes: impl AsRef<[u8]>) {
        let put = self
            .shared
            .state
            .lock()
            .disk
            .put_durable(path, bytes.as_ref());
        if let Err(error) = put {
            panic!("put {}: {error}", path.display());
        }
    }

    /// The paths of all files, sorted. Not an I/O.
    pub fn files(&self) -> Vec<PathBuf> {
        self.capture().files()
    }

    /// A hash of all names and of the bytes that reads see, for telling disks apart. Not an I/O.
    pub fn content_hash(&self) -> u64 {
        self.capture().content_hash()
    }

    fn call<T>(
        &self,
        operation: &str,
        path: &Path,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T> {
        let done = act(&mut self.shared.state.lock());
        done.map_err(|error| Error::io(operation, path, error))
    }

    fn file(&self, state: &mut State, id: disk::NodeId, path: &Path, access: Access) -> SimFile {
        state.hold(id);
        SimFile {
            shared: Arc::clone(&self.shared),
            id,
            path: path.to_owned(),
            access,
        }
    }
}

/// What an open file may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    ReadWrite,
}

impl fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimEnv")
            .field("seed", &self.shared.seed)
            .finish_non_exhaustive()
    }
}

impl Env for SimEnv {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = self.call("create", path, |state| {
            let id = state.create(|disk| disk.create_file(path))?;
            Ok(self.file(state, id, path, Access::ReadWrite))
        })?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = self.call("open", path, |state| {
            let id = state.read()?.find_file(path)?;
            Ok(self.file(state, id, path, Access::Read))
        })?;
        Ok(Arc::new(file))
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = self.call("open for writing", path, |state| {
            let id = state.read()?.find_file(path)?;
            if state.faults.is_read_only {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            Ok(self.file(state, id, path, Access::ReadWrite))
        })?;
        Ok(Arc::new(file))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.call("create directory", path, |state| {
            state.create(|disk| disk.create_dir(path))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.call("rename", from, |state| {
            state.change(|disk| disk.rename(from, to))
        })
        .map_err(|error| error.context(format_args!("to {}", to.display())))
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> Result<()> {
        self.call("link", existing, |state| {
            state.change(|disk| disk.hard_link(existing, new))
        })
        .map_err(|error| error.context(format_args!("as {}", new.display())))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.call("remove", path, |state| {
            state.change(|disk| disk.remove_file(path))
        })
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.call("remove directory", path, |state| {
            state.change(|disk| disk.remove_dir(path))
        })
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<String>> {
        self.call("list", path, |state| state.read()?.list(path))
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        self.call("look up", path, |state| state.read()?.metadata(path))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.call("sync directory", path, |state| state.sync_dir(path))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        let locked = self.call("lock", path, |state| {
            if state.faults.is_read_only {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            // Only a lock file that is missing costs a mutating I/O.
            let found = match state.disk.find_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    state.create(|disk| disk.create_file(path))
                }
                found => state.read().map(drop).and(found),
            };
            let id = found?;
            Ok(state.locks.insert(id).then(|| {
                state.hold(id);
                id
            }))
        })?;
        match locked {
            Some(id) => Ok(Box::new(SimLock {
                shared: Arc::clone(&self.shared),
                id,
            })),
            None => Err(super::taken(path)),
        }
    }

    fn wall_clock_ms(&self) -> u64 {
        self.shared.state.lock().wall_ms
    }

    fn monotonic(&self) -> Duration {
        self.shared.state.lock().monotonic
    }

    fn random_u64(&self) -> u64 {
        self.shared.state.lock().random.next_u64()
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<Box<dyn JoinHandle>> {
        super::os::spawn_thread(name, body)
    }
}

/// A lock of a file, whatever its name becomes.
struct SimLock {
    shared: Arc<Shared>,
    id: disk::NodeId,
}

impl LockGuard for SimLock {}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLock").finish_non_exhaustive()
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.locks.remove(&self.id);
        state.release(self.id);
    }
}
