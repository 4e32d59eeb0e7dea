//! How a task and its stores are set up.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use crate::changelog::{Changelog, Partition};
use crate::error::{Error, Result};
use crate::options::{KeyspaceOptions, Options, Wal};
use crate::runtime::Runtime;
use crate::store::codec::Kind;
use crate::store::restore::{Progress, ProgressFn};
use crate::sync::Arc;

/// The store of the input positions, which every task has.
pub(super) const INPUT_STORE: &str = "input-position";
/// What the name of a new generation ends with. Stores cannot be named so.
pub(super) const REBUILD_SUFFIX: &str = "\u{1}rebuild";

/// Longest name of a store, in bytes.
const NAME_LEN_MAX: usize = 200;

/// How one store of a task is set up.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub(in crate::store) name: String,
    pub(in crate::store) partition: Option<Partition>,
    pub(in crate::store) keyspace: KeyspaceOptions,
    pub(in crate::store) kind: Kind,
}

impl StoreOptions {
    /// A store of that name for a [`KeyValue`](crate::store::KeyValue), with the default changelog
    /// partition: the task's partition of the topic `<namespace>-<store>-changelog`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partition: None,
            keyspace: KeyspaceOptions::new(),
            kind: Kind::KeyValue,
        }
    }

    /// As [`new`](Self::new), for a [`Timestamped`](crate::store::Timestamped): each value is kept
    /// with the timestamp of its changelog record. A store stays what it was created as.
    pub fn timestamped(name: impl Into<String>) -> Self {
        Self {
            kind: Kind::Timestamped,
            ..Self::new(name)
        }
    }

    /// The changelog partition to use instead of the default one. No two stores may share one.
    #[must_use]
    pub fn partition(mut self, partition: Partition) -> Self {
        self.partition = Some(partition);
        self
    }

    /// How the store's tables are laid out.
    #[must_use]
    pub fn keyspace(mut self, options: KeyspaceOptions) -> Self {
        self.keyspace = options;
        self
    }
}

impl From<&str> for StoreOptions {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// How a [`Task`](super::Task) is opened.
#[derive(Clone)]
pub struct TaskOptions {
    pub(in crate::store) namespace: String,
    pub(in crate::store) partition: u32,
    pub(in crate::store) dir: PathBuf,
    pub(in crate::store) changelog: Arc<dyn Changelog>,
    pub(in crate::store) stores: Vec<StoreOptions>,
    pub(in crate::store) runtime: Option<Runtime>,
    pub(in crate::store) db: Options,
    pub(in crate::store) restore_bytes_max: usize,
    pub(in crate::store) rebuild: bool,
    pub(in crate::store) progress: Option<Arc<ProgressFn>>,
}

impl TaskOptions {
    /// What a restore collects before it writes a run of tables, by default: 64 MiB.
    pub const RESTORE_BYTES_MAX: usize = 64 << 20;

    /// The task for `partition` of the job `namespace`, with its state in the directory `dir`,
    /// which it shares with nobody, and its changes in `changelog`.
    ///
    /// Its name, by which the changelog knows who owns what, is `<namespace>-<partition>`.
    pub fn new(
        namespace: impl Into<String>,
        partition: u32,
        dir: impl Into<PathBuf>,
        changelog: Arc<dyn Changelog>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            partition,
            dir: dir.into(),
            changelog,
            stores: Vec::new(),
            runtime: None,
            db: Options::new(),
            restore_bytes_max: Self::RESTORE_BYTES_MAX,
            rebuild: false,
            progress: None,
        }
    }

    /// Adds a store, by its name or its [`StoreOptions`].
    #[must_use]
    pub fn store(mut self, store: impl Into<StoreOptions>) -> Self {
        self.stores.push(store.into());
        self
    }

    /// Threads, cache and memory to share with other tasks. One of the task's own unless set.
    #[must_use]
    pub fn runtime(mut self, runtime: &Runtime) -> Self {
        self.runtime = Some(runtime.clone());
        self
    }

    /// How the local state is opened. It has no write-ahead log, whatever the options say: the
    /// changelog is one.
    #[must_use]
    pub fn db(mut self, options: Options) -> Self {
        self.db = options;
        self
    }

    /// Bytes of records that a restore collects before it writes them as a run of tables. While
    /// one run is written the next is collected, up to one a thread and one more; together they
    /// take at most half of the runtime's memory budget, and less while that is spent.
    /// [`RESTORE_BYTES_MAX`](Self::RESTORE_BYTES_MAX) unless set.
    #[must_use]
    pub fn restore_bytes_max(mut self, bytes: usize) -> Self {
        self.restore_bytes_max = bytes;
        self
    }

    /// Whether local state that does not belong to the changelog may be replaced by what the
    /// changelog has. Unless it is set, [`Task::open`](super::Task::open) answers `Diverged` and
    /// changes nothing, for the local state may be the only copy.
    #[must_use]
    pub fn rebuild(mut self, rebuild: bool) -> Self {
        self.rebuild = rebuild;
        self
    }

    /// Is told how far the restore of each store has come, about once a mebibyte; of several
    /// stores at the same time, from several threads.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(&Progress<'_>) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    pub(in crate::store) fn task_name(&self) -> String {
        format!("{}-{}", self.namespace, self.partition)
    }

    /// Checks everything that can be checked without I/O, and adds the store that every task has.
    pub(in crate::store) fn complete(mut self) -> Result<Self> {
        if self.namespace.is_empty() {
            return Err(Error::invalid("a task needs a namespace"));
        }
        let mut names = HashSet::new();
        for store in &self.stores {
            check_name(&store.name)?;
            if !names.insert(&store.name) {
                return Err(Error::invalid(format!(
                    "store {} is named twice",
                    store.name
                )));
            }
        }
        self.db = self.db.wal(Wal::Off);
        self.stores.push(StoreOptions::new(INPUT_STORE));
        for index in 0..self.stores.len() {
            let default = self.default_partition(&self.stores[index].name);
            self.stores[index].partition.get_or_insert(default);
        }
        Ok(self)
    }

    /// The partitions of all stores, in their order, of completed options.
    pub(in crate::store) fn partitions(&self) -> Vec<Partition> {
        (0..self.stores.len())
            .map(|index| self.partition_of(index).clone())
            .collect()
    }

    /// The partition of a store of completed options.
    pub(in crate::store) fn partition_of(&self, index: usize) -> &Partition {
        let partition = self.stores[index].partition.as_ref();
        partition.expect("completed options have partitions")
    }

    fn default_partition(&self, store: &str) -> Partition {
        Partition::new(
            format!("{}-{store}-changelog", self.namespace),
            self.partition,
        )
    }
}

impl fmt::Debug for TaskOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskOptions")
            .field("task", &self.task_name())
            .field("dir", &self.dir)
            .field("changelog", &self.changelog)
            .field("stores", &self.stores)
            .finish_non_exhaustive()
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "store name {name:?}: allowed are 1 to {NAME_LEN_MAX} bytes without control characters"
        )));
    }
    if name == INPUT_STORE {
        return Err(Error::invalid(format!(
            "store name {name:?} is that of the task's own input positions"
        )));
    }
    Ok(())
}
