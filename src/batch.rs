//! [`WriteBatch`]: writes that count together or not at all. Its bytes are the payload of a record
//! in the write-ahead log; for the layout see `docs/format.md`, section "Batch".

use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, SeqNo, ValueKind, check_key, check_value};

const FIRST_SEQNO_POS: usize = 0;
const COUNT_POS: usize = FIRST_SEQNO_POS + size_of::<u64>();
const OPERATIONS_POS: usize = COUNT_POS + size_of::<u32>();

/// Room that a batch begins with, so that a single small put needs no more.
const CAPACITY: usize = 256;

/// Longest batch in bytes: what a record of the log can hold.
pub const BATCH_LEN_MAX: usize = 1 << 30;

/// Puts and deletes over any keyspaces of one store that become visible and durable together.
///
/// Later writes of a batch win over earlier ones of the same key.
#[derive(Debug, Clone)]
pub struct WriteBatch {
    bytes: Vec<u8>,
    count: u32,
    /// The open store that the keyspaces belong to; 0 while the batch is empty.
    db: u64,
}

impl Default for WriteBatch {
    fn default() -> Self {
        let mut bytes = Vec::with_capacity(CAPACITY);
        bytes.resize(OPERATIONS_POS, 0);
        Self {
            bytes,
            count: 0,
            db: 0,
        }
    }
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the key or the value is too long, the key is empty, the keyspace is
    /// of another store than those before, or the batch would pass [`BATCH_LEN_MAX`]. The batch
    /// is unchanged then.
    pub fn put(
        &mut self,
        keyspace: impl Into<KeyspaceId>,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        let (keyspace, key, value) = (keyspace.into(), key.as_ref(), value.as_ref());
        check_value(value)?;
        self.begin(keyspace, key, value.len())?;
        self.bytes.push(ValueKind::Put as u8);
        put_varint(&mut self.bytes, u64::from(keyspace.id));
        put_bytes(&mut self.bytes, key);
        put_bytes(&mut self.bytes, value);
        Ok(())
    }

    /// Adds a delete. Deleting a key that does not exist is allowed.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn delete(&mut self, keyspace: impl Into<KeyspaceId>, key: impl AsRef<[u8]>) -> Result<()> {
        let (keyspace, key) = (keyspace.into(), key.as_ref());
        self.begin(keyspace, key, 0)?;
        self.bytes.push(ValueKind::Delete as u8);
        put_varint(&mut self.bytes, u64::from(keyspace.id));
        put_bytes(&mut self.bytes, key);
        Ok(())
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Removes all writes and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(OPERATIONS_POS);
        self.count = 0;
        self.db = 0;
    }

    pub(crate) fn db(&self) -> u64 {
        self.db
    }

    /// Fills in the sequence number of the first write; the others follow one by one.
    pub(crate) fn seal(&mut self, first: SeqNo) -> &[u8] {
        self.bytes[FIRST_SEQNO_POS..COUNT_POS].copy_from_slice(&first.0.to_le_bytes());
        self.bytes[COUNT_POS..OPERATIONS_POS].copy_from_slice(&self.count.to_le_bytes());
        self.payload()
    }

    /// The bytes of a batch that was sealed.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes
    }

    /// The writes, in order.
    pub(crate) fn operations(&self) -> Operations<'_> {
        Operations {
            decoder: Decoder::new(&self.bytes[OPERATIONS_POS..]),
            left: self.count,
        }
    }

    fn begin(&mut self, keyspace: KeyspaceId, key: &[u8], value_len: usize) -> Result<()> {
        check_key(key)?;
        if self.db != 0 && self.db != keyspace.db {
            return Err(Error::invalid(
                "a batch may only write to keyspaces of one open store",
            ));
        }
        let room = BATCH_LEN_MAX - self.bytes.len();
        let needed = key.len() + value_len + 32;
        if needed > room || self.count == u32::MAX {
            return Err(Error::invalid(format!(
                "a batch is limited to {BATCH_LEN_MAX} bytes"
            )));
        }
        self.bytes.reserve(needed);
        self.db = keyspace.db;
        self.count += 1;
        Ok(())
    }
}

