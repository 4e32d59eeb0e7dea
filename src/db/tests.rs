use std::collections::BTreeMap;
use std::path::Path;

use super::view::KeyspaceView;
use super::*;
use crate::batch::WriteBatch;
use crate::compaction::{Busy, pick};
use crate::env::Env as _;
use crate::env::sim::{CrashPolicy, FaultKind, FaultPlan, SimEnv};
use crate::options::{RuntimeOptions, Strategy, Wal};

/// A store in memory whose background work is done by callers, small enough for every kind of
/// work to happen.
struct Store {
    env: SimEnv,
    runtime: Runtime,
    db: Db,
}

fn options(env: &SimEnv) -> Options {
    Options::new()
        .env(Arc::new(env.clone()))
        .memtable_bytes_max(4 << 10)
        .wal_bytes_max(64 << 10)
}

fn small() -> KeyspaceOptions {
    KeyspaceOptions::new()
        .block_bytes(256)
        .table_bytes(2 << 10)
        .level_ratio(2)
}

/// A runtime whose work is done by callers.
pub(super) fn runtime(env: &SimEnv) -> Runtime {
    let options = RuntimeOptions::new()
        .env(Arc::new(env.clone()))
        .threads(0)
        .memory_bytes_max(8 << 20)
        .cache_bytes(1 << 20);
    Runtime::new(options).unwrap()
}

fn open_with(env: &SimEnv, change: impl FnOnce(Options) -> Options, manual: bool) -> Result<Store> {
    let runtime = runtime(env);
    let options = change(options(env));
    let path = Path::new("/db");
    let db = Db::open_as(path, options, &runtime, manual)?;
    Ok(Store {
        env: env.clone(),
        runtime,
        db,
    })
}

fn open(env: &SimEnv) -> Store {
    open_with(env, |options| options, false).unwrap()
}

fn open_manual(env: &SimEnv) -> Store {
    open_with(env, |options| options.wal(Wal::Off), true).unwrap()
}

impl Store {
    fn keyspace(&self, name: &str) -> Keyspace {
        self.db.keyspace(name, small()).unwrap()
    }

    fn work(&self) {
        while self.runtime.run_pending() {}
    }

    fn reopen(self, manual: bool) -> Self {
        self.db.close().unwrap();
        if manual {
            open_manual(&self.env)
        } else {
            open(&self.env)
        }
    }
}

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn contents(keyspace: &Keyspace) -> Contents {
    let entries = keyspace.entries().unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.key.to_vec(), entry.value.to_vec()))
        .collect()
}

#[test]
fn a_store_keeps_what_it_was_given_through_all_its_work() {
    let env = SimEnv::new(1);
    let mut store = open(&env);
    let mut model = BTreeMap::new();
    for round in 0..6_u32 {
        let keyspace = store.keyspace("a");
        for number in 0..400_u32 {
            let key = format!("key {:04}", (number * 7 + round * 13) % 500);
            if (number + round) % 5 == 0 {
                keyspace.delete(&key).unwrap();
                model.remove(key.as_bytes());
            } else {
                let value = format!("value {number} of round {round}");
                keyspace.put(&key, &value).unwrap();
                model.insert(key.into_bytes(), value.into_bytes());
            }
            store.runtime.run_pending();
        }
        assert_eq!(contents(&keyspace), model);
        let back: Vec<_> = keyspace
            .entries()
            .unwrap()
            .rev()
            .map(|it| it.unwrap().key)
            .collect();
        assert!(back.iter().eq(model.keys().rev()));
        drop(keyspace);
        store = store.reopen(false);
        assert_eq!(contents(&store.keyspace("a")), model, "round {round}");
        store.work();
        assert_eq!(contents(&store.keyspace("a")), model, "round {round}");
    }
    let stats = store.db.stats().unwrap();
    assert!(
        stats.levels.iter().skip(1).any(|level| level.tables > 0),
        "{stats}"
    );
    store.db.verify().unwrap();
    store.keyspace("a").compact().unwrap();
    assert_eq!(contents(&store.keyspace("a")), model);
    assert_eq!(
        store
            .db
            .stats()
            .unwrap()
            .levels
            .iter()
            .map(|it| it.tombstones)
            .sum::<u64>(),
        0
    );
}

/// Options of either strategy that make many small runs.
fn by(compaction: Strategy) -> KeyspaceOptions {
    small().level_ratio(4).compaction(compaction)
}

