//! Merges that step aside for flushes.

use super::*;

/// A store with threads, on a machine with a single processor, whose merges have to step aside: a
/// flush of another store is under way, as far as the runtime knows.
fn busy_store() -> (Runtime, Db, Keyspace) {
    let env = SimEnv::new(1);
    let runtime = RuntimeOptions::new()
        .env(Arc::new(env.clone()))
        .threads(2)
        .memory_bytes_max(8 << 20)
        .cache_bytes(1 << 20);
    let runtime = Runtime::with_processors(runtime, 1).unwrap();
    // Large enough for a run of `add_run`: none is cut short by a full memtable.
    let options = options(&env).memtable_bytes_max(64 << 10);
    let db = Db::open_with("/db", options, &runtime).unwrap();
    let keyspace = db.keyspace("a", small().level0_runs_max(2)).unwrap();
    (runtime, db, keyspace)
}

/// One more run in level 0.
fn add_run(db: &Db, keyspace: &Keyspace) {
    for index in 0..100 {
        keyspace.put(format!("{index:03}"), "value").unwrap();
    }
    db.flush().unwrap();
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

/// Gives a merge something to do, and waits until it has stepped aside.
fn have_a_merge_wait(runtime: &Runtime, db: &Db, keyspace: &Keyspace) {
    for _ in 0..2 {
        add_run(db, keyspace);
    }
    wait_until(|| runtime.merges_waiting() == 1);
}

#[test]
fn a_merge_steps_aside_for_another_stores_flush() {
    let (runtime, db, keyspace) = busy_store();
    let flushing = runtime.begin_flush();
    have_a_merge_wait(&runtime, &db, &keyspace);
    assert_eq!(db.stats().unwrap().compactions, 0);
    drop(flushing);
    wait_until(|| db.stats().unwrap().compactions > 0);
    db.close().unwrap();
}

#[test]
fn a_merge_that_writers_wait_for_does_not_step_aside() {
    let (runtime, db, keyspace) = busy_store();
    let _flushing = runtime.begin_flush();
    have_a_merge_wait(&runtime, &db, &keyspace);
    for _ in 0..5 {
        add_run(&db, &keyspace);
    }
    wait_until(|| db.stats().unwrap().compactions > 0);
    db.close().unwrap();
}

#[test]
fn a_close_does_not_wait_for_another_stores_flush() {
    let (runtime, db, keyspace) = busy_store();
    let _flushing = runtime.begin_flush();
    have_a_merge_wait(&runtime, &db, &keyspace);
    db.close().unwrap();
    assert_eq!(runtime.merges_waiting(), 0);
}

#[test]
fn a_merge_holds_no_memtables() {
    let (runtime, db, keyspace) = busy_store();
    let flushing = runtime.begin_flush();
    have_a_merge_wait(&runtime, &db, &keyspace);
    // What is written now goes into the memtable of when the merge began.
    let inner = db.inner();
    let id = keyspace.id_in(inner).unwrap();
    let memtable = Arc::downgrade(&inner.view().keyspace(id).unwrap().active);
    add_run(&db, &keyspace);
    // Its flush may hold it for a moment; the merge would for as long as it waits.
    wait_until(|| memtable.strong_count() == 0);
    assert_eq!(runtime.merges_waiting(), 1);
    drop(flushing);
    db.close().unwrap();
}
