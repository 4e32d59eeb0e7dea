//! A changelog in a directory of the local file system: the default of an embedded store.
//!
//! Each task has a directory with one journal for all its partitions; one journal record is one
//! commit, so that a commit is atomic over all of them. `names` has the names of the files and
//! the lock, `index` the one mutable file, `payload` the records' form, `view` the segments as
//! they lie on disk; `claim` makes an owner, `session` writes, `reader` reads and `compaction`
//! rewrites. The layout is told in `docs/format.md`, section "File changelog".
//!
//! # Who may do what when
//!
//! Everything that changes a task's directory, and every look at which of its files count, is
//! done under the lock of the task, which nobody holds for longer than one call. An owner compares
//! its number with that in the index under the lock before it writes. A claim writes its number
//! durably first, then recovers the journal and begins a segment of its own. So a former owner,
//! stopped and continued, can never write again, and finds out at its next commit.

mod claim;
mod compaction;
mod index;
#[cfg(feature = "cli")]
pub(crate) mod inspect;
mod names;
mod payload;
mod reader;
mod session;
mod view;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::coding::{put_bytes, put_varint};
use crate::env::{Env, OsEnv, create_dir_all, read_file};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex};

use self::index::{Index, replace_file, seal, unseal};
use self::view::View;
use super::pending::Limits;
use super::{Bounds, Changelog, Guarantee, Offset, Partition, Reader, Session};

const ROOT_NAME: &str = "CHANGELOG";
const ROOT_TEMPORARY_NAME: &str = "CHANGELOG.new";
const ROOT_MAGIC: [u8; 4] = *b"SLRT";
const ROOT_VERSION: u32 = 1;
const ROOT_LEN_MAX: u64 = 4096;

/// How a [`File`] changelog is opened.
#[derive(Debug, Clone)]
pub struct FileOptions {
    env: Arc<dyn Env>,
    tombstone_retention_ms: u64,
    segment_bytes_max: u64,
    commit_bytes_max: u64,
    record_bytes_max: u64,
}

impl FileOptions {
    /// How long compaction keeps tombstones by default: a day.
    pub const TOMBSTONE_RETENTION_MS: u64 = 24 * 60 * 60 * 1000;
    /// Length of segments by default: 16 MiB. A reader holds one in memory.
    pub const SEGMENT_BYTES_MAX: u64 = 16 << 20;
    /// What a session buffers for a commit by default: 64 MiB.
    pub const COMMIT_BYTES_MAX: u64 = 64 << 20;
    /// The largest record by default: 16 MiB.
    pub const RECORD_BYTES_MAX: u64 = 16 << 20;
    /// The limits above may be raised up to this: 512 MiB.
    pub const BYTES_MAX: u64 = 512 << 20;

    /// The defaults, on the operating system.
    pub fn new() -> Self {
        Self {
            env: Arc::new(OsEnv::new()),
            tombstone_retention_ms: Self::TOMBSTONE_RETENTION_MS,
            segment_bytes_max: Self::SEGMENT_BYTES_MAX,
            commit_bytes_max: Self::COMMIT_BYTES_MAX,
            record_bytes_max: Self::RECORD_BYTES_MAX,
        }
    }

    /// Sets the environment that files, time and random numbers come from.
    #[must_use]
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = env;
        self
    }

    /// Sets for how long after its commit compaction keeps a tombstone.
    #[must_use]
    pub fn tombstone_retention_ms(mut self, ms: u64) -> Self {
        self.tombstone_retention_ms = ms;
        self
    }

    /// Sets the length at which a segment is ended; a commit larger than that has one of its own.
    #[must_use]
    pub fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    /// Sets how much a session buffers for commits.
    #[must_use]
    pub fn commit_bytes_max(mut self, bytes: u64) -> Self {
        self.commit_bytes_max = bytes;
        self
    }

    /// Sets the largest record.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: u64) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    fn check(&self) -> Result<()> {
        for (name, bytes) in [
            ("segment_bytes_max", self.segment_bytes_max),
            ("commit_bytes_max", self.commit_bytes_max),
            ("record_bytes_max", self.record_bytes_max),
        ] {
            if bytes == 0 || bytes > Self::BYTES_MAX {
                return Err(Error::invalid(format!(
                    "{name} is {bytes}; it has to be 1 to {}",
                    Self::BYTES_MAX
                )));
            }
        }
        Ok(())
    }
}

