//! Wrong content under right checksums: the answers may be wrong then, but nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};

use siltstone::{Db, KeyspaceOptions, Result, Runtime};

use super::forge::{Segment, Table, forged_current};
use super::store::{self, Store};
use super::watchdog::within;
use super::{memory, store::open};

/// What is put at a place: bytes to invert, or bytes to write.
const CHANGES: [fn(&mut [u8]); 5] = [
    |bytes| bytes[0] ^= 0xff,
    |bytes| bytes[0] ^= 1,
    |bytes| bytes[0] = bytes[0].wrapping_add(0x7f),
    |bytes| {
        let len = bytes.len().min(4);
        bytes[..len].fill(0xff);
    },
    |bytes| {
        let len = bytes.len().min(8);
        bytes[..len].fill(0);
    },
];

/// Reads everything there is, by every way, and has it compacted.
fn use_all(db: &Db) -> Result<()> {
    for name in db.keyspace_names()? {
        let keyspace = db.keyspace(&name, KeyspaceOptions::new())?;
        for number in 0..60 {
            let _ = keyspace.get(format!("key {number:03}"));
        }
        // An error ends a range, so that these come to an end.
        let _ = keyspace.entries()?.count();
        let _ = keyspace.entries()?.rev().count();
        let _ = keyspace.range("key 010".."key 020")?.next_back();
        let _ = db.verify();
        no_panic(keyspace.put("key 007", "new"));
        no_panic(keyspace.compact());
        let _ = keyspace.entries()?.count();
    }
    db.close()
}

/// A panic of a job shows as an error.
fn no_panic(result: Result<()>) {
    if let Err(error) = result {
        assert!(!error.to_string().contains("panicked"), "{error}");
    }
}

fn endure(store: &Store, runtime: &Runtime, name: &str, bytes: Vec<u8>, what: &str) {
    let env = store.copy();
    env.set_file_bytes(&store::path(name), bytes);
    memory::forget_largest();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if let Ok(db) = open(&env, runtime) {
            no_panic(use_all(&db));
        }
    }));
    assert!(outcome.is_ok(), "{name}: {what}: a panic, see above");
    let largest = memory::largest();
    assert!(
        largest < 1 << 20,
        "{name}: {what}: {largest} bytes were allocated at once"
    );
    while runtime.run_pending() {}
}

fn each_change(len: usize, mut act: impl FnMut(&str, &dyn Fn(&mut Vec<u8>))) {
    for pos in 0..len {
        for (number, change) in CHANGES.iter().enumerate() {
            act(&format!("byte {pos}, change {number}"), &|bytes| {
                change(&mut bytes[pos..]);
            });
        }
    }
}

#[test]
fn forged_tables_do_no_harm() {
    within(120, || {
        let (store, runtime) = (Store::build(1), store::runtime());
        // One of level 0, one of a lower level.
        let names = store.names(".sst");
        for name in [&names[0], &names[names.len() - 1]] {
            let bytes = store.bytes(name);
            let table = Table::parse(&bytes);
            each_change(bytes.len(), |what, change| {
                endure(&store, &runtime, name, table.forged(change), what);
            });
        }
    });
}

#[test]
fn forged_journals_do_no_harm() {
    within(120, || {
        let (store, runtime) = (Store::build(1), store::runtime());
        // Two segments of the log: the first, which the manifest names, and one of the others.
        let mut names = store.names(".wal");
        names.truncate(2);
        names.extend(store.names("MANIFEST"));
        for name in names {
            let bytes = store.bytes(&name);
            let segment = Segment::parse(&bytes);
            each_change(bytes.len(), |what, change| {
                endure(&store, &runtime, &name, segment.forged(change), what);
            });
        }
    });
}

#[test]
fn a_forged_current_does_no_harm() {
    within(120, || {
        let (store, runtime) = (Store::build(1), store::runtime());
        let bytes = store.bytes("CURRENT");
        for pos in 0..80 {
            for (number, change) in CHANGES.iter().enumerate() {
                let forged = forged_current(&bytes, |copy| change(&mut copy[pos..]));
                let what = format!("byte {pos}, change {number}");
                endure(&store, &runtime, "CURRENT", forged, &what);
            }
        }
    });
}
