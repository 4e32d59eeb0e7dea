use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::filter::{ReadCommitted, Verdict};
use super::fixture::{Fault, LOG_APPEND_TIME, Log, Meanwhile, Stored};
use super::reader::{FetchReader, find_marker};
use crate::changelog::{Offset, Reader};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::connection::Deadline;
use crate::kafka::protocol::messages::AbortedTransaction;
use crate::kafka::protocol::records::{Batches, Scratch};
use crate::kafka::transaction::Identity;

/// Reads to the end: the keys with their offsets, and where it ended.
fn read(reader: &mut FetchReader<Log>) -> Result<(Vec<(u64, String)>, u64)> {
    let mut seen = Vec::new();
    for _ in 0..10_000 {
        let fetched = reader.fetch(&mut |offset, record| {
            seen.push((offset.0, String::from_utf8(record.key.to_vec()).unwrap()));
            Ok(())
        })?;
        assert_eq!(fetched.next, reader.position());
        if fetched.at_end {
            return Ok((seen, fetched.next.0));
        }
    }
    panic!("never ends");
}

fn keys(log: Log) -> (Vec<(u64, String)>, u64) {
    let start = log.start;
    read(&mut log.reader(start, None)).unwrap()
}

fn pairs(pairs: &[(u64, &str)]) -> Vec<(u64, String)> {
    let owned = pairs.iter().map(|(at, key)| (*at, (*key).to_owned()));
    owned.collect()
}

