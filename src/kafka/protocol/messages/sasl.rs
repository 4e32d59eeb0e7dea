//! Logging in.

use std::fmt;

use crate::error::Result;
use crate::kafka::protocol::{ErrorCode, Reader, Request, Writer};

/// Chooses how to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SaslHandshakeRequest<'r> {
    pub(crate) mechanism: &'r str,
}

/// Answers [`SaslHandshakeRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SaslHandshakeResponse<'a> {
    pub(crate) error_code: ErrorCode,
    /// What the broker takes.
    pub(crate) mechanisms: Vec<&'a str>,
}

impl Request for SaslHandshakeRequest<'_> {
    const API_KEY: i16 = 17;
    const NAME: &'static str = "SaslHandshake";
    const VERSIONS: &'static [i16] = &[1];
    const FLEXIBLE_FROM: i16 = i16::MAX;
    type Response<'a> = SaslHandshakeResponse<'a>;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        writer.string(self.mechanism);
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(SaslHandshakeResponse {
            error_code: ErrorCode(reader.i16("error code")?),
            mechanisms: reader.array("mechanisms", |reader| reader.str("mechanism"))?,
        })
    }
}

/// One message of the chosen mechanism. Its `Debug` form keeps the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SaslAuthenticateRequest<'r> {
    pub(crate) auth_bytes: &'r [u8],
}

impl fmt::Debug for SaslAuthenticateRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslAuthenticateRequest")
            .finish_non_exhaustive()
    }
}

/// Answers [`SaslAuthenticateRequest`]. Its `Debug` form keeps the mechanism's message.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SaslAuthenticateResponse<'a> {
    pub(crate) error_code: ErrorCode,
    pub(crate) error_message: Option<&'a str>,
    pub(crate) auth_bytes: &'a [u8],
    /// 0 where the session does not end.
    pub(crate) session_lifetime_ms: i64,
}

impl fmt::Debug for SaslAuthenticateResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslAuthenticateResponse")
            .field("error_code", &self.error_code)
            .field("error_message", &self.error_message)
            .field("session_lifetime_ms", &self.session_lifetime_ms)
            .finish_non_exhaustive()
    }
}

impl Request for SaslAuthenticateRequest<'_> {
    const API_KEY: i16 = 36;
    const NAME: &'static str = "SaslAuthenticate";
    const VERSIONS: &'static [i16] = &[1, 2];
    const FLEXIBLE_FROM: i16 = 2;
    type Response<'a> = SaslAuthenticateResponse<'a>;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        writer.bytes(self.auth_bytes);
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(SaslAuthenticateResponse {
            error_code: ErrorCode(reader.i16("error code")?),
            error_message: reader.nullable_str("error message")?,
            auth_bytes: reader.bytes("message of the mechanism")?,
            session_lifetime_ms: reader.i64("lifetime of the session")?,
        })
    }
}
