//! Reads one partition out of a task's log.

use std::path::PathBuf;

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

use super::super::{FETCH_BYTES, Fetched, Offset, Partition, Reader, RecordRef, Sink, check_range};
use super::payload::{Payload, Records};
use super::view::{Part, View};
use super::{Shared, lost, names};

/// A reader up to a fence, or one that follows.
#[derive(Debug)]
pub(super) struct FileReader {
    shared: Arc<Shared>,
    dir: PathBuf,
    partition: Partition,
    topic_id: [u8; 16],
    next: u64,
    /// A restore's end; a follower has none.
    fence: Option<u64>,
    loaded: Option<Loaded>,
}

/// What the partition has in one segment.
#[derive(Debug)]
struct Loaded {
    part: Part,
    /// Length of the file when it was read, by which growth is noticed.
    file_len: u64,
    groups: Vec<Group>,
    /// The group that is read, the byte in it, and the offset that is next there.
    group: usize,
    pos: usize,
    offset: u64,
    /// The next offset behind the segment.
    end: u64,
}

#[derive(Debug)]
struct Group {
    base: u64,
    end: u64,
    records: Vec<u8>,
}

impl FileReader {
    pub(super) fn new(
        shared: &Arc<Shared>,
        dir: PathBuf,
        partition: &Partition,
        topic_id: [u8; 16],
        from: Offset,
        fence: Option<Offset>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            dir,
            partition: partition.clone(),
            topic_id,
            next: from.0,
            fence: fence.map(|fence| fence.0),
            loaded: None,
        }
    }

    /// Reads the segment that goes on where the last one ended. False if there is nothing new.
    fn load(&mut self) -> Result<bool> {
        let shared = Arc::clone(&self.shared);
        let env = shared.env();
        let _lock = names::lock(env, &self.dir)?;
        let view = View::read(env, &self.dir)?;
        let slot = view.index.slot(&self.partition);
        let slot = slot.ok_or_else(|| lost(&self.partition, &self.dir))?;
        if view.index.slots[slot].topic_id != self.topic_id {
            return Err(Error::new(
                ErrorKind::Diverged,
                format!("the topic of {} was recreated", self.partition),
            ));
        }
        let Some(index) = self.choose(env, &view, slot)? else {
            return Ok(false);
        };
        let part = &view.parts[index];
        if !part.is_closed() {
            return self.load_last(env, &view, part, slot);
        }
        self.loaded = Some(read_part(env, &view, part, slot)?);
        Ok(true)
    }

    /// The last segment may have grown, and what it has may not be durable yet.
    fn load_last(&mut self, env: &dyn Env, view: &View, part: &Part, slot: usize) -> Result<bool> {
        let file_len = env.metadata(&part.path)?.len;
        if let Some(loaded) = &self.loaded
            && loaded.part == *part
            && loaded.file_len == file_len
        {
            return Ok(false);
        }
        if self.fence.is_none() {
            // A reader must not know more than a log that has lost its power.
            env.open(&part.path)?.sync()?;
        }
        let ends = view.ends(env)?;
        let mut loaded = read_part(env, view, part, slot)?;
        loaded.end = loaded.end.max(ends[slot]);
        self.loaded = Some(loaded);
        Ok(true)
    }

    /// The part to read next.
    fn choose(&self, env: &dyn Env, view: &View, slot: usize) -> Result<Option<usize>> {
        if let Some(loaded) = &self.loaded
            && let Some(index) = view
                .parts
                .iter()
                .position(|part| part.is_same(&loaded.part))
        {
            // What was read while it was open may have gone on until it was closed.
            let index = if loaded.part.is_closed() {
                index + 1
            } else {
                index
            };
            return Ok((index < view.parts.len()).then_some(index));
        }
        if self.next == 0 {
            return Ok((!view.parts.is_empty()).then_some(0));
        }
        for (index, part) in view.parts.iter().enumerate().rev() {
            let head = part.head(env, &view.index.slots)?;
            // One without a head has no records; the one before it decides.
            if head.is_some_and(|head| head[slot] <= self.next) {
                return Ok(Some(index));
            }
        }
        Ok((!view.parts.is_empty()).then_some(0))
    }

    /// Delivers from the loaded segment, and returns how many bytes.
    fn deliver(&mut self, sink: &mut Sink<'_>, bytes_max: usize) -> Result<usize> {
        let mut delivered = 0;
        let Some(loaded) = &mut self.loaded else {
            return Ok(0);
        };
        while let Some(group) = loaded.groups.get(loaded.group) {
            if loaded.pos == 0 {
                loaded.offset = group.base;
            }
            let start = loaded.pos;
            let mut records = Records::new(&group.records, start, loaded.offset, group.end);
            while delivered < bytes_max {
                let Some((offset, record)) = records
                    .next()
                    .map_err(|error| error.context(loaded.part.path.display()))?
                else {
                    break;
                };
                let len = len(&record);
                if offset >= self.next && self.fence.is_none_or(|fence| offset < fence) {
                    sink(Offset(offset), record)?;
                    delivered += len;
                    self.next = offset + 1;
                }
                loaded.pos = start + records.pos();
                loaded.offset = offset + 1;
            }
            if loaded.pos < group.records.len() {
                return Ok(delivered);
            }
            self.next = self.next.max(group.end);
            loaded.group += 1;
            loaded.pos = 0;
        }
        self.next = self.next.max(loaded.end);
        Ok(delivered)
    }

    fn is_exhausted(&self) -> bool {
        self.loaded
            .as_ref()
            .is_none_or(|loaded| loaded.group == loaded.groups.len())
    }
}

