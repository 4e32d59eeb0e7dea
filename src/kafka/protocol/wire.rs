//! The primitives: big-endian integers, strings, bytes and arrays in both encodings.
//!
//! The older encoding has lengths of two or four bytes, -1 for null. The flexible one has unsigned
//! varints of the length plus one, 0 for null, and tagged fields behind each structure.

use crate::error::{Error, Result};

/// Longest string that every encoding takes.
pub(crate) const STRING_LEN_MAX: usize = i16::MAX as usize;

/// A topic's id; all zeros where there is none.
pub(crate) type Uuid = [u8; 16];

const VARINT_U32_LEN_MAX: u32 = 5;

/// Appends the fields of a request.
///
/// Strings are at most [`STRING_LEN_MAX`] bytes and everything else at most `i32::MAX`: whoever
/// takes names and sizes from a user checks that.
pub(crate) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    is_flexible: bool,
}

impl<'o> Writer<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>, is_flexible: bool) -> Self {
        Self { out, is_flexible }
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.out.push(value.cast_unsigned());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.out.push(u8::from(value));
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn uuid(&mut self, value: &Uuid) {
        self.out.extend_from_slice(value);
    }

    pub(crate) fn string(&mut self, value: &str) {
        self.nullable_string(Some(value));
    }

    /// # Panics
    ///
    /// On a string longer than [`STRING_LEN_MAX`].
    pub(crate) fn nullable_string(&mut self, value: Option<&str>) {
        let len = value.map(|value| {
            i16::try_from(value.len()).expect("names are at most STRING_LEN_MAX bytes long")
        });
        if self.is_flexible {
            self.compact_len(len.map(i32::from));
        } else {
            self.i16(len.unwrap_or(-1));
        }
        self.out
            .extend_from_slice(value.unwrap_or_default().as_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.len(Some(value.len()));
        self.out.extend_from_slice(value);
    }

    pub(crate) fn array<T>(&mut self, items: &[T], write: impl FnMut(&mut Self, &T)) {
        self.nullable_array(Some(items), write);
    }

    pub(crate) fn nullable_array<T>(
        &mut self,
        items: Option<&[T]>,
        mut write: impl FnMut(&mut Self, &T),
    ) {
        self.len(items.map(<[T]>::len));
        for item in items.unwrap_or_default() {
            write(self, item);
        }
    }

    pub(crate) fn i32_array(&mut self, items: &[i32]) {
        self.array(items, |writer, item| writer.i32(*item));
    }

    /// Ends a structure that has no tagged field to tell.
    pub(crate) fn no_tags(&mut self) {
        if self.is_flexible {
            self.out.push(0);
        }
    }

    fn len(&mut self, len: Option<usize>) {
        let len = len.map(|len| i32::try_from(len).expect("a request is at most i32::MAX long"));
        if self.is_flexible {
            self.compact_len(len);
        } else {
            self.i32(len.unwrap_or(-1));
        }
    }

    fn compact_len(&mut self, len: Option<i32>) {
        let mut rest = len.map_or(0, |len| len.cast_unsigned() + 1);
        while rest >= 0x80 {
            self.out.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.out.push((rest & 0x7f) as u8);
    }
}

/// Takes the fields of a response off untrusted bytes; every error is `Corruption`, and names the
/// field and its position.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
    is_flexible: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], is_flexible: bool) -> Self {
        Self {
            rest: bytes,
            len: bytes.len(),
            is_flexible,
        }
    }

    /// The bytes that have not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn i8(&mut self, what: &str) -> Result<i8> {
        self.fixed::<1>(what).map(i8::from_be_bytes)
    }

    pub(crate) fn bool(&mut self, what: &str) -> Result<bool> {
        self.fixed::<1>(what).map(|byte| byte != [0])
    }

    pub(crate) fn i16(&mut self, what: &str) -> Result<i16> {
        self.fixed(what).map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, what: &str) -> Result<i32> {
        self.fixed(what).map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, what: &str) -> Result<i64> {
        self.fixed(what).map(i64::from_be_bytes)
    }

    pub(crate) fn uuid(&mut self, what: &str) -> Result<Uuid> {
        self.fixed(what)
    }

    pub(crate) fn str(&mut self, what: &str) -> Result<&'a str> {
        let value = self.nullable_str(what)?;
        value.ok_or_else(|| self.wrong(what, "is null"))
    }

    pub(crate) fn nullable_str(&mut self, what: &str) -> Result<Option<&'a str>> {
        let len = if self.is_flexible {
            self.compact_len(what)?
        } else {
            let len = self.i16(what)?;
            self.plain_len(i32::from(len), what)?
        };
        let Some(len) = len else {
            return Ok(None);
        };
        let bytes = self.take(len, what)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.wrong(what, "is not UTF-8"))?;
        Ok(Some(text))
    }

    pub(crate) fn bytes(&mut self, what: &str) -> Result<&'a [u8]> {
        let value = self.nullable_bytes(what)?;
        value.ok_or_else(|| self.wrong(what, "is null"))
    }

    pub(crate) fn nullable_bytes(&mut self, what: &str) -> Result<Option<&'a [u8]>> {
        match self.any_len(what)? {
            None => Ok(None),
            Some(len) => self.take(len, what).map(Some),
        }
    }

    /// An array; each item takes one byte or more.
    pub(crate) fn array<T>(
        &mut self,
        what: &str,
        read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let items = self.nullable_array(what, read)?;
        items.ok_or_else(|| self.wrong(what, "is null"))
    }

    pub(crate) fn nullable_array<T>(
        &mut self,
        what: &str,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(count) = self.any_len(what)? else {
            return Ok(None);
        };
        if count > self.rest.len() {
            return Err(self.short(what, count));
        }
        // An item in memory can be larger than its bytes: the bytes that are left bound what is
        // reserved, and what was read bounds how far it grows.
        let mut items = Vec::with_capacity(count.min(self.rest.len() / size_of::<T>().max(1)));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(Some(items))
    }

    pub(crate) fn i32_array(&mut self, what: &str) -> Result<Vec<i32>> {
        self.array(what, |reader| reader.i32(what))
    }

    /// Leaves out the tagged fields at the end of a structure.
    pub(crate) fn skip_tags(&mut self) -> Result<()> {
        self.tags(|_, _| Ok(()))
    }

    /// Hands the tagged fields at the end of a structure to `read`, which need not read them.
    pub(crate) fn tags(
        &mut self,
        mut read: impl FnMut(u32, &mut Self) -> Result<()>,
    ) -> Result<()> {
        if !self.is_flexible {
            return Ok(());
        }
        for _ in 0..self.varint("count of tagged fields")? {
            let tag = self.varint("tag")?;
            let len = self.varint("length of a tagged field")?;
            let bytes = self.take(len as usize, "tagged field")?;
            read(tag, &mut Self::new(bytes, true))?;
        }
        Ok(())
    }

    /// Fails if something is left.
    pub(crate) fn finish(&self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let what = format!("{} bytes are left over at {}", self.rest.len(), self.pos());
        Err(Error::corruption(what))
    }

    fn pos(&self) -> usize {
        self.len - self.rest.len()
    }

    fn fixed<const LEN: usize>(&mut self, what: &str) -> Result<[u8; LEN]> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<LEN>() else {
            return Err(self.short(what, LEN));
        };
        self.rest = rest;
        Ok(*bytes)
    }

    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.short(what, len));
        };
        self.rest = rest;
        Ok(bytes)
    }

    fn any_len(&mut self, what: &str) -> Result<Option<usize>> {
        if self.is_flexible {
            return self.compact_len(what);
        }
        let len = self.i32(what)?;
        self.plain_len(len, what)
    }

    fn plain_len(&self, len: i32, what: &str) -> Result<Option<usize>> {
        match len {
            -1 => Ok(None),
            _ => match usize::try_from(len) {
                Ok(len) => Ok(Some(len)),
                Err(_) => Err(self.wrong(what, &format!("has length {len}"))),
            },
        }
    }

    fn compact_len(&mut self, what: &str) -> Result<Option<usize>> {
        let len = self.varint(what)?;
        Ok(len.checked_sub(1).map(|len| len as usize))
    }

    fn varint(&mut self, what: &str) -> Result<u32> {
        let mut value = 0;
        for index in 0..VARINT_U32_LEN_MAX {
            let [byte] = self.fixed::<1>(what)?;
            let bits = u32::from(byte & 0x7f);
            if index + 1 == VARINT_U32_LEN_MAX && byte > 0x0f {
                break;
            }
            value |= bits << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.wrong(what, "is a varint of more than 32 bits"))
    }

    #[cold]
    fn short(&self, what: &str, len: usize) -> Error {
        let (left, pos) = (self.rest.len(), self.pos());
        Error::corruption(format!("{what}: needs {len} bytes at {pos}, {left} left"))
    }

    #[cold]
    fn wrong(&self, what: &str, why: &str) -> Error {
        Error::corruption(format!("{what} before {}: {why}", self.pos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn refuses<T: std::fmt::Debug>(
        bytes: &[u8],
        is_flexible: bool,
        read: impl Fn(&mut Reader<'_>) -> Result<T>,
        why: &str,
    ) {
        let error = read(&mut Reader::new(bytes, is_flexible)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(why), "{error}");
    }

    #[test]
    fn what_must_be_there_is_not_null() {
        refuses(&[0xff, 0xff], false, |r| r.str("name").map(drop), "name");
        refuses(&[0], true, |r| r.str("name").map(drop), "is null");
        refuses(&[0xff; 4], false, |r| r.bytes("b").map(drop), "is null");
        refuses(&[0], true, |r| r.i32_array("items"), "is null");
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let str = |r: &mut Reader<'_>| r.nullable_str("name").map(drop);
        refuses(&[0xff, 0xfe], false, str, "has length -2");
        refuses(&[0, 3, b'a'], false, str, "needs 3 bytes at 2, 1 left");
        refuses(&[2, 0xff], true, str, "is not UTF-8");
        refuses(&[0xff; 5], true, str, "more than 32 bits");
        refuses(&[0x80, 0x80, 0x80, 0x80, 0x10], true, str, "32 bits");
        refuses(&[0xff, 0xff, 0xff, 0xff, 0x0f], true, str, "0 left");
    }

    #[test]
    fn a_count_reserves_no_more_than_is_left() {
        let wild = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let items = |r: &mut Reader<'_>| r.i32_array("items");
        refuses(&wild, false, items, "needs 2147483647 bytes at 4, 4 left");
        let mut bytes = 1000_i32.to_be_bytes().to_vec();
        bytes.resize(4 + 1000, 0);
        let mut reader = Reader::new(&bytes, false);
        let items = reader.array("items", |reader| Ok([i64::from(reader.i8("item")?); 100]));
        assert_eq!(items.unwrap().len(), 1000);
        refuses(&bytes, false, |r| r.i32_array("items"), "items");
    }

    #[test]
    fn tagged_fields_are_bounded_and_lent_one_by_one() {
        let bytes = [2, 5, 2, 0, 7, 0x80, 1, 0, 9];
        let mut reader = Reader::new(&bytes, true);
        let mut found = Vec::new();
        let read = reader.tags(|tag, field| {
            found.push((tag, field.rest().to_vec()));
            Ok(())
        });
        read.unwrap();
        assert_eq!(found, [(5, vec![0, 7]), (128, vec![])]);
        assert_eq!(reader.rest(), [9]);
        let skip = |r: &mut Reader<'_>| r.skip_tags();
        refuses(&[1, 0, 9, 1], true, skip, "tagged field: needs 9 bytes");
        refuses(&[0xff, 0xff, 0xff, 0xff, 0x0f], true, skip, "tag: needs");
        assert!(Reader::new(&[], false).skip_tags().is_ok());
    }

    #[test]
    #[should_panic(expected = "STRING_LEN_MAX")]
    fn a_string_that_no_encoding_takes_is_never_written() {
        let long = "a".repeat(STRING_LEN_MAX + 1);
        Writer::new(&mut Vec::new(), true).string(&long);
    }
}
