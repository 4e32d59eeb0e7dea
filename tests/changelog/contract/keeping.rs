//! What a log keeps: compaction, trims, later partitions, large logs.

use super::*;

pub(super) fn compaction_keeps_the_newest(rig: &dyn Rig) {
    let log = rig.open();
    let [first, _] = partitions();
    write(
        &*log,
        &[
            ("a", "1"),
            ("b", "1"),
            ("a", "2"),
            ("c", "1"),
            ("b", ""),
            ("a", "3"),
        ],
    );
    let before = read(&*log, &first, 0);
    let end = log.bounds(&first).unwrap().unwrap().end;
    rig.compact(TASK, &first, 0);
    let after = read(&*log, &first, 0);
    // Offsets, times and all stay as they were.
    assert_eq!(after, before[3..]);
    let bounds = log.bounds(&first).unwrap().unwrap();
    assert_eq!(bounds.tombstones_dropped_below, Offset(0));
    assert!(bounds.end >= end);
    for from in 0..=end.0 {
        let tail: Vec<_> = after
            .iter()
            .filter(|(offset, _)| *offset >= from)
            .cloned()
            .collect();
        assert_eq!(read(&*log, &first, from), tail);
    }
    // The log goes on, and compacts again.
    let positions = write(&*log, &[("c", "2"), ("d", "1")]);
    assert!(positions[0].next > end);
    rig.compact(TASK, &first, 0);
    let expect = [
        ("b", None),
        ("a", Some("3")),
        ("c", Some("2")),
        ("d", Some("1")),
    ];
    let expect = expect.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
    assert_eq!(pairs(&read(&*log, &first, 0)), expect);
    let mut session = log.claim(TASK, &partitions()).unwrap();
    assert_eq!(drain(&mut *session.reader(0, Offset(0)).unwrap()).len(), 4);
}

pub(super) fn compaction_drops_old_tombstones(rig: &dyn Rig) {
    let log = rig.open();
    let [first, second] = partitions();
    let positions = write(
        &*log,
        &[("a", "1"), ("b", "1"), ("a", ""), ("b", "2"), ("c", "")],
    );
    rig.compact(TASK, &first, TOMBSTONE_RETENTION_MS);
    assert_eq!(keys(&*log, &first), ["b"]);
    let bounds = log.bounds(&first).unwrap().unwrap();
    assert!(
        bounds.tombstones_dropped_below == positions[4].next,
        "{bounds:?}"
    );
    assert_eq!(
        log.bounds(&second)
            .unwrap()
            .unwrap()
            .tombstones_dropped_below,
        Offset(0)
    );
    // The records at the end are gone; positions still go on behind them.
    assert!(bounds.end >= positions[4].next);
    let mut session = log.claim(TASK, &partitions()).unwrap();
    let mut reader = session.reader(0, positions[3].next).unwrap();
    assert_eq!(drain(&mut *reader), []);
    assert!(reader.position() >= positions[4].next);
    session.append(0, put("d", "1")).unwrap();
    assert!(commit(&mut *session)[0].next > positions[4].next);
    assert_eq!(keys(&*log, &first), ["b", "d"]);
}

pub(super) fn compaction_under_a_reader(rig: &dyn Rig) {
    let log = rig.open();
    let [first, _] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    let value = "v".repeat(2000);
    for round in 0..30 {
        session
            .append(0, put(&format!("key {}", round % 7), &value))
            .unwrap();
        commit(&mut *session);
    }
    session.close().unwrap();
    let all = read(&*log, &first, 0);
    let mut reader = log.reader(&first, Offset(0)).unwrap();
    // Stops in the middle, by an error of its sink.
    let mut seen = Vec::new();
    let stopped = reader.fetch(&mut |offset, _| {
        if seen.len() == 5 {
            return Err(siltstone::Error::new(ErrorKind::Closed, "enough"));
        }
        seen.push(offset);
        Ok(())
    });
    assert_eq!(kind(stopped), ErrorKind::Closed);
    rig.compact(TASK, &first, 0);
    // What follows may be the log as it was or as it is, but has the newest of each key.
    let rest = drain(&mut *reader);
    let newest = &all[all.len() - 7..];
    assert!(rest.ends_with(newest), "{} records", rest.len());
    assert!(rest.iter().all(|record| all[5..].contains(record)));
}

pub(super) fn a_large_log_is_read_in_parts(rig: &dyn Rig) {
    let log = rig.open();
    let [first, second] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    let value = "v".repeat(3000);
    let mut count = 0;
    for round in 0..60 {
        for _ in 0..round % 20 {
            session
                .append(0, put(&format!("{count:05}"), &value))
                .unwrap();
            count += 1;
        }
        session.append(1, put("position", "x")).unwrap();
        commit(&mut *session);
    }
    let expect: Vec<String> = (0..count).map(|index| format!("{index:05}")).collect();
    assert!(expect == keys(&*log, &first));
    assert_eq!(log.bounds(&second).unwrap().unwrap().start, Offset(0));
    let mut reader = log.reader(&first, Offset(0)).unwrap();
    let mut fetches = 0;
    while !reader.fetch(&mut |_, _| Ok(())).unwrap().at_end {
        fetches += 1;
    }
    assert!(fetches > 0, "all in one fetch");
    session.close().unwrap();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    assert!(drain(&mut *session.reader(0, Offset(0)).unwrap()).len() == count);
}

