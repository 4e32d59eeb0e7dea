//! One memory budget for many stores.

use std::thread;

use siltstone::{Db, ErrorKind, Keyspace, KeyspaceOptions, Options, Runtime, RuntimeOptions, Wal};

use super::run::temporary;
use super::watchdog::within;

const STORES: usize = 10;
const MEMTABLE_BYTES: usize = 256 << 10;

fn hammer(keyspace: &Keyspace, store: usize) {
    for number in 0..4000_usize {
        // Some stores are much busier than others.
        if store > 2 && number % 8 != 0 {
            continue;
        }
        let key = format!("{:06}", (number * 7919) % 3000);
        let value = vec![7; 100 + number % 400];
        match keyspace.put(key, value) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::MemoryLimit, "{error}"),
        }
    }
}

fn stay_within_one_budget(wal: Wal) {
    let dir = temporary();
    let runtime = RuntimeOptions::new()
        .threads(2)
        .memory_bytes_max(2 << 20)
        .cache_bytes(256 << 10);
    let runtime = Runtime::new(runtime).unwrap();
    let stores: Vec<Db> = (0..STORES)
        .map(|number| {
            let options = Options::new()
                .wal(wal)
                .memtable_bytes_max(MEMTABLE_BYTES)
                .memory_bytes_min(32 << 10)
                .record_writes_max(32 << 10);
            Db::open_with(dir.path().join(number.to_string()), options, &runtime).unwrap()
        })
        .collect();
    let keyspaces: Vec<Keyspace> = stores
        .iter()
        .map(|db| db.keyspace("a", KeyspaceOptions::new()).unwrap())
        .collect();
    thread::scope(|scope| {
        for (store, keyspace) in keyspaces.iter().enumerate() {
            scope.spawn(move || hammer(keyspace, store));
        }
    });
    let (most, limit) = runtime.memtable_bytes_most_and_max();
    assert!(
        most <= limit + MEMTABLE_BYTES,
        "{most} bytes were in use, {limit} are allowed"
    );
    assert!(most > limit / 2, "the budget was hardly used: {most} bytes");
    for (db, keyspace) in stores.iter().zip(&keyspaces) {
        db.flush().unwrap();
        keyspace.put("the end", "1").unwrap();
        db.close().unwrap();
    }
    drop((stores, keyspaces));
    // A job that has just ended may hold its store for a moment longer; else the watchdog bites.
    while runtime.memory_bytes() > 0 {
        thread::yield_now();
    }
}

#[test]
fn ten_stores_with_logs_stay_within_one_budget() {
    within(60, || stay_within_one_budget(Wal::On));
}

#[test]
fn ten_stores_without_logs_stay_within_one_budget() {
    within(60, || stay_within_one_budget(Wal::Off));
}
