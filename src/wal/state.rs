use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use crate::env::File;
use crate::error::{Error, Result};
use crate::journal::{
    Lsn, SEGMENT_HEADER_LEN, SEGMENT_LEN_MAX, SegmentHeader, Writer, records_len,
};
use crate::key::SeqNo;
use crate::options::Durability;
use crate::planted::{Bug, planted};
use crate::sync::Arc;

use super::ahead::Ahead;
use super::stage::{STAGE_KIND, Staging};
use super::{Config, Holders, KIND, poisoned};

/// Of a segment that is half full the next one is prepared, and it ends where a memtable does.
pub(crate) const HALF_PARTS: u64 = 2;
/// A last segment of which nothing is needed is left in place while it is shorter than one in so
/// many parts of a full one: to look through it costs an open less than a new one.
pub(crate) const LEFT_PARTS_MAX: u64 = 64;

/// A segment that is still needed.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) base: Lsn,
    pub(super) end: Lsn,
    pub(super) holders: Holders,
    /// Its file, until everything in it is durable and nothing more will come.
    pub(super) unsynced: Option<Arc<dyn File>>,
    /// True once its header is durable. Only such a segment may be named by the manifest.
    pub(super) header_durable: bool,
    /// True once the caller was told that it is the first one needed: the manifest may name it.
    pub(super) offered: bool,
}

impl Live {
    fn bytes(&self) -> u64 {
        SEGMENT_HEADER_LEN as u64 + (self.end.0 - self.base.0)
    }

    fn is_empty(&self) -> bool {
        self.base == self.end
    }
}

/// The next segment's file, empty, its name durable.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
}

/// What has to be synced so that the log is durable up to `end`.
#[derive(Debug)]
pub(super) struct SyncJob {
    end: Lsn,
    /// By segment, in order; the last is the current one.
    files: Vec<(u64, Arc<dyn File>)>,
    /// The number of names given so far, if the directory was not synced since.
    names: Option<u64>,
}

impl SyncJob {
    pub(super) fn end(&self) -> Lsn {
        self.end
    }

    pub(super) fn run(&self, config: &Config) -> Result<()> {
        for (_, file) in &self.files {
            if planted(Bug::WalSyncSkipped) {
                continue;
            }
            file.sync()?;
        }
        match self.names {
            Some(_) if planted(Bug::WalNameSyncSkipped) => Ok(()),
            Some(_) => config.env.sync_dir(&config.dir),
            None => Ok(()),
        }
    }
}

/// The segments that are still needed, and the writer of the last.
#[derive(Debug)]
pub(super) struct State {
    /// Oldest first; never empty. The last is the writer's.
    segments: VecDeque<Live>,
    writer: Writer,
    staging: Staging,
    ahead: Ahead,
    prepared: Option<Prepared>,
    preparing: bool,
    next_number: u64,
    /// Segments created, and how many of them the directory was synced with.
    names: u64,
    names_synced: u64,
    poison: Option<Error>,
    /// True if a segment was to end and the next one could not be begun: what may be left of that
    /// one, a header, would make records void that this one got behind it.
    must_roll: bool,
    bytes_written: u64,
}

impl State {
    /// Begins with the `old` segments and with `writer`, all durable.
    pub(super) fn new(old: Vec<Live>, number: u64, writer: Writer) -> Self {
        let mut segments = VecDeque::from(old);
        segments.push_back(current(number, &writer, true));
        Self {
            segments,
            bytes_written: writer.len(),
            ahead: Ahead::new(writer.end()),
            writer,
            staging: Staging::Untried,
            prepared: None,
            preparing: false,
            next_number: number + 1,
            names: 0,
            names_synced: 0,
            poison: None,
            must_roll: false,
        }
    }

