//! Runs a list of operations against a store and a map, and compares every answer.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use siltstone::env::sim::SimEnv;
use siltstone::env::{Env, OsEnv};
use siltstone::{
    Compression, Db, Durability, Keyspace, KeyspaceOptions, Options, Range, ReadMode, Runtime,
    RuntimeOptions, Snapshot, Wal, WriteBatch,
};
use tempfile::TempDir;

use super::operations::{Ends, KEYSPACES, Key, Op, Span, Write};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type Maps = [Map; KEYSPACES];

/// Where the store lives, and who does its background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A simulated disk, and no threads.
    Memory,
    /// A real directory, and two threads.
    FileSystem,
}

/// Options of a store.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    memtable_bytes: usize,
    wal_bytes: u64,
    /// Whether there is a log after each open, over and over.
    wal: Vec<bool>,
    is_mapped: bool,
    cache_bytes: usize,
    block_bytes: usize,
    table_bytes: u64,
    /// The strategy after each open, over and over.
    compaction: Vec<siltstone::Strategy>,
    level_ratio: u32,
    level0_runs: usize,
    is_compressed: bool,
    uncompressed_levels: usize,
    filter_bits: (u32, u32),
}

impl Setup {
    fn keyspace(&self, opens: usize) -> KeyspaceOptions {
        let compression = if self.is_compressed {
            Compression::Lz4
        } else {
            Compression::None
        };
        KeyspaceOptions::new()
            .block_bytes(self.block_bytes)
            .table_bytes(self.table_bytes)
            .compaction(self.compaction[opens % self.compaction.len()])
            .level_ratio(self.level_ratio)
            .level0_runs_max(self.level0_runs)
            .compression(compression)
            .uncompressed_levels(self.uncompressed_levels)
            .filter_bits(self.filter_bits.0, self.filter_bits.1)
    }

    fn wal(&self, opens: usize) -> Wal {
        if self.wal[opens % self.wal.len()] {
            Wal::On
        } else {
            Wal::Off
        }
    }
}

fn any_compaction() -> impl Strategy<Value = siltstone::Strategy> {
    let lazy = (2..5_usize, 2..12_u32);
    prop_oneof![
        Just(siltstone::Strategy::Leveled),
        lazy.prop_map(|(runs_max, ratio)| siltstone::Strategy::LazyLeveled { runs_max, ratio }),
    ]
}

pub(crate) fn any_setup() -> impl Strategy<Value = Setup> {
    let sizes = (
        prop_oneof![Just(1 << 10), 1_usize << 10..16 << 10, Just(8 << 20)],
        prop_oneof![4_u64 << 10..64 << 10, Just(1 << 30)],
        prop_oneof![Just(0), Just(32_usize << 10), Just(1 << 20)],
        prop_oneof![Just(64), 64_usize..2048, Just(64 << 10)],
        prop_oneof![Just(1 << 10), 1_u64 << 10..64 << 10],
    );
    let wal = prop_oneof![
        4 => Just(vec![true]),
        1 => Just(vec![false]),
        1 => Just(vec![true, false]),
    ];
    let shape = (2..12_u32, 1..6_usize, any::<bool>(), 0..4_usize);
    let compaction = prop::collection::vec(any_compaction(), 1..4);
    let filter = prop_oneof![Just((0, 0)), (0..20_u32, 0..20_u32)];
    (sizes, wal, any::<bool>(), compaction, shape, filter).prop_map(
        |(sizes, wal, is_mapped, compaction, shape, filter_bits)| Setup {
            memtable_bytes: sizes.0,
            wal_bytes: sizes.1,
            wal,
            is_mapped,
            cache_bytes: sizes.2,
            block_bytes: sizes.3,
            table_bytes: sizes.4,
            compaction,
            level_ratio: shape.0,
            level0_runs: shape.1,
            is_compressed: shape.2,
            uncompressed_levels: shape.3,
            filter_bits,
        },
    )
}

/// An open store, its model, and what was kept of either.
struct Run<'a> {
    setup: &'a Setup,
    place: Place,
    env: Arc<dyn Env>,
    path: PathBuf,
    opens: usize,
    maps: Maps,
    /// `None` only while it is opened again.
    open: Option<Open>,
}

/// All that has to go before a store can be opened again.
struct Open {
    runtime: Runtime,
    db: Db,
    keyspaces: Vec<Keyspace>,
    snapshots: Vec<(Snapshot, Maps)>,
    held: Vec<Held>,
}

/// A range that was begun, and what it still has to yield.
struct Held {
    range: Range,
    left: VecDeque<(Vec<u8>, Vec<u8>)>,
    ends: Ends,
}

