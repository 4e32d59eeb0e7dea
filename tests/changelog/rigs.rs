//! One changelog of each kind, with what the contract has to do to it from outside.

use std::sync::Arc;

use siltstone::changelog::faulty::{CommitPlan, Faulty};
use siltstone::changelog::{Changelog, File, FileOptions, Memory, Offset, Partition};
use siltstone::env::sim::SimEnv;
use siltstone::env::{Env, OsEnv};

/// Limits small enough to be met.
pub(crate) const RECORD_BYTES_MAX: u64 = 4096;
pub(crate) const COMMIT_BYTES_MAX: u64 = 64 << 10;
pub(crate) const TOMBSTONE_RETENTION_MS: u64 = 1000;

/// A changelog and the hands that a test has on it.
pub(crate) trait Rig {
    /// The log, as another process would open it.
    fn open(&self) -> Box<dyn Changelog>;

    /// Compacts the log of a partition of `task`, which nobody writes, at `later_ms` from now.
    fn compact(&self, task: &str, partition: &Partition, later_ms: u64);

    /// Whether nothing happens behind the caller's back, the log is compacted on demand, and it
    /// knows to which task a partition belongs.
    fn is_local(&self) -> bool {
        true
    }

    /// Trims a partition, where the log can do that.
    fn trim(&self, _partition: &Partition, _before: Offset) -> bool {
        false
    }

    /// Deletes and recreates a topic, where the log can do that.
    fn recreate(&self, _topic: &str) -> bool {
        false
    }
}

/// The log in memory.
pub(crate) struct InMemory {
    log: Memory,
    env: SimEnv,
}

impl InMemory {
    pub(crate) fn new() -> Self {
        let env = SimEnv::new(1);
        let log = Memory::new(Arc::new(env.clone()))
            .record_bytes_max(RECORD_BYTES_MAX)
            .commit_bytes_max(COMMIT_BYTES_MAX);
        Self { log, env }
    }
}

impl Rig for InMemory {
    fn open(&self) -> Box<dyn Changelog> {
        Box::new(self.log.clone())
    }

    fn compact(&self, _task: &str, partition: &Partition, later_ms: u64) {
        let now_ms = self.env.wall_clock_ms() + later_ms;
        self.log.compact(partition, TOMBSTONE_RETENTION_MS, now_ms);
    }

    fn trim(&self, partition: &Partition, before: Offset) -> bool {
        self.log.delete_records(partition, before);
        true
    }

    fn recreate(&self, topic: &str) -> bool {
        self.log.recreate(topic);
        true
    }
}

fn file_options(env: Arc<dyn Env>) -> FileOptions {
    FileOptions::new()
        .env(env)
        .segment_bytes_max(8 << 10)
        .record_bytes_max(RECORD_BYTES_MAX)
        .commit_bytes_max(COMMIT_BYTES_MAX)
        .tombstone_retention_ms(TOMBSTONE_RETENTION_MS)
}

/// A claim begins a segment, so that compaction takes all that was written before.
fn compact_file(log: &File, task: &str, partition: &Partition) {
    log.claim(task, std::slice::from_ref(partition))
        .unwrap()
        .close()
        .unwrap();
    log.compact(task).unwrap();
}

/// A file changelog on a simulated disk.
pub(crate) struct FileOnSim {
    env: SimEnv,
}

impl FileOnSim {
    pub(crate) fn new() -> Self {
        Self {
            env: SimEnv::new(2),
        }
    }

    fn file(&self) -> File {
        File::open("log", file_options(Arc::new(self.env.clone()))).unwrap()
    }
}

impl Rig for FileOnSim {
    fn open(&self) -> Box<dyn Changelog> {
        Box::new(self.file())
    }

    fn compact(&self, task: &str, partition: &Partition, later_ms: u64) {
        let later = i64::try_from(later_ms).unwrap();
        self.env.advance_wall_ms(later);
        compact_file(&self.file(), task, partition);
        self.env.advance_wall_ms(-later);
    }
}

/// A file changelog on the operating system.
pub(crate) struct FileOnDisk {
    dir: tempfile::TempDir,
}

impl FileOnDisk {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn options() -> FileOptions {
        file_options(Arc::new(OsEnv::new()))
    }
}

impl Rig for FileOnDisk {
    fn open(&self) -> Box<dyn Changelog> {
        Box::new(File::open(self.dir.path(), Self::options()).unwrap())
    }

    fn compact(&self, task: &str, partition: &Partition, later_ms: u64) {
        // The clock cannot be moved; a retention of nothing is the same as a later time.
        let options = match later_ms {
            0 => Self::options(),
            _ => Self::options().tombstone_retention_ms(0),
        };
        compact_file(
            &File::open(self.dir.path(), options).unwrap(),
            task,
            partition,
        );
    }
}

/// Any of them, answering late and failing on demand.
pub(crate) struct Wrapped<R> {
    inner: R,
    faulty: Faulty<Shared>,
}

/// A log that many sessions are claimed from.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<dyn Changelog>);

impl Changelog for Shared {
    fn guarantee(&self) -> siltstone::changelog::Guarantee {
        self.0.guarantee()
    }

    fn bounds(
        &self,
        partition: &Partition,
    ) -> siltstone::Result<Option<siltstone::changelog::Bounds>> {
        self.0.bounds(partition)
    }

    fn claim(
        &self,
        task: &str,
        partitions: &[Partition],
    ) -> siltstone::Result<Box<dyn siltstone::changelog::Session>> {
        self.0.claim(task, partitions)
    }

    fn reader(
        &self,
        partition: &Partition,
        from: Offset,
    ) -> siltstone::Result<Box<dyn siltstone::changelog::Reader>> {
        self.0.reader(partition, from)
    }
}

impl<R: Rig> Wrapped<R> {
    pub(crate) fn new(inner: R, plan: CommitPlan) -> Self {
        let faulty = Faulty::new(Shared(inner.open().into()));
        faulty.plan_commits(plan);
        Self { inner, faulty }
    }

    pub(crate) fn faults(&self) -> &Faulty<Shared> {
        &self.faulty
    }
}

impl<R: Rig> Rig for Wrapped<R> {
    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    fn open(&self) -> Box<dyn Changelog> {
        Box::new(self.faulty.clone())
    }

    fn compact(&self, task: &str, partition: &Partition, later_ms: u64) {
        self.inner.compact(task, partition, later_ms);
    }

    fn trim(&self, partition: &Partition, before: Offset) -> bool {
        self.inner.trim(partition, before)
    }

    fn recreate(&self, topic: &str) -> bool {
        self.inner.recreate(topic)
    }
}