/// One write of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub(crate) keyspace: u32,
    pub(crate) kind: ValueKind,
    pub(crate) key: &'a [u8],
    /// Empty for a delete.
    pub(crate) value: &'a [u8],
}

/// The writes of a batch, read from its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Operations<'a> {
    decoder: Decoder<'a>,
    left: u32,
}

impl<'a> Operations<'a> {
    fn decode_next(&mut self) -> Result<Operation<'a>> {
        let kind = ValueKind::from_u8(self.decoder.u8("operation kind")?)?;
        let keyspace = self.decoder.varint_u32("keyspace id")?;
        let key = self.decoder.bytes("key")?;
        check_key(key).map_err(|error| error.into_kind(crate::ErrorKind::Corruption))?;
        let value = match kind {
            ValueKind::Put => self.decoder.bytes("value")?,
            ValueKind::Delete => &[],
        };
        check_value(value).map_err(|error| error.into_kind(crate::ErrorKind::Corruption))?;
        Ok(Operation {
            keyspace,
            kind,
            key,
            value,
        })
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<Operation<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let operation = self.decode_next();
        if operation.is_err() {
            self.left = 0;
        }
        Some(operation)
    }
}

/// Reads a batch from a record of the log: its first sequence number and its writes, all of them
/// checked.
pub(crate) fn decode(payload: &[u8]) -> Result<(SeqNo, Operations<'_>)> {
    let mut decoder = Decoder::new(payload);
    let first = SeqNo(decoder.u64("first sequence number")?);
    let count = decoder.u32("operation count")?;
    let last = first.0.checked_add(u64::from(count));
    if first == SeqNo::ZERO || last.is_none_or(|last| last > SeqNo::MAX.0) {
        return Err(Error::corruption(format!(
            "batch of {count} writes from {first} on"
        )));
    }
    let operations = Operations {
        decoder,
        left: count,
    };
    let mut check = operations.clone();
    for operation in &mut check {
        operation?;
    }
    check.decoder.finish("batch")?;
    Ok((first, operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyspace(id: u32) -> KeyspaceId {
        KeyspaceId { db: 7, id }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut batch = WriteBatch::new();
        batch.put(keyspace(1), "a", "1").unwrap();
        batch.delete(keyspace(300), "b").unwrap();
        batch.put(keyspace(1), "c", "").unwrap();
        let (first, operations) = decode(batch.seal(SeqNo(5))).unwrap();
        assert_eq!(first, SeqNo(5));
        let operations: Vec<_> = operations.map(Result::unwrap).collect();
        assert_eq!(operations.len(), 3);
        assert_eq!(operations[1].keyspace, 300);
        assert_eq!(operations[1].kind, ValueKind::Delete);
        assert_eq!(
            (operations[2].key, operations[2].value),
            (&b"c"[..], &b""[..])
        );
    }

    #[test]
    fn wrong_writes_leave_the_batch_alone() {
        let mut batch = WriteBatch::new();
        batch.put(keyspace(1), "a", "1").unwrap();
        let before = batch.clone();
        assert!(batch.put(keyspace(1), "", "1").is_err());
        assert!(batch.put(keyspace(1), vec![0; 65_536], "1").is_err());
        assert!(batch.delete(KeyspaceId { db: 8, id: 1 }, "a").is_err());
        assert_eq!(batch.bytes, before.bytes);
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn a_cut_or_changed_batch_never_panics() {
        let mut batch = WriteBatch::new();
        batch.put(keyspace(1), "key", "value").unwrap();
        batch.delete(keyspace(2), "key").unwrap();
        let bytes = batch.seal(SeqNo(1)).to_vec();
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err());
        }
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 0xff;
            let _ = decode(&changed).map(|(_, operations)| operations.count());
        }
    }
}
