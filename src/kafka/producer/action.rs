//! What a broker's answer to a batch means, as a pure function of its error code.

use super::super::protocol::ErrorCode;

/// What to do with a batch after its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Its records are in the log.
    Delivered,
    /// Another broker leads the partition, or will: find out who, send the same bytes again.
    Reroute,
    /// The same broker may take it later: send the same bytes again after a pause.
    Again,
    /// The same, but not more often than this in a row.
    Few(u32),
    /// The broker was replaced by one that speaks other versions: connect anew, once.
    Reconnect,
    /// It is larger than the topic takes: send it in two halves.
    Split,
    /// The broker lost track of the sequence numbers, or we did: begin new ones.
    Renumber,
    /// The epoch is not the newest: another owner has the task, or the coordinator has ended a
    /// transaction that was open for too long.
    OldEpoch,
    /// It will never be taken as it is; the commit that it belongs to fails.
    Refused,
}

/// How often a broker may report damage of a batch that was sent whole.
const CORRUPT_MAX: u32 = 2;
/// How often a broker may fail without saying why.
const UNKNOWN_ERROR_MAX: u32 = 10;

/// The table of answers to Produce.
pub(super) fn action(code: ErrorCode) -> Action {
    match code {
        // A duplicate is what a repeated batch is when its first answer was lost.
        ErrorCode::NONE | ErrorCode::DUPLICATE_SEQUENCE_NUMBER => Action::Delivered,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::LEADER_NOT_AVAILABLE
        | ErrorCode::NOT_LEADER_OR_FOLLOWER
        | ErrorCode::REPLICA_NOT_AVAILABLE
        | ErrorCode::NETWORK_EXCEPTION
        | ErrorCode::KAFKA_STORAGE_ERROR
        | ErrorCode::LISTENER_NOT_FOUND
        | ErrorCode::FENCED_LEADER_EPOCH
        | ErrorCode::UNKNOWN_LEADER_EPOCH
        | ErrorCode::UNKNOWN_TOPIC_ID => Action::Reroute,
        // After NOT_ENOUGH_REPLICAS_AFTER_APPEND the batch is in the log of the leader; the same
        // sequence number makes it safe to send it again.
        ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::NOT_ENOUGH_REPLICAS
        | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
        | ErrorCode::BROKER_NOT_AVAILABLE
        | ErrorCode::THROTTLING_QUOTA_EXCEEDED
        | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        | ErrorCode::COORDINATOR_NOT_AVAILABLE
        | ErrorCode::NOT_COORDINATOR
        | ErrorCode::CONCURRENT_TRANSACTIONS => Action::Again,
        ErrorCode::CORRUPT_MESSAGE => Action::Few(CORRUPT_MAX),
        ErrorCode::UNKNOWN_SERVER_ERROR => Action::Few(UNKNOWN_ERROR_MAX),
        ErrorCode::UNSUPPORTED_VERSION => Action::Reconnect,
        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => Action::Split,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::UNKNOWN_PRODUCER_ID => {
            Action::Renumber
        }
        ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::PRODUCER_FENCED => Action::OldEpoch,
        _ => Action::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_action() {
        let expected = |code: i16| match code {
            0 | 46 => Action::Delivered,
            3 | 5 | 6 | 9 | 13 | 56 | 72 | 74 | 75 | 100 => Action::Reroute,
            7 | 8 | 14 | 15 | 16 | 19 | 20 | 51 | 89 => Action::Again,
            2 => Action::Few(2),
            -1 => Action::Few(10),
            35 => Action::Reconnect,
            10 | 18 => Action::Split,
            45 | 59 => Action::Renumber,
            47 | 90 => Action::OldEpoch,
            // Of these 48, 49 and 120 end a transaction, the others are for good: 17, 21, 29, 30,
            // 31, 32, 33, 34, 40, 42, 43, 44, 53, 54, 58, 76, 87, and those nobody knows.
            _ => Action::Refused,
        };
        for code in -2..1000 {
            assert_eq!(action(ErrorCode(code)), expected(code), "{code}");
        }
    }
}
