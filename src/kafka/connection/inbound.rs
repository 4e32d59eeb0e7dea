//! Frames out of a stream: whole, not too long, in the order of their requests.

use std::collections::VecDeque;
use std::io;

use super::settings::Deadline;
use super::transport::Transport;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::protocol::correlation_id;

/// What is read at a time of short frames; longer ones go straight to their buffer.
const AHEAD_BYTES: usize = 64 << 10;

/// Where frames come from, and how much is taken from there.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) transport: &'a dyn Transport,
    pub(super) env: &'a dyn Env,
    pub(super) deadline: Deadline,
    pub(super) bytes_max: usize,
}

/// What was read and is not yet asked for.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    ahead: Vec<u8>,
    start: usize,
    end: usize,
    /// The id of the request whose answer comes next out of the stream.
    next_id: i32,
    /// Answers that were read by who waits for a later one.
    kept: VecDeque<(i32, Vec<u8>)>,
}

/// Ids count up and begin again at zero.
pub(super) fn id_after(id: i32) -> i32 {
    id.wrapping_add(1) & i32::MAX
}

impl Inbound {
    /// The answer to the request `id`, without its length, into `buffer`. Answers to earlier ones
    /// that come before it are kept for those who ask for them.
    ///
    /// # Errors
    ///
    /// `Io` at the end of the stream, of the kind `TimedOut` at the deadline; `Corruption` for a
    /// length that cannot be and for an answer to another request. The stream is of no use then.
    ///
    /// # Panics
    ///
    /// If an earlier answer was not taken, or this one was.
    pub(super) fn take(&mut self, id: i32, source: Source<'_>, buffer: &mut Vec<u8>) -> Result<()> {
        if self.kept.front().is_some_and(|(kept, _)| *kept == id) {
            if let Some((_, frame)) = self.kept.pop_front() {
                *buffer = frame;
            }
            return Ok(());
        }
        loop {
            let next = self.next_id;
            assert!(
                ids_left(next, id) < 1 << 16,
                "the answer to request {id} was taken, that to {next} comes next"
            );
            self.frame(source, buffer)?;
            let answered = correlation_id(buffer)?;
            if answered != next {
                return Err(Error::corruption(format!(
                    "an answer to request {answered} where that to {next} comes next"
                )));
            }
            self.next_id = id_after(next);
            if next == id {
                return Ok(());
            }
            self.kept.push_back((next, std::mem::take(buffer)));
        }
    }

    /// The next frame without its length.
    fn frame(&mut self, source: Source<'_>, buffer: &mut Vec<u8>) -> Result<()> {
        while self.end - self.start < 4 {
            self.read_ahead(source)?;
        }
        let ahead = &self.ahead[self.start..self.end];
        let (len, ahead) = ahead.split_first_chunk().expect("four bytes are there");
        let len = i32::from_be_bytes(*len);
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= source.bytes_max);
        let len = len.ok_or_else(|| {
            let (len, max) = (i32::from_be_bytes(self.length_bytes()), source.bytes_max);
            // An alert of TLS, read as a length.
            let is_alert = self.length_bytes().starts_with(&[21, 3]);
            let hint = if is_alert {
                " (does the server want TLS?)"
            } else {
                ""
            };
            Error::corruption(format!(
                "an answer of {len} bytes, at most {max} are taken{hint}"
            ))
        })?;
        let have = ahead.len().min(len);
        // What the buffer has room for already costs nothing. Beyond it, room is made only as
        // bytes arrive: the length is what a stranger says.
        let room = buffer.capacity();
        buffer.resize(have.max(len.min(room)), 0);
        buffer[..have].copy_from_slice(&ahead[..have]);
        self.start += 4 + have;
        let mut filled = have;
        while filled < len {
            if filled == buffer.len() {
                buffer.resize(len.min(filled.max(AHEAD_BYTES) * 2), 0);
            }
            filled += read(source, &mut buffer[filled..])?;
        }
        buffer.truncate(len);
        Ok(())
    }

    fn length_bytes(&self) -> [u8; 4] {
        let bytes = &self.ahead[self.start..self.end];
        *bytes.first_chunk().expect("four bytes are there")
    }

    fn read_ahead(&mut self, source: Source<'_>) -> Result<()> {
        self.ahead.resize(AHEAD_BYTES, 0);
        self.ahead.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.end += read(source, &mut self.ahead[self.end..])?;
        Ok(())
    }
}

/// How many requests come from `next` up to `id`.
fn ids_left(next: i32, id: i32) -> i32 {
    id.wrapping_sub(next) & i32::MAX
}

fn read(source: Source<'_>, buffer: &mut [u8]) -> Result<usize> {
    let left = source.deadline.remaining(source.env);
    let read = match source.transport.read(buffer, left) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        other => other,
    };
    read.map_err(|error| Error::new(ErrorKind::Io, "no answer").with_source(error))
}
