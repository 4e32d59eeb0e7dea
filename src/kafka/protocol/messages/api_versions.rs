//! Which versions of which APIs a broker speaks.

use crate::error::Result;
use crate::kafka::protocol::{ErrorCode, Reader, Request, Writer};

/// Asks for the versions that the broker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ApiVersionsRequest<'r> {
    /// Since version 3.
    pub(crate) client_software_name: &'r str,
    /// Since version 3.
    pub(crate) client_software_version: &'r str,
}

/// Answers [`ApiVersionsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiVersionsResponse {
    /// After `UNSUPPORTED_VERSION` the other fields are empty: the request has to be repeated in
    /// version 0.
    pub(crate) error_code: ErrorCode,
    pub(crate) api_keys: Vec<ApiVersion>,
    /// Since version 3.
    pub(crate) throttle_time_ms: i32,
}

/// The versions of one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ApiVersion {
    pub(crate) api_key: i16,
    pub(crate) min_version: i16,
    pub(crate) max_version: i16,
}

impl Request for ApiVersionsRequest<'_> {
    const API_KEY: i16 = 18;
    const NAME: &'static str = "ApiVersions";
    const VERSIONS: &'static [i16] = &[0, 3];
    const FLEXIBLE_FROM: i16 = 3;
    // A broker that does not know the version answers as well, and could not tell the header's.
    const HAS_FLEXIBLE_RESPONSE_HEADER: bool = false;
    type Response<'a> = ApiVersionsResponse;

    fn write(&self, version: i16, writer: &mut Writer<'_>) {
        if version >= 3 {
            writer.string(self.client_software_name);
            writer.string(self.client_software_version);
        }
    }

    fn read<'a>(version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        let error_code = ErrorCode(reader.i16("error code")?);
        if error_code == ErrorCode::UNSUPPORTED_VERSION && version > 0 {
            // Answered in version 0, or in none at all by some brokers.
            *reader = Reader::new(&[], false);
            return Ok(ApiVersionsResponse {
                error_code,
                api_keys: Vec::new(),
                throttle_time_ms: 0,
            });
        }
        let api_keys = reader.array("versions", |reader| {
            let api = ApiVersion {
                api_key: reader.i16("API key")?,
                min_version: reader.i16("lowest version")?,
                max_version: reader.i16("highest version")?,
            };
            reader.skip_tags()?;
            Ok(api)
        })?;
        let throttle_time_ms = if version >= 1 {
            reader.i32("throttle time")?
        } else {
            0
        };
        Ok(ApiVersionsResponse {
            error_code,
            api_keys,
            throttle_time_ms,
        })
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}