const LAZY: Strategy = Strategy::LazyLeveled {
    runs_max: 3,
    ratio: 3,
};

/// Writes and deletes at random, and does some of the work in between.
fn scatter(store: &Store, keyspace: &Keyspace, model: &mut Contents, seed: u32) {
    let mut random = seed;
    for number in 0..4000_u32 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = format!("key {:04}", (random >> 8) % 1500);
        if number % 6 == 0 {
            keyspace.delete(&key).unwrap();
            model.remove(key.as_bytes());
        } else {
            let value = format!("value {number} of round {seed}");
            keyspace.put(&key, &value).unwrap();
            model.insert(key.into_bytes(), value.into_bytes());
        }
        if number % 40 == 0 {
            store.runtime.run_pending();
        }
    }
}

fn runs_below_level0(store: &Store) -> Vec<usize> {
    let levels = store.db.stats().unwrap().levels;
    levels[1..].iter().map(|level| level.runs).collect()
}

#[test]
fn a_keyspace_is_rearranged_when_its_strategy_changes() {
    let env = SimEnv::new(1);
    let mut store = open(&env);
    let mut model = BTreeMap::new();
    for round in 0..4 {
        let keyspace = store.db.keyspace("a", by(LAZY)).unwrap();
        scatter(&store, &keyspace, &mut model, 2 * round);
        let snapshot = store.db.snapshot().unwrap();
        let frozen = model.clone();
        scatter(&store, &keyspace, &mut model, 2 * round + 1);
        store.work();
        assert_eq!(contents(&keyspace), model, "round {round}");
        assert!(runs_below_level0(&store).iter().any(|runs| *runs > 1));
        let seen = snapshot.range::<&[u8]>(&keyspace, ..).unwrap();
        let seen = seen.map(|entry| entry.unwrap());
        assert!(
            seen.map(|it| (it.key.to_vec(), it.value.to_vec()))
                .eq(frozen)
        );
        drop((snapshot, keyspace));
        store = store.reopen(false);

        let keyspace = store.db.keyspace("a", by(Strategy::Leveled)).unwrap();
        store.work();
        assert_eq!(contents(&keyspace), model, "round {round}");
        let runs = runs_below_level0(&store);
        assert!(runs.iter().all(|runs| *runs <= 1), "{runs:?}");
        scatter(&store, &keyspace, &mut model, 2 * round + 100);
        store.work();
        assert_eq!(contents(&keyspace), model, "round {round}");
        store.db.verify().unwrap();
        drop(keyspace);
        store = store.reopen(false);
    }
    // Full compactions find everything, whatever the strategy.
    let keyspace = store.db.keyspace("a", by(LAZY)).unwrap();
    keyspace.compact().unwrap();
    assert_eq!(contents(&keyspace), model);
    assert_eq!(runs_below_level0(&store), [0, 0, 0, 0, 0, 1]);
}

#[test]
fn compactions_of_one_keyspace_run_side_by_side() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let mut model = BTreeMap::new();
    let roomy = Strategy::LazyLeveled {
        runs_max: 8,
        ratio: 2,
    };
    let keyspace = store.db.keyspace("a", by(roomy)).unwrap();
    scatter(&store, &keyspace, &mut model, 7);
    store.work();
    // Of another ratio, so that more than one partition is due at once.
    let tight = Strategy::LazyLeveled {
        runs_max: 8,
        ratio: 100,
    };
    let options = by(tight);
    let inner = store.db.inner();
    let id = keyspace.id_in(inner).unwrap();
    let pick = |view: &KeyspaceView, busy: &Busy| pick(&view.version, busy, &options, 1 << 10, 0);
    let claimed: Vec<_> = std::iter::from_fn(|| inner.claim(id, pick)).collect();
    assert!(claimed.len() > 2, "{} plans at once", claimed.len());
    std::thread::scope(|scope| {
        for claimed in claimed {
            let options = &options;
            scope.spawn(move || inner.carry_out(options, &claimed).unwrap());
        }
    });
    assert_eq!(contents(&keyspace), model);
    store.db.verify().unwrap();
    keyspace.compact().unwrap();
    assert_eq!(contents(&keyspace), model);
}

