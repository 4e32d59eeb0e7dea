//! Records: a key, its trailer and its value, side by side in the arena.

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::arena::Arena;
use crate::key::{InternalKey, Trailer};

use super::node::prefetch;

const VALUE_LEN_POS: usize = 8;
const KEY_LEN_POS: usize = VALUE_LEN_POS + 4;
/// Trailer, length of the value, length of the key.
pub(super) const HEADER_LEN: usize = KEY_LEN_POS + 2;

/// How much of a record a walk asks for ahead of its turn.
const PREFETCH_BYTES: usize = 192;

/// Where a record is, without a word on how long it will be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordPtr(NonNull<u8>);

// SAFETY: a record is never written again, so any thread may read it.
unsafe impl Send for RecordPtr {}
// SAFETY: as above.
unsafe impl Sync for RecordPtr {}

impl RecordPtr {
    /// Writes a record.
    pub(super) fn new(arena: &mut Arena<u8>, key: InternalKey<'_>, value: &[u8]) -> Self {
        // Both lengths were checked when the write was taken on.
        let key_len = u16::try_from(key.user.len()).expect("keys have up to 65,535 bytes");
        let value_len = u32::try_from(value.len()).expect("values have up to 256 MiB");
        let mut header = [0; HEADER_LEN];
        header[..VALUE_LEN_POS].copy_from_slice(&key.trailer.0.to_le_bytes());
        header[VALUE_LEN_POS..KEY_LEN_POS].copy_from_slice(&value_len.to_le_bytes());
        header[KEY_LEN_POS..].copy_from_slice(&key_len.to_le_bytes());
        Self(arena.push_all(&[&header, key.user, value]))
    }

    pub(super) fn from_raw(raw: *mut u8) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    pub(super) fn as_raw(self) -> *mut u8 {
        self.0.as_ptr()
    }

    /// The record.
    ///
    /// # Safety
    ///
    /// The arena that it was written to must outlive `'a`.
    pub(super) unsafe fn get<'a>(self) -> Record<'a> {
        Record {
            start: self.0,
            arena: PhantomData,
        }
    }
}

/// A record of an arena that lives for `'a`.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    start: NonNull<u8>,
    arena: PhantomData<&'a [u8]>,
}

// SAFETY: as for `RecordPtr`; and `'a` holds in every thread.
unsafe impl Send for Record<'_> {}
// SAFETY: as above.
unsafe impl Sync for Record<'_> {}

impl<'a> Record<'a> {
    pub(super) fn ptr(self) -> RecordPtr {
        RecordPtr(self.start)
    }

    fn header(self) -> &'a [u8; HEADER_LEN] {
        // SAFETY: `RecordPtr::new` wrote the header here, and the arena lives for `'a`.
        unsafe { self.start.cast().as_ref() }
    }

    fn bytes(self, pos: usize, len: usize) -> &'a [u8] {
        // SAFETY: only called for parts of the record, which `RecordPtr::new` wrote as one.
        let start = unsafe { self.start.add(pos) };
        let part = NonNull::slice_from_raw_parts(start, len);
        // SAFETY: as above, and the arena lives for `'a`.
        unsafe { part.as_ref() }
    }

    fn key_len(self) -> usize {
        let header = self.header();
        usize::from(u16::from_le_bytes([
            header[KEY_LEN_POS],
            header[KEY_LEN_POS + 1],
        ]))
    }

    fn value_len(self) -> usize {
        let len = self.header()[VALUE_LEN_POS..].first_chunk();
        u32::from_le_bytes(*len.expect("a header is long enough")) as usize
    }

    pub(super) fn trailer(self) -> Trailer {
        let trailer = self.header().first_chunk();
        Trailer(u64::from_le_bytes(
            *trailer.expect("a header is long enough"),
        ))
    }

    pub(super) fn user(self) -> &'a [u8] {
        self.bytes(HEADER_LEN, self.key_len())
    }

    pub(super) fn key(self) -> InternalKey<'a> {
        InternalKey {
            user: self.user(),
            trailer: self.trailer(),
        }
    }

    pub(super) fn value(self) -> &'a [u8] {
        self.bytes(HEADER_LEN + self.key_len(), self.value_len())
    }

    /// Asks for the record to be at hand soon.
    pub(super) fn prefetch(self) {
        prefetch(self.start.as_ptr(), PREFETCH_BYTES);
    }

    /// Bytes of key and value.
    pub(super) fn len(self) -> usize {
        self.key_len() + self.value_len()
    }
}
