//! What a leader's answers mean, as a pure function of their error codes.

use crate::kafka::protocol::ErrorCode;

/// What to do after an answer of a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is an answer.
    Take,
    /// Somebody else leads, or nobody does for now: look again and repeat.
    Refresh,
    /// Repeat after a pause.
    Again,
    /// The broker found damage in its log: repeat once.
    Once,
    /// The offset is outside of the log: look at its bounds.
    Bounds,
    /// It will never work.
    Refused,
}

pub(super) fn next(code: ErrorCode) -> Next {
    match code {
        ErrorCode::NONE => Next::Take,
        ErrorCode::OFFSET_OUT_OF_RANGE => Next::Bounds,
        ErrorCode::CORRUPT_MESSAGE => Next::Once,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::LEADER_NOT_AVAILABLE
        | ErrorCode::NOT_LEADER_OR_FOLLOWER
        | ErrorCode::BROKER_NOT_AVAILABLE
        | ErrorCode::REPLICA_NOT_AVAILABLE
        | ErrorCode::NETWORK_EXCEPTION
        | ErrorCode::KAFKA_STORAGE_ERROR
        | ErrorCode::LISTENER_NOT_FOUND
        | ErrorCode::FENCED_LEADER_EPOCH
        | ErrorCode::UNKNOWN_LEADER_EPOCH
        | ErrorCode::OFFSET_NOT_AVAILABLE
        | ErrorCode::UNKNOWN_TOPIC_ID
        | ErrorCode::INCONSISTENT_TOPIC_ID => Next::Refresh,
        ErrorCode::UNKNOWN_SERVER_ERROR
        | ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::THROTTLING_QUOTA_EXCEEDED => Next::Again,
        _ => Next::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_action() {
        let expected = |code: i16| match code {
            0 => Next::Take,
            1 => Next::Bounds,
            2 => Next::Once,
            3 | 5 | 6 | 8 | 9 | 13 | 56 | 72 | 74 | 75 | 78 | 100 | 103 => Next::Refresh,
            -1 | 7 | 89 => Next::Again,
            _ => Next::Refused,
        };
        for code in -2..130 {
            assert_eq!(next(ErrorCode(code)), expected(code), "{code}");
        }
    }
}
