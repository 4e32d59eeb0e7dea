//! The codecs that a batch's records may be compressed with. LZ4 is always there; the others are
//! for reading what was not written here, each behind a feature.

use std::io::Read;

use crate::error::{Error, Result};

/// Longest that records of one batch may become unless a reader says otherwise.
pub(crate) const DECOMPRESSED_LEN_MAX: usize = 256 << 20;

const CODEC_GZIP: u16 = 1;
const CODEC_SNAPPY: u16 = 2;
pub(super) const CODEC_LZ4: u16 = 3;
const CODEC_ZSTD: u16 = 4;

/// How a batch's records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// The codec of a batch; none for plain records.
    pub(super) fn from_attributes(codec: u16) -> Result<Option<Self>> {
        Ok(Some(match codec {
            0 => return Ok(None),
            CODEC_GZIP => Self::Gzip,
            CODEC_SNAPPY => Self::Snappy,
            CODEC_LZ4 => Self::Lz4,
            CODEC_ZSTD => Self::Zstd,
            _ => {
                return Err(Error::unsupported(format!(
                    "compressed with unknown codec {codec}"
                )));
            }
        }))
    }

    /// Replaces what is in `out`. Reads no further than `len_max` bytes.
    ///
    /// # Errors
    ///
    /// `Corruption` for bytes that are not of the codec or become too long, `Unsupported` for a
    /// codec that this build lacks.
    pub(super) fn decompress(self, input: &[u8], out: &mut Vec<u8>, len_max: usize) -> Result<()> {
        out.clear();
        match self {
            Self::Lz4 => {
                let frame = lz4_flex::frame::FrameDecoder::new(input);
                read_to_end("LZ4", frame, out, len_max)
            }
            Self::Gzip => gzip(input, out, len_max),
            Self::Snappy => snappy(input, out, len_max),
            Self::Zstd => zstd(input, out, len_max),
        }
    }
}

/// Reads a decoder to its end, which has to come within `len_max` bytes.
fn read_to_end(name: &str, decoder: impl Read, out: &mut Vec<u8>, len_max: usize) -> Result<()> {
    let mut bounded = decoder.take((len_max - out.len()) as u64 + 1);
    if let Err(error) = bounded.read_to_end(out) {
        return Err(damaged(name).with_source(error));
    }
    if out.len() > len_max {
        return Err(too_long(name, len_max));
    }
    Ok(())
}

#[cold]
fn damaged(name: &str) -> Error {
    Error::corruption(format!("the {name} bytes are damaged"))
}

#[cold]
fn too_long(name: &str, len_max: usize) -> Error {
    Error::corruption(format!(
        "the {name} bytes become more than {len_max} bytes long"
    ))
}

#[cfg(not(all(
    feature = "kafka-gzip",
    feature = "kafka-snappy",
    feature = "kafka-zstd"
)))]
fn lacks(feature: &str) -> Error {
    Error::unsupported(format!(
        "compressed with a codec that needs feature `{feature}`, which this build lacks"
    ))
}

#[cfg(feature = "kafka-gzip")]
fn gzip(input: &[u8], out: &mut Vec<u8>, len_max: usize) -> Result<()> {
    read_to_end(
        "gzip",
        flate2::bufread::MultiGzDecoder::new(input),
        out,
        len_max,
    )
}

#[cfg(not(feature = "kafka-gzip"))]
fn gzip(_input: &[u8], _out: &mut Vec<u8>, _len_max: usize) -> Result<()> {
    Err(lacks("kafka-gzip"))
}

/// Snappy as Java frames it: this head, two versions, and blocks behind their lengths. librdkafka
/// and others send one bare block.
#[cfg(feature = "kafka-snappy")]
const JAVA_SNAPPY_HEAD: &[u8] = b"\x82SNAPPY\0";

#[cfg(feature = "kafka-snappy")]
fn snappy(input: &[u8], out: &mut Vec<u8>, len_max: usize) -> Result<()> {
    let Some(framed) = input.strip_prefix(JAVA_SNAPPY_HEAD) else {
        return snappy_block(input, out, len_max);
    };
    let Some((_versions, mut rest)) = framed.split_first_chunk::<8>() else {
        return Err(damaged("Snappy"));
    };
    while !rest.is_empty() {
        let block = rest.split_first_chunk().and_then(|(len, behind)| {
            let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
            behind.split_at_checked(len)
        });
        let (block, behind) = block.ok_or_else(|| damaged("Snappy"))?;
        snappy_block(block, out, len_max)?;
        rest = behind;
    }
    Ok(())
}

/// Appends one block. Three bytes make at most 64, so that a wild length is found before memory is
/// taken for it.
#[cfg(feature = "kafka-snappy")]
fn snappy_block(block: &[u8], out: &mut Vec<u8>, len_max: usize) -> Result<()> {
    const EXPANSION_MAX: usize = 22;
    let failed = |error: snap::Error| damaged("Snappy").with_source(error);
    let len = snap::raw::decompress_len(block).map_err(failed)?;
    if len > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(damaged("Snappy"));
    }
    let start = out.len();
    if len > len_max - start {
        return Err(too_long("Snappy", len_max));
    }
    out.resize(start + len, 0);
    let mut decoder = snap::raw::Decoder::new();
    let written = decoder
        .decompress(block, &mut out[start..])
        .map_err(failed)?;
    out.truncate(start + written);
    Ok(())
}

#[cfg(not(feature = "kafka-snappy"))]
fn snappy(_input: &[u8], _out: &mut Vec<u8>, _len_max: usize) -> Result<()> {
    Err(lacks("kafka-snappy"))
}

/// Largest window that decoders are asked to support (RFC 8878, 3.1.1.1.2); memory for it is taken
/// before the first byte is decoded.
#[cfg(feature = "kafka-zstd")]
const ZSTD_WINDOW_LEN_MAX: u64 = 8 << 20;

#[cfg(feature = "kafka-zstd")]
fn zstd(mut input: &[u8], out: &mut Vec<u8>, len_max: usize) -> Result<()> {
    // One frame behind the other, if there is more than one.
    while !input.is_empty() {
        let frame = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(
            &mut input,
            ZSTD_WINDOW_LEN_MAX,
        )
        .map_err(|error| damaged("Zstandard").with_source(error))?;
        read_to_end("Zstandard", frame, out, len_max)?;
    }
    Ok(())
}

#[cfg(not(feature = "kafka-zstd"))]
fn zstd(_input: &[u8], _out: &mut Vec<u8>, _len_max: usize) -> Result<()> {
    Err(lacks("kafka-zstd"))
}
