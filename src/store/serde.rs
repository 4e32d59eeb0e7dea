//! How keys and values become bytes.
//!
//! A store orders its entries by the bytes of their keys, and its changelog carries the very same
//! bytes, with nothing around them. All serdes here keep the order of what they encode: integers
//! are big-endian, signed ones with their sign bit flipped, so that `-1` sorts before `0`.

use std::borrow::Borrow;
use std::fmt;

use crate::error::{Error, Result};

/// Turns values of one type into bytes and back.
///
/// A serde may have state of its own (a schema, say). One that is used for keys must give equal
/// keys equal bytes; ranges are in the order of the bytes.
///
/// ```
/// use siltstone::store::Serde;
///
/// /// A point in time, in steps of a minute.
/// struct Minute;
///
/// impl Serde for Minute {
///     type Item = u64;
///     type Borrowed = u64;
///
///     fn encode(&self, ms: &u64, out: &mut Vec<u8>) -> siltstone::Result<()> {
///         siltstone::store::serde::U64.encode(&(ms / 60_000), out)
///     }
///
///     fn decode(&self, bytes: &[u8]) -> siltstone::Result<u64> {
///         Ok(siltstone::store::serde::U64.decode(bytes)? * 60_000)
///     }
/// }
/// ```
pub trait Serde: Send + Sync + 'static {
    /// What reads return.
    type Item: Borrow<Self::Borrowed>;

    /// What writes and lookups take a reference of: `str` where reads return a `String`.
    type Borrowed: ?Sized;

    /// Appends the bytes of `value` to `out`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the value has no encoding.
    fn encode(&self, value: &Self::Borrowed, out: &mut Vec<u8>) -> Result<()>;

    /// Reads a value back.
    ///
    /// # Errors
    ///
    /// `Corruption` if `bytes` are not what [`encode`](Self::encode) writes.
    fn decode(&self, bytes: &[u8]) -> Result<Self::Item>;
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes;

impl Serde for Bytes {
    type Item = Vec<u8>;
    type Borrowed = [u8];

    fn encode(&self, value: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
}

/// Text, as UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Utf8;

impl Serde for Utf8 {
    type Item = String;
    type Borrowed = str;

    fn encode(&self, value: &str, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(Error::corruption("text that is not UTF-8").with_source(error)),
        }
    }
}

fn fixed<const N: usize>(bytes: &[u8], what: impl fmt::Display) -> Result<[u8; N]> {
    <[u8; N]>::try_from(bytes)
        .map_err(|_| Error::corruption(format!("{what} of {} bytes, {N} expected", bytes.len())))
}

/// Unsigned integers of 32 bits, big-endian: they sort as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct U32;

impl Serde for U32 {
    type Item = u32;
    type Borrowed = u32;

    fn encode(&self, value: &u32, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<u32> {
        fixed(bytes, "u32").map(u32::from_be_bytes)
    }
}

/// Unsigned integers of 64 bits, big-endian: they sort as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct U64;

impl Serde for U64 {
    type Item = u64;
    type Borrowed = u64;

    fn encode(&self, value: &u64, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<u64> {
        fixed(bytes, "u64").map(u64::from_be_bytes)
    }
}

/// Signed integers of 64 bits, big-endian with the sign bit flipped: they sort as numbers.
///
/// This is not how Kafka's serdes write them; those sort negative numbers last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct I64;

const SIGN_BIT: u64 = 1 << 63;

impl Serde for I64 {
    type Item = i64;
    type Borrowed = i64;

    fn encode(&self, value: &i64, out: &mut Vec<u8>) -> Result<()> {
        U64.encode(&(value.cast_unsigned() ^ SIGN_BIT), out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<i64> {
        let bits: [u8; 8] = fixed(bytes, "i64")?;
        Ok((u64::from_be_bytes(bits) ^ SIGN_BIT).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn bytes_of<S: Serde>(serde: &S, value: &S::Borrowed) -> Vec<u8> {
        let mut out = Vec::new();
        serde.encode(value, &mut out).unwrap();
        out
    }

    #[test]
    fn integers_sort_as_numbers_and_come_back() {
        let signed = [i64::MIN, -256, -1, 0, 1, 255, 256, i64::MAX];
        for pair in signed.windows(2) {
            assert!(bytes_of(&I64, &pair[0]) < bytes_of(&I64, &pair[1]));
        }
        for value in signed {
            assert_eq!(I64.decode(&bytes_of(&I64, &value)).unwrap(), value);
        }
        assert!(bytes_of(&U64, &255) < bytes_of(&U64, &256));
        assert!(bytes_of(&U32, &255) < bytes_of(&U32, &256));
    }

    #[test]
    fn foreign_bytes_are_corruption() {
        assert_eq!(
            U64.decode(&[1, 2, 3]).unwrap_err().kind(),
            ErrorKind::Corruption
        );
        assert_eq!(
            U32.decode(&[0; 8]).unwrap_err().kind(),
            ErrorKind::Corruption
        );
        assert_eq!(
            Utf8.decode(&[0xff]).unwrap_err().kind(),
            ErrorKind::Corruption
        );
        assert_eq!(Bytes.decode(&[]).unwrap(), Vec::<u8>::new());
    }
}
