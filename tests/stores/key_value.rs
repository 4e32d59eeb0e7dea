//! What a key-value store answers, operation by operation.

use siltstone::store::serde::{Bytes, I64, U64, Utf8};
use siltstone::store::{Task, TaskOptions};
use siltstone::{ErrorKind, Result};

use crate::rig::{Rig, contents, counts, fails, of, partition_of, raw, records};

fn pairs<T>(entries: impl Iterator<Item = Result<(T, u64)>>) -> Vec<(T, u64)> {
    entries.collect::<Result<_>>().unwrap()
}

#[test]
fn a_missing_key_is_none_and_an_empty_value_is_a_value() {
    let rig = Rig::new();
    let mut task = rig.open();
    let store = raw(&task, "counts");
    assert_eq!(store.get(b"a").unwrap(), None);
    store.put(&mut task, b"a", b"").unwrap();
    assert_eq!(store.get(b"a").unwrap(), Some(Vec::new()));
    fails(store.put(&mut task, b"", b"x"), ErrorKind::InvalidArgument);
    fails(
        store.put(&mut task, &vec![0; 65_536], b"x"),
        ErrorKind::InvalidArgument,
    );
    fails(task.key_value("none", Bytes, Bytes), ErrorKind::NotFound);
}

#[test]
fn deleting_an_absent_key_leaves_a_tombstone_in_the_changelog() {
    let rig = Rig::new();
    let mut task = rig.open();
    let counts = counts(&task);
    counts.delete(&mut task, "a").unwrap();
    counts.put(&mut task, "a", &1).unwrap();
    assert_eq!(counts.take(&mut task, "a").unwrap(), Some(1));
    assert_eq!(counts.take(&mut task, "a").unwrap(), None);
    task.commit().unwrap();
    let values: Vec<_> = records(&rig.log, &partition_of("counts"))
        .into_iter()
        .map(|(_, value)| value.is_some())
        .collect();
    assert_eq!(values, [false, true, false, false]);
}

#[test]
fn put_if_absent_logs_only_what_it_writes() {
    let rig = Rig::new();
    let mut task = rig.open();
    let counts = counts(&task);
    assert_eq!(counts.put_if_absent(&mut task, "a", &1).unwrap(), None);
    assert_eq!(counts.put_if_absent(&mut task, "a", &2).unwrap(), Some(1));
    task.commit().unwrap();
    assert_eq!(records(&rig.log, &partition_of("counts")).len(), 1);
    assert_eq!(counts.get("a").unwrap(), Some(1));
}

#[test]
fn put_all_checks_everything_first_and_lets_the_last_win() {
    let rig = Rig::new();
    let mut task = rig.open();
    let counts = counts(&task);
    let bad = [("a", Some(&1)), ("", Some(&2))];
    fails(counts.put_all(&mut task, bad), ErrorKind::InvalidArgument);
    assert_eq!(counts.get("a").unwrap(), None);
    let good = [
        ("a", Some(&1)),
        ("b", Some(&2)),
        ("b", None),
        ("a", Some(&3)),
    ];
    counts.put_all(&mut task, good).unwrap();
    task.commit().unwrap();
    assert_eq!(contents(&counts), of([("a", 3)]));
    assert_eq!(records(&rig.log, &partition_of("counts")).len(), 4);
    assert_eq!(counts.get_all(&["b", "a"]).unwrap(), [None, Some(3)]);
}

#[test]
fn ranges_take_every_kind_of_bound_from_either_end() {
    let rig = Rig::new();
    let mut task = rig.open();
    let store = task.key_value("counts", I64, U64).unwrap();
    for key in [3, -2, 0, 7, -9] {
        store.put(&mut task, &key, &key.unsigned_abs()).unwrap();
    }
    let keys = |entries: Vec<(i64, u64)>| -> Vec<i64> { entries.iter().map(|e| e.0).collect() };
    assert_eq!(keys(pairs(store.entries().unwrap())), [-9, -2, 0, 3, 7]);
    assert_eq!(
        keys(pairs(store.entries().unwrap().rev())),
        [7, 3, 0, -2, -9]
    );
    assert_eq!(keys(pairs(store.range(-2..3).unwrap())), [-2, 0]);
    assert_eq!(keys(pairs(store.range(-2..=3).unwrap().rev())), [3, 0, -2]);
    assert_eq!(keys(pairs(store.range(1..).unwrap())), [3, 7]);
    assert_eq!(keys(pairs(store.range(..0).unwrap())), [-9, -2]);
    #[expect(clippy::reversed_empty_ranges, reason = "it is what is tested")]
    let backwards = store.range(3..-2).unwrap();
    assert_eq!(backwards.count(), 0);
    let mut both = store.entries().unwrap();
    assert_eq!(both.next().unwrap().unwrap().0, -9);
    assert_eq!(both.next_back().unwrap().unwrap().0, 7);
    assert_eq!(keys(pairs(both)), [-2, 0, 3]);
}

