//! Fixed and varint coding, and a decoder for bytes that nobody vouches for.
//!
//! Fixed integers are little-endian. A varint has seven bits a byte, the lowest first.

use crate::error::{Error, Result};

pub(crate) const VARINT_U64_LEN_MAX: usize = 10;

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Writes a varint length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes values from the front of untrusted bytes: checked, named, located.
///
/// Every error is `Corruption` and names the field and its position within the bytes; the caller
/// puts the file in front with [`Error::context`].
#[derive(Debug, Clone)]
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        if len > self.remaining() {
            return Err(self.short(len, what));
        }
        let start = self.pos;
        self.pos += len;
        Ok(&self.bytes[start..self.pos])
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let (array, _) = self.bytes[self.pos..]
            .split_first_chunk()
            .ok_or_else(|| self.short(N, what))?;
        self.pos += N;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(crate) fn varint(&mut self, what: &str) -> Result<u64> {
        let mut value = 0;
        for index in 0..VARINT_U64_LEN_MAX {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if index == VARINT_U64_LEN_MAX - 1 && bits > 1 {
                break;
            }
            value |= bits << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::corruption(format!(
            "{what}: varint above 64 bits at byte {}",
            self.pos
        )))
    }

    /// A varint that must fit a `u32`.
    pub(crate) fn varint_u32(&mut self, what: &str) -> Result<u32> {
        let value = self.varint(what)?;
        u32::try_from(value).map_err(|_| {
            Error::corruption(format!(
                "{what}: {value} above 32 bits at byte {}",
                self.pos
            ))
        })
    }

    /// A varint length and that many bytes.
    pub(crate) fn bytes(&mut self, what: &str) -> Result<&'a [u8]> {
        let len = self.varint(what)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.take(len, what)
    }

    /// A varint length and that many bytes of UTF-8.
    pub(crate) fn str(&mut self, what: &str) -> Result<&'a str> {
        let bytes = self.bytes(what)?;
        std::str::from_utf8(bytes)
            .map_err(|_| Error::corruption(format!("{what}: not UTF-8 before byte {}", self.pos)))
    }

    /// Fails if bytes are left over.
    pub(crate) fn finish(&self, what: &str) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        Err(Error::corruption(format!(
            "{what}: {} bytes left over at byte {}",
            self.remaining(),
            self.pos
        )))
    }

    fn short(&self, len: usize, what: &str) -> Error {
        Error::corruption(format!(
            "{what}: needs {len} bytes at byte {}, {} are left",
            self.pos,
            self.remaining()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_their_edges() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, (1 << shift) | 1, u64::MAX] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                let mut decoder = Decoder::new(&out);
                assert_eq!(decoder.varint("value").unwrap(), value);
                decoder.finish("value").unwrap();
                assert!(Decoder::new(&out[..out.len() - 1]).varint("value").is_err());
            }
        }
    }

    #[test]
    fn a_varint_that_overflows_is_corruption() {
        let overlong = [0xff; 11];
        assert!(Decoder::new(&overlong).varint("value").is_err());
        let mut above = [0xff; 10];
        above[9] = 2;
        assert!(Decoder::new(&above).varint("value").is_err());
    }

    #[test]
    fn a_length_beyond_the_end_names_the_field() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        let error = Decoder::new(&out).bytes("key").unwrap_err();
        assert!(error.to_string().starts_with("key: needs"), "{error}");
    }
}