impl Default for FileOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// A changelog in a directory. Clones share it, and any number of processes may open it.
///
/// A commit is durable when it is told to have succeeded. Compaction keeps the newest record of
/// each key; it runs when more was written since the last one than that left, within the commit
/// (or the claim) that finds it due, and holds the keys of the task in memory while it runs.
///
/// ```
/// use siltstone::changelog::{Changelog, File, FileOptions, Partition, RecordRef};
///
/// let dir = tempfile::tempdir()?;
/// let log = File::open(&dir.path().join("changelog"), FileOptions::new())?;
/// let mut session = log.claim("task-0", &[Partition::new("clicks", 0)])?;
/// session.append(0, RecordRef::new(b"key", Some(b"value")))?;
/// let commit = session.prepare()?;
/// let positions = session.wait(commit)?;
/// assert_eq!(positions[0].next.0, 1);
/// session.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct File {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    options: FileOptions,
    cluster: String,
    /// Guards what is known of which task's directory holds a partition; partitions never move.
    homes: Mutex<HashMap<Partition, PathBuf>>,
}

impl File {
    /// Opens the changelog in `dir`, creating it if the directory is missing or empty.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for options out of range and for a directory that holds something else;
    /// `Unsupported` if a later version wrote it; `Corruption`, `Io`, `Locked`.
    pub fn open(dir: impl AsRef<Path>, options: FileOptions) -> Result<Self> {
        options.check()?;
        let dir = dir.as_ref().to_path_buf();
        let env = &*options.env;
        let cluster = match read_root(env, &dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => create_root(env, &dir)?,
            other => other?,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                dir,
                options,
                cluster,
                homes: Mutex::default(),
            }),
        })
    }

    /// Compacts the log of `task` now, all but its newest segment.
    ///
    /// Keeps the newest record of each key, with its offset, and drops tombstones whose retention
    /// has passed. Commits of the task wait meanwhile.
    ///
    /// # Errors
    ///
    /// `NotFound` if the task has no log; `Locked`, `Io`, `Corruption`. The log is whole after
    /// an error.
    pub fn compact(&self, task: &str) -> Result<()> {
        let env = &*self.shared.options.env;
        let dir = self.shared.dir.join(names::task_dir(task)?);
        // Before the lock, which would create a file in a directory that is none.
        Index::read(env, &dir)?;
        let _lock = names::lock(env, &dir)?;
        let view = View::read(env, &dir)?;
        compaction::run(&self.shared.options, &dir, view).map(drop)
    }

    /// The directory of the task that has `partition`.
    fn home(&self, partition: &Partition) -> Result<Option<PathBuf>> {
        let shared = &self.shared;
        if let Some(dir) = shared.homes.lock().get(partition) {
            return Ok(Some(dir.clone()));
        }
        let env = &*shared.options.env;
        let names = env.list_dir(&shared.dir)?;
        for name in names.iter().filter(|name| names::is_task_dir(name)) {
            let dir = shared.dir.join(name);
            let index = match Index::read(env, &dir) {
                Ok((index, _)) => index,
                // A claim that is on its way, or one that crashed, has only the directory yet.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut homes = shared.homes.lock();
            for slot in index.slots {
                homes.insert(slot.partition, dir.clone());
            }
        }
        Ok(shared.homes.lock().get(partition).cloned())
    }
}

impl Shared {
    fn env(&self) -> &dyn Env {
        &*self.options.env
    }

    fn limits(&self) -> Limits {
        Limits {
            record_bytes_max: self.options.record_bytes_max,
            commit_bytes_max: self.options.commit_bytes_max,
        }
    }

