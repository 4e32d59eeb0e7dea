//! Headers and the length around a message.

use super::{Reader, Request, Writer};
use crate::error::Result;

/// Appends a whole request: length, header, body.
pub(crate) fn encode_frame<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &str,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    // The client id has its two bytes of length in either header.
    let mut header = Writer::new(out, false);
    header.i16(R::API_KEY);
    header.i16(version);
    header.i32(correlation_id);
    header.string(client_id);
    if R::is_flexible(version) {
        Writer::new(out, true).no_tags();
    }
    request.encode(version, out);
    let len = i32::try_from(out.len() - start - 4).expect("a request is at most i32::MAX long");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// Which request a response answers. `frame` is what follows the length.
///
/// # Errors
///
/// `Corruption` if there are fewer than four bytes.
pub(crate) fn correlation_id(frame: &[u8]) -> Result<i32> {
    Reader::new(frame, false).i32("correlation id")
}

/// Reads a response; returns its correlation id too. `frame` is what follows the length.
///
/// # Errors
///
/// `Corruption` for bytes that are no such response.
pub(crate) fn decode_frame<R: Request>(
    version: i16,
    frame: &[u8],
) -> Result<(i32, R::Response<'_>)> {
    let has_tags = R::is_flexible(version) && R::HAS_FLEXIBLE_RESPONSE_HEADER;
    let mut header = Reader::new(frame, has_tags);
    let correlation_id = header.i32("correlation id")?;
    header.skip_tags()?;
    Ok((correlation_id, R::decode(version, header.rest())?))
}
