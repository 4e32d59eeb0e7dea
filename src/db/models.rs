//! Concurrency models: the engine itself, run by a model checker through interleavings of its
//! choosing. `docs/testing.md` tells how to run them and how many schedules are tried.

use std::path::Path;

use super::*;
use crate::Slice;
use crate::batch::WriteBatch;
use crate::env::sim::SimEnv;
use crate::options::{RuntimeOptions, Wal};
use crate::sync::{check_model as check, thread};

struct Store {
    runtime: Runtime,
    db: Db,
    env: SimEnv,
}

fn open(env: &SimEnv, threads: usize, wal: Wal, manual: bool) -> Store {
    let options = RuntimeOptions::new()
        .env(Arc::new(env.clone()))
        .threads(threads)
        .memory_bytes_max(1 << 20)
        .cache_bytes(64 << 10);
    let runtime = Runtime::new(options).unwrap();
    let options = Options::new()
        .env(Arc::new(env.clone()))
        .wal(wal)
        .memory_bytes_min(64 << 10)
        .record_writes_max(64 << 10)
        .memtable_bytes_max(1 << 10);
    let db = Db::open_as(Path::new("/db"), options, &runtime, manual).unwrap();
    Store {
        runtime,
        db,
        env: env.clone(),
    }
}

impl Store {
    fn keyspace(&self, name: &str) -> Keyspace {
        let options = KeyspaceOptions::new()
            .block_bytes(64)
            .table_bytes(1 << 10)
            .level0_runs_max(1);
        self.db.keyspace(name, options).unwrap()
    }
}

fn put_both(db: &Db, a: &Keyspace, b: &Keyspace, key: &str, value: &[u8], durability: Durability) {
    let mut batch = WriteBatch::new();
    batch.put(a, key, value).unwrap();
    batch.put(b, key, value).unwrap();
    db.write(batch, durability).unwrap();
}

#[test]
fn batches_of_several_writers_show_whole_and_survive() {
    check(|| {
        let store = open(&SimEnv::new(1), 0, Wal::On, false);
        let (a, b) = (store.keyspace("a"), store.keyspace("b"));
        let writers: Vec<_> = (0..2_u8)
            .map(|number| {
                let (db, a, b) = (store.db.clone(), a.clone(), b.clone());
                thread::spawn(move || {
                    for round in 0..2_u8 {
                        let value = [number, round];
                        put_both(&db, &a, &b, "k", &value, Durability::Synced);
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            let snapshot = store.db.snapshot().unwrap();
            assert_eq!(
                snapshot.get(&a, "k").unwrap(),
                snapshot.get(&b, "k").unwrap()
            );
        }
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(store.db.inner().visible.load(Ordering::Acquire), 8);
        let last = a.get("k").unwrap();
        let env = store.env.clone();
        drop((a, b, store));
        let store = open(&env, 0, Wal::On, false);
        assert_eq!(store.keyspace("a").get("k").unwrap(), last);
        assert_eq!(store.keyspace("b").get("k").unwrap(), last);
    });
}

#[test]
fn a_reader_sees_whole_batches_while_memtables_switch_and_flush() {
    check(|| {
        let store = open(&SimEnv::new(1), 0, Wal::On, false);
        let (a, b) = (store.keyspace("a"), store.keyspace("b"));
        let runtime = store.runtime.clone();
        let worker = thread::spawn(move || {
            for _ in 0..6 {
                runtime.run_pending();
            }
        });
        let reader = {
            let (db, a, b) = (store.db.clone(), a.clone(), b.clone());
            thread::spawn(move || {
                let mut newest = Slice::default();
                for _ in 0..4 {
                    let snapshot = db.snapshot().unwrap();
                    let of_a = snapshot.get(&a, "k").unwrap().unwrap_or_default();
                    let of_b = snapshot.get(&b, "k").unwrap().unwrap_or_default();
                    assert_eq!(of_a, of_b);
                    assert!(newest <= of_a, "a reader went back in time");
                    newest = of_a;
                }
            })
        };
        for round in 0..5_u8 {
            put_both(&store.db, &a, &b, "k", &[round; 400], Durability::Buffered);
        }
        worker.join().unwrap();
        reader.join().unwrap();
        assert_eq!(a.get("k").unwrap().unwrap(), [4; 400]);
    });
}

#[test]
fn a_range_keeps_its_tables_while_compaction_replaces_them() {
    check(|| {
        let store = open(&SimEnv::new(1), 0, Wal::On, false);
        let a = store.keyspace("a");
        for key in ["x", "y", "z"] {
            a.put(key, "old").unwrap();
            store.db.flush().unwrap();
        }
        let snapshot = store.db.snapshot().unwrap();
        let range = a.entries().unwrap();
        let reader = {
            let (db, a) = (store.db.clone(), a.clone());
            thread::spawn(move || {
                let snapshot = db.snapshot().unwrap();
                assert!(
                    snapshot.get(&a, "y").unwrap().is_some(),
                    "a version was lost"
                );
            })
        };
        let compactor = {
            let a = a.clone();
            thread::spawn(move || {
                a.put("y", "new").unwrap();
                a.compact().unwrap();
            })
        };
        assert_eq!(
            range
                .filter(|entry| entry.as_ref().unwrap().value == b"old")
                .count(),
            3
        );
        assert_eq!(snapshot.get(&a, "y").unwrap().unwrap(), b"old");
        compactor.join().unwrap();
        reader.join().unwrap();
        assert_eq!(snapshot.get(&a, "y").unwrap().unwrap(), b"old");
        assert_eq!(a.get("y").unwrap().unwrap(), b"new");
        drop(snapshot);
        a.compact().unwrap();
        assert_eq!(a.entries().unwrap().count(), 3);
        assert!(store.env.files().len() < 12, "files of old tables are left");
    });
}

#[test]
fn an_abort_is_seen_by_nobody_who_comes_later() {
    check(|| {
        let store = open(&SimEnv::new(1), 0, Wal::Off, true);
        let a = store.keyspace("a");
        let commit = |value: &[u8]| {
            a.put("k", value).unwrap();
            let mark = store.db.mark().unwrap();
            store.db.release(mark, value.to_vec()).unwrap();
        };
        commit(&[0; 600]);
        let reader = {
            let (db, a) = (store.db.clone(), a.clone());
            thread::spawn(move || {
                for _ in 0..3 {
                    let committed = db.released_snapshot().unwrap();
                    let value = committed.get(&a, "k").unwrap().unwrap();
                    assert_ne!(value[0], 9, "an aborted write");
                }
            })
        };
        let runtime = store.runtime.clone();
        let worker = thread::spawn(move || {
            for _ in 0..4 {
                runtime.run_pending();
            }
        });
        for round in 1..3_u8 {
            a.put("k", [9; 600]).unwrap();
            store.db.abort().unwrap();
            commit(&[round; 600]);
        }
        reader.join().unwrap();
        worker.join().unwrap();
        store.db.flush().unwrap();
        assert_eq!(a.get("k").unwrap().unwrap(), [2; 600]);
        assert_eq!(store.db.position().unwrap(), [2; 600]);
    });
}

#[test]
fn what_was_aborted_never_shows_beside_what_came_later() {
    check(|| {
        let store = open(&SimEnv::new(1), 0, Wal::Off, true);
        let a = store.keyspace("a");
        let reader = {
            let a = a.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    let found: Result<Vec<_>> = a.entries().unwrap().collect();
                    match found {
                        Ok(found) => assert!(found.len() < 2, "an aborted write: {found:?}"),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Aborted),
                    }
                }
            })
        };
        a.put("aborted", "1").unwrap();
        store.db.abort().unwrap();
        a.put("later", "2").unwrap();
        let mark = store.db.mark().unwrap();
        store.db.release(mark, b"2".to_vec()).unwrap();
        reader.join().unwrap();
        assert_eq!(a.entries().unwrap().count(), 1);
    });
}

