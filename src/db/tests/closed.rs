//! The log of a store that is closed with everything in tables.

use super::*;
use crate::runtime::Tenant as _;

/// A store whose writes are all in tables, and in the log as well.
fn flushed_store() -> Store {
    let store = open(&SimEnv::new(1));
    let keyspace = store.keyspace("a");
    for number in 0..40 {
        keyspace.put(format!("key {number}"), [7; 50]).unwrap();
    }
    // As the budget does; a flush that somebody asks for leaves an empty log by itself.
    store.db.inner().start_flush();
    store.work();
    store
}

fn check(env: &SimEnv, what: &str) {
    let store =
        open_with(env, |options| options, false).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = contents(&store.keyspace("a"));
    assert_eq!(found.len(), 40, "{what}");
    store.db.verify().unwrap();
}

/// Bytes of the log's files, and how many there are.
fn log_files(env: &SimEnv) -> (usize, usize) {
    let files = env.files();
    let logs = files
        .iter()
        .filter(|path| path.extension().is_some_and(|it| it == "wal"));
    let lens: Vec<_> = logs
        .map(|path| env.file_bytes(path).unwrap().len())
        .collect();
    (lens.iter().sum(), lens.len())
}

#[test]
fn a_closed_store_with_everything_in_tables_has_an_empty_log() {
    let store = flushed_store();
    let env = store.env.clone();
    assert!(log_files(&env).0 > 2000);
    store.db.close().unwrap();
    let header = crate::journal::SEGMENT_HEADER_LEN;
    assert_eq!(log_files(&env), (header, 1));
    check(&env.capture().crash(CrashPolicy::MaxLoss, 1), "closed");
    // Its loss is noticed as that of any other.
    let log = env.files().into_iter();
    let log = log.filter(|path| path.extension().is_some_and(|it| it == "wal"));
    log.for_each(|path| env.remove_file(&path).unwrap());
    let result = open_with(&env, |options| options, false);
    assert_eq!(result.err().unwrap().kind(), ErrorKind::Corruption);
}

#[test]
fn a_write_that_is_in_no_table_keeps_the_log() {
    let store = flushed_store();
    let env = store.env.clone();
    store.keyspace("a").put("key 0", "new").unwrap();
    store.db.close().unwrap();
    assert!(log_files(&env).0 > 2000);
    let store = open(&env);
    assert_eq!(store.keyspace("a").get("key 0").unwrap().unwrap(), b"new");
}

#[test]
fn a_crash_anywhere_in_a_close_loses_nothing() {
    let store = flushed_store();
    let env = store.env.clone();
    env.record(true);
    store.db.close().unwrap();
    env.record(false);
    let images = env.take_recorded();
    assert!(images.len() > 6);
    for (at, image) in images {
        for policy in CrashPolicy::ALL {
            check(&image.crash(*policy, at), &format!("I/O {at}, {policy:?}"));
        }
    }
}

#[test]
fn an_error_anywhere_in_a_close_loses_nothing() {
    for kind in FaultKind::ALL {
        for at in 0.. {
            let store = flushed_store();
            let env = store.env.clone();
            let before = env.io_count();
            env.set_fault(FaultPlan::once(before + at, *kind));
            let result = store.db.close();
            env.clear_faults();
            let what = format!("{kind:?} at {at}: {result:?}");
            if let Err(error) = &result {
                let kind = error.kind();
                assert!(
                    matches!(kind, ErrorKind::Io | ErrorKind::Poisoned),
                    "{what}"
                );
            }
            drop(store);
            check(&env.capture().crash(CrashPolicy::MaxLoss, 1), &what);
            if env.io_count() - before <= at {
                assert!(at > 6, "{what}");
                break;
            }
        }
    }
}

#[test]
fn a_flush_leaves_an_empty_log_where_that_is_worth_a_file() {
    let store = open(&SimEnv::new(1));
    let keyspace = store.keyspace("a");
    keyspace.put("few", "bytes").unwrap();
    store.db.flush().unwrap();
    let header = crate::journal::SEGMENT_HEADER_LEN;
    assert!(log_files(&store.env).0 > header, "cheaper to look through");
    for number in 0..40 {
        keyspace.put(format!("key {number}"), [7; 50]).unwrap();
    }
    store.db.flush().unwrap();
    assert_eq!(log_files(&store.env), (header, 1));
    for policy in CrashPolicy::ALL {
        let image = store.env.capture().crash(*policy, 1);
        assert_eq!(contents(&open(&image).keyspace("a")).len(), 41);
    }
}
