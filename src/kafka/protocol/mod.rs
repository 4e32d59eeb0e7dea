//! The Kafka protocol as bytes, without I/O: requests are encoded, responses decoded in place.
//!
//! Formats and versions are those of Apache Kafka's message definitions. Lengths and counts of
//! responses are bounded by the bytes that are left before anything is allocated.
//!
//! - `wire`: the primitives of both encodings, with and without tagged fields.
//! - [`ErrorCode`]: what brokers answer, by name.
//! - [`messages`]: one request and its response an API.
//! - `frame`: headers and the length around a message.
//! - [`records`]: the batches that Produce and Fetch carry.

#![expect(
    dead_code,
    unused_imports,
    reason = "the whole protocol is here before all who speak it"
)]

#[cfg(test)]
mod draw;
mod error_code;
mod frame;
pub(crate) mod messages;
pub(crate) mod records;
mod wire;

pub(crate) use error_code::ErrorCode;
pub(crate) use frame::{correlation_id, decode_frame, encode_frame};
pub(crate) use wire::{Reader, STRING_LEN_MAX, Uuid, Writer};

use crate::error::Result;

/// A request of one API, and how its response is read.
pub(crate) trait Request {
    /// Number of the API.
    const API_KEY: i16;
    /// The name of the API in messages.
    const NAME: &'static str;
    /// The versions that this crate speaks, oldest first.
    const VERSIONS: &'static [i16];
    /// The first version whose header and body have tagged fields and compact lengths.
    const FLEXIBLE_FROM: i16;
    /// False for the one API whose response header never has tagged fields.
    const HAS_FLEXIBLE_RESPONSE_HEADER: bool = true;
    /// What a broker answers; borrows the bytes of the answer.
    type Response<'a>;

    /// Writes the fields of `version`, without the tagged ones at the end of the message.
    fn write(&self, version: i16, writer: &mut Writer<'_>);

    /// Reads the fields of `version`, without the tagged ones at the end of the message.
    ///
    /// # Errors
    ///
    /// `Corruption` for bytes that are no such answer.
    fn read<'a>(version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>>;

    /// For how long the broker wants nothing more from this client.
    fn throttle_time_ms(_response: &Self::Response<'_>) -> i32 {
        0
    }

    /// Whether `version` has tagged fields and compact lengths.
    fn is_flexible(version: i16) -> bool {
        version >= Self::FLEXIBLE_FROM
    }

    /// Appends the body in the encoding of `version`, one of [`VERSIONS`](Self::VERSIONS).
    fn encode(&self, version: i16, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, Self::is_flexible(version));
        self.write(version, &mut writer);
        writer.no_tags();
    }

    /// Reads the body of an answer.
    ///
    /// # Errors
    ///
    /// `Corruption` for bytes that are no such answer.
    fn decode(version: i16, body: &[u8]) -> Result<Self::Response<'_>> {
        let mut reader = Reader::new(body, Self::is_flexible(version));
        let response = Self::read(version, &mut reader).and_then(|response| {
            reader.skip_tags()?;
            reader.finish()?;
            Ok(response)
        });
        response.map_err(|error| error.context(format_args!("{} response", Self::NAME)))
    }
}
