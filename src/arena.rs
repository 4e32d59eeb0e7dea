//! Append-only memory that a memtable points into.
//!
//! One writer at a time allocates; what it wrote never moves and never changes until the arena is
//! dropped, so readers may hold plain pointers to it.

#![expect(
    unsafe_code,
    reason = "hands out pointers into chunks that live as long as the arena"
)]

use std::ptr::NonNull;

use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Size of the first chunk; an empty arena has none.
const CHUNK_BYTES_MIN: usize = 1 << 10;
/// Size at which chunks stop doubling. Larger values get a chunk of their own.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Bytes in an arena. Copying the handle copies no bytes.
#[derive(Clone, Copy)]
pub(crate) struct ArenaSlice {
    start: NonNull<u8>,
    len: u32,
}

// SAFETY: the bytes behind the pointer are never written again, so any thread may read them.
unsafe impl Send for ArenaSlice {}
// SAFETY: as above.
unsafe impl Sync for ArenaSlice {}

impl ArenaSlice {
    /// A handle to memory that is no arena's: for a lookup that ends before `bytes` does.
    pub(crate) fn borrow(bytes: &[u8]) -> Self {
        Self {
            start: NonNull::from(bytes).cast(),
            len: len_u32(bytes),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The bytes.
    ///
    /// # Safety
    ///
    /// The arena (or, after `borrow`, the borrowed memory) must outlive `'a`.
    pub(crate) unsafe fn get<'a>(self) -> &'a [u8] {
        // SAFETY: `start` points to `len` bytes that were written before the handle was made, and
        // the caller vouches that they still live.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

fn len_u32(bytes: &[u8]) -> u32 {
    // Keys and values were checked to be far shorter.
    u32::try_from(bytes.len()).expect("arena slices are shorter than 4 GiB")
}

/// Chunks of memory, filled from the front.
#[derive(Default)]
pub(crate) struct Arena {
    /// Guards the writer's place. Readers never take it.
    filling: Mutex<Filling>,
    /// Sum of all chunks; written under `filling`, read by anyone for accounting.
    allocated_bytes: AtomicUsize,
}

#[derive(Default)]
struct Filling {
    /// Every chunk; freed together when the arena is dropped.
    chunks: Vec<Chunk>,
    /// Next free byte of the newest chunk, and what is left of it.
    next: Option<NonNull<u8>>,
    left: usize,
}

/// A chunk that was leaked to get a stable pointer without aliasing a box.
struct Chunk {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a chunk owns its memory; its bytes are written only under the arena's lock.
unsafe impl Send for Chunk {}
// SAFETY: `next` points into a chunk of the same arena and is used only under the arena's lock.
unsafe impl Send for Filling {}

impl Drop for Chunk {
    fn drop(&mut self) {
        let memory = NonNull::slice_from_raw_parts(self.start, self.len);
        // SAFETY: `start` and `len` come from `Box::leak` of exactly this slice, dropped once.
        drop(unsafe { Box::from_raw(memory.as_ptr()) });
    }
}

impl Arena {
    /// Copies `bytes` into the arena.
    pub(crate) fn push(&self, bytes: &[u8]) -> ArenaSlice {
        let len = len_u32(bytes);
        let mut filling = self.filling.lock();
        let start = match filling.next {
            Some(next) if filling.left >= bytes.len() => next,
            _ => self.grow(&mut filling, bytes.len()),
        };
        // SAFETY: `start` has at least `bytes.len()` bytes behind it that nobody else was given.
        unsafe {
            start
                .as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        // SAFETY: still within the chunk, or one past its end.
        filling.next = Some(unsafe { start.add(bytes.len()) });
        filling.left -= bytes.len();
        ArenaSlice { start, len }
    }

    /// Bytes taken from the system.
    pub(crate) fn allocated_bytes(&self) -> usize {
        // Relaxed: an estimate for accounting.
        self.allocated_bytes.load(Ordering::Relaxed)
    }

    fn grow(&self, filling: &mut Filling, needed: usize) -> NonNull<u8> {
        let doubled = self
            .allocated_bytes()
            .clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let len = doubled.max(needed);
        let memory = Box::leak(vec![0_u8; len].into_boxed_slice());
        let start = NonNull::from(memory).cast::<u8>();
        filling.chunks.push(Chunk { start, len });
        filling.left = len;
        self.allocated_bytes.fetch_add(len, Ordering::Relaxed);
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_keep_their_bytes_as_the_arena_grows() {
        let arena = Arena::default();
        let lens = [0, 1, 7, 1000, 300_000, 3, 5000];
        let slices: Vec<ArenaSlice> = lens
            .iter()
            .enumerate()
            .map(|(index, len)| arena.push(&vec![u8::try_from(index).unwrap(); *len]))
            .collect();
        for (index, slice) in slices.iter().enumerate() {
            // SAFETY: the arena lives until the end of the test.
            let bytes = unsafe { slice.get() };
            assert_eq!(bytes, vec![u8::try_from(index).unwrap(); lens[index]]);
        }
        assert!(arena.allocated_bytes() >= lens.iter().sum());
    }

    #[test]
    fn an_empty_arena_costs_nothing() {
        assert_eq!(Arena::default().allocated_bytes(), 0);
    }
}