#[test]
fn a_prefix_ends_where_it_should() {
    let rig = Rig::new();
    let mut task = rig.open();
    let store = raw(&task, "counts");
    for key in [&b"a"[..], b"ab", b"ab\xff", b"ac", b"\xff", b"\xff\xff1"] {
        store.put(&mut task, key, b"").unwrap();
    }
    let keys = |prefix: &[u8]| -> Vec<Vec<u8>> {
        let entries = store.prefix(prefix).unwrap();
        entries.map(|entry| entry.unwrap().0).collect()
    };
    assert_eq!(keys(b"ab"), [&b"ab"[..], b"ab\xff"]);
    assert_eq!(keys(b"\xff"), [&b"\xff"[..], b"\xff\xff1"]);
    assert_eq!(keys(b"").len(), 6);
}

#[test]
fn readers_keep_what_they_saw() {
    let rig = Rig::new();
    let mut task = rig.open();
    let counts = counts(&task);
    counts.put(&mut task, "a", &1).unwrap();
    task.commit().unwrap();
    counts.put(&mut task, "a", &2).unwrap();
    counts.put(&mut task, "b", &2).unwrap();

    let (now, committed, entries) = (
        counts.snapshot().unwrap(),
        counts.committed().unwrap(),
        counts.entries().unwrap(),
    );
    counts.put(&mut task, "c", &3).unwrap();
    assert_eq!(pairs(entries).len(), 2);
    assert_eq!(now.get("a").unwrap(), Some(2));
    assert_eq!(pairs(now.entries().unwrap()).len(), 2);
    assert_eq!(committed.get("a").unwrap(), Some(1));
    assert_eq!(pairs(committed.range("a"..).unwrap()).len(), 1);
    assert_eq!(counts.at(committed.as_of()).get("b").unwrap(), None);

    task.abort().unwrap();
    assert_eq!(committed.get("a").unwrap(), Some(1));
    fails(now.get("a"), ErrorKind::Aborted);
    assert_eq!(contents(&counts), of([("a", 1)]));
    // Taken after the abort, so it must see nothing of what was taken back.
    assert_eq!(
        pairs(counts.snapshot().unwrap().entries().unwrap()).len(),
        1
    );
}

#[test]
fn readers_work_on_other_threads_while_the_task_writes() {
    let rig = Rig::new();
    let mut task = rig.open();
    let counts = counts(&task);
    std::thread::scope(|scope| {
        let reader = counts.clone();
        let thread = scope.spawn(move || {
            let mut seen = 0;
            while seen < 2000 {
                let now = reader.get("n").unwrap().unwrap_or(0);
                assert!(now >= seen);
                seen = now;
            }
        });
        for n in 1..=2000 {
            counts.put(&mut task, "n", &n).unwrap();
            if n % 100 == 0 {
                task.commit().unwrap();
            }
        }
        thread.join().unwrap();
    });
}

#[test]
fn a_foreign_value_is_named_corruption() {
    let rig = Rig::new();
    let mut task = rig.open();
    raw(&task, "counts").put(&mut task, b"a", b"123").unwrap();
    let told = fails(counts(&task).get("a"), ErrorKind::Corruption);
    assert!(told.starts_with("store counts: "), "{told}");
    fails(
        counts(&task).entries().unwrap().next().unwrap(),
        ErrorKind::Corruption,
    );
}

#[test]
fn a_handle_writes_to_its_own_task_only() {
    let rig = Rig::new();
    let mut task = rig.open();
    let other = Rig::new();
    let counts = counts(&other.open());
    let told = fails(counts.put(&mut task, "a", &1), ErrorKind::InvalidArgument);
    assert!(told.contains("another task"), "{told}");
}

#[test]
fn a_record_above_the_limit_changes_nothing() {
    let rig = Rig::with_log(|log| log.record_bytes_max(1000));
    let mut task = rig.open();
    let store = raw(&task, "counts");
    fails(
        store.put(&mut task, b"a", &[0; 1000]),
        ErrorKind::InvalidArgument,
    );
    assert_eq!(store.get(b"a").unwrap(), None);
    store.put(&mut task, b"a", &[0; 900]).unwrap();
    task.commit().unwrap();
}

#[test]
fn lengths_are_about_right() {
    let rig = Rig::new();
    let mut task = rig.open();
    let counts = counts(&task);
    for n in 0..100 {
        counts.put(&mut task, &n.to_string(), &n).unwrap();
    }
    task.commit().unwrap();
    assert_eq!(counts.approximate_len().unwrap(), 100);
    task.flush().unwrap();
    assert_eq!(counts.approximate_len().unwrap(), 100);
}

#[test]
fn names_are_checked() {
    let rig = Rig::new();
    let open = |options: TaskOptions| Task::open(options).map(drop);
    fails(open(rig.options().store("")), ErrorKind::InvalidArgument);
    fails(
        open(rig.options().store("a\u{1}rebuild")),
        ErrorKind::InvalidArgument,
    );
    fails(
        open(rig.options().store("input-position")),
        ErrorKind::InvalidArgument,
    );
    fails(
        open(rig.options().store("counts")),
        ErrorKind::InvalidArgument,
    );
    let task = rig.open();
    assert_eq!(task.name(), "job-0");
    fails(
        task.key_value("input-position", Utf8, U64),
        ErrorKind::NotFound,
    );
    assert!(records(&rig.log, &partition_of("input-position")).is_empty());
}
