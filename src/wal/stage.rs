use crate::env::SharedMap;
use crate::error::Result;
use crate::journal::{Kind, Lsn, SEGMENT_HEADER_LEN, SegmentHeader};

use super::Config;

/// What the header of the file tells, apart from that of a segment.
pub(crate) const STAGE_KIND: Kind = *b"WALS";
/// The file's name.
pub(crate) const STAGE_NAME: &str = "WAL-STAGE";

/// Records that take more than one in so many parts of the stage are written at once: to copy
/// them into it first would cost more than the call that it spares.
const PARTS_MIN: u64 = 4;

/// The stage of a log, if it has one.
#[derive(Debug)]
pub(super) enum Staging {
    /// The next commit that could use one makes it.
    Untried,
    Ready(Stage),
    /// It could not be made: commits are written one by one.
    Impossible,
}

impl Staging {
    /// The stage for `len` bytes of records, made if there is none yet. `None` if they are better
    /// written at once, or there can be none.
    pub(super) fn stage_for(&mut self, config: &Config, len: u64) -> Option<&mut Stage> {
        if len > config.stage_bytes / PARTS_MIN {
            return None;
        }
        if matches!(self, Self::Untried) {
            *self = Stage::create(config).map_or(Self::Impossible, Self::Ready);
        }
        match self {
            Self::Ready(stage) => Some(stage),
            Self::Untried | Self::Impossible => None,
        }
    }

    /// Forgets the segment that was written to. The next one may have more luck with its stage.
    pub(super) fn end_segment(&mut self) {
        match self {
            Self::Ready(stage) => stage.window = None,
            Self::Untried | Self::Impossible => *self = Self::Untried,
        }
    }

    /// Removes the file, of which nothing is needed any more, for good.
    pub(super) fn remove(&mut self, config: &Config) {
        if let Self::Ready(_) = std::mem::replace(self, Self::Impossible) {
            // One that stays behind tells nothing that is not in the segments, and goes with the
            // next open.
            let _ = config.env.remove_file(&config.stage_path());
        }
    }

    /// Bytes that were written to make the stage.
    pub(super) fn bytes_written(&self) -> u64 {
        match self {
            Self::Ready(stage) => stage.len,
            Self::Untried | Self::Impossible => 0,
        }
    }
}

/// A file of fixed length in which records outlive the process until they are in their segment.
/// A store into its map takes no call to the system, and one write then takes many records.
///
/// It is a window onto the current segment: from the window's base on, a record lies in it as it
/// will in the segment. Whatever else is in it belongs to other positions, and so does not pass
/// for a record.
#[derive(Debug)]
pub(super) struct Stage {
    map: Box<dyn SharedMap>,
    len: u64,
    /// Base of the window onto the current segment; `None` until there is one.
    window: Option<Lsn>,
}

impl Stage {
    /// Makes the file. Each byte of it is written, so that a store never has to find room for one.
    fn create(config: &Config) -> Option<Self> {
        let path = config.stage_path();
        let len = config.stage_bytes;
        let zeros = vec![0; usize::try_from(len).ok()?];
        let written = || -> Result<_> {
            let file = config.env.create_new(&path)?;
            file.write_all_at(0, &zeros)?;
            Ok(file)
        };
        let map = written().ok().and_then(|file| file.map_shared(len));
        if map.is_none() {
            // Nothing is in it. Left behind, it would be in the way of the next try.
            let _ = config.env.remove_file(&path);
        }
        Some(Self {
            map: map?,
            len,
            window: None,
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// True if records of `len` bytes at the position `at` fit into the window.
    pub(super) fn has_room(&self, at: Lsn, len: u64) -> bool {
        self.window
            .is_some_and(|base| pos(base, at).saturating_add(len) <= self.len)
    }

    /// Moves the window to the base in `header`. Only when everything below that is in the
    /// segment's file: a kill in the midst of this leaves a torn header, and so an empty stage.
    pub(super) fn begin(&mut self, header: &SegmentHeader) {
        self.map.write(0, &header.encode());
        self.window = Some(header.base);
    }

    /// Keeps the bytes of records that begin at the position `at`.
    pub(super) fn keep(&mut self, at: Lsn, bytes: &[u8]) {
        let base = self.window.expect("a window was begun");
        self.map.write(pos(base, at), bytes);
    }
}

/// Where the position `at` lies in a file whose records begin at `base`.
fn pos(base: Lsn, at: Lsn) -> u64 {
    SEGMENT_HEADER_LEN as u64 + (at.0 - base.0)
}
