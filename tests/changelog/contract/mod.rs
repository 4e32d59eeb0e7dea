//! What the docs of `siltstone::changelog` promise, case by case.

use siltstone::ErrorKind;
use siltstone::changelog::faulty::CommitPlan;
use siltstone::changelog::{
    Changelog, Header, Offset, Partition, Position, Reader, Record, RecordRef, Session,
};

mod faults;
mod keeping;

use faults::{
    a_failed_commit_takes_what_is_behind_it_along, an_undecided_commit_is_found_or_not_but_whole,
    failed_calls_ask_for_an_abort,
};
use keeping::{
    a_large_log_is_read_in_parts, a_sink_that_fails_may_go_on, compaction_drops_old_tombstones,
    compaction_keeps_the_newest, compaction_under_a_reader, empty_commits_and_idle_positions,
    partitions_come_with_later_claims, trimmed_and_recreated_topics,
};

use crate::rigs::{COMMIT_BYTES_MAX, RECORD_BYTES_MAX, Rig, TOMBSTONE_RETENTION_MS, Wrapped};

const TASK: &str = "job/task 0";

/// A case's name and what it does.
type Case = (&'static str, fn(&dyn Rig));

/// Cases that compact the log.
const COMPACTIONS: [&str; 3] = [
    "compaction keeps the newest",
    "compaction drops old tombstones",
    "compaction under a reader",
];

/// Runs every case, each on a log of its own.
pub(crate) fn run<R: Rig>(make: &dyn Fn() -> R) {
    let cases: &[Case] = &[
        (
            "records come back in order and whole",
            records_come_back_in_order_and_whole,
        ),
        (
            "a commit shows in all partitions at once",
            a_commit_shows_in_all_partitions_at_once,
        ),
        (
            "what was aborted is never seen",
            what_was_aborted_is_never_seen,
        ),
        ("the mark divides two commits", the_mark_divides_two_commits),
        (
            "positions go on through a restart",
            positions_go_on_through_a_restart,
        ),
        (
            "a new owner fences the old one",
            a_new_owner_fences_the_old_one,
        ),
        ("a restore ends at its fence", a_restore_ends_at_its_fence),
        (
            "a follower sees commits as they come",
            a_follower_sees_commits_as_they_come,
        ),
        ("limits change nothing", limits_change_nothing),
        (
            "positions out of range are errors",
            positions_out_of_range_are_errors,
        ),
        ("names that cannot be claimed", names_that_cannot_be_claimed),
        ("compaction keeps the newest", compaction_keeps_the_newest),
        (
            "compaction drops old tombstones",
            compaction_drops_old_tombstones,
        ),
        ("compaction under a reader", compaction_under_a_reader),
        ("a large log is read in parts", a_large_log_is_read_in_parts),
        (
            "empty commits and idle positions",
            empty_commits_and_idle_positions,
        ),
        (
            "partitions come with later claims",
            partitions_come_with_later_claims,
        ),
        ("a sink that fails may go on", a_sink_that_fails_may_go_on),
        ("trimmed and recreated topics", trimmed_and_recreated_topics),
    ];
    for (name, case) in cases {
        let rig = make();
        if rig.is_local() || !COMPACTIONS.contains(name) {
            println!("case: {name}");
            case(&rig);
        }
    }
}

/// Runs the cases that need a log which fails on demand.
pub(crate) fn run_faults<R: Rig>(make: &dyn Fn() -> Wrapped<R>) {
    failed_calls_ask_for_an_abort(&make());
    a_failed_commit_takes_what_is_behind_it_along(&make());
    an_undecided_commit_is_found_or_not_but_whole(&make());
}

fn partitions() -> [Partition; 2] {
    [
        Partition::new("counts", 3),
        Partition::new("input-positions", 3),
    ]
}

fn put<'a>(key: &'a str, value: &'a str) -> RecordRef<'a> {
    RecordRef::new(key.as_bytes(), Some(value.as_bytes()))
}

fn commit(session: &mut dyn Session) -> Vec<Position> {
    let commit = session.prepare().unwrap();
    let positions = session.wait(commit).unwrap();
    assert_eq!(
        session.poll(commit).unwrap(),
        Some(positions.clone()),
        "an answer stays"
    );
    positions
}

fn kind<T: std::fmt::Debug>(result: siltstone::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Reads to the end and checks what holds of every fetch.
fn drain(reader: &mut dyn Reader) -> Vec<(u64, Record)> {
    let mut records: Vec<(u64, Record)> = Vec::new();
    loop {
        let before = reader.position();
        let fetched = reader
            .fetch(&mut |offset, record| {
                assert!(offset >= before, "{offset} is before {before}");
                assert!(records.last().is_none_or(|(last, _)| *last < offset.0));
                records.push((offset.0, record.into()));
                Ok(())
            })
            .unwrap();
        assert_eq!(fetched.next, reader.position());
        assert!(fetched.next >= before);
        assert!(
            records
                .last()
                .is_none_or(|(last, _)| *last < fetched.next.0)
        );
        if fetched.at_end {
            return records;
        }
        assert!(fetched.next > before, "a fetch that neither moves nor ends");
    }
}

fn pairs(records: &[(u64, Record)]) -> Vec<(String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let pair = |(_, record): &(u64, Record)| (text(&record.key), record.value.as_deref().map(text));
    records.iter().map(pair).collect()
}

fn read(log: &dyn Changelog, partition: &Partition, from: u64) -> Vec<(u64, Record)> {
    drain(&mut *log.reader(partition, Offset(from)).unwrap())
}

fn keys(log: &dyn Changelog, partition: &Partition) -> Vec<String> {
    pairs(&read(log, partition, 0))
        .into_iter()
        .map(|(key, _)| key)
        .collect()
}

fn records_come_back_in_order_and_whole(rig: &dyn Rig) {
    let log = rig.open();
    let [first, second] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    let headers = [
        Header {
            key: b"trace",
            value: Some(b"1"),
        },
        Header {
            key: b"trace",
            value: Some(b"1"),
        },
        Header {
            key: b"trace",
            value: None,
        },
        Header {
            key: b"",
            value: Some(b""),
        },
    ];
    let records = [
        RecordRef::new(b"a", Some(b"1"))
            .at(i64::MIN)
            .with_headers(&headers),
        RecordRef::new(b"a", None).at(-1),
        RecordRef::new(b"", Some(b""))
            .at(i64::MAX)
            .with_headers(&headers[3..]),
        RecordRef::new(b"\0\xff", Some(&[0; 1000])).at(1_700_000_000_000),
        RecordRef::new(b"a", Some(b"2")),
    ];
    for record in records {
        session.append(0, record).unwrap();
    }
    session.append(1, records[1]).unwrap();
    let positions = commit(&mut *session);
    let back = read(&*log, &first, 0);
    let owned: Vec<Record> = records.iter().map(|record| Record::from(*record)).collect();
    assert_eq!(
        back.iter()
            .map(|(_, record)| record.clone())
            .collect::<Vec<_>>(),
        owned
    );
    assert_eq!(read(&*log, &second, 0).len(), 1);

    // A position is the offset behind the last record, and reading on from it finds no record.
    assert_eq!(positions[0].next.0, back.last().unwrap().0 + 1);
    assert_eq!(positions[0].partition, first);
    assert_eq!(positions[1].partition, second);
    assert_eq!(positions[0].owner, session.owner());
    assert_eq!(read(&*log, &first, positions[0].next.0), []);
    let bounds = log.bounds(&first).unwrap().unwrap();
    assert_eq!(bounds.topic_id, positions[0].topic_id);
    assert_eq!(bounds.cluster, positions[0].cluster);
    assert!(bounds.start <= Offset(back[0].0) && positions[0].next <= bounds.end);
    // From the middle.
    assert_eq!(read(&*log, &first, back[2].0), back[2..]);
    assert_eq!(
        Position::decode(&positions[0].encode()).unwrap(),
        positions[0]
    );
}

fn a_commit_shows_in_all_partitions_at_once(rig: &dyn Rig) {
    let log = rig.open();
    let [first, second] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    let seen = || (keys(&*log, &first).len(), keys(&*log, &second).len());
    for count in 0..20 {
        session.append(0, put("key", "value")).unwrap();
        assert_eq!(seen(), (count, count), "appended");
        session.append(1, put("key", "value")).unwrap();
        let id = session.prepare().unwrap();
        if rig.is_local() {
            let (one, other) = seen();
            assert_eq!(one, other, "prepared");
            while session.poll(id).unwrap().is_none() {
                let (one, other) = seen();
                assert_eq!(one, other, "under way");
            }
        }
        session.wait(id).unwrap();
        assert_eq!(seen(), (count + 1, count + 1), "committed");
    }
}

fn what_was_aborted_is_never_seen(rig: &dyn Rig) {
    let log = rig.open();
    let [first, second] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    session.append(0, put("a", "1")).unwrap();
    commit(&mut *session);
    session.append(0, put("b", "1")).unwrap();
    session.append(1, put("b", "1")).unwrap();
    session.abort().unwrap();
    session.abort().unwrap();
    session.append(0, put("c", "1")).unwrap();
    commit(&mut *session);
    session.append(0, put("d", "1")).unwrap();
    session.close().unwrap();
    assert_eq!(keys(&*log, &first), ["a", "c"]);
    assert_eq!(keys(&*log, &second), [""; 0]);
    // Nor after another owner came, or from a session that was dropped.
    let mut session = log.claim(TASK, &partitions()).unwrap();
    session.append(0, put("e", "1")).unwrap();
    drop(session);
    drop(log.claim(TASK, &partitions()).unwrap());
    assert_eq!(keys(&*log, &first), ["a", "c"]);
}

fn the_mark_divides_two_commits(rig: &dyn Rig) {
    let log = rig.open();
    let [first, second] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    session.append(0, put("a", "1")).unwrap();
    let one = session.prepare().unwrap();
    session.append(0, put("b", "1")).unwrap();
    session.append(1, put("b", "1")).unwrap();
    if rig.is_local() {
        assert_eq!(
            kind(session.abort()),
            ErrorKind::InvalidArgument,
            "undecided"
        );
        assert_eq!(
            kind(session.prepare()),
            ErrorKind::InvalidArgument,
            "undecided"
        );
        assert_eq!(
            kind(session.idle_positions()),
            ErrorKind::InvalidArgument,
            "undecided"
        );
    }
    let positions = session.wait(one).unwrap();
    assert_eq!(keys(&*log, &first), ["a"]);
    assert_eq!(keys(&*log, &second), [""; 0]);
    let two = session.prepare().unwrap();
    assert_eq!(
        kind(session.poll(one)),
        ErrorKind::InvalidArgument,
        "no longer the newest"
    );
    let later = session.wait(two).unwrap();
    assert!(later[0].next > positions[0].next && later[1].next > positions[1].next);
    assert_eq!(keys(&*log, &first), ["a", "b"]);
    assert_eq!(keys(&*log, &second), ["b"]);
}

fn positions_go_on_through_a_restart(rig: &dyn Rig) {
    let [first, second] = partitions();
    assert_eq!(rig.open().bounds(&first).unwrap(), None);
    assert_eq!(
        kind(rig.open().reader(&first, Offset(0))),
        ErrorKind::NotFound
    );
    let mut all = Vec::new();
    let mut at = [Offset(0); 2];
    for round in 0..6 {
        let log = rig.open();
        let mut session = log.claim(TASK, &partitions()).unwrap();
        // What the last owner committed, from the start and from its position.
        let mut reader = session.reader(0, Offset(0)).unwrap();
        let restored = drain(&mut *reader);
        assert_eq!(pairs(&restored), all);
        let mut reader = session.reader(0, at[0]).unwrap();
        assert_eq!(drain(&mut *reader), []);
        assert!(reader.position() >= at[0]);
        for index in 0..3 {
            let key = format!("{round}-{index}");
            session.append(0, put(&key, "x")).unwrap();
            all.push((key, Some("x".to_owned())));
            if index % 2 == 0 {
                session.append(1, put("position", "x")).unwrap();
            }
            let positions = commit(&mut *session);
            let next = [positions[0].next, positions[1].next];
            assert!(next[0] > at[0] && next[1] >= at[1]);
            at = next;
        }
        if round % 2 == 0 {
            session.close().unwrap();
        }
    }
    let log = rig.open();
    assert_eq!(pairs(&read(&*log, &first, 0)), all);
    assert_eq!(read(&*log, &second, 0).len(), 12);
    let ids = |partition| log.bounds(partition).unwrap().unwrap().topic_id;
    assert_ne!(ids(&first), ids(&second));
}

fn a_new_owner_fences_the_old_one(rig: &dyn Rig) {
    let log = rig.open();
    let [first, second] = partitions();
    let mut old = log.claim(TASK, &partitions()).unwrap();
    old.append(0, put("a", "old")).unwrap();
    let told = commit(&mut *old);
    old.append(0, put("b", "old")).unwrap();
    old.append(1, put("b", "old")).unwrap();
    // Where commits go on by themselves this one could be through before the other owner comes.
    let undecided = rig.is_local().then(|| old.prepare().unwrap());
    let mut other = log.claim(TASK, &partitions()).unwrap();

    let other_log = rig.open();
    let mut new = other_log.claim(TASK, &partitions()).unwrap();
    assert!(new.owner().epoch > other.owner().epoch && other.owner().epoch > old.owner().epoch);
    assert_eq!(new.owner().id, old.owner().id);
    let restored = drain(&mut *new.reader(0, Offset(0)).unwrap());
    assert_eq!(pairs(&restored), [("a".to_owned(), Some("old".to_owned()))]);
    assert!(restored[0].0 < told[0].next.0);

    let outcome = match undecided {
        Some(undecided) => old.wait(undecided),
        None => old.prepare().and_then(|commit| old.wait(commit)),
    };
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(kind(old.idle_positions()), ErrorKind::Fenced);
    other.append(0, put("c", "old")).unwrap();
    let outcome = other.prepare().and_then(|commit| other.wait(commit));
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    let mut idle = log.claim("idle", &[Partition::new("idle", 0)]).unwrap();
    drop(log.claim("idle", &[Partition::new("idle", 0)]).unwrap());
    assert_eq!(kind(idle.idle_positions()), ErrorKind::Fenced);

    // The one who was fenced changed nothing, and the new one goes on.
    new.append(0, put("a", "new")).unwrap();
    commit(&mut *new);
    assert_eq!(pairs(&read(&*log, &first, 0)).len(), 2);
    assert_eq!(read(&*log, &second, 0), []);
}

fn a_restore_ends_at_its_fence(rig: &dyn Rig) {
    let log = rig.open();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    for _ in 0..3 {
        session.append(0, put("a", "1")).unwrap();
        commit(&mut *session);
    }
    let mut session = log.claim(TASK, &partitions()).unwrap();
    let mut reader = session.reader(0, Offset(0)).unwrap();
    session.append(0, put("b", "1")).unwrap();
    commit(&mut *session);
    assert_eq!(
        drain(&mut *reader).len(),
        3,
        "the session's own record is behind the fence"
    );
    let fetched = reader.fetch(&mut |_, _| panic!("nothing is left")).unwrap();
    assert!(fetched.at_end);
    // An empty partition ends by position too.
    let mut reader = session.reader(1, Offset(0)).unwrap();
    assert_eq!(drain(&mut *reader), []);
    assert_eq!(session.bounds(1).unwrap().start, Offset(0));
    assert_eq!(
        kind(session.reader(2, Offset(0))),
        ErrorKind::InvalidArgument
    );
}

fn a_follower_sees_commits_as_they_come(rig: &dyn Rig) {
    let log = rig.open();
    let [first, _] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    let mut follower = rig.open().reader(&first, Offset(0)).unwrap();
    let value = "v".repeat(1000);
    for round in 0..40 {
        assert_eq!(drain(&mut *follower), [], "before {round}");
        session.append(0, put("a", &value)).unwrap();
        if round % 3 == 0 {
            session.append(0, put("b", &value)).unwrap();
        }
        commit(&mut *session);
        assert_eq!(
            drain(&mut *follower).len(),
            if round % 3 == 0 { 2 } else { 1 }
        );
        if round % 10 == 9 {
            session = log.claim(TASK, &partitions()).unwrap();
        }
    }
}

fn limits_change_nothing(rig: &dyn Rig) {
    let log = rig.open();
    let [first, _] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    assert_eq!(session.record_bytes_max(), RECORD_BYTES_MAX);
    let large = vec![0; usize::try_from(RECORD_BYTES_MAX).unwrap()];
    let error = session
        .append(0, RecordRef::new(b"large", Some(&large)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(
        error.to_string().contains(&RECORD_BYTES_MAX.to_string()),
        "{error}"
    );
    let header = [Header {
        key: &large,
        value: None,
    }];
    let heavy = RecordRef::new(b"k", None).with_headers(&header);
    assert_eq!(kind(session.append(0, heavy)), ErrorKind::InvalidArgument);
    assert_eq!(
        kind(session.append(9, put("a", "1"))),
        ErrorKind::InvalidArgument
    );

    assert!(!session.commit_requested());
    if !rig.is_local() {
        // There room comes by itself, and only what can never fit is told at once.
        assert_eq!(
            kind(session.reserve(COMMIT_BYTES_MAX + 1)),
            ErrorKind::MemoryLimit
        );
        commit(&mut *session);
        return;
    }
    let value = vec![7; 3000];
    let record = RecordRef::new(b"key", Some(&value));
    let mut count = 0;
    while session.reserve(record.size()).is_ok() {
        session.append(count % 2, record).unwrap();
        count += 1;
    }
    assert!(count as u64 * record.size() <= COMMIT_BYTES_MAX);
    assert!((count + 1) as u64 * record.size() > COMMIT_BYTES_MAX);
    assert!(session.commit_requested());
    assert_eq!(kind(session.reserve(record.size())), ErrorKind::MemoryLimit);
    assert_eq!(kind(session.append(0, record)), ErrorKind::MemoryLimit);
    // A refused record did not break the commit, and the commit makes room.
    commit(&mut *session);
    assert!(!session.commit_requested());
    session.reserve(COMMIT_BYTES_MAX).unwrap();
    session.append(0, record).unwrap();
    session.abort().unwrap();
    session.reserve(COMMIT_BYTES_MAX).unwrap();
    assert_eq!(read(&*log, &first, 0).len(), count.div_ceil(2));
}

fn positions_out_of_range_are_errors(rig: &dyn Rig) {
    let log = rig.open();
    let [first, _] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    session.append(0, put("a", "1")).unwrap();
    commit(&mut *session);
    let end = log.bounds(&first).unwrap().unwrap().end;
    let error = log.reader(&first, Offset(end.0 + 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Diverged);
    assert!(error.to_string().contains(&end.to_string()), "{error}");
    assert_eq!(
        kind(session.reader(0, Offset(end.0 + 1))),
        ErrorKind::Diverged
    );
    assert_eq!(read(&*log, &first, end.0), []);
}

fn names_that_cannot_be_claimed(rig: &dyn Rig) {
    let log = rig.open();
    let [first, second] = partitions();
    let twice = [first.clone(), second, first.clone()];
    assert_eq!(kind(log.claim(TASK, &twice)), ErrorKind::InvalidArgument);
    assert_eq!(log.bounds(&first).unwrap(), None);
    drop(log.claim(TASK, &partitions()).unwrap());
    if !rig.is_local() {
        return;
    }
    let error = rig.open().claim("another", &[first]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains(TASK), "{error}");
}

/// Appends `key = value`, or a tombstone for an empty value, each in a commit of its own.
fn write(log: &dyn Changelog, writes: &[(&str, &str)]) -> Vec<Position> {
    let mut session = log.claim(TASK, &partitions()).unwrap();
    let mut positions = Vec::new();
    for (key, value) in writes {
        let value = (!value.is_empty()).then_some(value.as_bytes());
        session
            .append(0, RecordRef::new(key.as_bytes(), value))
            .unwrap();
        positions.push(commit(&mut *session).swap_remove(0));
    }
    session.close().unwrap();
    positions
}