#[test]
fn a_batch_is_atomic_over_keyspaces_and_a_snapshot_frozen() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let (a, b) = (store.keyspace("a"), store.keyspace("b"));
    let mut batch = WriteBatch::new();
    batch.put(&a, "k", "1").unwrap();
    batch.put(&b, "k", "2").unwrap();
    store.db.write(batch, Durability::Synced).unwrap();
    let snapshot = store.db.snapshot().unwrap();
    a.put("k", "3").unwrap();
    b.delete("k").unwrap();
    store.db.flush().unwrap();
    a.compact().unwrap();
    b.compact().unwrap();
    assert_eq!(snapshot.get(&a, "k").unwrap().unwrap(), b"1");
    assert_eq!(snapshot.get(&b, "k").unwrap().unwrap(), b"2");
    assert_eq!(snapshot.range::<&str>(&b, ..).unwrap().count(), 1);
    assert_eq!(a.get("k").unwrap().unwrap(), b"3");
    assert_eq!(b.get("k").unwrap(), None);
}

#[test]
fn what_is_aborted_was_never_there() {
    let env = SimEnv::new(1);
    let store = open_manual(&env);
    let a = store.keyspace("a");
    a.put("kept", "1").unwrap();
    let mark = store.db.mark().unwrap();
    store.db.release(mark, b"one".to_vec()).unwrap();
    let before = store.db.snapshot().unwrap();
    a.put("kept", "2").unwrap();
    a.put("lost", "2").unwrap();
    let saw = store.db.snapshot().unwrap();
    let mut range = a.entries().unwrap();
    assert_eq!(store.db.abort().unwrap(), 2);
    assert_eq!(saw.get(&a, "kept").unwrap_err().kind(), ErrorKind::Aborted);
    assert_eq!(
        range.next().unwrap().unwrap_err().kind(),
        ErrorKind::Aborted
    );
    assert_eq!(before.get(&a, "kept").unwrap().unwrap(), b"1");
    assert_eq!(
        contents(&a),
        BTreeMap::from([(b"kept".to_vec(), b"1".to_vec())])
    );
    a.put("more", "3").unwrap();
    let mark = store.db.mark().unwrap();
    store.db.release(mark, b"two".to_vec()).unwrap();
    store.db.flush().unwrap();
    assert_eq!(store.db.position().unwrap(), b"two");
    drop((a, before, saw, range));
    let store = store.reopen(true);
    let found = contents(&store.keyspace("a"));
    assert_eq!(
        found.keys().map(|key| &key[..]).collect::<Vec<_>>(),
        [b"kept", b"more"]
    );
    assert_eq!(found[&b"kept"[..]], b"1");
}

#[test]
fn tables_never_hold_what_was_not_released() {
    let env = SimEnv::new(1);
    let store = open_manual(&env);
    let (a, b) = (store.keyspace("a"), store.keyspace("b"));
    let mut committed = BTreeMap::new();
    for commit in 0..40_u32 {
        for number in 0..10_u32 {
            let key = format!("{:03}", (commit * 31 + number * 17) % 200);
            a.put(&key, format!("{commit}")).unwrap();
            b.put(&key, vec![b'x'; 50]).unwrap();
            committed.insert(key.into_bytes(), format!("{commit}").into_bytes());
        }
        let mark = store.db.mark().unwrap();
        store.work();
        store
            .db
            .release(mark, commit.to_le_bytes().to_vec())
            .unwrap();
        store.work();
        a.put("uncommitted", "x").unwrap();
        store.work();
        store.db.abort().unwrap();
    }
    store.db.flush().unwrap();
    a.put("uncommitted", "x").unwrap();
    drop((a, b));
    // Not closed: memory is lost.
    drop(store);
    let store = open_manual(&env);
    assert_eq!(store.db.position().unwrap(), 39_u32.to_le_bytes());
    assert_eq!(contents(&store.keyspace("a")), committed);
    assert_eq!(contents(&store.keyspace("b")).len(), committed.len());
}

#[test]
fn a_hot_key_stays_in_memory() {
    let env = SimEnv::new(1);
    let store = open_manual(&env);
    let a = store.keyspace("a");
    for round in 0..2000_u32 {
        a.put("hot", round.to_string()).unwrap();
        let mark = store.db.mark().unwrap();
        store
            .db
            .release(mark, round.to_le_bytes().to_vec())
            .unwrap();
        store.work();
    }
    let stats = store.db.stats().unwrap();
    assert_eq!(stats.flush_bytes, 0, "{stats}");
    assert!(stats.memory_compactions > 10);
    assert_eq!(a.get("hot").unwrap().unwrap(), b"1999");
    store.db.flush().unwrap();
    assert_eq!(a.get("hot").unwrap().unwrap(), b"1999");
    assert_eq!(store.db.position().unwrap(), 1999_u32.to_le_bytes());
}

