//! Opening a store: lock, manifest, write-ahead log, and then nothing is left of the last crash.

use std::path::Path;

use crate::batch;
use crate::cache::Account;
use crate::env::{Env, LockGuard, create_dir_all};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Lsn;
use crate::key::{InternalKey, SeqNo};
use crate::memtable::Memtable;
use crate::options::{IfMissing, KeyspaceOptions, Options, RuntimeOptions, Wal};
use crate::planted::{Bug, planted};
use crate::runtime::{Runtime, Tenant};
use crate::sync::{Arc, AtomicU64, Mutex, ProcessCounter, Swap, Weak};
use crate::version::{
    Change, LOCK_NAME, Manifest, Presence, State, TableStore, VersionEdit, detect, remove_leftovers,
};
use crate::wal;

use super::DbInner;
use super::install::Installed;
use super::seal::CommitState;
use super::view::{KeyspaceView, View};

/// Bytes of a log segment at most; smaller where the whole log is to be small.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the log's stage; smaller where segments are small.
const STAGE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of zeros that are written at once ahead of synced records; fewer where segments are small.
const AHEAD_BYTES_MAX: u64 = 256 << 10;

/// Numbers open stores within the process.
static INSTANCES: ProcessCounter = ProcessCounter::new();

/// A runtime for one store alone.
pub(crate) fn own_runtime(options: &Options) -> Result<Runtime> {
    Runtime::new(RuntimeOptions::new().env(Arc::clone(&options.env)))
}

impl DbInner {
    pub(crate) fn open(
        path: &Path,
        options: Options,
        runtime: &Runtime,
        manual_release: bool,
    ) -> Result<Arc<Self>> {
        options.validate()?;
        if manual_release && options.wal == Wal::On {
            return Err(Error::invalid("a task's store keeps no write-ahead log"));
        }
        let account = runtime
            .budget()
            .open_account(options.memory_bytes_min, options.record_writes_max)?;
        Self::open_with_account(path, options, runtime, account, manual_release)
    }

    fn open_with_account(
        path: &Path,
        options: Options,
        runtime: &Runtime,
        account: Arc<Account>,
        manual_release: bool,
    ) -> Result<Arc<Self>> {
        let tables = TableStore {
            env: Arc::clone(&options.env),
            dir: path.to_path_buf(),
            cache: Arc::clone(runtime.cache()),
            read_mode: options.read_mode,
            account: Arc::clone(&account),
        };
        let lock = enter(&options, path)?;
        let opened = Opened::read(&options, &tables, &account)?;
        if opened.state.wal != options.wal {
            // The log that is to go holds writes: they are flushed first.
            let with_log = Options {
                wal: opened.state.wal,
                ..options.clone()
            };
            let of_old = Arc::clone(&account);
            let old = opened.into_inner(with_log, runtime, of_old, tables, lock, false);
            old.flush()?;
            old.close()?;
            return Self::open_with_account(path, options, runtime, account, manual_release);
        }
        let inner = opened.into_inner(options, runtime, account, tables, lock, manual_release);
        let tenant: Weak<dyn Tenant> = inner.me.clone();
        runtime.register(tenant);
        inner.note_level0();
        if inner.commit.lock().wants_flush() {
            inner.submit_flush();
        }
        Ok(inner)
    }
}

/// Makes sure that there is a directory which may be used, and takes its lock.
fn enter(options: &Options, path: &Path) -> Result<Box<dyn LockGuard>> {
    let env = &*options.env;
    let presence = detect(env, path)?;
    if presence != Presence::Present && options.if_missing == IfMissing::Fail {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no store in {}", path.display()),
        ));
    }
    if let Presence::Foreign(names) = &presence {
        return Err(Error::invalid(format!(
            "{} is no store, and not empty: it holds {}",
            path.display(),
            names.join(", ")
        )));
    }
    if presence != Presence::Present {
        create_dir_all(env, path)?;
    }
    env.lock(&path.join(LOCK_NAME))
}

/// What was read from the directory.
struct Opened {
    manifest: Manifest,
    state: State,
    wal: Option<wal::Wal>,
    memtables: Replayed,
}

/// Memtables rebuilt from the log.
#[derive(Default)]
struct Replayed {
    memtables: Vec<(u32, Arc<Memtable>)>,
    last_seqno: SeqNo,
}

