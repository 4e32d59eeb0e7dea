//! What leaves and inner nodes have in common: a few slots, filled once each, and one word that
//! tells their order.

use std::cell::UnsafeCell;

/// Slots of a node. With 14 of them, the order, the length of the prefix and the heads fill two
/// cache lines. In models nodes are small, so that few writes split all levels.
pub(super) const SLOTS: usize = if cfg!(shuttle) { 3 } else { 14 };

const BITS: usize = 4;
const MASK: u64 = (1 << BITS) - 1;

/// How many slots of a node are in use, always the first ones, and which of them comes first,
/// second, and so on in the order of keys.
///
/// One atomic word in the node: a reader that has loaded it has a snapshot of the node, for a
/// slot that it names is never written again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Order(pub(super) u64);

impl Order {
    /// The first `len` slots, in the order in which they are.
    pub(super) fn of_filled(len: usize) -> Self {
        (0..len).fold(Self(0), Self::with_next_at)
    }

    pub(super) fn len(self) -> usize {
        (self.0 & MASK) as usize
    }

    pub(super) fn is_full(self) -> bool {
        self.len() == SLOTS
    }

    /// The slot of a rank.
    pub(super) fn slot(self, rank: usize) -> usize {
        debug_assert!(rank < self.len());
        (self.0 >> (BITS * (rank + 1)) & MASK) as usize
    }

    /// This order with the first free slot at `rank`.
    pub(super) fn with_next_at(self, rank: usize) -> Self {
        debug_assert!(rank <= self.len() && !self.is_full());
        let before = (1_u64 << (BITS * (rank + 1))) - 1;
        let behind = self.0 & !before;
        let slot = (self.len() as u64) << (BITS * (rank + 1));
        Self((self.0 & before | slot | behind << BITS) + 1)
    }

    /// True if the two newest slots of a full node are its last, in order: keys are ascending.
    pub(super) fn is_ascending(self) -> bool {
        self.is_full() && self.slot(SLOTS - 1) == SLOTS - 1 && self.slot(SLOTS - 2) == SLOTS - 2
    }

    /// True if the two newest slots of a full node stand at `rank` and behind it, in descending
    /// order.
    pub(super) fn is_descending_at(self, rank: usize) -> bool {
        self.is_full() && self.slot(rank) == SLOTS - 1 && self.slot(rank + 1) == SLOTS - 2
    }
}

/// A value that is written once, before the node's order names it.
pub(super) struct Slot<T>(UnsafeCell<T>);

// SAFETY: written by the one writer before its node's order names it, read only afterwards; the
// order is stored with Release and loaded with Acquire.
unsafe impl<T: Send> Sync for Slot<T> {}

impl<T: Copy> Slot<T> {
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// # Safety
    ///
    /// Only by the one writer, and only while no order that was published names the slot.
    pub(super) unsafe fn set(&self, value: T) {
        // SAFETY: nobody reads the slot now, as the caller vouches.
        unsafe { self.0.get().write(value) };
    }

    /// # Safety
    ///
    /// Only by the one writer, or with an order at hand that names the slot.
    pub(super) unsafe fn get(&self) -> T {
        // SAFETY: nobody writes the slot any more, as the caller vouches.
        unsafe { self.0.get().read() }
    }
}

/// The first seven bytes of a key behind the prefix that all keys of a node share, and how many
/// bytes there are in all, up to eight: compares as the keys do, unless it is equal.
///
/// Equal heads whose length is below eight prove equal keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head(u64);

impl Head {
    pub(super) const ZERO: Self = Self(0);
    const LEN_MAX: usize = 8;

    pub(super) fn new(user: &[u8], prefix_len: usize) -> Self {
        let len = user.len().saturating_sub(prefix_len);
        let bytes = if len >= 8 {
            let bytes = user[prefix_len..].first_chunk();
            u64::from_be_bytes(*bytes.expect("as many bytes are there"))
        } else if len == 0 {
            0
        } else if let Some(last) = user.last_chunk() {
            u64::from_be_bytes(*last) << (8 * (8 - len))
        } else {
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(&user[prefix_len..]);
            u64::from_be_bytes(bytes)
        };
        Self(bytes & !0xff | len.min(Self::LEN_MAX) as u64)
    }

    /// True if an equal head is of an equal key.
    pub(super) fn is_whole(self) -> bool {
        (self.0 & 0xff) < Self::LEN_MAX as u64
    }
}

/// How many heads of an order lie below `head`: the rank of the first that does not. The order
/// itself does not matter, so that no load has to wait for another.
pub(super) fn count_below(heads: &[Slot<Head>; SLOTS], order: Order, head: Head) -> usize {
    heads[..order.len()]
        .iter()
        // SAFETY: the order names the first slots.
        .filter(|slot| unsafe { slot.get() } < head)
        .count()
}

/// The length of what two keys begin with alike.
pub(super) fn shared_len(one: &[u8], other: &[u8]) -> usize {
    one.iter()
        .zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

/// Asks the processor to have up to three cache lines of something at hand soon.
#[inline(always)]
pub(super) fn prefetch<T>(start: *const T, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..len.min(192).div_ceil(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = start.cast::<i8>().wrapping_add(64 * line);
        // SAFETY: a prefetch reads nothing that the program could see, and faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation() {
        let mut order = Order::of_filled(0);
        let mut expected: Vec<usize> = Vec::new();
        for (slot, rank) in [0, 0, 2, 1, 4, 0, 3, 7, 8, 1, 10, 5, 0, 13]
            .into_iter()
            .take(SLOTS)
            .enumerate()
        {
            order = order.with_next_at(rank);
            expected.insert(rank, slot);
            let found: Vec<usize> = (0..order.len()).map(|rank| order.slot(rank)).collect();
            assert_eq!(found, expected);
        }
        assert!(order.is_full());
    }

    #[test]
    fn runs_are_known() {
        assert!(Order::of_filled(SLOTS).is_ascending());
        assert!(!Order::of_filled(SLOTS - 1).is_ascending());
        let descending = (0..SLOTS).fold(Order(0), |order, _| order.with_next_at(0));
        assert!(descending.is_descending_at(0) && !descending.is_ascending());
        let behind_first = (1..SLOTS).fold(Order::of_filled(1), |order, _| order.with_next_at(1));
        assert!(behind_first.is_descending_at(1) && !behind_first.is_descending_at(0));
    }

    #[test]
    fn heads_compare_as_keys_and_whole_ones_prove_them_equal() {
        let tails: [&[u8]; 12] = [
            b"",
            b"\0",
            b"\0\0",
            b"\0\0\0\0\0\0\0",
            b"\0\0\0\0\0\0\0\0",
            b"\0\0\0\0\0\0\0\0\0",
            b"\0\0\0\0\0\0\0\x01",
            b"\0\0\0\0\0\0\x01",
            b"a",
            b"a\0",
            b"abcdefg",
            b"abcdefgh",
        ];
        for prefix in [&b""[..], b"p", b"a prefix that is longer than a head"] {
            let keys = tails.map(|tail| [prefix, tail].concat());
            let head = |key: &Vec<u8>| Head::new(key, prefix.len());
            for one in &keys {
                for other in &keys {
                    if head(one) == head(other) {
                        assert!(!head(one).is_whole() || one == other);
                    } else {
                        assert_eq!(head(one) < head(other), one < other, "{one:?} {other:?}");
                    }
                }
            }
        }
    }
}