#[test]
fn a_snapshot_keeps_its_versions_when_memory_is_compacted() {
    let env = SimEnv::new(1);
    let store = open_manual(&env);
    let a = store.keyspace("a");
    let commit = |value: u32| {
        a.put("hot", value.to_le_bytes().repeat(50)).unwrap();
        let mark = store.db.mark().unwrap();
        store
            .db
            .release(mark, value.to_le_bytes().to_vec())
            .unwrap();
        store.work();
    };
    commit(0);
    let snapshot = store.db.snapshot().unwrap();
    let seen = snapshot.get(&a, "hot").unwrap().unwrap();
    (1..200).for_each(commit);
    assert!(store.db.stats().unwrap().memory_compactions > 0);
    assert_eq!(snapshot.get(&a, "hot").unwrap().unwrap(), seen);
}

#[test]
fn a_range_outlives_its_keyspace() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let a = store.keyspace("a");
    for key in ["x", "y"] {
        a.put(key, "value").unwrap();
        store.db.flush().unwrap();
    }
    drop(a);
    let store = store.reopen(false);
    let range = store.keyspace("a").entries().unwrap();
    // Nothing of its tables was read so far.
    store.db.drop_keyspace("a").unwrap();
    let found: Vec<_> = range.map(|entry| entry.unwrap().key).collect();
    assert_eq!(found, [b"x", b"y"]);
    let is_table = |path: &PathBuf| path.extension().is_some_and(|end| end == "sst");
    assert_eq!(env.files().iter().filter(|path| is_table(path)).count(), 0);
}

#[test]
fn a_flush_of_two_keyspaces_covers_of_each_what_it_holds() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let (a, b) = (store.keyspace("a"), store.keyspace("b"));
    for number in 0..40 {
        a.put(format!("{number}"), [1; 100]).unwrap();
    }
    a.put("late", "1").unwrap();
    for number in 0..40 {
        b.put(format!("{number}"), [1; 100]).unwrap();
    }
    store.work();
    assert!(store.db.stats().unwrap().flushes > 0);
    drop((a, b, store));
    let store = open(&env);
    assert_eq!(store.keyspace("a").get("late").unwrap().unwrap(), b"1");
    assert_eq!(contents(&store.keyspace("a")).len(), 41);
    assert_eq!(contents(&store.keyspace("b")).len(), 40);
}

#[test]
fn what_one_keyspace_does_leaves_the_others_alone() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let names: Vec<String> = (0..5).map(|nth| format!("number {nth}")).collect();
    let keyspaces: Vec<Keyspace> = names.iter().map(|name| store.keyspace(name)).collect();
    for keyspace in &keyspaces {
        keyspace.put("key", "value").unwrap();
    }
    let view = |nth: usize| {
        let view = store.db.inner().view();
        let found = view.keyspaces.values().find(|it| *it.name == names[nth]);
        Arc::clone(found.unwrap())
    };
    let sealed = || -> Vec<usize> { (0..5).map(|nth| view(nth).sealed.len()).collect() };

    // The write that fills a memtable seals it, and no other.
    keyspaces[3].put("large", vec![7; 4 << 10]).unwrap();
    assert_eq!(sealed(), [0, 0, 0, 1, 0]);
    keyspaces[0].put("small", "value").unwrap();
    assert_eq!(sealed(), [0, 0, 0, 1, 0]);
    // So does a batch, in each keyspace that it fills.
    let mut batch = WriteBatch::new();
    batch.put(&keyspaces[1], "large", vec![8; 4 << 10]).unwrap();
    batch.put(&keyspaces[2], "small", "value").unwrap();
    batch.put(&keyspaces[4], "large", vec![9; 4 << 10]).unwrap();
    store.db.write(batch, Durability::Buffered).unwrap();
    assert_eq!(sealed(), [0, 1, 0, 1, 1]);

    let before: Vec<Arc<KeyspaceView>> = (0..5).map(view).collect();
    store.work();
    assert_eq!(sealed(), [0; 5]);
    let is_same = |nth: usize| Arc::ptr_eq(&before[nth], &view(nth));
    let same: Vec<bool> = (0..5).map(is_same).collect();
    assert_eq!(same, [true, false, true, false, false]);
    for (nth, byte) in [(3, 7), (1, 8), (4, 9)] {
        assert_eq!(
            keyspaces[nth].get("large").unwrap().unwrap(),
            [byte; 4 << 10]
        );
    }
}

