use crate::journal::{Lsn, Writer};

use super::Config;

/// Without zeros ahead, so many syncs are looked at before any are written.
const SYNCS_MIN: u64 = 4;
/// Zeros are worth their writing where they serve so many syncs.
const SYNCS_SERVED_MIN: u64 = 16;

/// Decides when zeros are written ahead of the log, by how much of it the syncs find to do.
///
/// A sync of a file that has grown waits for the file system's own journal too. Where records lie
/// in place of zeros that were synced before, there are only their bytes to write.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Syncs since the log ended at `since`.
    syncs: u64,
    since: Lsn,
}

impl Ahead {
    pub(super) fn new(end: Lsn) -> Self {
        Self {
            syncs: 0,
            since: end,
        }
    }

    /// To be called before the file of `writer` is synced, with nothing staged. Writes zeros behind
    /// the records if it is time for more, to be synced with them, and returns how many.
    pub(super) fn before_sync(&mut self, config: &Config, writer: &mut Writer) -> u64 {
        self.syncs += 1;
        if writer.zeros() > 0 || self.syncs < SYNCS_MIN {
            return 0;
        }
        let (syncs, len) = (self.syncs, writer.end().0 - self.since.0);
        *self = Self::new(writer.end());
        if len / syncs > config.ahead_bytes / SYNCS_SERVED_MIN {
            return 0;
        }
        let file_len = writer.len().saturating_add(config.ahead_bytes);
        // A segment that reaches this length gets no more records.
        let file_len = file_len.min(config.segment_bytes_max);
        // Without them it is only slower.
        writer.write_zeros(file_len).unwrap_or(0)
    }
}