pub(super) fn empty_commits_and_idle_positions(rig: &dyn Rig) {
    let log = rig.open();
    let [first, _] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    assert_eq!(
        kind(session.poll(siltstone::changelog::CommitId(0))),
        ErrorKind::InvalidArgument
    );
    let start = session.idle_positions().unwrap();
    let empty = commit(&mut *session);
    assert_eq!(
        empty.iter().map(|p| p.next).collect::<Vec<_>>(),
        [start[0].next, start[1].next]
    );
    session.append(0, put("a", "1")).unwrap();
    let written = commit(&mut *session);
    assert!(written[0].next > empty[0].next && written[1].next == empty[1].next);
    session.append(0, put("b", "1")).unwrap();
    let idle = session.idle_positions().unwrap();
    assert_eq!(
        idle[0].next, written[0].next,
        "what is not committed is not covered"
    );
    assert!(idle[0].time_ms >= written[0].time_ms);
    commit(&mut *session);
    assert_eq!(keys(&*log, &first), ["a", "b"]);
}

pub(super) fn partitions_come_with_later_claims(rig: &dyn Rig) {
    let log = rig.open();
    let [first, second] = partitions();
    let mut session = log.claim(TASK, std::slice::from_ref(&first)).unwrap();
    session.append(0, put("a", "1")).unwrap();
    commit(&mut *session);
    assert_eq!(log.bounds(&second).unwrap(), None);
    // In another order, and with one that is new.
    let mut session = log.claim(TASK, &[second.clone(), first.clone()]).unwrap();
    session.append(0, put("b", "1")).unwrap();
    session.append(1, put("c", "1")).unwrap();
    let positions = commit(&mut *session);
    assert_eq!(positions[0].partition, second);
    assert_eq!(keys(&*log, &first), ["a", "c"]);
    assert_eq!(keys(&*log, &second), ["b"]);
    // One that is not claimed stays as it is.
    let mut session = log.claim(TASK, std::slice::from_ref(&second)).unwrap();
    session.append(0, put("d", "1")).unwrap();
    commit(&mut *session);
    assert_eq!(keys(&*log, &first), ["a", "c"]);
    assert_eq!(keys(&*log, &second), ["b", "d"]);
}

pub(super) fn a_sink_that_fails_may_go_on(rig: &dyn Rig) {
    let log = rig.open();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    for key in ["a", "b", "c", "d"] {
        session.append(0, put(key, "1")).unwrap();
    }
    commit(&mut *session);
    let mut session = log.claim(TASK, &partitions()).unwrap();
    let mut reader = session.reader(0, Offset(0)).unwrap();
    let mut seen = Vec::new();
    loop {
        let mut first = true;
        let fetched = reader.fetch(&mut |_, record| {
            if !std::mem::take(&mut first) {
                return Err(siltstone::Error::new(ErrorKind::Closed, "one at a time"));
            }
            seen.push(record.key.to_vec());
            Ok(())
        });
        match fetched {
            Ok(fetched) if fetched.at_end => break,
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
        }
    }
    assert_eq!(seen, [b"a", b"b", b"c", b"d"]);
}

pub(super) fn trimmed_and_recreated_topics(rig: &dyn Rig) {
    let log = rig.open();
    let [first, _] = partitions();
    let positions = write(&*log, &[("a", "1"), ("b", "1"), ("c", "1")]);
    let mut reader = log.reader(&first, Offset(0)).unwrap();
    if rig.trim(&first, positions[1].next) {
        assert_eq!(
            log.bounds(&first).unwrap().unwrap().start,
            positions[1].next
        );
        assert_eq!(kind(log.reader(&first, Offset(0))), ErrorKind::Changelog);
        assert_eq!(kind(reader.fetch(&mut |_, _| Ok(()))), ErrorKind::Changelog);
        assert_eq!(reader.position(), Offset(0), "never reset");
        assert_eq!(read(&*log, &first, positions[1].next.0).len(), 1);
    }
    let mut session = log.claim(TASK, &partitions()).unwrap();
    let mut reader = log.reader(&first, positions[2].next).unwrap();
    if rig.recreate(&first.topic) {
        let bounds = log.bounds(&first).unwrap().unwrap();
        assert_ne!(bounds.topic_id, positions[0].topic_id);
        assert_eq!(bounds.end, Offset(0));
        assert_eq!(kind(reader.fetch(&mut |_, _| Ok(()))), ErrorKind::Diverged);
        session.append(0, put("a", "1")).unwrap();
        assert_eq!(kind(session.prepare()), ErrorKind::Diverged);
    }
}