impl Replayed {
    /// Applies one record of the log, except for what is in tables already.
    fn apply(
        &mut self,
        payload: &[u8],
        holders: &mut wal::Holders,
        state: &State,
        fresh: impl Fn() -> Arc<Memtable>,
        now_ms: u64,
    ) -> Result<()> {
        let (first, operations) = batch::decode(payload)?;
        if first <= self.last_seqno {
            return Err(Error::corruption(format!(
                "write-ahead log: batch {first} after batch {}",
                self.last_seqno
            )));
        }
        let mut seqno = SeqNo(first.0 - 1);
        for operation in operations {
            let operation = operation?;
            seqno.0 += 1;
            let Some(keyspace) = state.keyspaces.get(&operation.keyspace) else {
                if operation.keyspace < state.next_keyspace {
                    // It was dropped later.
                    continue;
                }
                return Err(Error::corruption(format!(
                    "write-ahead log: batch {first} writes keyspace {}, which never was",
                    operation.keyspace
                )));
            };
            let one_more = u64::from(planted(Bug::ReplaySkipsOneTooMany));
            if seqno.0 <= keyspace.flushed.0 + one_more && !planted(Bug::ReplayBelowFlushed) {
                continue;
            }
            holders.add(operation.keyspace, seqno);
            let known = self
                .memtables
                .iter()
                .position(|(id, _)| *id == operation.keyspace);
            let index = known.unwrap_or_else(|| {
                self.memtables.push((operation.keyspace, fresh()));
                self.memtables.len() - 1
            });
            let key = InternalKey::new(operation.key, seqno, operation.kind);
            self.memtables[index].1.insert(key, operation.value, now_ms);
        }
        self.last_seqno = seqno;
        Ok(())
    }
}

impl Opened {
    fn read(options: &Options, tables: &TableStore, account: &Arc<Account>) -> Result<Self> {
        if detect(&*tables.env, &tables.dir)? != Presence::Present {
            return Self::create(options, tables);
        }
        let (mut manifest, state, current) = Manifest::open(tables)?;
        let mut memtables = Replayed::default();
        let now_ms = options.env.wall_clock_ms();
        let fresh = || Arc::new(Memtable::new(account.charge()));
        let config = wal_config(options, tables, state.wal_id);
        let mut wal = None;
        if state.wal == Wal::On {
            let floor = if current.wal_id == state.wal_id {
                current.wal_end
            } else {
                Lsn::ZERO
            };
            wal = Some(wal::Wal::open(
                config,
                state.wal_first,
                floor,
                &mut |payload, holders| memtables.apply(payload, holders, &state, fresh, now_ms),
            )?);
        }
        for (_, memtable) in &memtables.memtables {
            memtable.settle_charge(0);
        }
        // What this open shows must last, and what the manifest does not name may only go once
        // that is durable.
        manifest.settle()?;
        if let Some(wal) = &wal {
            wal.remove_leftovers();
        }
        manifest.remove_orphans()?;
        let mut opened = Self {
            manifest,
            state,
            wal,
            memtables,
        };
        if opened.state.wal == Wal::Off {
            opened.remove_old_wal(options, tables)?;
        }
        if opened.state.wal != options.wal && opened.memtables.memtables.is_empty() {
            opened.switch_wal(options, tables)?;
        }
        opened.record_wal_start(tables)?;
        Ok(opened)
    }

    /// Removes a log that was switched off by a store that died before its files were gone.
    fn remove_old_wal(&self, options: &Options, tables: &TableStore) -> Result<()> {
        let config = wal_config(options, tables, self.state.wal_id);
        if !wal::has_files(&config)? {
            return Ok(());
        }
        wal::remove_all(&config)
    }

    fn create(options: &Options, tables: &TableStore) -> Result<Self> {
        remove_leftovers(&*tables.env, &tables.dir)?;
        let env = &*options.env;
        let wal_id = if options.wal == Wal::On {
            random_id(env)
        } else {
            0
        };
        let state = State::new(random_id(env), options.wal, wal_id);
        let manifest = Manifest::create(tables, &state)?;
        let mut opened = Self {
            manifest,
            state,
            wal: None,
            memtables: Replayed::default(),
        };
        if options.wal == Wal::On {
            opened.wal = Some(begin_wal(options, tables, wal_id)?);
        }
        opened.record_wal_start(tables)?;
        Ok(opened)
    }

