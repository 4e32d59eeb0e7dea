//! The bytes of one file, shared between the copies of a disk.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::sync::Arc;

const CHUNK_LEN: usize = 4096;

type Chunk = [u8; CHUNK_LEN];

static ZEROS: Chunk = [0; CHUNK_LEN];

/// A file's bytes. A clone is cheap and shares every chunk until one side writes to it.
///
/// Invariants: a chunk that is missing is all zeros; no chunk lies wholly past `len`, and the
/// bytes of the last one past `len` are zeros, so that a longer file reads zeros there.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    chunks: Arc<BTreeMap<u64, Arc<Chunk>>>,
}

impl Content {
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes);
        content
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buf` from `pos`; false, and `buf` untouched, where the file ends before that.
    #[must_use]
    pub(super) fn read(&self, pos: u64, buf: &mut [u8]) -> bool {
        if buf.is_empty() {
            return true;
        }
        match pos.checked_add(buf.len() as u64) {
            Some(end) if end <= self.len => {}
            _ => return false,
        }
        for (at, part) in spans(pos, buf.len(), CHUNK_LEN) {
            let (number, offset) = locate(at);
            let chunk = self.chunks.get(&number).map_or(&ZEROS, |chunk| &**chunk);
            let len = part.len();
            buf[part].copy_from_slice(&chunk[offset..offset + len]);
        }
        true
    }

    /// Writes `bytes` at `pos`. Bytes between the old end and `pos` become zeros.
    pub(super) fn write(&mut self, pos: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        for (at, part) in spans(pos, bytes.len(), CHUNK_LEN) {
            let (number, offset) = locate(at);
            let chunk = chunks.entry(number).or_insert_with(|| Arc::new(ZEROS));
            let len = part.len();
            Arc::make_mut(chunk)[offset..offset + len].copy_from_slice(&bytes[part]);
        }
        self.len = self.len.max(pos + bytes.len() as u64);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let chunks = Arc::make_mut(&mut self.chunks);
            let (last, offset) = locate(len);
            drop(chunks.split_off(&(last + 1)));
            if offset == 0 {
                chunks.remove(&last);
            } else if let Some(chunk) = chunks.get_mut(&last) {
                Arc::make_mut(chunk)[offset..].fill(0);
            }
        }
        self.len = len;
    }

    /// Shows all bytes to `visit`, in order.
    pub(super) fn for_each_part(&self, mut visit: impl FnMut(&[u8])) {
        let mut pos = 0;
        while pos < self.len {
            let (number, _) = locate(pos);
            let chunk = self.chunks.get(&number).map_or(&ZEROS, |chunk| &**chunk);
            let len = usize::try_from(self.len - pos)
                .unwrap_or(CHUNK_LEN)
                .min(CHUNK_LEN);
            visit(&chunk[..len]);
            pos += len as u64;
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.for_each_part(|part| bytes.extend_from_slice(part));
        bytes
    }
}

/// The number of the chunk that holds `pos`, and where in it.
fn locate(pos: u64) -> (u64, usize) {
    let len = CHUNK_LEN as u64;
    (
        pos / len,
        usize::try_from(pos % len).expect("below the length of a chunk"),
    )
}

/// Cuts `len` bytes at `pos` wherever they cross a multiple of `grain`: the position of each
/// piece, and its range of the bytes.
pub(super) fn spans(
    pos: u64,
    len: usize,
    grain: usize,
) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let start = done;
        let at = pos + start as u64;
        let offset = usize::try_from(at % grain as u64).expect("below the grain");
        done += (grain - offset).min(len - start);
        Some((at, start..done))
    })
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn behaves_as_a_vector_does() {
        let mut random = Random::new(1);
        let mut content = Content::default();
        let mut model: Vec<u8> = Vec::new();
        for _ in 0..300 {
            let before = (content.clone(), model.clone());
            let pos = random.index(0..3 * CHUNK_LEN);
            if random.chance(70) {
                let mut bytes = vec![0; random.index(0..2 * CHUNK_LEN)];
                random.fill(&mut bytes);
                content.write(pos as u64, &bytes);
                if !bytes.is_empty() {
                    model.resize(model.len().max(pos + bytes.len()), 0);
                    model[pos..pos + bytes.len()].copy_from_slice(&bytes);
                }
            } else {
                content.set_len(pos as u64);
                model.resize(pos, 0);
            }
            assert_eq!(content.to_vec(), model);
            assert_eq!(
                before.0.to_vec(),
                before.1,
                "a write reached an earlier copy"
            );
            let end = model.len();
            let start = random.index(0..end + 1);
            let mut part = vec![0; end - start];
            assert!(content.read(start as u64, &mut part));
            assert_eq!(part, &model[start..]);
            assert_eq!(content.read(start as u64 + 1, &mut part), part.is_empty());
        }
    }
}