    pub(super) fn append(
        &mut self,
        config: &Config,
        batches: &[&[u8]],
        holders: &[(u32, SeqNo)],
        durable: Lsn,
        durability: Durability,
    ) -> Result<Lsn> {
        self.check_poison()?;
        let added = records_len(batches);
        let len = self.writer.len().saturating_add(added);
        let full = self.writer.len() >= config.segment_bytes_max || len > SEGMENT_LEN_MAX;
        let may_end = self.writer.end() > self.writer.base();
        if self.writer.is_broken() || self.must_roll || (full && may_end) {
            self.roll(config, durable)?;
        }
        let is_staged =
            durability == Durability::Buffered && self.stage(config, batches, added, durable)?;
        if !is_staged {
            self.writer.append(batches, durable)?;
        }
        let end = self.writer.end();
        self.bytes_written += added;
        let segment = self.current_mut();
        segment.end = end;
        for (keyspace, newest) in holders {
            segment.holders.add(*keyspace, *newest);
        }
        Ok(end)
    }

    /// Appends to the stage, if there is one and the records fit: false if not. What is staged is
    /// written where there is no more room. If that fails, all of it stays, and these records are
    /// not appended.
    fn stage(
        &mut self,
        config: &Config,
        batches: &[&[u8]],
        added: u64,
        durable: Lsn,
    ) -> Result<bool> {
        let segment = self.current().number;
        let was_written = self.staging.bytes_written();
        let Some(stage) = self.staging.stage_for(config, added) else {
            return Ok(false);
        };
        self.bytes_written += stage.len() - was_written;
        let at = self.writer.end();
        if !stage.has_room(at, added) {
            if !planted(Bug::WalStageBegunBeforeWrite) {
                self.writer.flush()?;
            }
            stage.begin(&SegmentHeader {
                kind: STAGE_KIND,
                journal_id: config.journal_id,
                segment,
                base: at,
                durable,
                has_stage: false,
            });
            self.writer.flush()?;
        }
        stage.keep(at, self.writer.stage(batches, durable)?);
        Ok(true)
    }

    /// Removes the stage's file, once the segments have all that was in it, and what was written
    /// ahead of them.
    pub(super) fn end_files(&mut self, config: &Config) {
        assert_eq!(
            self.writer.written(),
            self.writer.end(),
            "records are staged"
        );
        self.staging.remove(config);
        self.writer.cut_zeros();
    }

    /// Begins a new segment behind a long one, if nothing in any is needed by what `flushed` says:
    /// true if so. Only when all is durable, and nothing more will be appended.
    pub(super) fn leave_flushed(
        &mut self,
        config: &Config,
        flushed: &BTreeMap<u32, SeqNo>,
    ) -> Result<bool> {
        let is_long = self.has_part(config, LEFT_PARTS_MAX);
        let is_needed = |live: &Live| live.holders.unflushed(flushed).is_some();
        if !is_long || self.current().is_empty() || self.segments.iter().any(is_needed) {
            return Ok(false);
        }
        self.roll(config, self.end())?;
        Ok(true)
    }

    /// Begins a new segment behind one that is as long as one in `parts` of a full one.
    pub(super) fn end_segment(&mut self, config: &Config, durable: Lsn, parts: u64) -> Result<()> {
        self.check_poison()?;
        if self.has_part(config, parts) && !self.current().is_empty() {
            self.roll(config, durable)?;
        }
        Ok(())
    }

    fn has_part(&self, config: &Config, parts: u64) -> bool {
        self.writer.len() >= config.segment_bytes_max / parts
    }

