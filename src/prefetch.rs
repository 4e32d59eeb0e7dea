//! Has memory brought into the processor's cache before it is read.
//!
//! A load would do the same and wait: what takes a lock or counts a holder up lets no later load
//! go first, so that loads on both sides of it come one after another. A prefetch waits for
//! nothing.

#![expect(unsafe_code, reason = "the instruction has no safe name")]

const CACHE_LINE_LEN: usize = 64;

/// Asks for the cache lines of `bytes`; does nothing where this is not known how.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(CACHE_LINE_LEN) {
        prefetch_line(line);
    }
}

/// Asks for the cache line that `value` begins in.
#[inline]
pub(crate) fn prefetch_line<T: ?Sized>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program could see, and of a reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_as_it_is() {
        for len in [0, 1, 64, 1000] {
            let bytes = vec![7; len];
            prefetch(&bytes);
            prefetch(&bytes[len / 3..]);
            prefetch_line(&bytes);
            assert_eq!(bytes, vec![7; len]);
        }
    }
}
