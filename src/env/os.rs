//! The operating system as an [`Env`].

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::{Env, File, JoinHandle, LockGuard, Metadata, SharedMap};
use crate::error::{Error, ErrorKind, Result};
use crate::slice::{Backing, Slice};
use crate::sync::{Arc, thread};

/// The operating system's files, locks, clocks and threads.
///
/// # Examples
///
/// ```
/// use std::path::Path;
/// use siltstone::env::{Env, OsEnv};
///
/// let env = OsEnv::new();
/// assert!(env.metadata(Path::new("."))?.is_dir);
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct OsEnv {
    /// The moment that [`Env::monotonic`] counts from.
    origin: Duration,
}

impl OsEnv {
    /// An environment whose monotonic clock starts now.
    pub fn new() -> Self {
        Self {
            origin: since_boot(),
        }
    }
}

impl Default for OsEnv {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for OsEnv {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        OsFile::open(
            "create",
            path,
            options.read(true).write(true).create_new(true),
        )
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        OsFile::open("open", path, OpenOptions::new().read(true))
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>> {
        OsFile::open(
            "open for writing",
            path,
            OpenOptions::new().read(true).write(true),
        )
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        fs::create_dir(path).map_err(|error| Error::io("create directory", path, error))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|error| {
            Error::io("rename", from, error).context(format_args!("to {}", to.display()))
        })
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> Result<()> {
        fs::hard_link(existing, new).map_err(|error| {
            Error::io("link", existing, error).context(format_args!("as {}", new.display()))
        })
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|error| Error::io("remove", path, error))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        fs::remove_dir(path).map_err(|error| Error::io("remove directory", path, error))
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<String>> {
        list_names(path).map_err(|error| Error::io("list", path, error))
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        let found = fs::metadata(path).map_err(|error| Error::io("look up", path, error))?;
        Ok(Metadata {
            len: found.len(),
            is_dir: found.is_dir(),
        })
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|directory| fs::File::from(directory).sync_all())
            .map_err(|error| Error::io("sync directory", path, error))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| Error::io("open lock", path, error))?;
        // A lock of the open file, not of the process: a second handle in this process is refused
        // too, and closing an unrelated handle of the same file frees nothing.
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(OsLock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(super::taken(path)),
            Err(error) => Err(Error::io("lock", path, error.into())),
        }
    }

    fn wall_clock_ms(&self) -> u64 {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        since_boot().saturating_sub(self.origin)
    }

    fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        match fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)) {
            Ok(()) => u64::from_le_bytes(bytes),
            // A sandbox may hide the device. The standard library's hash keys come from the
            // system too, by a call that needs no file.
            Err(_) => std::hash::RandomState::new().build_hasher().finish(),
        }
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<Box<dyn JoinHandle>> {
        spawn_thread(name, body)
    }
}

/// Time since the machine's start, that which it spent suspended included: the clock of `Instant`
/// stands still meanwhile on Linux, while brokers and other machines go on.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn since_boot() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::Boottime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

/// Time since the first call. What `Instant` counts where there is no other clock at hand.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn since_boot() -> Duration {
    use std::time::Instant;
    static FIRST: crate::sync::OnceLock<Instant> = crate::sync::OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}

/// Starts a thread of the operating system.
pub(super) fn spawn_thread(
    name: &str,
    body: Box<dyn FnOnce() + Send>,
) -> Result<Box<dyn JoinHandle>> {
    match thread::Builder::new()
        .name(format!("siltstone-{name}"))
        .spawn(body)
    {
        Ok(handle) => Ok(Box::new(OsThread(handle))),
        Err(error) => {
            Err(Error::new(ErrorKind::Io, format!("start thread {name}")).with_source(error))
        }
    }
}

fn list_names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    path: PathBuf,
}

impl OsFile {
    fn open(operation: &str, path: &Path, options: &OpenOptions) -> Result<Arc<dyn File>> {
        let opened = options.open(path).and_then(|file| {
            // The system opens a directory for reading and fails the first read only.
            if file.metadata()?.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Ok(file)
        });
        match opened {
            Ok(file) => Ok(Arc::new(Self {
                file,
                path: path.to_owned(),
            })),
            Err(error) => Err(Error::io(operation, path, error)),
        }
    }

    fn error(&self, operation: &str, error: io::Error) -> Error {
        Error::io(operation, &self.path, error)
    }
}

