//! The fixed end of a table, from which everything else in it is found.
//!
//! Layout: `docs/format.md`, section "Table", of which this is "footer".

use super::frame::Handle;
use crate::checksum::crc32_at;
use crate::coding::Decoder;
use crate::error::{Error, Result};

/// The format that this build writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
pub(super) const MAGIC: [u8; 8] = *b"SILTSST\0";
const CHECKSUM_LEN: usize = 4;
const ID_LEN: usize = 8;
const FORMAT_LEN: usize = 4;
pub(super) const MAGIC_POS: usize = ID_LEN + 2 * Handle::LEN + FORMAT_LEN;
pub(super) const FOOTER_LEN: usize = MAGIC_POS + MAGIC.len() + CHECKSUM_LEN;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) top_index: Handle,
    pub(super) properties: Handle,
}

impl Footer {
    /// Appends the footer of the table `id`, which belongs at `pos`.
    pub(super) fn put(self, out: &mut Vec<u8>, id: u64, pos: u64) {
        let start = out.len();
        out.extend_from_slice(&id.to_le_bytes());
        self.top_index.put(out);
        self.properties.put(out);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        let checksum = crc32_at(id, pos, &[&out[start..]]);
        out.extend_from_slice(&checksum.to_le_bytes());
        assert_eq!(out.len() - start, FOOTER_LEN);
    }

    /// Checks the footer of the table that ought to be `id`, read at `pos`.
    pub(super) fn decode(bytes: &[u8; FOOTER_LEN], id: u64, pos: u64) -> Result<Self> {
        let (checked, checksum) = bytes.split_at(FOOTER_LEN - CHECKSUM_LEN);
        let mut decoder = Decoder::new(checked);
        let stored_id = decoder.u64("table id")?;
        let mut handles = Decoder::new(decoder.take(2 * Handle::LEN, "handles")?);
        let format = decoder.u32("format")?;
        let magic = decoder.array::<8>("magic")?;
        if magic != MAGIC {
            return Err(Error::corruption(format!(
                "no table: it ends with the magic \"{}\"",
                magic.escape_ascii()
            )));
        }
        let stored = Decoder::new(checksum).u32("footer checksum")?;
        let computed = crc32_at(stored_id, pos, &[checked]);
        if stored != computed {
            return Err(Error::corruption(format!(
                "footer checksum: stored {stored:08x}, computed {computed:08x}"
            )));
        }
        if stored_id != id {
            return Err(Error::corruption(format!(
                "another table: id {stored_id:016x}, expected {id:016x}"
            )));
        }
        if format > FORMAT {
            return Err(Error::unsupported(format!(
                "table of format {format}; this build reads formats up to {FORMAT}"
            )));
        }
        if format < FORMAT {
            return Err(Error::corruption(format!(
                "table of format {format}, which never was"
            )));
        }
        let top_index = Handle::take(&mut handles, pos, "handle of the top index")?;
        let properties = Handle::take(&mut handles, pos, "handle of the properties")?;
        if top_index.end() != properties.pos || properties.end() != pos {
            return Err(Error::corruption(format!(
                "top index at {} and properties at {} do not lead up to the footer",
                top_index.pos, properties.pos
            )));
        }
        Ok(Self {
            top_index,
            properties,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POS: u64 = 200;

    fn encoded() -> (Footer, [u8; FOOTER_LEN]) {
        let footer = Footer {
            top_index: Handle { pos: 100, len: 40 },
            properties: Handle { pos: 140, len: 60 },
        };
        let mut out = Vec::new();
        footer.put(&mut out, 7, POS);
        (footer, out.try_into().unwrap())
    }

    #[test]
    fn round_trips_and_notices_every_flipped_bit() {
        let (footer, bytes) = encoded();
        assert_eq!(Footer::decode(&bytes, 7, POS).unwrap(), footer);
        assert!(
            Footer::decode(&bytes, 8, POS)
                .unwrap_err()
                .to_string()
                .contains("another table")
        );
        assert!(Footer::decode(&bytes, 7, POS + 1).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = Footer::decode(&damaged, 7, POS).unwrap_err();
            assert_eq!(
                error.kind(),
                crate::ErrorKind::Corruption,
                "bit {bit}: {error}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let (_, mut bytes) = encoded();
        bytes[ID_LEN + 2 * Handle::LEN] = 2;
        let checksum = crc32_at(7, POS, &[&bytes[..FOOTER_LEN - CHECKSUM_LEN]]);
        bytes[FOOTER_LEN - CHECKSUM_LEN..].copy_from_slice(&checksum.to_le_bytes());
        let error = Footer::decode(&bytes, 7, POS).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 2"), "{error}");
    }
}
