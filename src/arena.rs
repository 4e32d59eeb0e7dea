//! Append-only memory that a memtable points into.
//!
//! The one writer takes room and fills it; what it took never moves and is not freed before the
//! arena is dropped, so readers may hold plain pointers to it.

#![expect(
    unsafe_code,
    reason = "hands out pointers into chunks that live as long as the arena"
)]

use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// Room for values of one type, in chunks that are filled from the front.
///
/// An empty arena holds no memory. The first chunk is small and later ones double, so that a
/// process may have hundreds of arenas with little in them.
pub(crate) struct Arena<T> {
    /// Every chunk; the newest one is being filled.
    chunks: Vec<Chunk<T>>,
    /// Length of the next chunk.
    chunk_len_next: usize,
    /// Length at which chunks stop doubling. What needs more gets a chunk of its own.
    chunk_len_max: usize,
    allocated_bytes: usize,
}

/// Memory that was leaked to get a stable pointer without aliasing a box.
struct Chunk<T> {
    start: NonNull<T>,
    len: usize,
    /// How much of it was handed out, from the front.
    taken: usize,
}

// SAFETY: a chunk owns its memory and whatever was put there.
unsafe impl<T: Send> Send for Chunk<T> {}

impl<T> Chunk<T> {
    fn new(len: usize) -> Self {
        let memory: &mut [MaybeUninit<T>] = Box::leak(Box::new_uninit_slice(len));
        Self {
            start: NonNull::from(memory).cast(),
            len,
            taken: 0,
        }
    }

    /// The next `len` places, if there are as many left.
    fn take(&mut self, len: usize) -> Option<NonNull<T>> {
        if self.len - self.taken < len {
            return None;
        }
        // SAFETY: within the chunk, or one past its end if nothing is wanted.
        let start = unsafe { self.start.add(self.taken) };
        self.taken += len;
        Some(start)
    }
}

impl<T> Drop for Chunk<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            let taken = NonNull::slice_from_raw_parts(self.start, self.taken);
            // SAFETY: of types that need it, places are only handed out filled (see `Arena::push`).
            unsafe { taken.drop_in_place() };
        }
        let memory = NonNull::slice_from_raw_parts(self.start.cast::<MaybeUninit<T>>(), self.len);
        // SAFETY: `start` and `len` come from `Box::leak` of exactly this slice, dropped once.
        drop(unsafe { Box::from_raw(memory.as_ptr()) });
    }
}

impl<T> Arena<T> {
    /// An empty arena. Chunks begin at a length of `chunk_len_min` and double up to
    /// `chunk_len_max`.
    pub(crate) fn new(chunk_len_min: usize, chunk_len_max: usize) -> Self {
        Self {
            chunks: Vec::new(),
            chunk_len_next: chunk_len_min,
            chunk_len_max,
            allocated_bytes: 0,
        }
    }

    /// Keeps `value`, at a place that does not change.
    pub(crate) fn push(&mut self, value: T) -> NonNull<T> {
        let place = self.room(1);
        // SAFETY: the place is within its chunk, and nobody else was given it.
        unsafe { place.write(value) };
        place
    }

    /// Bytes taken from the system.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.allocated_bytes
    }

    fn room(&mut self, len: usize) -> NonNull<T> {
        if let Some(start) = self.chunks.last_mut().and_then(|chunk| chunk.take(len)) {
            return start;
        }
        let mut chunk = Chunk::new(self.chunk_len_next.max(len));
        self.chunk_len_next = (2 * self.chunk_len_next).min(self.chunk_len_max);
        self.allocated_bytes += chunk.len * size_of::<T>();
        let start = chunk.take(len).expect("a fresh chunk has the room");
        if chunk.len > self.chunk_len_max && !self.chunks.is_empty() {
            // Full already: the chunk before it goes on being filled.
            self.chunks.insert(self.chunks.len() - 1, chunk);
        } else {
            self.chunks.push(chunk);
        }
        start
    }
}

impl Arena<u8> {
    /// Keeps the bytes of `parts`, one behind the other.
    pub(crate) fn push_all(&mut self, parts: &[&[u8]]) -> NonNull<u8> {
        let start = self.room(parts.iter().map(|part| part.len()).sum());
        let mut end = start;
        for part in parts {
            // SAFETY: there is room for all parts from `start` on, and nobody else was given it.
            unsafe { end.copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len()) };
            // SAFETY: still within the room, or one past its end.
            end = unsafe { end.add(part.len()) };
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Arc;

    #[test]
    fn bytes_stay_in_place_as_the_arena_grows() {
        let mut arena = Arena::new(16, 1000);
        let lens = [0, 1, 7, 1000, 300_000, 3, 5000, 990];
        let kept: Vec<NonNull<u8>> = lens
            .iter()
            .enumerate()
            .map(|(index, len)| {
                let bytes = vec![u8::try_from(index).unwrap(); *len];
                let (front, back) = bytes.split_at(len / 3);
                arena.push_all(&[front, back])
            })
            .collect();
        for (index, start) in kept.iter().enumerate() {
            let bytes = NonNull::slice_from_raw_parts(*start, lens[index]);
            // SAFETY: as many bytes were put there, and the arena lives.
            let bytes = unsafe { bytes.as_ref() };
            assert_eq!(bytes, vec![u8::try_from(index).unwrap(); lens[index]]);
        }
        let needed: usize = lens.iter().sum();
        assert!((needed..needed + 4000).contains(&arena.allocated_bytes()));
    }

    #[test]
    fn what_is_kept_is_dropped_with_the_arena() {
        let value = Arc::new(());
        let mut arena = Arena::new(1, 4);
        for _ in 0..20 {
            arena.push(Arc::clone(&value));
        }
        assert_eq!(Arc::strong_count(&value), 21);
        drop(arena);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn an_empty_arena_costs_nothing() {
        assert_eq!(Arena::<u8>::new(1024, 4096).allocated_bytes(), 0);
    }
}