impl File for OsFile {
    fn read_exact_at(&self, pos: u64, buf: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(buf, pos)
            .map_err(|error| self.error("read", error))
    }

    fn write_all_at(&self, pos: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, pos)
            .map_err(|error| self.error("write", error))
    }

    fn sync(&self) -> Result<()> {
        // The cheaper of the two syncs: it leaves out times, but not a length that changed.
        self.file
            .sync_data()
            .map_err(|error| self.error("sync", error))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file
            .set_len(len)
            .map_err(|error| self.error("set length of", error))
    }

    fn len(&self) -> Result<u64> {
        match self.file.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(self.error("look up", error)),
        }
    }

    fn map(&self, len: u64) -> Option<Slice> {
        let len = usize::try_from(len).ok().filter(|&len| len > 0)?;
        let len_stored = usize::try_from(self.file.metadata().ok()?.len()).ok()?;
        if len_stored < len {
            return None;
        }
        let mapped = map_file(&self.file, len).ok()?;
        Some(Slice::part_of(Arc::new(Mapped(mapped)), 0..len))
    }

    fn map_shared(&self, len: u64) -> Option<Box<dyn SharedMap>> {
        let len = usize::try_from(len).ok().filter(|&len| len > 0)?;
        let len_stored = usize::try_from(self.file.metadata().ok()?.len()).ok()?;
        if len_stored < len || !overwrites_in_place(&self.file) {
            return None;
        }
        let mapped = map_file_shared(&self.file, len).ok()?;
        Some(Box::new(SharedMapped(mapped)))
    }
}

/// True if the file lies where a page that was written once has its place for good. Elsewhere
/// (Btrfs, ZFS, a network, XFS once the file was cloned) a page is written to a new place: a store
/// into the map may need room that is not there, and that would be the end of the process.
#[cfg(target_os = "linux")]
fn overwrites_in_place(file: &fs::File) -> bool {
    // From statfs(2): ext2 to ext4, and memory.
    const MAGICS: [u64; 2] = [0xef53, 0x0102_1994];
    rustix::fs::fstatfs(file)
        .ok()
        .and_then(|found| u64::try_from(found.f_type).ok())
        .is_some_and(|magic| MAGICS.contains(&magic))
}

#[cfg(not(target_os = "linux"))]
fn overwrites_in_place(_file: &fs::File) -> bool {
    false
}

#[expect(
    unsafe_code,
    reason = "a mapping is sound only while nobody changes the file"
)]
fn map_file(file: &fs::File, len: usize) -> io::Result<memmap2::Mmap> {
    let mut options = memmap2::MmapOptions::new();
    // SAFETY: `File::map` is for immutable files: once finished, a table is neither written nor
    // cut by this crate, only unlinked, which leaves the mapping whole; the store's lock keeps
    // other processes of this crate out. The caller has checked that the file holds `len` bytes.
    unsafe { options.len(len).map(file) }
}

#[expect(
    unsafe_code,
    reason = "a mapping is sound only while nobody else changes the file"
)]
fn map_file_shared(file: &fs::File, len: usize) -> io::Result<memmap2::MmapMut> {
    let mut options = memmap2::MmapOptions::new();
    // SAFETY: `File::map_shared` is for a file that this process alone writes, through the one map
    // and under the store's lock, and that nobody cuts; the caller has checked that it holds `len`
    // bytes. The map is written by `&mut self`, and never read.
    unsafe { options.len(len).map_mut(file) }
}

#[derive(Debug)]
struct SharedMapped(memmap2::MmapMut);

impl SharedMap for SharedMapped {
    fn write(&mut self, pos: u64, bytes: &[u8]) {
        let pos = usize::try_from(pos).expect("a position within the map");
        self.0[pos..pos + bytes.len()].copy_from_slice(bytes);
    }
}

struct Mapped(memmap2::Mmap);

impl Backing for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The lock is the open file's and ends when it is closed.
#[derive(Debug)]
struct OsLock {
    _file: fs::File,
}

impl LockGuard for OsLock {}

struct OsThread(thread::JoinHandle<()>);

impl JoinHandle for OsThread {
    fn join(self: Box<Self>) {
        if self.0.thread().id() == thread::current().id() {
            // The last owner of a pool of threads may be one of them; it ends by itself.
            return;
        }
        // A panic has been reported by the panic hook, and the worker's own guard acts on it.
        drop(self.0.join());
    }
}