#[test]
fn an_idle_keyspace_never_pins_the_log() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let (a, b) = (store.keyspace("a"), store.keyspace("b"));
    // The batch is newer at its end than what it writes to the idle keyspace.
    let mut batch = WriteBatch::new();
    batch.put(&b, "idle", "1").unwrap();
    batch.put(&a, "busy", "1").unwrap();
    store.db.write(batch, Durability::Buffered).unwrap();
    for number in 0..3000 {
        a.put(format!("{number}"), [1; 100]).unwrap();
        store.work();
    }
    let stats = store.db.stats().unwrap();
    assert!(stats.wal_file_bytes < 100 << 10, "{stats}");
    drop((a, b, store));
    let store = open(&env);
    assert_eq!(store.keyspace("b").get("idle").unwrap().unwrap(), b"1");
    assert_eq!(contents(&store.keyspace("a")).len(), 3001);
}

#[test]
fn the_log_keeps_what_another_keyspace_has_not_flushed() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let (busy, quiet) = (store.keyspace("busy"), store.keyspace("quiet"));
    quiet.put("only", "here").unwrap();
    for number in 0..150_u32 {
        busy.put(number.to_le_bytes(), [7; 200]).unwrap();
        store.work();
    }
    let stats = store.db.stats().unwrap();
    assert!(stats.flush_bytes > 0, "{stats}");
    drop((busy, quiet));
    let store = store.reopen(false);
    assert_eq!(
        store.keyspace("quiet").get("only").unwrap().unwrap(),
        b"here"
    );
    assert_eq!(store.keyspace("busy").entries().unwrap().count(), 150);
}