#[test]
fn a_snapshot_that_is_taken_during_a_flush_finds_its_versions() {
    check(|| {
        let store = open(&SimEnv::new(1), 0, Wal::Off, true);
        let a = store.keyspace("a");
        let commit = |value: u8| {
            a.put("k", [value]).unwrap();
            let mark = store.db.mark().unwrap();
            store.db.release(mark, vec![value]).unwrap();
        };
        commit(0);
        let readers: Vec<_> = [Db::snapshot, Db::released_snapshot]
            .into_iter()
            .map(|take| {
                let (db, a) = (store.db.clone(), a.clone());
                thread::spawn(move || {
                    let snapshot = take(&db).unwrap();
                    assert!(
                        snapshot.get(&a, "k").unwrap().is_some(),
                        "a version was lost"
                    );
                })
            })
            .collect();
        commit(1);
        store.db.flush().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn memory_compacted_under_a_snapshot_keeps_what_it_sees() {
    check(|| {
        let store = open(&SimEnv::new(1), 0, Wal::Off, true);
        let a = store.keyspace("a");
        let commit = |value: u8| {
            a.put("hot", [value; 200]).unwrap();
            let mark = store.db.mark().unwrap();
            store.db.release(mark, vec![value]).unwrap();
            assert_eq!(a.get("hot").unwrap().unwrap(), [value; 200]);
        };
        commit(0);
        let reader = {
            let (db, a) = (store.db.clone(), a.clone());
            thread::spawn(move || {
                let (snapshot, released) = (db.snapshot(), db.released_snapshot());
                let (snapshot, released) = (snapshot.unwrap(), released.unwrap());
                let first = snapshot.get(&a, "hot").unwrap();
                assert!(first.is_some(), "the version of a snapshot was lost");
                let committed = released.get(&a, "hot").unwrap();
                assert!(committed.is_some(), "a committed version was lost");
                for _ in 0..3 {
                    assert_eq!(snapshot.get(&a, "hot").unwrap(), first);
                }
            })
        };
        let runtime = store.runtime.clone();
        let worker = thread::spawn(move || {
            for _ in 0..3 {
                runtime.run_pending();
            }
        });
        for value in 1..10 {
            commit(value);
        }
        reader.join().unwrap();
        worker.join().unwrap();
        assert_eq!(a.get("hot").unwrap().unwrap(), [9; 200]);
    });
}

#[test]
fn writers_that_share_a_budget_never_wait_for_ever() {
    check(|| {
        let budget = Arc::new(crate::cache::MemoryBudget::new(100));
        let accounts: Vec<_> = (0..2)
            .map(|_| budget.open_account(10, 10).unwrap())
            .collect();
        // The accounts outlive the threads: no wait may depend on the end of another account.
        let threads: Vec<_> = accounts
            .iter()
            .map(|account| {
                let (account, budget) = (Arc::clone(account), Arc::clone(&budget));
                thread::spawn(move || {
                    for bytes in [30, 50, 20] {
                        let generation = budget.generation();
                        if account.try_take(bytes) {
                            assert!(budget.used_bytes() <= 100);
                            account.give_back(bytes);
                        } else if budget.used_bytes() > 0 {
                            // Somebody holds bytes now or has given them back since.
                            budget.wait_for_progress(generation);
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(budget.used_bytes(), 0);
    });
}