    /// Goes on in the next segment. If that fails, the state is as before, and the number lost.
    fn roll(&mut self, config: &Config, durable: Lsn) -> Result<()> {
        self.writer.flush()?;
        self.must_roll = true;
        let (number, prepared) = match self.prepared.take() {
            Some(prepared) => (prepared.number, Some(prepared)),
            None => (self.take_number(), None),
        };
        let header = SegmentHeader {
            kind: KIND,
            journal_id: config.journal_id,
            segment: number,
            base: self.writer.end(),
            durable,
            has_stage: true,
        };
        self.writer = if let Some(prepared) = prepared {
            Writer::begin(&*config.env, prepared.file, &prepared.path, header)?
        } else {
            let writer = Writer::create(&*config.env, &config.path(number), header)?;
            self.names += 1;
            writer
        };
        self.must_roll = false;
        if !planted(Bug::WalStageOutlivesSegment) {
            self.staging.end_segment();
        }
        self.bytes_written += self.writer.len();
        self.segments
            .push_back(current(number, &self.writer, false));
        Ok(())
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    fn current(&self) -> &Live {
        self.segments
            .back()
            .expect("there is always a current segment")
    }

    fn current_mut(&mut self) -> &mut Live {
        self.segments
            .back_mut()
            .expect("there is always a current segment")
    }

    /// What to sync so that the log is durable up to `lsn`, and as far beyond as it is written.
    pub(super) fn sync_job(&mut self, config: &Config, lsn: Lsn) -> Result<SyncJob> {
        self.check_poison()?;
        let skip = planted(Bug::WalStageNotWrittenBeforeSync);
        let written = if skip { Ok(()) } else { self.writer.flush() };
        let end = if skip {
            self.end()
        } else {
            self.writer.written()
        };
        if end < lsn {
            // Others staged what cannot be written is no matter to those who need no more.
            written?;
        }
        if end == self.end() && !self.writer.is_broken() {
            self.bytes_written += self.ahead.before_sync(config, &mut self.writer);
        }
        let unsynced = |live: &Live| live.unsynced.clone().map(|file| (live.number, file));
        Ok(SyncJob {
            end,
            files: self.segments.iter().filter_map(unsynced).collect(),
            names: (self.names_synced < self.names).then_some(self.names),
        })
    }

    /// Notes that `job` is done, and gives up the abandoned segments that never got a record;
    /// the caller removes their files. The base of the segment behind, which is durable now,
    /// does all that they did.
    pub(super) fn synced(&mut self, job: &SyncJob) -> Vec<PathBuf> {
        self.headers_synced(job);
        let current = self.current().number;
        // Not the current one: that may have been begun during the sync.
        let durable = job.files.last().map_or(0, |(number, _)| *number);
        for (number, _) in &job.files {
            // A closed segment whose records were all there when the sync began.
            if *number < current
                && let Some(live) = self.live_mut(*number)
                && live.end <= job.end
            {
                live.unsynced = None;
            }
        }
        let first = self.first_segment();
        let gone = |live: &Live| {
            live.is_empty() && !live.offered && live.number != first && live.number < durable
        };
        let paths = self
            .segments
            .iter()
            .filter(|live| gone(live))
            .map(|live| live.path.clone());
        let paths = paths.collect();
        self.segments.retain(|live| !gone(live));
        paths
    }

    /// Writes what is staged. What to sync so that the current segment's header is durable; `None`
    /// if it is.
    pub(super) fn header_job(&mut self) -> Result<Option<SyncJob>> {
        self.check_poison()?;
        self.writer.flush()?;
        let live = self.current();
        let job = || SyncJob {
            end: live.base,
            files: vec![(live.number, Arc::clone(self.writer.file()))],
            names: (self.names_synced < self.names).then_some(self.names),
        };
        Ok((!live.header_durable).then(job))
    }

    /// Notes that the headers of the job's files are durable, and the names.
    pub(super) fn headers_synced(&mut self, job: &SyncJob) {
        if let Some(names) = job.names {
            self.names_synced = names;
        }
        for (number, _) in &job.files {
            if let Some(live) = self.live_mut(*number) {
                live.header_durable = true;
            }
        }
    }

    fn live_mut(&mut self, number: u64) -> Option<&mut Live> {
        let index = self
            .segments
            .binary_search_by_key(&number, |live| live.number);
        Some(&mut self.segments[index.ok()?])
    }

    /// Remembers a failed sync and returns the error to report.
    pub(super) fn poison(&mut self, error: &Error) -> Error {
        self.poison.get_or_insert_with(|| poisoned(error)).clone()
    }

    fn check_poison(&self) -> Result<()> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    pub(super) fn wants_next(&self, config: &Config) -> bool {
        self.has_part(config, HALF_PARTS)
            && self.prepared.is_none()
            && !self.preparing
            && self.poison.is_none()
    }

    /// The number of the segment to prepare, or `None` if one is or is being prepared.
    pub(super) fn begin_prepare(&mut self) -> Result<Option<u64>> {
        self.check_poison()?;
        if self.prepared.is_some() || self.preparing {
            return Ok(None);
        }
        self.preparing = true;
        Ok(Some(self.take_number()))
    }

    pub(super) fn end_prepare(&mut self) {
        self.preparing = false;
    }

    /// Keeps `prepared` for the next roll, or hands it back: numbers must rise, and a segment
    /// with a higher one may have been begun meanwhile.
    pub(super) fn prepared(&mut self, prepared: Prepared) -> Option<Prepared> {
        if prepared.number < self.current().number {
            return Some(prepared);
        }
        self.prepared.replace(prepared)
    }

    /// The keyspaces with writes in segments before the current one.
    pub(super) fn closed_keyspaces(&self) -> BTreeSet<u32> {
        keyspaces_of(self.closed())
    }

    /// The same with the current one.
    pub(super) fn all_keyspaces(&self) -> BTreeSet<u32> {
        keyspaces_of(self.segments.iter())
    }

    /// The keyspaces whose writes may not all be durable.
    pub(super) fn unsynced_keyspaces(&self) -> BTreeSet<u32> {
        let unsynced = self.segments.iter().filter(|live| live.unsynced.is_some());
        keyspaces_of(unsynced)
    }

    fn closed(&self) -> impl Iterator<Item = &Live> {
        self.segments.iter().take(self.segments.len() - 1)
    }

    pub(super) fn retirable(&mut self, flushed: &BTreeMap<u32, SeqNo>) -> Option<u64> {
        let free = |live: &&Live| live.holders.unflushed(flushed).is_none();
        let free = self.closed().take_while(free).count();
        // A header that a power loss could take is nothing for the manifest to rely on.
        let first = (1..=free)
            .rev()
            .find(|index| self.segments[*index].header_durable)?;
        let live = &mut self.segments[first];
        live.offered = true;
        Some(live.number)
    }

    /// Gives up the segments before `first_needed`; the caller removes their files.
    pub(super) fn remove_before(&mut self, first_needed: u64) -> Vec<PathBuf> {
        assert!(
            self.segments.iter().any(|live| live.number == first_needed),
            "segment {first_needed} is not there"
        );
        let count = self
            .segments
            .partition_point(|live| live.number < first_needed);
        self.segments.drain(..count).map(|live| live.path).collect()
    }

    pub(super) fn oldest_holder(&self, flushed: &BTreeMap<u32, SeqNo>) -> Option<u32> {
        let oldest = self
            .closed()
            .find(|live| live.holders != Holders::default())?;
        oldest.holders.unflushed(flushed)
    }

    pub(super) fn first_segment(&self) -> u64 {
        self.segments[0].number
    }

    pub(super) fn end(&self) -> Lsn {
        self.writer.end()
    }

    pub(super) fn bytes(&self) -> u64 {
        let records: u64 = self.segments.iter().map(Live::bytes).sum();
        records + self.writer.zeros()
    }

    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written
    }
}

fn keyspaces_of<'a>(segments: impl Iterator<Item = &'a Live>) -> BTreeSet<u32> {
    segments.flat_map(|live| live.holders.keyspaces()).collect()
}

fn current(number: u64, writer: &Writer, header_durable: bool) -> Live {
    Live {
        number,
        path: writer.path().to_path_buf(),
        base: writer.base(),
        end: writer.end(),
        holders: Holders::default(),
        unsynced: Some(Arc::clone(writer.file())),
        header_durable,
        offered: false,
    }
}