    fn bounds(&self, index: &Index, slot: usize, end: u64) -> Bounds {
        let slot = &index.slots[slot];
        Bounds {
            cluster: self.cluster.clone(),
            topic_id: slot.topic_id,
            start: Offset(0),
            end: Offset(end),
            leader_epoch: 0,
            // The offset of the newest tombstone that was dropped says it exactly.
            tombstone_retention_ms: None,
            tombstones_dropped_below: Offset(slot.tombstones_dropped_below),
        }
    }
}

impl Changelog for File {
    fn guarantee(&self) -> Guarantee {
        Guarantee::Atomic
    }

    fn bounds(&self, partition: &Partition) -> Result<Option<Bounds>> {
        let Some(dir) = self.home(partition)? else {
            return Ok(None);
        };
        let env = self.shared.env();
        let _lock = names::lock(env, &dir)?;
        let view = View::read(env, &dir)?;
        let slot = view
            .index
            .slot(partition)
            .ok_or_else(|| lost(partition, &dir))?;
        let ends = view.ends(env)?;
        Ok(Some(self.shared.bounds(&view.index, slot, ends[slot])))
    }

    fn claim(&self, task: &str, partitions: &[Partition]) -> Result<Box<dyn Session>> {
        super::check_distinct(partitions)?;
        claim::claim(self, task, partitions)
    }

    fn reader(&self, partition: &Partition, from: Offset) -> Result<Box<dyn Reader>> {
        let home = self.home(partition)?.zip(self.bounds(partition)?);
        let Some((dir, bounds)) = home else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("changelog partition {partition} does not exist"),
            ));
        };
        super::check_range(partition, from, bounds.start, bounds.end)?;
        let reader =
            reader::FileReader::new(&self.shared, dir, partition, bounds.topic_id, from, None);
        Ok(Box::new(reader))
    }
}

fn lost(partition: &Partition, dir: &Path) -> Error {
    Error::corruption(format!("{}: its index has lost {partition}", dir.display()))
}

/// Reads the file that makes a directory a changelog, and returns the changelog's name.
fn read_root(env: &dyn Env, dir: &Path) -> Result<String> {
    let path = dir.join(ROOT_NAME);
    let bytes = read_file(env, &path, ROOT_LEN_MAX)?;
    decode_root(&bytes).map_err(|error| error.context(path.display()))
}

fn decode_root(bytes: &[u8]) -> Result<String> {
    let mut decoder = unseal(bytes, ROOT_MAGIC, ROOT_VERSION, "changelog directory")?;
    let cluster = decoder.str("cluster")?.to_owned();
    let flags = decoder.varint("reserved flags")?;
    decoder.finish("changelog directory")?;
    match flags {
        0 => Ok(cluster),
        _ => Err(Error::unsupported(format!(
            "flags {flags:x} of a later version"
        ))),
    }
}

fn create_root(env: &dyn Env, dir: &Path) -> Result<String> {
    create_dir_all(env, dir)?;
    // It may be there because an earlier attempt failed before its name was durable.
    env.sync_dir(parent(dir))?;
    let foreign = |name: &&String| ![names::LOCK_NAME, ROOT_TEMPORARY_NAME].contains(&&***name);
    // A former attempt may have left the lock and the file's new form.
    if let Some(name) = env.list_dir(dir)?.iter().find(foreign)
        && name != ROOT_NAME
    {
        return Err(Error::invalid(format!(
            "{} is no changelog: it has no {ROOT_NAME}, but {name}",
            dir.display()
        )));
    }
    let _lock = names::lock(env, dir)?;
    match read_root(env, dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // Another process was faster.
        other => return other,
    }
    let cluster = format!("file-{:016x}", env.random_u64());
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&ROOT_MAGIC);
    bytes.extend_from_slice(&ROOT_VERSION.to_le_bytes());
    put_bytes(&mut bytes, cluster.as_bytes());
    put_varint(&mut bytes, 0);
    seal(&mut bytes);
    replace_file(env, dir, ROOT_TEMPORARY_NAME, ROOT_NAME, &bytes)?;
    Ok(cluster)
}

fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => dir,
    }
}

fn remove_if_there(env: &dyn Env, path: &Path) -> Result<()> {
    match env.remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