fn len(record: &RecordRef<'_>) -> usize {
    usize::try_from(record.size()).unwrap_or(usize::MAX)
}

fn read_part(env: &dyn Env, view: &View, part: &Part, slot: usize) -> Result<Loaded> {
    let file_len = env.metadata(&part.path)?.len;
    let mut groups = Vec::new();
    let mut next = vec![0; view.index.slots.len()];
    part.read(env, &mut |payload| {
        let payload = Payload::decode(payload, &view.index.slots)?;
        payload.advance(&mut next);
        let Payload::Commit(commit) = payload else {
            return Ok(());
        };
        for group in commit.groups.iter().filter(|group| group.slot == slot) {
            let records = group.records.to_vec();
            groups.push(Group {
                base: group.base,
                end: group.end,
                records,
            });
        }
        Ok(())
    })?;
    let end = next[slot];
    Ok(Loaded {
        part: part.clone(),
        file_len,
        groups,
        group: 0,
        pos: 0,
        offset: 0,
        end,
    })
}

impl Reader for FileReader {
    fn position(&self) -> Offset {
        Offset(self.next)
    }

    fn fetch(&mut self, sink: &mut Sink<'_>) -> Result<Fetched> {
        let time_ms = self.shared.env().wall_clock_ms();
        let mut delivered = 0;
        let mut at_end = false;
        while !at_end && delivered < FETCH_BYTES {
            if let Some(fence) = self.fence.filter(|fence| self.next >= *fence) {
                self.next = fence;
                at_end = true;
            } else if !self.is_exhausted() || self.load()? {
                delivered += self.deliver(sink, FETCH_BYTES - delivered)?;
            } else {
                self.check_end()?;
                at_end = true;
            }
        }
        Ok(Fetched {
            next: Offset(self.next),
            at_end,
            time_ms,
        })
    }
}

impl FileReader {
    /// Fails if the log ends before or behind the position, which was within it once.
    fn check_end(&self) -> Result<()> {
        let end = self.loaded.as_ref().map_or(0, |loaded| loaded.end);
        if let Some(fence) = self.fence {
            return Err(Error::corruption(format!(
                "{}: {} ends at offset {end}, its owner claimed it up to {fence}",
                self.dir.display(),
                self.partition
            )));
        }
        check_range(&self.partition, Offset(self.next), Offset(0), Offset(end))
    }
}
