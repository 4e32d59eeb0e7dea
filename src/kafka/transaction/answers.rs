//! What the coordinator's answers mean, as pure functions of their error codes.

use super::super::protocol::ErrorCode;
use crate::error::{Error, ErrorKind};

/// What to do with a request after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It was answered for good: the request's own table says what the code means.
    Take,
    /// Ask the same broker again after a pause.
    Again,
    /// The same after a short one: an earlier transaction is still being completed.
    AgainSoon,
    /// Find the coordinator anew and ask it.
    Find,
    /// Ask again, but not for ever.
    Few,
}

/// Which answers are worth another try, whatever was asked.
pub(super) fn next(code: ErrorCode) -> Next {
    match code {
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        | ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::THROTTLING_QUOTA_EXCEEDED
        | ErrorCode::NOT_ENOUGH_REPLICAS
        | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND => Next::Again,
        ErrorCode::CONCURRENT_TRANSACTIONS => Next::AgainSoon,
        ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::NOT_COORDINATOR
        | ErrorCode::BROKER_NOT_AVAILABLE
        | ErrorCode::NETWORK_EXCEPTION
        | ErrorCode::KAFKA_STORAGE_ERROR => Next::Find,
        // A topic that was just created is not known everywhere at once.
        ErrorCode::UNKNOWN_SERVER_ERROR
        | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::LEADER_NOT_AVAILABLE => Next::Few,
        _ => Next::Take,
    }
}

/// Whether a request that was answered so may have been carried out all the same.
pub(super) fn is_uncertain(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UNKNOWN_SERVER_ERROR
            | ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::NETWORK_EXCEPTION
            | ErrorCode::NOT_ENOUGH_REPLICAS
            | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode::KAFKA_STORAGE_ERROR
    )
}

/// The answer was lost with its connection.
pub(super) fn is_transport(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Io | ErrorKind::Corruption | ErrorKind::Changelog
    )
}

/// What an answered request says about who owns the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Done.
    Done,
    /// There is no open transaction of this epoch.
    NoTransaction,
    /// The epoch is not the newest: another owner has the task, or the coordinator has ended a
    /// transaction that was open for too long.
    OldEpoch,
    /// The coordinator knows the transactional id no more, or with another producer id.
    OtherId,
    /// The transaction can only be aborted.
    Abortable,
    /// It will never work.
    Refused,
}

pub(super) fn meaning(code: ErrorCode) -> Meaning {
    match code {
        ErrorCode::NONE => Meaning::Done,
        ErrorCode::INVALID_TXN_STATE => Meaning::NoTransaction,
        ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::PRODUCER_FENCED => Meaning::OldEpoch,
        ErrorCode::INVALID_PRODUCER_ID_MAPPING | ErrorCode::UNKNOWN_PRODUCER_ID => Meaning::OtherId,
        ErrorCode::TRANSACTION_ABORTABLE => Meaning::Abortable,
        _ => Meaning::Refused,
    }
}

/// The one code that decides a request about several partitions: the first that is an error of
/// its own, and not the consequence of another partition's.
pub(super) fn decisive(codes: impl IntoIterator<Item = ErrorCode>) -> ErrorCode {
    let mut decisive = ErrorCode::NONE;
    for code in codes.into_iter().filter(|code| !code.is_ok()) {
        if code != ErrorCode::OPERATION_NOT_ATTEMPTED {
            return code;
        }
        decisive = code;
    }
    decisive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_action() {
        let expected = |code: i16| match code {
            7 | 14 | 19 | 20 | 89 => Next::Again,
            51 => Next::AgainSoon,
            8 | 13 | 15 | 16 | 56 => Next::Find,
            -1 | 3 | 5 => Next::Few,
            _ => Next::Take,
        };
        for code in -2..130 {
            assert_eq!(next(ErrorCode(code)), expected(code), "{code}");
        }
    }

    #[test]
    fn every_final_code_has_its_meaning() {
        let expected = |code: i16| match code {
            0 => Meaning::Done,
            48 => Meaning::NoTransaction,
            47 | 90 => Meaning::OldEpoch,
            49 | 59 => Meaning::OtherId,
            120 => Meaning::Abortable,
            _ => Meaning::Refused,
        };
        for code in -2..130 {
            assert_eq!(meaning(ErrorCode(code)), expected(code), "{code}");
        }
    }

    #[test]
    fn the_cause_decides_and_not_its_consequences() {
        let codes = |codes: &[i16]| decisive(codes.iter().map(|code| ErrorCode(*code))).0;
        assert_eq!(codes(&[]), 0);
        assert_eq!(codes(&[0, 0]), 0);
        assert_eq!(codes(&[55, 0, 29, 55]), 29);
        assert_eq!(codes(&[0, 55]), 55);
        assert_eq!(codes(&[51, 47]), 51);
    }
}