fn failure(reader: &mut FetchReader<Log>) -> (ErrorKind, String) {
    let error = read(reader).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn nested_transactions_are_told_apart() {
    let (one, two, three) = ((1, 0), (2, 0), (3, 0));
    let log = Log::of(vec![
        Stored::data(0, one, &["a"]),
        Stored::data(1, two, &["b"]),
        Stored::plain(2, &["c"]),
        Stored::data(3, three, &["d"]),
        Stored::marker(4, two, false),
        Stored::data(5, two, &["e"]),
        Stored::marker(6, one, false),
        Stored::marker(7, two, true),
        Stored::data(8, one, &["f"]),
        Stored::marker(9, three, true),
        Stored::marker(10, one, true),
    ]);
    let expected = pairs(&[(2, "c"), (3, "d"), (5, "e"), (8, "f")]);
    assert_eq!(keys(log), (expected, 11));
}

#[test]
fn the_list_of_aborted_transactions_may_come_in_any_order() {
    let aborted = |producer_id, first_offset| AbortedTransaction {
        producer_id,
        first_offset,
    };
    let stored = [
        Stored::data(0, (1, 0), &["a"]),
        Stored::marker(1, (1, 0), false),
        Stored::data(2, (1, 0), &["b"]),
        Stored::marker(3, (1, 0), true),
        Stored::data(4, (2, 0), &["c"]),
        Stored::data(5, (1, 0), &["d"]),
    ];
    let mut filter = ReadCommitted::new(vec![aborted(1, 5), aborted(2, 4), aborted(1, 0)]);
    let mut verdicts = Vec::new();
    for batch in &stored {
        let bytes = batch.bytes();
        let batch = Batches::new(&bytes).next().unwrap().unwrap();
        verdicts.push(filter.judge(&batch, &mut Scratch::default()).unwrap());
    }
    let (deliver, skip) = (Verdict::Deliver, Verdict::Skip);
    assert_eq!(verdicts, [skip, skip, deliver, skip, skip, skip]);
}

#[test]
fn compacted_and_emptied_batches_move_the_position() {
    let mut tail_gone = Stored::plain(10, &["a", "b", "c"]);
    tail_gone.records.truncate(1);
    let mut emptied = Stored::plain(13, &["d", "e"]);
    emptied.records.clear();
    let mut first_gone = Stored::plain(20, &["f", "g"]);
    first_gone.records.remove(0);
    let mut last_emptied = Stored::plain(30, &["h"; 5]);
    last_emptied.records.clear();
    let log = Log::of(vec![tail_gone, emptied, first_gone, last_emptied]);
    assert_eq!(keys(log), (pairs(&[(10, "a"), (21, "g")]), 35));
}

#[test]
fn an_emptied_log_is_at_its_end_at_once() {
    let mut log = Log::of(vec![]);
    log.start = 40;
    assert_eq!(keys(log), (vec![], 40));
}

#[test]
fn reading_starts_in_the_middle_of_a_batch() {
    let log = Log::of(vec![Stored::plain(0, &["a", "b", "c"])]);
    let mut reader = log.reader(2, None);
    assert_eq!(read(&mut reader).unwrap(), (pairs(&[(2, "c")]), 3));
}

#[test]
fn the_broker_stamps_records_where_the_topic_wants_it() {
    let mut stamped = Stored::plain(0, &["a"]);
    stamped.attributes |= LOG_APPEND_TIME;
    let mut reader = Log::of(vec![stamped, Stored::plain(1, &["b"])]).reader(0, None);
    let mut times = Vec::new();
    let fetched = reader.fetch(&mut |_, record| {
        times.push(record.timestamp_ms);
        Ok(())
    });
    assert!(fetched.unwrap().at_end);
    assert_eq!(times, [77, 5]);
}

#[test]
fn a_batch_longer_than_the_limit_is_asked_for_with_a_larger_one() {
    let stored = || vec![Stored::plain(0, &["a"; 100]), Stored::plain(100, &["b"])];
    let len = stored()[0].bytes().len();
    let stream = Log::of(stored()).stream(100, len * 2);
    let mut reader = FetchReader::over(stream, Offset(0), None);
    let (seen, end) = read(&mut reader).unwrap();
    assert_eq!((seen.len(), end), (101, 101));

    let stream = Log::of(stored()).stream(100, len - 1);
    let (kind, message) = failure(&mut FetchReader::over(stream, Offset(0), None));
    assert_eq!(kind, ErrorKind::Changelog);
    assert!(message.contains("not a whole batch"), "{message}");
}

#[test]
fn the_next_question_is_on_its_way_before_the_answer_is_used() {
    let stored = vec![Stored::plain(0, &["a"]), Stored::plain(1, &["b"])];
    let len = stored[0].bytes().len();
    let mut stream = Log::of(stored).stream(len + 7, len + 7);
    let answer = stream.next(0, 1).unwrap();
    assert!(!answer.records().is_empty());
    assert_eq!(stream.source.questions, [(0, len + 7), (1, len + 7)]);
    let answer = stream.next(1, 2).unwrap();
    // It was asked for in the first round, so it proves no end of the second one.
    assert_eq!((answer.round, stream.source.questions.len()), (1, 2));
}

#[test]
fn an_end_is_the_end_of_a_question_of_this_call() {
    let stored = vec![Stored::plain(0, &["a"]), Stored::plain(1, &["b"])];
    let len = stored[0].bytes().len();
    let mut reader = FetchReader::over(Log::of(stored).stream(len, len), Offset(0), None);
    let mut ends = Vec::new();
    for _ in 0..3 {
        let fetched = reader.fetch(&mut |_, _| Ok(())).unwrap();
        ends.push((fetched.next.0, fetched.at_end, fetched.time_ms));
    }
    assert_eq!(ends, [(1, false, 1001), (2, false, 1002), (2, true, 1003)]);
}

#[test]
fn damage_is_asked_for_once_more_and_then_told_with_its_offset() {
    let stored = || vec![Stored::plain(0, &["a"]), Stored::plain(1, &["b"])];
    let len = stored()[0].bytes().len();
    // In a record and in the checksum of the second batch.
    for at in [len + 66, len + 17] {
        let once = Log::of(stored()).failing([Fault::Damage(at)]);
        assert_eq!(keys(once), (pairs(&[(0, "a"), (1, "b")]), 2), "byte {at}");
    }
    // The second answer begins with the damaged batch.
    let twice = [Fault::Damage(len + 66), Fault::Damage(66)];
    let (kind, message) = failure(&mut Log::of(stored()).failing(twice).reader(0, None));
    assert_eq!(kind, ErrorKind::Corruption);
    assert!(
        message.contains("offset 1") && message.contains("checksum"),
        "{message}"
    );
}

#[test]
fn damage_that_the_broker_finds_is_asked_for_once_more() {
    let log = || Log::of(vec![Stored::plain(0, &["a"])]);
    let once = log().failing([Fault::Code(2)]);
    assert_eq!(keys(once), (pairs(&[(0, "a")]), 1));
    let twice = log().failing([Fault::Code(2), Fault::Code(2)]);
    let (kind, message) = failure(&mut twice.reader(0, None));
    assert_eq!(kind, ErrorKind::Changelog);
    assert!(message.contains("CORRUPT_MESSAGE"), "{message}");
}

#[test]
fn passing_trouble_is_repaired_and_permanent_trouble_is_told() {
    let log = || Log::of(vec![Stored::plain(0, &["a"])]);
    let codes = [6, 74, 7].map(Fault::Code);
    for fault in codes.into_iter().chain([Fault::Break, Fault::Empty]) {
        let faulty = log().failing([fault.clone(), fault.clone()]);
        assert_eq!(keys(faulty), (pairs(&[(0, "a")]), 1), "{fault:?}");
        let lost = log().failing(vec![fault.clone(); 20]);
        let (kind, message) = failure(&mut lost.reader(0, None));
        assert_eq!(kind, ErrorKind::Changelog, "{fault:?}");
        assert!(message.contains("no answer in time"), "{message}");
    }
    for code in [29, 30, 42] {
        let refused = log().failing([Fault::Code(code)]);
        let (kind, message) = failure(&mut refused.reader(0, None));
        assert_eq!(kind, ErrorKind::Changelog);
        assert!(message.contains(&code.to_string()), "{message}");
    }
}

#[test]
fn a_leader_that_leads_no_more_is_looked_for_anew() {
    let log = Log::of(vec![Stored::plain(0, &["a"])]);
    let faults = [Fault::Code(6), Fault::Code(7), Fault::Break];
    let mut stream = log.failing(faults).stream(1000, 1000);
    stream.source.pauses_left = 9;
    assert!(!stream.next(0, 0).unwrap().records().is_empty());
    assert_eq!(stream.source.renewals, [true, true]);
}

#[test]
fn a_shutdown_ends_the_waiting() {
    let mut log = Log::of(vec![]).failing([Fault::Code(6)]);
    log.meanwhile.push_back(Meanwhile::Close);
    assert_eq!(failure(&mut log.reader(0, None)).0, ErrorKind::Closed);
}

#[test]
fn positions_outside_of_the_log_are_refused_and_never_reset() {
    let log = || Log::of(vec![Stored::plain(1, &["b"])]);
    for (from, expected) in [(0, ErrorKind::Changelog), (3, ErrorKind::Diverged)] {
        let mut reader = log().reader(from, None);
        let (kind, message) = failure(&mut reader);
        assert_eq!(kind, expected);
        assert!(message.contains("1 up to 2"), "{message}");
        assert_eq!(reader.position(), Offset(from));
    }
    // A replica that lags says the same of an offset that the leader has.
    let lagging = log().failing([Fault::Code(1)]);
    assert_eq!(keys(lagging), (pairs(&[(1, "b")]), 2));
}

#[test]
fn a_reader_with_an_end_stops_there_and_tells_the_time_of_its_fence() {
    let log = Log::of(vec![
        Stored::data(0, (1, 0), &["a"]),
        Stored::marker(1, (1, 0), true),
        Stored::marker(2, (1, 1), false),
        Stored::plain(3, &["later"]),
    ]);
    let mut reader = log.reader(0, Some(3));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let fetched = reader.fetch(&mut |offset, _| {
            seen.push(offset.0);
            Ok(())
        });
        let fetched = fetched.unwrap();
        assert_eq!((fetched.next, fetched.at_end), (Offset(3), true));
        assert_eq!(fetched.time_ms, 17);
    }
    assert_eq!(seen, [0]);
}