#[test]
fn a_failed_sync_poisons_until_reopened() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let a = store.keyspace("a");
    a.put("before", "1").unwrap();
    store.db.sync().unwrap();
    a.put("after", "1").unwrap();
    // A failed write is none: what is staged stays so.
    env.set_fault(FaultPlan::once(env.io_count(), FaultKind::Eio));
    assert_eq!(store.db.sync().unwrap_err().kind(), ErrorKind::Io);
    env.set_fault(FaultPlan::once(env.io_count() + 1, FaultKind::Eio));
    assert_eq!(store.db.sync().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(a.put("k", "v").unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(store.db.flush().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(a.get("after").unwrap().unwrap(), b"1");
    assert_eq!(store.db.close().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(a.get("after").unwrap_err().kind(), ErrorKind::Closed);
    drop((a, store));
    let store = open(&env);
    assert_eq!(store.keyspace("a").get("before").unwrap().unwrap(), b"1");
    store.keyspace("a").put("k", "v").unwrap();
}

#[test]
fn a_flush_makes_no_table_while_the_log_cannot_be_written() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let a = store.keyspace("a");
    a.put("k", "1").unwrap();
    let tables = || {
        let names = env.files().into_iter();
        names
            .filter(|it| it.extension().is_some_and(|it| it == "sst"))
            .count()
    };
    let begun = env.io_count();
    env.set_fault(FaultPlan::starting(begun, FaultKind::Eio));
    assert_eq!(store.db.flush().unwrap_err().kind(), ErrorKind::Io);
    // It is tried twice, and gets no further than the log.
    assert_eq!((env.io_count(), tables()), (begun + 2, 0));
    env.clear_faults();
    store.db.flush().unwrap();
    assert_eq!(tables(), 1);
    assert_eq!(a.get("k").unwrap().unwrap(), b"1");
}

#[test]
fn writing_goes_on_after_a_full_disk() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let a = store.keyspace("a");
    a.put("before", "1").unwrap();
    env.set_capacity(Some(0));
    let is_full = |error: Error| {
        let is_full = error.io_kind() == Some(std::io::ErrorKind::StorageFull);
        assert!(is_full, "{error}");
    };
    // The log's stage has its room already, which ends some time.
    let mut expected = vec![b"after".to_vec(), b"before".to_vec()];
    loop {
        let key = format!("staged {:03}", expected.len());
        match a.put(&key, vec![0; 50]) {
            Ok(()) => expected.push(key.into_bytes()),
            Err(error) => break is_full(error),
        }
    }
    assert!((10..90).contains(&expected.len()), "{}", expected.len());
    for _ in 0..3 {
        is_full(a.put("lost", vec![0; 50]).unwrap_err());
        let mut batch = WriteBatch::new();
        batch.put(&a, "lost", "1").unwrap();
        is_full(store.db.write(batch, Durability::Synced).unwrap_err());
        assert!(store.db.flush().is_err());
    }
    assert_eq!(a.get("before").unwrap().unwrap(), b"1");
    assert_eq!(a.get("lost").unwrap(), None);
    env.set_capacity(None);
    a.put("after", "1").unwrap();
    store.db.flush().unwrap();
    drop(a);
    let store = store.reopen(false);
    let keys: Vec<_> = contents(&store.keyspace("a")).into_keys().collect();
    assert_eq!(keys, expected);
}

#[test]
fn the_log_can_be_switched_off_and_on() {
    let env = SimEnv::new(1);
    let store = open(&env);
    store.keyspace("a").put("k", "1").unwrap();
    store.db.close().unwrap();
    let store = open_with(&env, |options| options.wal(Wal::Off), false).unwrap();
    let a = store.keyspace("a");
    assert_eq!(a.get("k").unwrap().unwrap(), b"1");
    let mut batch = WriteBatch::new();
    batch.put(&a, "k", "2").unwrap();
    let error = store
        .db
        .write(batch.clone(), Durability::Synced)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    store.db.write(batch, Durability::Buffered).unwrap();
    store.db.flush().unwrap();
    drop(a);
    let store = store.reopen(false);
    let a = store.keyspace("a");
    assert_eq!(a.get("k").unwrap().unwrap(), b"2");
    a.put("k", "3").unwrap();
    drop(a);
    drop(store);
    assert_eq!(open(&env).keyspace("a").get("k").unwrap().unwrap(), b"3");
}

#[test]
fn without_a_log_a_flush_keeps_batches_whole() {
    let env = SimEnv::new(1);
    let store = open_with(&env, |options| options.wal(Wal::Off), false).unwrap();
    let (a, b) = (store.keyspace("a"), store.keyspace("b"));
    for number in 0..30_u32 {
        let mut batch = WriteBatch::new();
        batch.put(&a, number.to_be_bytes(), [1; 500]).unwrap();
        batch.put(&b, number.to_be_bytes(), [1; 5]).unwrap();
        store.db.write(batch, Durability::Buffered).unwrap();
        store.work();
    }
    drop((a, b, store));
    let store = open_with(&env, |options| options.wal(Wal::Off), false).unwrap();
    let (a, b) = (store.keyspace("a"), store.keyspace("b"));
    assert!(!contents(&a).is_empty());
    assert!(contents(&a).keys().eq(contents(&b).keys()));
}

#[test]
fn a_removal_that_failed_is_not_found_later() {
    for at in 0..12 {
        let env = SimEnv::new(1);
        let store = open(&env);
        let a = store.keyspace("a");
        env.set_fault(FaultPlan::once(env.io_count() + at, FaultKind::LateError));
        if store.db.drop_keyspace("a").is_ok() {
            continue;
        }
        if a.put("k", "v").is_err() {
            // It could not be made certain.
            continue;
        }
        store.db.sync().unwrap();
        for seed in 0..20 {
            let after = env.capture().crash(CrashPolicy::PrefixTorn, seed);
            let found = open(&after).keyspace("a").get("k").unwrap();
            assert_eq!(found.unwrap(), b"v", "I/O {at} failed, seed {seed}");
        }
    }
}

#[test]
fn a_directory_whose_creation_was_cut_short_becomes_durable() {
    let env = SimEnv::new(1);
    // As a process leaves it that was killed before its sync.
    env.create_dir(Path::new("/db")).unwrap();
    let store = open(&env);
    store.keyspace("a").put("k", "v").unwrap();
    store.db.sync().unwrap();
    let after = env.capture().crash(CrashPolicy::MaxLoss, 1);
    let found = open(&after).keyspace("a").get("k").unwrap();
    assert_eq!(found.unwrap(), b"v");
}

#[test]
fn files_of_a_log_that_was_switched_off_go() {
    let env = SimEnv::new(1);
    open(&env).db.close().unwrap();
    let off = |env: &SimEnv| open_with(env, |options| options.wal(Wal::Off), false).unwrap();
    env.record(true);
    drop(off(&env));
    for (_, image) in env.take_recorded() {
        let after = image.crash(CrashPolicy::Kill, 1);
        drop(off(&after));
        let files = after.files();
        let is_log = |path: &PathBuf| path.extension().is_some_and(|it| it == "wal");
        assert!(!files.iter().any(is_log), "{files:?}");
    }
}

#[test]
fn what_an_open_shows_survives_power_loss() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let a = store.keyspace("a");
    a.put("k", "v").unwrap();
    store.db.sync().unwrap();
    let before = env.io_count();
    store.db.flush().unwrap();
    drop((a, store));
    // Each sync of the flush fails, and the process goes on in a new store.
    for at in before..env.io_count() {
        let env = SimEnv::new(1);
        let store = open(&env);
        let a = store.keyspace("a");
        a.put("k", "v").unwrap();
        store.db.sync().unwrap();
        env.set_fault(FaultPlan::once(at, FaultKind::Eio));
        let _ = store.db.flush();
        drop((a, store));
        drop(open(&env));
        let after = env.capture().crash(CrashPolicy::MaxLoss, 1);
        let found = open(&after).keyspace("a").get("k").unwrap();
        assert_eq!(found.unwrap(), b"v", "I/O {at} failed");
    }
}

