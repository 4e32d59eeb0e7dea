//! Threads that write, read, flush and compact at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use siltstone::env::sim::SimEnv;
use siltstone::{
    Db, Durability, ErrorKind, Keyspace, KeyspaceOptions, Options, Runtime, RuntimeOptions, Slice,
    WriteBatch,
};

use super::run::temporary;
use super::watchdog::within;

const KEYS: u64 = 200;

fn small() -> KeyspaceOptions {
    KeyspaceOptions::new()
        .block_bytes(256)
        .table_bytes(4 << 10)
        .level_ratio(3)
        .level0_runs_max(2)
}

fn options() -> Options {
    Options::new()
        .memtable_bytes_max(4 << 10)
        .wal_bytes_max(64 << 10)
        .memory_bytes_min(64 << 10)
        .record_writes_max(16 << 10)
}

fn runtime() -> Runtime {
    let options = RuntimeOptions::new()
        .threads(2)
        .memory_bytes_max(512 << 10)
        .cache_bytes(64 << 10);
    Runtime::new(options).unwrap()
}

fn key(number: u64) -> String {
    format!("key {:03}", number % KEYS)
}

/// A value that begins with a counter.
fn value(counter: u64) -> Vec<u8> {
    let mut value = counter.to_le_bytes().to_vec();
    value.resize(8 + usize::try_from(counter % 90).unwrap(), 7);
    value
}

fn counter(value: &Slice) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

/// Ends the other threads also when the one that holds it panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Checks, over and over, that both keyspaces tell the same, and that no counter goes back or lies
/// behind what was acknowledged before the look.
fn watch(db: &Db, keyspaces: &[Keyspace; 2], acked: &AtomicU64, stop: &AtomicBool) -> u64 {
    let mut seen = vec![0; usize::try_from(KEYS).unwrap()];
    let mut looks = 0;
    while !stop.load(Ordering::Acquire) || looks < 20 {
        looks += 1;
        let floor = acked.load(Ordering::Acquire);
        let snapshot = db.snapshot().unwrap();
        let contents = |index: usize| -> Vec<(Vec<u8>, u64)> {
            let keyspace: &Keyspace = &keyspaces[index];
            let range = snapshot.range::<&[u8]>(keyspace, ..).unwrap();
            let pair = |entry: siltstone::Entry| (entry.key.to_vec(), counter(&entry.value));
            if looks % 2 == 0 {
                range.map(|entry| pair(entry.unwrap())).collect()
            } else {
                let mut found: Vec<_> = range.rev().map(|entry| pair(entry.unwrap())).collect();
                found.reverse();
                found
            }
        };
        let (left, right) = (contents(0), contents(1));
        assert_eq!(left, right, "half of a batch is visible");
        let newest = left.iter().map(|(_, counter)| *counter).max().unwrap_or(0);
        assert!(
            newest >= floor,
            "{newest} is seen, {floor} was acknowledged"
        );
        for (index, (name, found)) in left.iter().enumerate() {
            assert_eq!(name, key(index as u64).as_bytes(), "a key is missing");
            assert!(*found >= seen[index], "{name:?} went back");
            seen[index] = *found;
            let got = snapshot.get(&keyspaces[looks % 2], name).unwrap().unwrap();
            assert_eq!(counter(&got), *found);
        }
        let name = key(looks as u64);
        // Each read by itself: the second is of a later moment.
        let first = keyspaces[0]
            .get(&name)
            .unwrap()
            .map_or(0, |it| counter(&it));
        let second = keyspaces[1]
            .get(&name)
            .unwrap()
            .map_or(0, |it| counter(&it));
        assert!(first <= second, "{first} in one keyspace, then {second}");
    }
    looks as u64
}

/// Readers pin memtables, so that now and then no flush can free memory at once.
fn write_when_there_is_room(db: &Db, batch: &WriteBatch) {
    loop {
        match db.write(batch.clone(), Durability::Buffered) {
            Err(error) if error.kind() == ErrorKind::MemoryLimit => thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}

#[test]
fn readers_see_whole_batches_that_never_go_back() {
    within(60, || {
        let dir = temporary();
        let db = Db::open_with(dir.path(), options(), &runtime()).unwrap();
        let keyspaces = ["a", "b"].map(|name| db.keyspace(name, small()).unwrap());
        let (acked, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| watch(&db, &keyspaces, &acked, &stop));
            }
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    keyspaces[0].compact().unwrap();
                    db.flush().unwrap();
                }
            });
            let _stop = Stop(&stop);
            for count in 1..12_000_u64 {
                let mut batch = WriteBatch::new();
                for keyspace in &keyspaces {
                    batch.put(keyspace, key(count - 1), value(count)).unwrap();
                }
                write_when_there_is_room(&db, &batch);
                acked.store(count, Ordering::Release);
                // However seldom the other thread runs.
                if count % 200 == 0 {
                    db.flush().unwrap();
                }
            }
        });
        db.verify().unwrap();
        let stats = db.stats().unwrap();
        assert!(stats.flushes > 20 && stats.compactions > 5, "{stats}");
        assert_eq!(stats.background_error, None);
        db.close().unwrap();
    });
}

