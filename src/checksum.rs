//! CRC-32 of stored bytes, bound to the place where they belong.

use crate::planted::{Bug, planted};

/// The checksum of `parts`, as one run of bytes that belongs at `pos` of the file `id`.
///
/// The same bytes in another file or at another position have another checksum, so that a good
/// block in the wrong place is found out.
pub(crate) fn crc32_at(id: u64, pos: u64, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let (id, pos) = if planted(Bug::ChecksumNotBoundToPlace) {
        (0, 0)
    } else {
        (id, pos)
    };
    hasher.update(&id.to_le_bytes());
    hasher.update(&pos.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_and_bytes_both_count() {
        let sum = crc32_at(1, 2, &[b"ab", b"c"]);
        assert_eq!(sum, crc32_at(1, 2, &[b"abc"]));
        assert_ne!(sum, crc32_at(2, 2, &[b"abc"]));
        assert_ne!(sum, crc32_at(1, 3, &[b"abc"]));
        assert_ne!(sum, crc32_at(1, 2, &[b"abd"]));
    }
}