/// A directory of the real file system, in memory where there is such a one: syncs are slow.
pub(crate) fn temporary() -> TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Runs the list.
pub(crate) fn run(ops: &[Op], setup: &Setup, place: Place) {
    let dir = temporary();
    let (env, path): (Arc<dyn Env>, PathBuf) = match place {
        Place::Memory => (Arc::new(SimEnv::new(1)), PathBuf::from("/store/db")),
        Place::FileSystem => (Arc::new(OsEnv::new()), dir.path().join("store/db")),
    };
    let open = open(setup, place, &env, &path, 0);
    let mut run = Run {
        setup,
        place,
        env,
        path,
        opens: 0,
        maps: Maps::default(),
        open: Some(open),
    };
    for op in ops {
        run.step(op);
    }
    run.check_all();
    run.reopen(true);
    run.check_all();
    for keyspace in 0..KEYSPACES {
        run.step(&Op::Compact(keyspace));
    }
    run.check_all();
    run.now().db.verify().unwrap();
    let entries: usize = run.maps.iter().map(BTreeMap::len).sum();
    let stats = run.now().db.stats().unwrap();
    let stored: u64 = stats.levels.iter().map(|level| level.entries).sum();
    assert_eq!(stored, entries as u64, "old versions are gone:\n{stats}");
    assert_eq!(stats.background_error, None);
    run.now().db.close().unwrap();
}

fn open(setup: &Setup, place: Place, env: &Arc<dyn Env>, path: &Path, opens: usize) -> Open {
    let threads = match place {
        Place::Memory => 0,
        Place::FileSystem => 2,
    };
    let runtime = RuntimeOptions::new()
        .env(Arc::clone(env))
        .threads(threads)
        .memory_bytes_max(64 << 20)
        .cache_bytes(setup.cache_bytes);
    let runtime = Runtime::new(runtime).unwrap();
    let read_mode = if setup.is_mapped {
        ReadMode::Mapped
    } else {
        ReadMode::Positional
    };
    let options = Options::new()
        .env(Arc::clone(env))
        .wal(setup.wal(opens))
        .read_mode(read_mode)
        .memtable_bytes_max(setup.memtable_bytes)
        .wal_bytes_max(setup.wal_bytes);
    let db = Db::open_with(path, options, &runtime).unwrap();
    let keyspaces = (0..KEYSPACES)
        .map(|number| {
            db.keyspace(&format!("keyspace {number}"), setup.keyspace(opens))
                .unwrap()
        })
        .collect();
    Open {
        runtime,
        db,
        keyspaces,
        snapshots: Vec::new(),
        held: Vec::new(),
    }
}

