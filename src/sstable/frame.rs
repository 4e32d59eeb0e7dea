//! Frames: blocks as they are stored, with compression and checksum.
//!
//! Layout: `docs/format.md`, section "Table", of which this is "frame" and "handle".

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use crate::cache::SharedBytes;
use crate::checksum::crc32_at;
use crate::coding::Decoder;
use crate::error::{Error, Result};
use crate::key::VALUE_LEN_MAX;
use crate::options::Compression;
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::Arc;

const COMPRESSION_LEN: usize = 1;
const CHECKSUM_LEN: usize = 4;
/// What follows a frame's payload.
const TAIL_LEN: usize = COMPRESSION_LEN + CHECKSUM_LEN;
const RAW_LEN_LEN: usize = 4;
/// The longest data block: one entry of the largest size, with room for what is around it.
const RAW_LEN_MAX: usize = VALUE_LEN_MAX + (256 << 10);
/// No LZ4 block unpacks to more than this many times its length, and a little.
const LZ4_RATIO_MAX: usize = 255;
const LZ4_SLACK: usize = 64;

/// The place of a frame within its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) pos: u64,
    /// Length with compression and checksum.
    pub(super) len: u32,
}

impl Handle {
    pub(super) const LEN: usize = 12;

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pos.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
    }

    /// Takes a handle and checks that it names a place within the first `len` bytes of a file.
    pub(super) fn take(decoder: &mut Decoder<'_>, len: u64, what: &str) -> Result<Self> {
        let handle = Self {
            pos: decoder.u64(what)?,
            len: decoder.u32(what)?,
        };
        handle.check(len, what)
    }

    /// The handle in `bytes`, which nobody vouches for.
    #[inline]
    pub(super) fn of(bytes: &[u8; Self::LEN]) -> Self {
        let [p0, p1, p2, p3, p4, p5, p6, p7, l0, l1, l2, l3] = *bytes;
        Self {
            pos: u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
        }
    }

    /// The handle, if it names a place within the first `len` bytes of a file.
    #[inline]
    pub(super) fn check(self, len: u64, what: &str) -> Result<Self> {
        let end = self.pos.checked_add(u64::from(self.len));
        if end.is_some_and(|end| end <= len) && u64::from(self.len) > TAIL_LEN as u64 {
            return Ok(self);
        }
        Err(Error::corruption(format!(
            "{what}: {} bytes at {} are no frame within {len} bytes",
            self.len, self.pos
        )))
    }

    pub(super) fn end(self) -> u64 {
        self.pos + u64::from(self.len)
    }
}

/// Makes frames; holds the memory that compression needs.
pub(super) struct Sealer {
    id: u64,
    table: CompressTable,
    packed: Vec<u8>,
}

impl Sealer {
    /// A sealer for the table `id`.
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            table: CompressTable::small(),
            packed: Vec::new(),
        }
    }

    /// Turns the payload that begins at `start` of `out` into a frame that belongs at `pos`.
    pub(super) fn seal(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        pos: u64,
        compression: Compression,
    ) -> Handle {
        let stored = match compression {
            Compression::Lz4 if self.pack(&out[start..]) => {
                let raw_len = u32::try_from(out.len() - start).expect("bounded by `pack`");
                out.truncate(start);
                out.extend_from_slice(&raw_len.to_le_bytes());
                out.extend_from_slice(&self.packed);
                Compression::Lz4
            }
            _ => Compression::None,
        };
        out.push(stored as u8);
        let checksum = crc32_at(self.id, pos, &[&out[start..]]);
        out.extend_from_slice(&checksum.to_le_bytes());
        let len = u32::try_from(out.len() - start).expect("a frame is shorter than 4 GiB");
        Handle { pos, len }
    }

    /// Compresses into `packed`; false where that saves less than an eighth.
    fn pack(&mut self, raw: &[u8]) -> bool {
        if raw.len() > RAW_LEN_MAX {
            return false;
        }
        self.packed.resize(get_maximum_output_size(raw.len()), 0);
        let Ok(len) = compress_into_with_table(raw, &mut self.packed, &mut self.table) else {
            return false;
        };
        self.packed.truncate(len);
        RAW_LEN_LEN + len <= raw.len() - raw.len() / 8
    }
}

/// True if the frame is marked as stored without compression. Nothing is checked yet.
pub(super) fn is_raw(frame: &[u8]) -> bool {
    frame.len() > TAIL_LEN && frame[frame.len() - TAIL_LEN] == Compression::None as u8
}