    /// Turns the log on or off. What it held is in tables by now.
    fn switch_wal(&mut self, options: &Options, tables: &TableStore) -> Result<()> {
        assert!(
            self.memtables.memtables.is_empty(),
            "a log that holds writes is flushed first"
        );
        let old = wal_config(options, tables, self.state.wal_id);
        if options.wal == Wal::Off {
            self.wal = None;
            self.append(vec![Change::WalMode(Wal::Off)], tables)?;
            return wal::remove_all(&old);
        }
        wal::remove_all(&old)?;
        let wal_id = random_id(&*options.env);
        self.append(
            vec![Change::WalMode(Wal::On), Change::WalId(wal_id)],
            tables,
        )?;
        self.wal = Some(begin_wal(options, tables, wal_id)?);
        Ok(())
    }

    /// Has the manifest name the log's first segment, so that its loss would be noticed.
    fn record_wal_start(&mut self, tables: &TableStore) -> Result<()> {
        let Some(wal) = &self.wal else { return Ok(()) };
        let first = wal.first_segment();
        if first == self.state.wal_first {
            return Ok(());
        }
        self.append(vec![Change::WalFirst(first)], tables)
    }

    fn append(&mut self, changes: Vec<Change>, tables: &TableStore) -> Result<()> {
        let edit = VersionEdit::new(changes);
        let state = self.state.apply(&edit, tables)?;
        self.manifest.append(&edit, &state)?;
        self.state = state;
        Ok(())
    }

    fn into_inner(
        self,
        options: Options,
        runtime: &Runtime,
        account: Arc<Account>,
        tables: TableStore,
        lock: Box<dyn LockGuard>,
        manual_release: bool,
    ) -> Arc<DbInner> {
        let Self {
            manifest,
            state,
            wal,
            memtables,
        } = self;
        let last_seqno = state.last_seqno.max(memtables.last_seqno);
        let fresh = || Arc::new(Memtable::new(account.charge()));
        let mut view = View::default();
        for (id, keyspace) in &state.keyspaces {
            let replayed = memtables
                .memtables
                .iter()
                .find(|(replayed, _)| replayed == id);
            let shown = KeyspaceView {
                name: Arc::from(keyspace.name.as_str()),
                options: Arc::new(KeyspaceOptions::default()),
                has_options: false,
                active: replayed.map_or_else(fresh, |(_, memtable)| Arc::clone(memtable)),
                sealed: Vec::new(),
                version: Arc::clone(&keyspace.version),
                flushed: keyspace.flushed,
                restoring: Arc::default(),
                runs_asked: Arc::default(),
            };
            view.keyspaces.insert(*id, Arc::new(shown));
        }
        Arc::new_cyclic(|me| DbInner {
            me: me.clone(),
            instance: INSTANCES.next(),
            manual_release,
            runtime: runtime.clone(),
            account,
            tables,
            lock: Mutex::new(Some(lock)),
            view: Swap::new(view),
            visible: AtomicU64::new(last_seqno.0),
            queue: Mutex::default(),
            commit: Mutex::new(CommitState::new(last_seqno, state.position.clone())),
            next_file: AtomicU64::new(state.next_file),
            installed: Mutex::new(Installed::new(manifest, state)),
            wal,
            snapshots: super::Snapshots::default(),
            aborts: super::Aborts::default(),
            work: super::Work::default(),
            health: super::Health::default(),
            counters: super::Counters::default(),
            level0_excess: super::AtomicUsize::new(0),
            commit_requested: super::AtomicBool::new(false),
            progress: super::Condvar::new(),
            options,
        })
    }
}

fn begin_wal(options: &Options, tables: &TableStore, wal_id: u64) -> Result<wal::Wal> {
    let config = wal_config(options, tables, wal_id);
    wal::remove_all(&config)?;
    wal::Wal::open(config, 0, Lsn::ZERO, &mut |_, _| {
        Err(Error::corruption("a new write-ahead log holds a record"))
    })
}

fn wal_config(options: &Options, tables: &TableStore, journal_id: u64) -> wal::Config {
    let segment_bytes_max = SEGMENT_BYTES_MAX.min(options.wal_bytes_max / 4);
    wal::Config {
        env: Arc::clone(&tables.env),
        dir: tables.dir.clone(),
        journal_id,
        segment_bytes_max,
        stage_bytes: STAGE_BYTES_MAX.min(segment_bytes_max / 4),
        ahead_bytes: AHEAD_BYTES_MAX.min(segment_bytes_max / 4),
    }
}

/// A random id; zero means that there is none.
fn random_id(env: &dyn Env) -> u64 {
    env.random_u64().max(1)
}