impl Run<'_> {
    fn now(&self) -> &Open {
        self.open.as_ref().unwrap()
    }

    fn now_mut(&mut self) -> &mut Open {
        self.open.as_mut().unwrap()
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Write { writes, is_synced } => self.write(writes, *is_synced),
            Op::Fill {
                keyspace,
                first,
                count,
                value,
            } => {
                for number in 0..*count {
                    let write = Write {
                        keyspace: *keyspace,
                        key: Key::Shared(first.wrapping_add(number)),
                        value: Some(value.clone()),
                    };
                    self.write(&[write], false);
                }
            }
            Op::Get {
                keyspace,
                key,
                snapshot,
            } => self.get(*keyspace, &key.bytes(), *snapshot),
            Op::Scan {
                keyspace,
                span,
                ends,
                snapshot,
            } => {
                let mut held = self.range(*keyspace, span, ends, *snapshot);
                held.take(usize::MAX);
            }
            Op::Hold {
                keyspace,
                span,
                ends,
                taken,
            } => {
                let mut held = self.range(*keyspace, span, ends, None);
                held.take(*taken);
                self.now_mut().held.push(held);
            }
            Op::Resume(index) => {
                if let Some(held) = self.now_mut().held.get_mut(*index) {
                    held.take(usize::MAX);
                    self.now_mut().held.remove(*index);
                }
            }
            Op::Snapshot => {
                let snapshot = self.now().db.snapshot().unwrap();
                let maps = self.maps.clone();
                self.now_mut().snapshots.push((snapshot, maps));
            }
            Op::Forget(index) => {
                if *index < self.now().snapshots.len() {
                    self.now_mut().snapshots.remove(*index);
                }
            }
            other => self.step_of_store(other),
        }
    }

    fn step_of_store(&mut self, op: &Op) {
        match op {
            Op::Sync => {
                if self.setup.wal(self.opens) == Wal::On {
                    self.now().db.sync().unwrap();
                }
            }
            Op::Flush => self.now().db.flush().unwrap(),
            Op::Compact(keyspace) => self.now().keyspaces[*keyspace].compact().unwrap(),
            Op::Work(jobs) => {
                for _ in 0..*jobs {
                    self.now().runtime.run_pending();
                }
            }
            Op::Recreate(keyspace) => {
                let name = self.now().keyspaces[*keyspace].name().to_owned();
                // Snapshots do not keep what is dropped.
                self.now_mut().snapshots.clear();
                self.now().db.drop_keyspace(&name).unwrap();
                let options = self.setup.keyspace(self.opens);
                let fresh = self.now().db.keyspace(&name, options);
                self.now_mut().keyspaces[*keyspace] = fresh.unwrap();
                self.maps[*keyspace].clear();
            }
            Op::Reopen => self.reopen(true),
            Op::Kill => self.reopen(false),
            Op::Verify => drop(self.now().db.verify().unwrap()),
            _ => unreachable!("a step of the data"),
        }
    }

    fn write(&mut self, writes: &[Write], is_synced: bool) {
        let mut batch = WriteBatch::new();
        for write in writes {
            let keyspace = &self.now().keyspaces[write.keyspace];
            let key = write.key.bytes();
            if let Some(value) = &write.value {
                let value = value.bytes();
                batch.put(keyspace, &key, &value).unwrap();
                self.maps[write.keyspace].insert(key, value);
            } else {
                batch.delete(keyspace, &key).unwrap();
                self.maps[write.keyspace].remove(&key);
            }
        }
        let durability = match self.setup.wal(self.opens) {
            Wal::On if is_synced => Durability::Synced,
            _ => Durability::Buffered,
        };
        self.now().db.write(batch, durability).unwrap();
    }

    fn get(&self, keyspace: usize, key: &[u8], snapshot: Option<usize>) {
        let handle = &self.now().keyspaces[keyspace];
        let (found, expected) = match snapshot.and_then(|index| self.now().snapshots.get(index)) {
            Some((snapshot, maps)) => (snapshot.get(handle, key), &maps[keyspace]),
            None => (handle.get(key), &self.maps[keyspace]),
        };
        let found = found.unwrap().map(|value| value.to_vec());
        assert_eq!(found.as_ref(), expected.get(key), "get {key:?}");
    }

    fn range(&self, keyspace: usize, span: &Span, ends: &[bool], snapshot: Option<usize>) -> Held {
        let handle = &self.now().keyspaces[keyspace];
        let snapshot = snapshot.and_then(|index| self.now().snapshots.get(index));
        let map = match snapshot {
            Some((_, maps)) => &maps[keyspace],
            None => &self.maps[keyspace],
        };
        let (range, left) = match span {
            Span::Range(low, high) => {
                let low = low.as_ref().map(Key::bytes);
                let high = high.as_ref().map(Key::bytes);
                let left = map
                    .iter()
                    .filter(|(key, _)| is_within(key, &low, &high))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                let range = match snapshot {
                    Some((snapshot, _)) => snapshot.range(handle, (low, high)),
                    None => handle.range((low, high)),
                };
                (range, left)
            }
            Span::Prefix(prefix) => {
                let prefix = prefix.bytes();
                let left = map
                    .iter()
                    .filter(|(key, _)| key.starts_with(&prefix))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                let range = match snapshot {
                    Some((snapshot, _)) => snapshot.prefix(handle, &prefix),
                    None => handle.prefix(&prefix),
                };
                (range, left)
            }
        };
        Held {
            range: range.unwrap(),
            left,
            ends: ends.to_vec(),
        }
    }

    /// Closes the store, or drops it as a killed process would, and opens it again.
    fn reopen(&mut self, in_order: bool) {
        if self.setup.wal(self.opens) == Wal::Off {
            // Else what is in memory is lost, as the option says.
            self.now().db.flush().unwrap();
        }
        if in_order {
            self.now().db.close().unwrap();
        }
        self.opens += 1;
        let (env, path) = (&self.env, &self.path);
        self.open = None;
        self.open = Some(open(self.setup, self.place, env, path, self.opens));
    }

    fn check_all(&mut self) {
        for keyspace in 0..KEYSPACES {
            let all = Span::Range(Bound::Unbounded, Bound::Unbounded);
            self.range(keyspace, &all, &[true], None).take(usize::MAX);
            self.range(keyspace, &all, &[false], None).take(usize::MAX);
            for key in self.maps[keyspace].keys() {
                self.get(keyspace, key, None);
            }
        }
        for held in &mut self.now_mut().held {
            held.take(usize::MAX);
        }
        self.now_mut().held.clear();
        for (index, (_, maps)) in self.now().snapshots.iter().enumerate() {
            for (keyspace, map) in maps.iter().enumerate() {
                for key in map.keys() {
                    self.get(keyspace, key, Some(index));
                }
            }
        }
    }
}

impl Held {
    /// Takes up to `count` entries and compares them; at the end both ends must have ended.
    fn take(&mut self, count: usize) {
        let ends = self.ends.clone();
        for is_front in ends.into_iter().cycle().take(count) {
            let (found, expected) = if is_front {
                (self.range.next(), self.left.pop_front())
            } else {
                (self.range.next_back(), self.left.pop_back())
            };
            let found = found.transpose().unwrap();
            let found = found.map(|entry| (entry.key.to_vec(), entry.value.to_vec()));
            assert_eq!(found, expected, "from the front: {is_front}");
            if found.is_none() {
                assert!(self.range.next().is_none());
                assert!(self.range.next_back().is_none());
                return;
            }
        }
    }
}

fn is_within(key: &[u8], low: &Bound<Vec<u8>>, high: &Bound<Vec<u8>>) -> bool {
    let above = match low {
        Bound::Included(low) => key >= &low[..],
        Bound::Excluded(low) => key > &low[..],
        Bound::Unbounded => true,
    };
    above
        && match high {
            Bound::Included(high) => key <= &high[..],
            Bound::Excluded(high) => key < &high[..],
            Bound::Unbounded => true,
        }
}
