//! What a changelog record is in a store, and back: one answer for each kind of store.
//!
//! Keys are the same bytes on both sides. The forms are those of Kafka Streams, so that a topic
//! which one of the two writes can be restored by the other.

use crate::changelog::RecordRef;
use crate::error::{Error, Result};

/// What a store keeps of a record's value. The numbers are stored; see `docs/format.md`, section
/// "Position".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The value, as it is. The record's timestamp is not kept.
    #[default]
    KeyValue = 0,
    /// The record's timestamp, as eight big-endian bytes, and the value behind them.
    Timestamped = 1,
}

/// Length of a stored timestamp.
const TIMESTAMP_LEN: usize = size_of::<i64>();

impl Kind {
    pub(crate) fn from_number(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::KeyValue),
            1 => Ok(Self::Timestamped),
            other => Err(Error::unsupported(format!(
                "a store of kind {other}; this build knows kinds 0 and 1"
            ))),
        }
    }

    /// How messages name a store of this kind.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KeyValue => "plain",
            Self::Timestamped => "timestamped",
        }
    }

    /// Length of the value that a store keeps of a record; none of a tombstone.
    pub(crate) fn stored_len(self, record: &RecordRef<'_>) -> Option<usize> {
        let value = record.value?;
        Some(match self {
            Self::KeyValue => value.len(),
            Self::Timestamped => TIMESTAMP_LEN + value.len(),
        })
    }

    /// Appends the value that a store keeps of a record to `out`; nothing of a tombstone.
    pub(crate) fn put_stored(self, record: &RecordRef<'_>, out: &mut Vec<u8>) {
        let Some(value) = record.value else {
            return;
        };
        if self == Self::Timestamped {
            put_timestamp(record.timestamp_ms, out);
        }
        out.extend_from_slice(value);
    }

    /// The record that tells of a stored value, or of its deletion. `now_ms` is its timestamp
    /// where the store keeps none.
    ///
    /// # Errors
    ///
    /// `Corruption` if no record is stored so.
    pub(crate) fn record<'a>(
        self,
        key: &'a [u8],
        stored: Option<&'a [u8]>,
        now_ms: i64,
    ) -> Result<RecordRef<'a>> {
        match (self, stored) {
            (Self::Timestamped, Some(stored)) => {
                let (timestamp_ms, value) = split_timestamp(stored)?;
                Ok(RecordRef::new(key, Some(value)).at(timestamp_ms))
            }
            _ => Ok(RecordRef::new(key, stored).at(now_ms)),
        }
    }
}

/// Appends a timestamp as it is stored in front of a value.
pub(crate) fn put_timestamp(timestamp_ms: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&timestamp_ms.to_be_bytes());
}

/// Takes a stored value of a timestamped store apart.
///
/// # Errors
///
/// `Corruption` if it is too short for a timestamp.
pub(crate) fn split_timestamp(stored: &[u8]) -> Result<(i64, &[u8])> {
    let Some((timestamp, value)) = stored.split_first_chunk() else {
        return Err(Error::corruption(format!(
            "a timestamped value of {} bytes, its timestamp alone has {TIMESTAMP_LEN}",
            stored.len()
        )));
    };
    Ok((i64::from_be_bytes(*timestamp), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changelog::Header;
    use crate::error::ErrorKind;

    fn stored(kind: Kind, record: &RecordRef<'_>) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        kind.put_stored(record, &mut out);
        let value = out.split_off(b"before".len());
        assert_eq!(out, b"before");
        assert_eq!(kind.stored_len(record).unwrap_or(0), value.len());
        kind.stored_len(record).map(|_| value)
    }

    #[test]
    fn records_come_back_from_what_is_stored_of_them() {
        let headers = [Header {
            key: b"h",
            value: None,
        }];
        for timestamp_ms in [i64::MIN, -1, 0, 1_700_000_000_000, i64::MAX] {
            for value in [None, Some(&b""[..]), Some(b"value")] {
                let record = RecordRef::new(b"k", value).at(timestamp_ms);
                let with_headers = record.with_headers(&headers);
                for kind in [Kind::KeyValue, Kind::Timestamped] {
                    let kept = stored(kind, &with_headers);
                    let back = kind.record(b"k", kept.as_deref(), 77).unwrap();
                    let keeps_time = kind == Kind::Timestamped && value.is_some();
                    let expected = if keeps_time { record } else { record.at(77) };
                    assert_eq!(back, expected);
                }
            }
        }
    }

    /// The form of Kafka Streams' timestamped stores.
    #[test]
    fn a_timestamp_is_stored_big_endian_in_front_of_the_value() {
        let record = RecordRef::new(b"k", Some(b"v")).at(0x0102_0304_0506_0708);
        assert_eq!(
            stored(Kind::Timestamped, &record).unwrap(),
            [1, 2, 3, 4, 5, 6, 7, 8, b'v']
        );
        assert_eq!(stored(Kind::KeyValue, &record).unwrap(), b"v");
        let unknown = RecordRef::new(b"k", Some(b"")).at(-1);
        assert_eq!(stored(Kind::Timestamped, &unknown).unwrap(), [0xff; 8]);
    }

    #[test]
    fn what_is_too_short_for_a_timestamp_is_corruption() {
        for len in 0..TIMESTAMP_LEN {
            let error = split_timestamp(&[0; 8][..len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption);
            let error = Kind::Timestamped.record(b"k", Some(&[0; 8][..len]), 0);
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Corruption);
        }
        assert_eq!(split_timestamp(&[0; 8]).unwrap(), (0, &[][..]));
    }

    #[test]
    fn kinds_keep_their_numbers() {
        for kind in [Kind::KeyValue, Kind::Timestamped] {
            assert_eq!(Kind::from_number(kind as u8).unwrap(), kind);
        }
        let error = Kind::from_number(2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