/// Where the payload ends of a frame that is stored without compression.
pub(super) fn raw_payload_end(handle: Handle) -> u64 {
    handle.end() - TAIL_LEN as u64
}

/// The payload of `frame`, which was read at `pos` of the table `id`, checked and decompressed.
///
/// Shares the frame's memory if it is not compressed.
pub(super) fn open(id: u64, pos: u64, frame: &Slice) -> Result<Slice> {
    let bytes: &[u8] = frame;
    let Some((checked, checksum)) = bytes.split_last_chunk::<CHECKSUM_LEN>() else {
        return Err(Error::corruption(format!("frame of {} bytes", bytes.len())));
    };
    let stored = u32::from_le_bytes(*checksum);
    let computed = crc32_at(id, pos, &[checked]);
    if stored != computed && !planted(Bug::BlockChecksumIgnored) {
        return Err(Error::corruption(format!(
            "checksum: stored {stored:08x}, computed {computed:08x}"
        )));
    }
    match checked.split_last() {
        Some((0, payload)) => Ok(frame.sub(0..payload.len())),
        Some((1, payload)) => unpack(payload).map(Slice::from_shared),
        Some((compression, _)) => Err(Error::unsupported(format!(
            "compression {compression} is of a newer format"
        ))),
        None => Err(Error::corruption("frame without compression")),
    }
}

fn unpack(payload: &[u8]) -> Result<SharedBytes> {
    let mut decoder = Decoder::new(payload);
    let raw_len = decoder.u32("length before compression")?;
    let raw_len = usize::try_from(raw_len).unwrap_or(usize::MAX);
    let packed = decoder.take(decoder.remaining(), "compressed bytes")?;
    let possible_len = packed
        .len()
        .saturating_mul(LZ4_RATIO_MAX)
        .saturating_add(LZ4_SLACK);
    if raw_len > RAW_LEN_MAX || raw_len > possible_len {
        return Err(Error::corruption(format!(
            "{} compressed bytes cannot be {raw_len} uncompressed",
            packed.len()
        )));
    }
    // Made where it stays: the cache and its readers share it.
    let mut raw: SharedBytes = std::iter::repeat_n(0, raw_len).collect();
    let room = Arc::get_mut(&mut raw).expect("nobody else has it yet");
    let len = decompress_into(packed, room)
        .map_err(|error| Error::corruption("LZ4 block").with_source(error))?;
    if len != raw_len {
        return Err(Error::corruption(format!(
            "LZ4 block of {len} bytes, {raw_len} were named"
        )));
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(payload: &[u8], compression: Compression) -> Vec<u8> {
        let mut out = vec![9; 3];
        out.extend_from_slice(payload);
        let handle = Sealer::new(7).seal(&mut out, 3, 100, compression);
        assert_eq!(u64::from(handle.len), out.len() as u64 - 3);
        out.split_off(3)
    }

    /// A frame with a good checksum around any payload.
    fn forged(payload: &[u8], compression: u8) -> Slice {
        let mut out = payload.to_vec();
        out.push(compression);
        let checksum = crc32_at(7, 100, &[&out]);
        out.extend_from_slice(&checksum.to_le_bytes());
        Slice::from(out)
    }

    #[test]
    fn payloads_round_trip_and_belong_to_one_place() {
        let noise: Vec<u8> = (0..5000_u32)
            .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
            .collect();
        for payload in [b"x".to_vec(), vec![5; 5000], noise, vec![0; 200_000]] {
            for compression in [Compression::None, Compression::Lz4] {
                let frame = Slice::from(sealed(&payload, compression));
                assert_eq!(open(7, 100, &frame).unwrap(), payload);
                assert!(open(8, 100, &frame).is_err());
                assert!(open(7, 101, &frame).is_err());
            }
        }
        assert!(sealed(&[5; 5000], Compression::Lz4).len() < 200);
        assert!(is_raw(&sealed(b"incompressible", Compression::Lz4)));
    }

    #[test]
    fn hostile_lengths_are_refused_before_anything_is_allocated() {
        for raw_len in [u32::MAX, 1 << 31, 3000, 0, 4] {
            let mut payload = raw_len.to_le_bytes().to_vec();
            payload.extend_from_slice(&[0x30, 1, 2, 3, 4]);
            let error = open(7, 100, &forged(&payload, 1)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Corruption, "{error}");
        }
        assert!(open(7, 100, &forged(&[1], 1)).is_err());
        assert!(open(7, 100, &Slice::default()).is_err());
        let error = open(7, 100, &forged(b"zstd?", 2)).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
    }
}
