//! Changelog records, borrowed and owned, and their coding.

use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::Result;

/// A header of a record that lives elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header<'a> {
    /// The name; by custom UTF-8. One name may appear more than once.
    pub key: &'a [u8],
    /// The value; none is not the same as an empty one.
    pub value: Option<&'a [u8]>,
}

/// A record that lives elsewhere: what appends take and readers deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordRef<'a> {
    /// The key; may be empty.
    pub key: &'a [u8],
    /// The value, or none for a tombstone, which deletes the key.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970, of the caller's choice.
    pub timestamp_ms: i64,
    /// Headers in their order, duplicates kept.
    pub headers: &'a [Header<'a>],
}

/// What a record counts beside its bytes: lengths, offset and timestamp in any log's format.
const RECORD_OVERHEAD: u64 = 64;
/// What a header counts beside its bytes.
const HEADER_OVERHEAD: u64 = 16;

impl<'a> RecordRef<'a> {
    /// A record with timestamp 0 and no headers; `None` as value makes a tombstone.
    pub fn new(key: &'a [u8], value: Option<&'a [u8]>) -> Self {
        Self {
            key,
            value,
            timestamp_ms: 0,
            headers: &[],
        }
    }

    /// The same record with another timestamp.
    #[must_use]
    pub fn at(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = timestamp_ms;
        self
    }

    /// The same record with other headers.
    #[must_use]
    pub fn with_headers(mut self, headers: &'a [Header<'a>]) -> Self {
        self.headers = headers;
        self
    }

    /// What the record counts against limits and reservations: its bytes and a bound on what any
    /// log adds to them.
    pub fn size(&self) -> u64 {
        let mut size = RECORD_OVERHEAD + self.key.len() as u64;
        size += self.value.map_or(0, |value| value.len() as u64);
        for header in self.headers {
            size += HEADER_OVERHEAD + header.key.len() as u64;
            size += header.value.map_or(0, |value| value.len() as u64);
        }
        size
    }

    /// Appends the record; layout in `docs/format.md`, section "File changelog".
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.key);
        put_optional(out, self.value);
        put_varint(out, zigzag(self.timestamp_ms));
        put_varint(out, self.headers.len() as u64);
        for header in self.headers {
            put_bytes(out, header.key);
            put_optional(out, header.value);
        }
    }

    /// Takes a record off untrusted bytes. `headers` is scratch space that the record borrows.
    pub(crate) fn decode<'s>(
        decoder: &mut Decoder<'a>,
        headers: &'s mut Vec<Header<'a>>,
    ) -> Result<RecordRef<'s>>
    where
        'a: 's,
    {
        let key = decoder.bytes("record key")?;
        let value = take_optional(decoder, "record value")?;
        let timestamp_ms = unzigzag(decoder.varint("record timestamp")?);
        let count = decoder.varint("count of headers")?;
        headers.clear();
        // Each header takes bytes, so a wild count ends at the end of the bytes.
        for _ in 0..count {
            let key = decoder.bytes("header key")?;
            let value = take_optional(decoder, "header value")?;
            headers.push(Header { key, value });
        }
        Ok(RecordRef {
            key,
            value,
            timestamp_ms,
            headers,
        })
    }
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.push(0),
        Some(bytes) => {
            put_varint(out, bytes.len() as u64 + 1);
            out.extend_from_slice(bytes);
        }
    }
}

fn take_optional<'a>(decoder: &mut Decoder<'a>, what: &str) -> Result<Option<&'a [u8]>> {
    match decoder.varint(what)? {
        0 => Ok(None),
        len => {
            let len = usize::try_from(len - 1).unwrap_or(usize::MAX);
            decoder.take(len, what).map(Some)
        }
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// A header that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnedHeader {
    /// See [`Header::key`].
    pub key: Vec<u8>,
    /// See [`Header::value`].
    pub value: Option<Vec<u8>>,
}

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Record {
    /// See [`RecordRef::key`].
    pub key: Vec<u8>,
    /// See [`RecordRef::value`].
    pub value: Option<Vec<u8>>,
    /// See [`RecordRef::timestamp_ms`].
    pub timestamp_ms: i64,
    /// See [`RecordRef::headers`].
    pub headers: Vec<OwnedHeader>,
}

impl Record {
    /// Lends the record to `f`.
    pub fn with_ref<T>(&self, f: impl FnOnce(RecordRef<'_>) -> T) -> T {
        let headers: Vec<Header<'_>> = self
            .headers
            .iter()
            .map(|header| Header {
                key: &header.key,
                value: header.value.as_deref(),
            })
            .collect();
        f(RecordRef {
            key: &self.key,
            value: self.value.as_deref(),
            timestamp_ms: self.timestamp_ms,
            headers: &headers,
        })
    }
}

impl From<RecordRef<'_>> for Record {
    /// Copies the record.
    fn from(record: RecordRef<'_>) -> Self {
        let headers = record.headers.iter().map(|header| OwnedHeader {
            key: header.key.to_vec(),
            value: header.value.map(<[u8]>::to_vec),
        });
        Self {
            key: record.key.to_vec(),
            value: record.value.map(<[u8]>::to_vec),
            timestamp_ms: record.timestamp_ms,
            headers: headers.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_never_outgrow_their_size() {
        let headers = [
            Header {
                key: b"h",
                value: None,
            },
            Header {
                key: b"h",
                value: Some(b""),
            },
            Header {
                key: b"",
                value: Some(b"x"),
            },
        ];
        for value in [None, Some(&b""[..]), Some(&[7; 300][..])] {
            for timestamp in [i64::MIN, -1, 0, 1, i64::MAX] {
                for headers in [&headers[..], &[]] {
                    let record = RecordRef::new(b"key", value)
                        .at(timestamp)
                        .with_headers(headers);
                    let mut bytes = Vec::new();
                    record.encode(&mut bytes);
                    assert!(bytes.len() as u64 <= record.size());
                    let mut decoder = Decoder::new(&bytes);
                    let mut scratch = Vec::new();
                    let back = RecordRef::decode(&mut decoder, &mut scratch).unwrap();
                    assert_eq!(back, record);
                    decoder.finish("record").unwrap();
                    Record::from(record).with_ref(|again| assert_eq!(again, record));
                    for len in 0..bytes.len() {
                        let mut decoder = Decoder::new(&bytes[..len]);
                        assert!(RecordRef::decode(&mut decoder, &mut Vec::new()).is_err());
                    }
                }
            }
        }
    }
}
