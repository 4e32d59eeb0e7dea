//! Changes that come with the right checksums: what a hostile or buggy writer could leave. See
//! `docs/format.md` for the layouts.

/// Length of a journal segment's header.
pub(crate) const SEGMENT_HEADER_LEN: usize = 48;
const RECORD_HEADER_LEN: usize = 20;
const FOOTER_LEN: usize = 48;
const FRAME_TAIL_LEN: usize = 5;
const CURRENT_COPY_LEN: usize = 512;

pub(crate) fn crc(id: u64, pos: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.to_le_bytes());
    hasher.update(&pos.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], pos: usize) -> u32 {
    u32::from_le_bytes(bytes[pos..pos + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], pos: usize) -> u64 {
    u64::from_le_bytes(bytes[pos..pos + 8].try_into().unwrap())
}

fn put_u32(bytes: &mut [u8], pos: usize, value: u32) {
    bytes[pos..pos + 4].copy_from_slice(&value.to_le_bytes());
}

/// Where the parts of an intact table's file lie.
pub(crate) struct Table {
    bytes: Vec<u8>,
    id: u64,
    /// Start and end of each frame, in order, the checksums included.
    pub(crate) frames: Vec<(usize, usize)>,
}

impl Table {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let footer = bytes.len() - FOOTER_LEN;
        let id = u64_at(bytes, footer);
        let mut frames = Vec::new();
        let mut start = 0;
        while start < footer {
            let end = frame_end(&bytes[..footer], id, start);
            frames.push((start, end));
            start = end;
        }
        let table = Self {
            bytes: bytes.to_vec(),
            id,
            frames,
        };
        assert_eq!(
            table.forged(|_| {}),
            bytes,
            "checksums are made as they were"
        );
        table
    }

    /// How each frame is stored.
    pub(crate) fn compressions(&self) -> Vec<u8> {
        let of_frame = |(_, end): &(usize, usize)| self.bytes[end - FRAME_TAIL_LEN];
        self.frames.iter().map(of_frame).collect()
    }

    /// The table with changes, its checksums made right.
    pub(crate) fn forged(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        change(&mut bytes);
        for (start, end) in &self.frames {
            let sum = crc(self.id, *start as u64, &bytes[*start..end - 4]);
            put_u32(&mut bytes, end - 4, sum);
        }
        let footer = bytes.len() - FOOTER_LEN;
        let id = u64_at(&bytes, footer);
        let end = bytes.len() - 4;
        let sum = crc(id, footer as u64, &bytes[footer..end]);
        put_u32(&mut bytes, end, sum);
        bytes
    }
}

/// The first end at which the checksum of a frame from `start` on is right.
fn frame_end(bytes: &[u8], id: u64, start: usize) -> usize {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.to_le_bytes());
    hasher.update(&(start as u64).to_le_bytes());
    for end in start + 1..bytes.len() - 3 {
        hasher.update(&bytes[end - 1..end]);
        if hasher.clone().finalize() == u32_at(bytes, end) {
            return end + 4;
        }
    }
    panic!("no frame begins at {start}");
}

/// Where the records of an intact journal segment lie.
pub(crate) struct Segment {
    bytes: Vec<u8>,
    /// Start and end of each record.
    pub(crate) records: Vec<(usize, usize)>,
}

impl Segment {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut records = Vec::new();
        let mut start = SEGMENT_HEADER_LEN;
        while start + RECORD_HEADER_LEN <= bytes.len() {
            let len = usize::try_from(u32_at(bytes, start)).unwrap();
            let end = start + RECORD_HEADER_LEN + len;
            if len == 0 || end > bytes.len() {
                break;
            }
            records.push((start, end));
            start = end;
        }
        let segment = Self {
            bytes: bytes.to_vec(),
            records,
        };
        assert_eq!(
            segment.forged(|_| {}),
            bytes,
            "checksums are made as they were"
        );
        segment
    }

    /// The segment with changes, its checksums made right.
    pub(crate) fn forged(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        change(&mut bytes);
        let (id, number, base) = (u64_at(&bytes, 12), u64_at(&bytes, 20), u64_at(&bytes, 28));
        let sum = crc(id, number, &bytes[..44]);
        put_u32(&mut bytes, 44, sum);
        let place = id ^ number ^ (u64::from(u32_at(&bytes, 4)) << 32);
        for (start, end) in &self.records {
            let pos = base.wrapping_add((start - SEGMENT_HEADER_LEN) as u64);
            let len = usize::try_from(u32_at(&bytes, *start)).unwrap();
            let payload = start + RECORD_HEADER_LEN;
            // A forged length that fits covers what lies there.
            let payload_end = payload.saturating_add(len);
            let payload_end = if payload_end > bytes.len() {
                *end
            } else {
                payload_end
            };
            let sum = crc(place, pos, &bytes[payload..payload_end]);
            put_u32(&mut bytes, start + 12, sum);
            let sum = crc(place, pos, &bytes[*start..start + 16]);
            put_u32(&mut bytes, start + 16, sum);
        }
        bytes
    }
}

/// CURRENT with changes to both copies, its checksums made right.
pub(crate) fn forged_current(bytes: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (index, copy) in bytes.chunks_mut(CURRENT_COPY_LEN).enumerate() {
        change(copy);
        let sum = crc(
            0,
            (index * CURRENT_COPY_LEN) as u64,
            &copy[..CURRENT_COPY_LEN - 4],
        );
        put_u32(copy, CURRENT_COPY_LEN - 4, sum);
    }
    bytes
}
