//! One record of a batch: lengths and differences to the batch's header as zigzag varints.

use crate::changelog::{Header, RecordRef};
use crate::error::{Error, Result};

/// Longest coding of a number of 32 bits.
const VARINT_I32_LEN_MAX: usize = 5;
/// Longest coding of a number of 64 bits.
const VARINT_I64_LEN_MAX: usize = 10;

/// The length of `record` in a batch without compression is at most this.
pub(crate) fn encoded_len_max(record: &RecordRef<'_>) -> usize {
    // Length, difference in offset, lengths of key and value, count of headers.
    let mut len = 5 * VARINT_I32_LEN_MAX + 1 + VARINT_I64_LEN_MAX;
    len += record.key.len() + record.value.map_or(0, <[u8]>::len);
    for header in record.headers {
        len += 2 * VARINT_I32_LEN_MAX + header.key.len() + header.value.map_or(0, <[u8]>::len);
    }
    len
}

/// Appends a record.
pub(super) fn put_record(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    record: &RecordRef<'_>,
) {
    let timestamp = zigzag(timestamp_delta);
    let offset = zigzag(i64::from(offset_delta));
    let count = zigzag_len(record.headers.len());
    let mut len = 1 + varint_len(timestamp) + varint_len(offset) + varint_len(count);
    len += bytes_len(Some(record.key)) + bytes_len(record.value);
    for header in record.headers {
        len += bytes_len(Some(header.key)) + bytes_len(header.value);
    }
    out.reserve(len + VARINT_I32_LEN_MAX);
    put_varint(out, zigzag_len(len));
    // Attributes: none are in use.
    out.push(0);
    put_varint(out, timestamp);
    put_varint(out, offset);
    put_bytes(out, Some(record.key));
    put_bytes(out, record.value);
    put_varint(out, count);
    for header in record.headers {
        put_bytes(out, Some(header.key));
        put_bytes(out, header.value);
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn zigzag_len(len: usize) -> u64 {
    let len = i32::try_from(len).expect("a record is at most i32::MAX bytes long");
    zigzag(i64::from(len))
}

fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn bytes_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => 1,
        Some(bytes) => varint_len(zigzag_len(bytes.len())) + bytes.len(),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.push(1),
        Some(bytes) => {
            put_varint(out, zigzag_len(bytes.len()));
            out.extend_from_slice(bytes);
        }
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// What a record says of itself; its headers are in the vector that was lent for them.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawRecord<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    /// Null on topics that are not compacted, if at all.
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

/// Takes records off untrusted bytes.
#[derive(Debug)]
pub(super) struct RecordReader<'a> {
    rest: &'a [u8],
}

impl<'a> RecordReader<'a> {
    pub(super) fn new(records: &'a [u8]) -> Self {
        Self { rest: records }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes the next record.
    #[inline]
    pub(super) fn next(&mut self, headers: &mut Vec<Header<'a>>) -> Result<RawRecord<'a>> {
        let len = take_varint_i32(&mut self.rest, "record length")?;
        let mut body = take(&mut self.rest, len, "record")?;
        take(&mut body, 1, "record attributes")?;
        let record = RawRecord {
            timestamp_delta: take_varint_i64(&mut body, "timestamp of a record")?,
            offset_delta: take_varint_i32(&mut body, "offset of a record")?,
            key: take_bytes(&mut body, "record key")?,
            value: take_bytes(&mut body, "record value")?,
        };
        headers.clear();
        let count = take_varint_i32(&mut body, "count of headers")?;
        if count != 0 {
            take_headers(&mut body, count, headers)?;
        }
        if !body.is_empty() {
            return Err(wrong("record", "is longer than its fields"));
        }
        Ok(record)
    }
}

#[inline(never)]
fn take_headers<'a>(body: &mut &'a [u8], count: i32, headers: &mut Vec<Header<'a>>) -> Result<()> {
    if count < 0 {
        return Err(wrong("count of headers", "is negative"));
    }
    // Each header takes bytes, so a wild count ends at the end of the bytes.
    for _ in 0..count {
        let key = take_bytes(body, "header key")?;
        let key = key.ok_or_else(|| wrong("header key", "is null"))?;
        let value = take_bytes(body, "header value")?;
        headers.push(Header { key, value });
    }
    Ok(())
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], len: i32, what: &'static str) -> Result<&'a [u8]> {
    let split = usize::try_from(len)
        .ok()
        .and_then(|len| rest.split_at_checked(len));
    let Some((bytes, after)) = split else {
        return Err(short(what, i64::from(len), rest.len()));
    };
    *rest = after;
    Ok(bytes)
}

/// Bytes behind their length, -1 for null.
#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<Option<&'a [u8]>> {
    let len = take_varint_i32(rest, what)?;
    if len == -1 {
        return Ok(None);
    }
    take(rest, len, what).map(Some)
}

#[inline]
fn take_varint_i32(rest: &mut &[u8], what: &'static str) -> Result<i32> {
    // Most are one byte or two.
    let value = match **rest {
        [first, ..] if first < 0x80 => {
            *rest = &rest[1..];
            u32::from(first)
        }
        [first, second, ..] if second < 0x80 => {
            *rest = &rest[2..];
            u32::from(first & 0x7f) | u32::from(second) << 7
        }
        _ => {
            let value = take_varint(rest, VARINT_I32_LEN_MAX, what)?;
            u32::try_from(value).map_err(|_| wrong(what, "is a varint of more than 32 bits"))?
        }
    };
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

#[inline]
fn take_varint_i64(rest: &mut &[u8], what: &'static str) -> Result<i64> {
    let value = match **rest {
        [first, ..] if first < 0x80 => {
            *rest = &rest[1..];
            u64::from(first)
        }
        _ => take_varint(rest, VARINT_I64_LEN_MAX, what)?,
    };
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

#[inline(never)]
fn take_varint(rest: &mut &[u8], len_max: usize, what: &'static str) -> Result<u64> {
    let mut value = 0;
    for (index, &byte) in rest.iter().take(len_max).enumerate() {
        // The tenth byte has room for one bit.
        if index + 1 == VARINT_I64_LEN_MAX && byte > 1 {
            return Err(wrong(what, "is a varint of more than 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(wrong(what, "is a varint without an end"))
}

#[cold]
fn short(what: &str, len: i64, left: usize) -> Error {
    Error::corruption(format!("{what}: needs {len} bytes, {left} left"))
}

#[cold]
fn wrong(what: &str, why: &str) -> Error {
    Error::corruption(format!("{what} {why}"))
}