#[test]
fn an_open_transaction_hides_what_follows_and_may_hang() {
    let open_from = |from, batches| {
        let mut log = Log::of(batches);
        log.open_from = Some(from);
        log
    };
    let stored = vec![
        Stored::plain(0, &["a"]),
        Stored::data(1, (1, 0), &["b"]),
        Stored::plain(2, &["c"]),
    ];
    assert_eq!(keys(open_from(1, stored)), (pairs(&[(0, "a")]), 1));

    let stored = vec![Stored::data(0, (1, 0), &["b"]), Stored::plain(1, &["c"])];
    let (kind, message) = failure(&mut open_from(0, stored).reader(0, Some(2)));
    assert_eq!(kind, ErrorKind::Changelog);
    assert!(message.contains("began at offset 0 hangs"), "{message}");

    let (kind, message) = failure(&mut Log::of(vec![]).reader(0, Some(2)));
    assert_eq!(kind, ErrorKind::Changelog);
    assert!(message.contains("the log ends there"), "{message}");
}

#[test]
fn a_sink_that_fails_leaves_the_position_behind_what_it_took() {
    let stored = vec![Stored::plain(0, &["a", "b"]), Stored::plain(2, &["c", "d"])];
    let mut reader = Log::of(stored).reader(0, None);
    let failed = reader.fetch(&mut |offset, _| match offset.0 {
        3 => Err(Error::invalid("enough")),
        _ => Ok(()),
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(reader.position(), Offset(3));
    assert_eq!(read(&mut reader).unwrap(), (pairs(&[(3, "d")]), 4));
}

#[test]
fn the_marker_of_the_fence_is_waited_for() {
    let own = Identity { id: 7, epoch: 3 };
    let stored = vec![
        Stored::plain(0, &["a"]),
        Stored::marker(1, (7, 2), false),
        Stored::marker(2, (8, 3), false),
    ];
    let mut log = Log::of(stored.clone());
    for batch in [
        Stored::plain(3, &["zombie"]),
        Stored::marker(4, (7, 3), false),
    ] {
        log.meanwhile.push_back(Meanwhile::Append(batch));
    }
    let stream = log.stream(1 << 20, 1 << 20);
    let found = find_marker(stream, Offset(1), own, Deadline::NEVER);
    assert_eq!(found.unwrap(), Offset(5));

    let mut hanging = Log::of(stored);
    hanging.open_from = Some(2);
    let stream = hanging.stream(1 << 20, 1 << 20);
    let error = find_marker(stream, Offset(0), own, Deadline::NEVER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changelog);
    assert!(error.to_string().contains("began at offset 2"), "{error}");
}

/// One step of a log's making. Compaction keeps the records whose bit is set.
#[derive(Debug, Clone, Copy)]
enum Step {
    Data {
        producer: Option<i64>,
        records: u32,
        kept: u32,
    },
    End {
        producer: i64,
        is_commit: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let kept = prop_oneof![Just(0_u32), any::<u32>(), Just(u32::MAX)];
    let data = (prop::option::weighted(0.8, 0..4_i64), 1..6_u32, kept);
    let end = (0..4_i64, any::<bool>());
    prop_oneof![
        4 => data.prop_map(|(producer, records, kept)| Step::Data { producer, records, kept }),
        3 => end.prop_map(|(producer, is_commit)| Step::End { producer, is_commit }),
    ]
}

/// The log of these steps, and the offsets that a reader is to see of it, found by looking at each
/// transaction's end.
fn make(steps: &[Step]) -> (Log, Vec<u64>) {
    let mut batches = Vec::new();
    let mut next = 0;
    let mut open: HashMap<i64, (u64, Vec<u64>)> = HashMap::new();
    let mut visible = HashSet::new();
    for step in steps {
        match *step {
            Step::End {
                producer,
                is_commit,
            } => {
                batches.push(Stored::marker(next, (producer, 0), is_commit));
                let (_, ended) = open.remove(&producer).unwrap_or_default();
                visible.extend(ended.into_iter().filter(|_| is_commit));
            }
            Step::Data {
                producer,
                records,
                kept,
            } => {
                let offsets = next..next + u64::from(records);
                let names: Vec<String> = offsets.map(|offset| offset.to_string()).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let mut batch = match producer {
                    Some(producer) => Stored::data(next, (producer, 0), &names),
                    None => Stored::plain(next, &names),
                };
                batch.records.retain(|(delta, _)| kept >> delta & 1 == 1);
                let left = batch.records.iter();
                let left = left.map(|(delta, _)| next + u64::from(*delta));
                match producer {
                    Some(producer) => {
                        let begun = open.entry(producer).or_insert((next, Vec::new()));
                        begun.1.extend(left);
                    }
                    None => visible.extend(left),
                }
                batches.push(batch);
            }
        }
        next = batches.last().map_or(0, Stored::next);
    }
    let mut log = Log::of(batches);
    log.open_from = open.values().map(|(first, _)| *first).min();
    let stable = log.stable();
    let mut visible: Vec<u64> = visible.into_iter().filter(|at| *at < stable).collect();
    visible.sort_unstable();
    (log, visible)
}

proptest! {
    #[test]
    fn readers_see_what_is_committed_and_nothing_else(
        steps in prop::collection::vec(step(), 0..60),
        bytes in 1..2000_usize,
        from in any::<prop::sample::Index>(),
        faults in prop::collection::vec(0..12_u8, 0..40),
    ) {
        let (mut log, visible) = make(&steps);
        let stable = log.stable();
        let from = from.index(usize::try_from(stable).unwrap() + 1) as u64;
        log.pauses_left = u32::MAX;
        log.faults.extend(faults.into_iter().map(|fault| match fault {
            0 => Fault::Break,
            1 => Fault::Code(6),
            2 => Fault::Code(7),
            3 => Fault::Empty,
            _ => Fault::Code(0),
        }));
        let mut reader = FetchReader::over(log.stream(bytes, 1 << 20), Offset(from), None);
        let (seen, end) = read(&mut reader).unwrap();
        let expected: Vec<u64> = visible.into_iter().filter(|at| *at >= from).collect();
        let offsets: Vec<u64> = seen.iter().map(|(offset, _)| *offset).collect();
        prop_assert_eq!(offsets, expected);
        for (offset, key) in &seen {
            prop_assert_eq!(&offset.to_string(), key);
        }
        prop_assert_eq!(end, stable.max(from));
    }
}
