use super::*;
use crate::cache::MemoryBudget;
use crate::key::Cursor;
use crate::sync::Arc;

fn memtable() -> (Arc<MemoryBudget>, Arc<Memtable>) {
    let budget = Arc::new(MemoryBudget::new(1 << 30));
    let account = budget.open_account(0, 0).unwrap();
    (budget, Arc::new(Memtable::new(account.charge())))
}

fn put(memtable: &Memtable, key: &str, seqno: u64, value: &str) {
    let key = InternalKey::new(key.as_bytes(), SeqNo(seqno), ValueKind::Put);
    memtable.insert(key, value.as_bytes(), 1);
}

#[test]
fn reads_see_the_newest_version_at_their_point() {
    let (_budget, memtable) = memtable();
    put(&memtable, "longer than eight", 1, "one");
    put(&memtable, "longer than eighty", 2, "other");
    put(&memtable, "longer than eight", 3, "three");
    let key = b"longer than eight";
    assert_eq!(memtable.get(key, SeqNo(9), &[]).unwrap().1, b"three");
    assert_eq!(memtable.get(key, SeqNo(2), &[]).unwrap().1, b"one");
    assert_eq!(memtable.get(key, SeqNo(0), &[]), None);
    assert_eq!(memtable.get(b"longer", SeqNo(9), &[]), None);
}

#[test]
fn aborted_versions_are_passed_over() {
    let (_budget, memtable) = memtable();
    put(&memtable, "k", 1, "one");
    put(&memtable, "k", 2, "two");
    put(&memtable, "k", 3, "three");
    let dead = [(SeqNo(1), SeqNo(3))];
    assert_eq!(memtable.get(b"k", SeqNo(9), &dead).unwrap().1, b"one");
    assert_eq!(memtable.get(b"k", SeqNo(9), &[(SeqNo(0), SeqNo(3))]), None);
    put(&memtable, "k", 4, "four");
    assert_eq!(memtable.get(b"k", SeqNo(9), &dead).unwrap().1, b"four");
}

#[test]
fn replaced_bytes_are_known() {
    let (_budget, memtable) = memtable();
    for seqno in 1..=100 {
        put(&memtable, "hot", seqno, "12345");
    }
    put(&memtable, "cold", 101, "12345");
    assert_eq!(memtable.live_bytes(), entry_bytes(3, 5) + entry_bytes(4, 5));
    assert_eq!(memtable.entries(), 101);
    assert_eq!(
        (memtable.seqno_first(), memtable.seqno_last()),
        (SeqNo(1), SeqNo(101))
    );
}

#[test]
fn a_cursor_walks_both_ways_and_outlives_its_owner() {
    let (_budget, memtable) = memtable();
    for (seqno, key) in ["b", "d", "a", "c"].iter().enumerate() {
        put(&memtable, key, seqno as u64 + 1, key);
    }
    let mut cursor = MemtableCursor::new(memtable);
    let mut seen = Vec::new();
    cursor.seek_to_first().unwrap();
    while cursor.is_valid() {
        seen.push(cursor.value()[0]);
        cursor.next().unwrap();
    }
    assert_eq!(seen, b"abcd");
    cursor
        .seek(InternalKey::seek_to(b"bb", SeqNo::MAX))
        .unwrap();
    assert_eq!(cursor.key().user, b"c");
    cursor.seek_for_prev(InternalKey::behind(b"bb")).unwrap();
    assert_eq!(cursor.key().user, b"b");
    cursor.prev().unwrap();
    assert_eq!(cursor.key().user, b"a");
    cursor.prev().unwrap();
    assert!(!cursor.is_valid());
}

#[test]
fn memory_is_counted_while_anyone_holds_it() {
    let (budget, memtable) = memtable();
    for seqno in 1..=1000 {
        put(&memtable, &format!("key {seqno}"), seqno, "some value");
    }
    memtable.settle_charge(0);
    assert_eq!(budget.used_bytes(), memtable.memory_bytes());
    let cursor = MemtableCursor::new(Arc::clone(&memtable));
    drop(memtable);
    assert!(budget.used_bytes() > 0);
    drop(cursor);
    assert_eq!(budget.used_bytes(), 0);
}