#[test]
fn writers_in_group_commit_lose_nothing() {
    const WRITERS: u64 = 6;
    const WRITES: u64 = 250;
    within(60, || {
        let dir = temporary();
        let runtime = runtime();
        let db = Db::open_with(dir.path(), options(), &runtime).unwrap();
        let keyspace = db.keyspace("a", small()).unwrap();
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (db, keyspace) = (&db, &keyspace);
                scope.spawn(move || {
                    for number in 0..WRITES {
                        let name = format!("{writer} {number:04}");
                        let mut batch = WriteBatch::new();
                        batch.put(keyspace, &name, value(number)).unwrap();
                        batch
                            .put(keyspace, format!("last {writer}"), value(number))
                            .unwrap();
                        db.write(batch, Durability::Synced).unwrap();
                        let found = keyspace.get(&name).unwrap().unwrap();
                        assert_eq!(counter(&found), number, "what was written is read");
                    }
                });
            }
        });
        drop((keyspace, db));
        // Not closed: the log tells what was written.
        let db = Db::open_with(dir.path(), options(), &runtime).unwrap();
        let keyspace = db.keyspace("a", small()).unwrap();
        for writer in 0..WRITERS {
            let own = keyspace.prefix(format!("{writer} ")).unwrap();
            assert_eq!(own.count() as u64, WRITES);
            let last = keyspace.get(format!("last {writer}")).unwrap().unwrap();
            assert_eq!(counter(&last), WRITES - 1);
        }
        db.close().unwrap();
    });
}

#[test]
fn a_dropped_keyspace_fails_only_its_own_writers() {
    within(60, || {
        let dir = temporary();
        let db = Db::open_with(dir.path(), options(), &runtime()).unwrap();
        let kept = db.keyspace("kept", small()).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in 0..2_u64 {
                let (kept, stop) = (&kept, &stop);
                scope.spawn(move || {
                    let _stop = Stop(stop);
                    for number in 0..4000 {
                        kept.put(format!("{writer} {number}"), value(number))
                            .unwrap();
                    }
                });
            }
            while !stop.load(Ordering::Acquire) {
                let brief = db.keyspace("brief", small()).unwrap();
                thread::scope(|scope| {
                    for _ in 0..2 {
                        scope.spawn(|| {
                            for number in 0.. {
                                match brief.put(key(number), value(number)) {
                                    Ok(()) => {}
                                    Err(error) if error.kind() == ErrorKind::NotFound => return,
                                    Err(error) => panic!("{error:?}"),
                                }
                            }
                        });
                    }
                    thread::yield_now();
                    db.drop_keyspace("brief").unwrap();
                });
                assert_eq!(
                    brief.get("key 000").unwrap_err().kind(),
                    ErrorKind::NotFound
                );
            }
        });
        assert_eq!(kept.range::<&[u8]>(..).unwrap().count(), 8000);
        db.close().unwrap();
    });
}

#[test]
fn close_ends_what_other_threads_do() {
    within(60, || {
        let dir = temporary();
        let runtime = runtime();
        let mut acked = 0;
        for round in 0..15_u64 {
            let db = Db::open_with(dir.path(), options(), &runtime).unwrap();
            let keyspace = db.keyspace("a", small()).unwrap();
            let found = keyspace
                .get("counter")
                .unwrap()
                .map_or(0, |it| counter(&it));
            assert!(found >= acked, "{found} is found, {acked} was acknowledged");
            let latest = Arc::new(AtomicU64::new(found));
            let closed = |result: siltstone::Result<()>| match result {
                Ok(()) => false,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                    true
                }
            };
            thread::scope(|scope| {
                scope.spawn(|| {
                    for number in found + 1.. {
                        if closed(keyspace.put("counter", value(number))) {
                            return;
                        }
                        latest.store(number, Ordering::Release);
                        if closed(keyspace.put(key(number), vec![1; 100])) {
                            return;
                        }
                    }
                });
                scope.spawn(|| while !closed(db.flush()) {});
                scope.spawn(|| while !closed(keyspace.compact()) {});
                scope.spawn(|| {
                    while !closed(
                        keyspace
                            .range::<&[u8]>(..)
                            .and_then(|mut it| it.try_for_each(|e| e.map(drop))),
                    ) {}
                });
                while latest.load(Ordering::Acquire) < found + 20 * round {
                    thread::yield_now();
                }
                db.close().unwrap();
            });
            acked = latest.load(Ordering::Acquire);
        }
    });
}

#[test]
fn nothing_is_written_after_close() {
    within(60, || {
        for round in 0..10 {
            let env = SimEnv::new(1);
            let runtime = RuntimeOptions::new()
                .env(Arc::new(env.clone()))
                .threads(0)
                .memory_bytes_max(16 << 20)
                .cache_bytes(0);
            let runtime = Runtime::new(runtime).unwrap();
            let options = Options::new().env(Arc::new(env.clone()));
            let db = Db::open_with("/db", options, &runtime).unwrap();
            let keyspace = db.keyspace("a", small()).unwrap();
            for number in 0..5000 {
                keyspace.put(format!("{number:05}"), [1; 100]).unwrap();
            }
            db.flush().unwrap();
            let begun = env.io_count() + round * 5;
            let at_close = thread::scope(|scope| {
                scope.spawn(|| match keyspace.compact() {
                    Ok(()) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
                });
                while env.io_count() <= begun {
                    thread::yield_now();
                }
                db.close().unwrap();
                env.io_count()
            });
            // The next owner of the directory may have been at work.
            assert_eq!(env.io_count(), at_close, "a compaction went on");
        }
    });
}