#[test]
fn switching_the_log_needs_no_second_budget() {
    let env = SimEnv::new(1);
    let store = open(&env);
    store.keyspace("a").put("k", "1").unwrap();
    drop(store);
    let change = |it: Options| it.wal(Wal::Off).memory_bytes_min(4 << 20);
    let store = open_with(&env, change, false).unwrap();
    assert_eq!(store.keyspace("a").get("k").unwrap().unwrap(), b"1");
}

#[test]
fn wrong_use_is_told() {
    let env = SimEnv::new(1);
    let store = open(&env);
    let kind = |result: Result<Store>| result.err().map(|error| error.kind());
    assert_eq!(
        kind(open_with(&env, |it| it, false)),
        Some(ErrorKind::Locked)
    );
    assert_eq!(
        store.db.mark().unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert!(store.db.keyspace("", small()).is_err());
    assert_eq!(
        store.db.drop_keyspace("x").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let a = store.keyspace("a");
    store.db.drop_keyspace("a").unwrap();
    assert_eq!(a.put("k", "v").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(a.get("k").unwrap_err().kind(), ErrorKind::NotFound);
    assert!(store.keyspace("a").get("k").unwrap().is_none());
    store.db.close().unwrap();
    assert_eq!(store.db.close().unwrap_err().kind(), ErrorKind::Closed);
    let absent = SimEnv::new(2);
    let if_missing = |it: Options| it.if_missing(crate::options::IfMissing::Fail);
    assert_eq!(
        kind(open_with(&absent, if_missing, false)),
        Some(ErrorKind::NotFound)
    );
    assert!(absent.files().is_empty());
}

#[test]
fn many_stores_stay_within_one_budget() {
    let env = SimEnv::new(1);
    let budget = RuntimeOptions::new()
        .env(Arc::new(env.clone()))
        .threads(0)
        .memory_bytes_max(2 << 20)
        .cache_bytes(256 << 10);
    let runtime = Runtime::new(budget).unwrap();
    let memtable_bytes = 1 << 20;
    let stores: Vec<Db> = (0..10)
        .map(|number| {
            let options = options(&env)
                .wal(Wal::Off)
                .memtable_bytes_max(memtable_bytes)
                .memory_bytes_min(16 << 10)
                .record_writes_max(16 << 10);
            Db::open_as(Path::new(&format!("/db{number}")), options, &runtime, true).unwrap()
        })
        .collect();
    let keyspaces: Vec<Keyspace> = stores
        .iter()
        .map(|db| db.keyspace("a", small()).unwrap())
        .collect();
    let mut refused = 0;
    for number in 0..20_000_usize {
        let index = (number * 7) % 10;
        let key = format!("{number:08}");
        match keyspaces[index].put(&key, [7; 200]) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::MemoryLimit, "{error}");
                assert!(stores[index].commit_requested());
                refused += 1;
                let mark = stores[index].mark().unwrap();
                stores[index].release(mark, Vec::new()).unwrap();
            }
        }
    }
    let (most, limit) = runtime.memtable_bytes_most_and_max();
    assert!(refused > 0);
    assert!(most <= limit + memtable_bytes, "{most} of {limit}");
}

mod aside;
mod closed;
mod power_loss;
