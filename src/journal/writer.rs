use std::path::{Path, PathBuf};

use crate::env::{Env, File};
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{Bug, planted};
use crate::sync::Arc;

use super::{
    Lsn, PAYLOAD_LEN_MAX, Place, RecordHeader, SEGMENT_HEADER_LEN, SEGMENT_LEN_MAX, SegmentHeader,
    records_len,
};

/// A buffer that grew above this is given back after the append.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Appends records to a segment that it began itself.
#[derive(Debug)]
pub(crate) struct Writer {
    file: Arc<dyn File>,
    path: PathBuf,
    place: Place,
    base: Lsn,
    /// Up to here the records are in the file.
    written: Lsn,
    end: Lsn,
    broken: bool,
    /// Length of the file up to which zeros were written ahead of the records.
    zeros_end: u64,
    /// The records from `written` up to `end`: those that are staged.
    buffer: Vec<u8>,
}

impl Writer {
    /// Creates the file at `path`, which must not exist, and begins the segment in it. Nothing is
    /// synced, neither the file nor its directory. A failure leaves no file where it can.
    pub(crate) fn create(env: &dyn Env, path: &Path, header: SegmentHeader) -> Result<Self> {
        let file = env.create_new(path)?;
        Self::begin(env, file, path, header)
    }

    /// Begins the segment in an empty file that was created ahead of time.
    pub(crate) fn begin(
        env: &dyn Env,
        file: Arc<dyn File>,
        path: &Path,
        header: SegmentHeader,
    ) -> Result<Self> {
        assert!(
            header.durable <= header.base,
            "{header:?} promises what is not written"
        );
        if let Err(error) = file.write_all_at(0, &header.encode()) {
            // The error that counts is the first. A file that stays behind has no whole header
            // and is skipped and removed by the next recovery.
            let _ = env.remove_file(path);
            return Err(error);
        }
        Ok(Self {
            file,
            path: path.to_path_buf(),
            place: Place::new(header.kind, header.journal_id, header.segment),
            base: header.base,
            written: header.base,
            end: header.base,
            broken: false,
            zeros_end: 0,
            buffer: Vec::new(),
        })
    }

    /// Appends one record a payload, all in one write, and returns the position behind the last.
    /// What is staged is written before.
    ///
    /// `durable` is the position up to which the journal is known to be durable. After a failed
    /// write none of the records counts and the writer is broken: begin the next segment with
    /// [`end`](Self::end) as its base.
    ///
    /// # Errors
    ///
    /// `Io`; and `InvalidArgument`, which breaks nothing, if a payload or the segment would be
    /// too long. The errors of [`flush`](Self::flush), which break nothing either.
    pub(crate) fn append(&mut self, payloads: &[&[u8]], durable: Lsn) -> Result<Lsn> {
        if self.broken {
            return Err(Error::new(
                ErrorKind::Io,
                format!("append to {} after a failed append", self.path.display()),
            ));
        }
        self.flush()?;
        let end = self.encode(payloads, durable)?;
        let result = self.file.write_all_at(self.len(), &self.buffer);
        self.empty_buffer();
        if let Err(error) = result {
            self.broken = true;
            // Spares a reader the failed records where it works; the next segment's base makes
            // them void where it does not.
            let _ = self.file.set_len(self.len());
            self.zeros_end = 0;
            return Err(error);
        }
        self.written = end;
        self.end = end;
        Ok(end)
    }

    /// Appends one record a payload without writing them, and returns their bytes, which follow
    /// those staged before: the caller keeps them where they outlive the process, until
    /// [`flush`](Self::flush) has written them.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if a payload or the segment would be too long.
    pub(crate) fn stage(&mut self, payloads: &[&[u8]], durable: Lsn) -> Result<&[u8]> {
        assert!(!self.broken, "records staged behind a failed append");
        let staged = self.buffer.len();
        self.end = self.encode(payloads, durable)?;
        Ok(&self.buffer[staged..])
    }

