//! Numbered records: what a reader finds of them tells whether one was lost, doubled, brought
//! back or put before its elders.

use std::collections::BTreeMap;

use siltstone::changelog::{Record, RecordRef, Session};
use siltstone::{ErrorKind, Result};

/// How a commit ended, as its writer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Committed,
    /// It failed for certain, or was never sent.
    Aborted,
    /// Its writer ended before it was told.
    Unknown,
}

/// All commits of all writers of one partition, by the number of their first record.
#[derive(Debug, Default)]
pub(crate) struct History {
    commits: BTreeMap<u64, (u64, End)>,
}

/// How many keys take turns.
const KEYS: u64 = 50;

pub(crate) fn key_of(number: u64) -> String {
    format!("key {}", number % KEYS)
}

impl History {
    /// The number behind all that were given out.
    pub(crate) fn next(&self) -> u64 {
        self.commits
            .last_key_value()
            .map_or(0, |(first, (count, _))| first + count)
    }

    pub(crate) fn add(&mut self, first: u64, count: u64, end: End) {
        self.commits.insert(first, (count, end));
    }

    /// Notes down how the commit ended that begins with the record `first`.
    pub(crate) fn end(&mut self, first: u64, end: End) {
        self.commits.get_mut(&first).unwrap().1 = end;
    }

    /// The number of commits that were acknowledged.
    pub(crate) fn committed(&self) -> usize {
        let ends = self.commits.values();
        ends.filter(|(_, end)| *end == End::Committed).count()
    }

    /// Writes one commit of `count` records to partition 0 and notes down how it ended. After a
    /// commit that failed, it aborts.
    ///
    /// # Errors
    ///
    /// Those after which a session is of no use.
    pub(crate) fn commit(&mut self, session: &mut dyn Session, count: u64) -> Result<()> {
        let first = self.next();
        self.add(first, count, End::Unknown);
        let written = write(session, first, count).and_then(|()| {
            let commit = session.prepare()?;
            session.wait(commit)
        });
        match written {
            Ok(_) => {
                self.add(first, count, End::Committed);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Changelog => {
                self.add(first, count, End::Aborted);
                abort(session)
            }
            Err(error) => Err(error),
        }
    }

    /// Compares with what was found of commits that are atomic, in order.
    #[track_caller]
    pub(crate) fn check(&self, found: &[(u64, Record)]) {
        let numbers: Vec<u64> = found.iter().map(|(_, record)| number_of(record)).collect();
        for pair in numbers.windows(2) {
            assert!(pair[0] < pair[1], "record {} before {}", pair[0], pair[1]);
        }
        for (_, record) in found {
            assert_eq!(record.key, key_of(number_of(record)).into_bytes());
        }
        for (first, (count, end)) in &self.commits {
            let from = numbers.partition_point(|number| number < first);
            let to = numbers.partition_point(|number| *number < first + count);
            let seen = (to - from) as u64;
            let fits = match end {
                End::Committed => seen == *count,
                End::Aborted => seen == 0,
                End::Unknown => seen == 0 || seen == *count,
            };
            assert!(fits, "{seen} of {count} records from {first} on, {end:?}");
        }
        assert!(numbers.last().is_none_or(|last| *last < self.next()));
    }
}

/// Appends the records of one commit.
pub(crate) fn write(session: &mut dyn Session, first: u64, count: u64) -> Result<()> {
    for number in first..first + count {
        let key = key_of(number);
        let value = number.to_string();
        session.append(0, RecordRef::new(key.as_bytes(), Some(value.as_bytes())))?;
    }
    Ok(())
}

/// Asks for an abort until the log has taken it.
fn abort(session: &mut dyn Session) -> Result<()> {
    loop {
        match session.abort() {
            Err(error) if error.kind() == ErrorKind::Changelog => {}
            outcome => return outcome,
        }
    }
}

fn number_of(record: &Record) -> u64 {
    let value = record.value.as_deref().expect("a value");
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// What a check must find. These need no brokers.
#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let mut history = History::default();
        history.add(0, 2, End::Committed);
        history.add(2, 2, End::Aborted);
        history.add(4, 2, End::Unknown);
        history
    }

    fn found(numbers: &[u64]) -> Vec<(u64, Record)> {
        let record = |number: &u64| Record {
            key: key_of(*number).into_bytes(),
            value: Some(number.to_string().into_bytes()),
            ..Record::default()
        };
        let records = numbers.iter().map(record);
        (0..).zip(records).collect()
    }

    #[test]
    fn a_whole_history_passes() {
        history().check(&found(&[0, 1]));
        history().check(&found(&[0, 1, 4, 5]));
        assert_eq!(history().committed(), 1);
        assert_eq!(history().next(), 6);
    }

    #[test]
    #[should_panic(expected = "1 of 2 records from 0 on, Committed")]
    fn a_lost_record_is_found() {
        history().check(&found(&[0, 4, 5]));
    }

    #[test]
    #[should_panic(expected = "2 of 2 records from 2 on, Aborted")]
    fn an_aborted_commit_that_comes_back_is_found() {
        history().check(&found(&[0, 1, 2, 3]));
    }

    #[test]
    #[should_panic(expected = "1 of 2 records from 4 on, Unknown")]
    fn a_torn_commit_is_found() {
        history().check(&found(&[0, 1, 4]));
    }

    #[test]
    #[should_panic(expected = "record 1 before 0")]
    fn records_out_of_order_are_found() {
        history().check(&found(&[1, 0]));
    }

    #[test]
    #[should_panic(expected = "record 1 before 1")]
    fn a_doubled_record_is_found() {
        history().check(&found(&[0, 1, 1]));
    }
}
