//! What a power loss behind a flush leaves of a store whose log nobody has synced.

use super::*;

#[test]
fn tables_of_one_keyspace_need_no_log() {
    let store = open(&SimEnv::new(1));
    let keyspace = store.keyspace("a");
    for number in 0..100 {
        keyspace.put(format!("key {number:03}"), [7; 30]).unwrap();
    }
    store.db.flush().unwrap();
    let wal = store.db.inner().wal.as_ref().unwrap();
    assert!(wal.durable() < wal.end());
    keyspace.put("later", "lost").unwrap();
    let expected = contents(&keyspace);
    let again = open(&store.env.capture().crash(CrashPolicy::MaxLoss, 1));
    let found = contents(&again.keyspace("a"));
    assert_eq!(found.len(), 100);
    assert!(
        found
            .iter()
            .all(|(key, value)| expected.get(key) == Some(value))
    );
    // Numbers go on behind those of the tables.
    again.keyspace("a").put("key 000", "new").unwrap();
    assert_eq!(again.keyspace("a").get("key 000").unwrap().unwrap(), b"new");
}

#[test]
fn tables_of_a_keyspace_keep_what_was_written_to_another_before() {
    let store = open(&SimEnv::new(1));
    let (one, other) = (store.keyspace("a"), store.keyspace("b"));
    other.put("first", "value").unwrap();
    while store.db.stats().unwrap().flushes == 0 {
        for number in 0..100 {
            one.put(format!("key {number:03}"), [7; 30]).unwrap();
        }
        store.work();
    }
    let again = open(&store.env.capture().crash(CrashPolicy::MaxLoss, 1));
    assert!(!contents(&again.keyspace("a")).is_empty());
    assert_eq!(again.keyspace("b").get("first").unwrap().unwrap(), b"value");
}
