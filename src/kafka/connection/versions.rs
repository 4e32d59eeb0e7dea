//! What a broker speaks, and what of it is spoken with it.

use crate::error::{Error, Result};
use crate::kafka::protocol::Request;
use crate::kafka::protocol::messages::ApiVersion;

/// The versions of each API that a broker speaks.
#[derive(Debug, Default)]
pub(super) struct Versions(Vec<ApiVersion>);

impl Versions {
    pub(super) fn new(versions: &[ApiVersion]) -> Self {
        Self(versions.to_vec())
    }

    /// The newest version that both sides speak. Where a broker starts is of no account beyond
    /// that: some claim to speak versions that they dropped.
    ///
    /// # Errors
    ///
    /// `Unsupported`, with both sides' versions.
    pub(super) fn pick<R: Request>(&self) -> Result<i16> {
        let api = self.0.iter().find(|api| api.api_key == R::API_KEY);
        let Some(api) = api else {
            let what = format!("does not speak {}", R::NAME);
            return Err(Error::unsupported(what));
        };
        let spoken = api.min_version..=api.max_version;
        let mut common = R::VERSIONS.iter().rev();
        let newest = common.find(|version| spoken.contains(version));
        newest.copied().ok_or_else(|| {
            Error::unsupported(format!(
                "speaks versions {} to {} of {}, this build {:?}",
                api.min_version,
                api.max_version,
                R::NAME,
                R::VERSIONS
            ))
        })
    }
}