    /// Writes what is staged into the file, in one write.
    ///
    /// # Errors
    ///
    /// `Io`: all of it is still staged, and the next call tries again. It writes the same bytes
    /// to the same place, so it does not matter how many of them this one has written.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let pos = self.len_up_to(self.written);
        let result = self.file.write_all_at(pos, &self.buffer);
        if result.is_err() && !planted(Bug::WalStageDroppedByFailedWrite) {
            return result;
        }
        self.empty_buffer();
        self.written = self.end;
        result
    }

    /// Writes zeros behind the records, up to the length `len` of the file, and returns how many:
    /// none if they reach so far already. A sync of records that come to lie where zeros are
    /// durable finds the file no longer than before, and no new place for its bytes.
    ///
    /// If that fails, the file ends with the records, where that works. Nothing depends on zeros.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub(crate) fn write_zeros(&mut self, len: u64) -> Result<u64> {
        let from = self.len().max(self.zeros_end);
        let count = len.saturating_sub(from);
        if count == 0 {
            return Ok(0);
        }
        let zeros = vec![0; usize::try_from(count).unwrap_or(0)];
        let result = self.file.write_all_at(from, &zeros);
        self.zeros_end = len;
        if result.is_err() {
            // On a full disk, others need the room more.
            self.cut_zeros();
        }
        result.map(|()| count)
    }

    /// Takes the zeros away that no record has taken the place of, where that works.
    pub(crate) fn cut_zeros(&mut self) {
        if self.zeros() > 0 {
            let _ = self.file.set_len(self.len_up_to(self.written));
            self.zeros_end = 0;
        }
    }

    /// Zeros behind the records, where no others are to be.
    pub(crate) fn zeros(&self) -> u64 {
        self.zeros_end.saturating_sub(self.len())
    }

    fn empty_buffer(&mut self) {
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_BYTES_MAX {
            self.buffer = Vec::new();
        }
    }

    /// Encodes the records behind those in the buffer and returns the position behind them.
    fn encode(&mut self, payloads: &[&[u8]], durable: Lsn) -> Result<Lsn> {
        assert!(
            durable <= self.written,
            "durable up to {durable}, written up to {}",
            self.written
        );
        let added = records_len(payloads);
        let longest = payloads
            .iter()
            .map(|payload| payload.len())
            .max()
            .unwrap_or(0);
        if longest > PAYLOAD_LEN_MAX || self.len().saturating_add(added) > SEGMENT_LEN_MAX {
            return Err(Error::invalid(format!(
                "{added} bytes of records, the longest of {longest}, do not fit into {}",
                self.path.display()
            )));
        }
        self.buffer.reserve(usize::try_from(added).unwrap_or(0));
        let mut at = self.end;
        for payload in payloads {
            assert!(!payload.is_empty(), "a record without a payload");
            let payload_len = u32::try_from(payload.len())
                .map_err(|_| Error::invalid("a payload above 4 GiB"))?;
            RecordHeader::new(self.place, at, payload_len, payload, durable).encode_into(
                self.place,
                at,
                &mut self.buffer,
            );
            self.buffer.extend_from_slice(payload);
            at = Lsn(self.written.0 + self.buffer.len() as u64);
        }
        Ok(at)
    }

    /// The position of the segment's first record.
    pub(crate) fn base(&self) -> Lsn {
        self.base
    }

    /// The position behind the last append that succeeded, staged or written.
    pub(crate) fn end(&self) -> Lsn {
        self.end
    }

    /// The position up to which the records are in the file.
    pub(crate) fn written(&self) -> Lsn {
        self.written
    }

    /// Bytes of the file up to [`end`](Self::end).
    pub(crate) fn len(&self) -> u64 {
        self.len_up_to(self.end)
    }

    fn len_up_to(&self, position: Lsn) -> u64 {
        SEGMENT_HEADER_LEN as u64 + (position.0 - self.base.0)
    }

    /// True after an append failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The file, for a sync outside of whatever lock guards the writer.
    pub(crate) fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
