//! The Kafka protocol as bytes, without I/O: requests are encoded, responses decoded in place.
//!
//! Formats and versions are those of Apache Kafka's message definitions. Lengths and counts of
//! responses are bounded by the bytes that are left before anything is allocated.

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
    /// What a broker answers; borrows the bytes of the answer.
    type Response<'a>;

    /// Appends the body in the encoding of `version`, one of [`VERSIONS`](Self::VERSIONS).
    fn encode(&self, version: i16, out: &mut Vec<u8>);

    /// Reads the body of an answer.
    ///
    /// # Errors
    ///
    /// `Corruption` for bytes that are no such answer.
    fn decode(version: i16, body: &[u8]) -> Result<Self::Response<'_>>;
}
