//! Choices drawn from a fuzzer's bytes.

/// The bytes that are left. Where none are, every draw is zero, so that a run always ends.
pub(super) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// An index below `count`, which must not be zero.
    pub(super) fn index(&mut self, count: usize) -> usize {
        if count <= 256 {
            usize::from(self.u8()) % count
        } else {
            (usize::from(self.u16()) << 8 | usize::from(self.u8())) % count
        }
    }

    /// As many bytes as the next byte says, if they are there.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.u8()).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        bytes
    }

    /// A key of 1 to 256 bytes.
    pub(super) fn key(&mut self) -> Vec<u8> {
        let mut key = vec![b'k'];
        key.extend_from_slice(self.bytes());
        if key.len() > 1 {
            key[1..].to_vec()
        } else {
            key
        }
    }
}

/// One change of stored bytes that a single checksum always finds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Damage {
    None,
    /// Bits of one byte are flipped.
    Flip {
        pos: usize,
        mask: u8,
    },
    Truncate(usize),
    Append(usize),
}

impl Damage {
    /// Draws a damage to something of `len` bytes.
    pub(super) fn draw(input: &mut Input<'_>, len: usize) -> Self {
        match input.u8() % 4 {
            1 if len > 0 => Self::Flip {
                pos: input.index(len),
                mask: input.u8().max(1),
            },
            2 => Self::Truncate(input.index(len + 1)),
            3 => Self::Append(1 + usize::from(input.u8())),
            _ => Self::None,
        }
    }

    pub(super) fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Flip { pos, mask } => bytes[pos] ^= mask,
            Self::Truncate(len) => bytes.truncate(len),
            Self::Append(count) => bytes.resize(bytes.len() + count, 0xa5),
        }
    }
}
