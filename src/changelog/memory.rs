//! A changelog in memory, for tests of what stands on one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use crate::coding::Decoder;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex};

use super::pending::{Commit, Limits, Pending};
use super::{
    Bounds, Changelog, CommitId, FETCH_BYTES, Fetched, Guarantee, Offset, Owner, Partition,
    Position, Reader, Record, RecordRef, Session, Sink,
};

/// A changelog in memory. Clones share the same log; it lasts as long as one of them.
///
/// It behaves like the hardest log there is: every claim, commit and abort spends offsets on
/// control records that no reader sees, so that offsets have gaps.
///
/// ```
/// use std::sync::Arc;
/// use siltstone::changelog::{Changelog, Memory, Offset, Partition, RecordRef};
/// use siltstone::env::OsEnv;
///
/// let log = Memory::new(Arc::new(OsEnv::new()));
/// let partition = Partition::new("clicks", 0);
/// let mut session = log.claim("task-0", &[partition.clone()])?;
/// session.append(0, RecordRef::new(b"key", Some(b"value")))?;
/// let commit = session.prepare()?;
/// session.wait(commit)?;
///
/// let mut keys = Vec::new();
/// let mut reader = log.reader(&partition, Offset(0))?;
/// while !reader.fetch(&mut |_, record| Ok(keys.push(record.key.to_vec())))?.at_end {}
/// assert_eq!(keys, [b"key"]);
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
    limits: Limits,
    tombstone_retention_ms: Option<u64>,
}

struct Shared {
    env: Arc<dyn Env>,
    cluster: String,
    /// Guards the whole log; never held while a caller's sink runs.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<Partition, Log>,
    topics: HashMap<String, [u8; 16]>,
    owners: HashMap<String, Owner>,
}

struct Log {
    task: String,
    topic_id: [u8; 16],
    start: u64,
    end: u64,
    tombstones_dropped_below: u64,
    /// Sorted by offset.
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    offset: u64,
    time_ms: u64,
    record: Arc<Record>,
}

impl Memory {
    /// The largest record by default: 16 MiB.
    pub const RECORD_BYTES_MAX: u64 = 16 << 20;
    /// What a session buffers by default: 64 MiB.
    pub const COMMIT_BYTES_MAX: u64 = 64 << 20;

    /// An empty log that takes its time and its random numbers from `env`.
    pub fn new(env: Arc<dyn Env>) -> Self {
        let cluster = format!("memory-{:016x}", env.random_u64());
        Self {
            shared: Arc::new(Shared {
                env,
                cluster,
                state: Mutex::default(),
            }),
            limits: Limits {
                record_bytes_max: Self::RECORD_BYTES_MAX,
                commit_bytes_max: Self::COMMIT_BYTES_MAX,
            },
            tombstone_retention_ms: None,
        }
    }

    /// Sets the largest record of sessions claimed through this handle.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: u64) -> Self {
        self.limits.record_bytes_max = bytes;
        self
    }

    /// Sets what sessions claimed through this handle buffer.
    #[must_use]
    pub fn commit_bytes_max(mut self, bytes: u64) -> Self {
        self.limits.commit_bytes_max = bytes;
        self
    }

    /// Makes bounds tell this retention, and nothing of the tombstones that were dropped, as a
    /// log that cannot tell them does.
    #[must_use]
    pub fn tombstone_retention_ms(mut self, ms: u64) -> Self {
        self.tombstone_retention_ms = Some(ms);
        self
    }

    /// Compacts the log of `partition`: keeps the newest record of each key, and tombstones
    /// committed less than `tombstone_retention_ms` before `now_ms`.
    ///
    /// # Panics
    ///
    /// If the partition does not exist.
    pub fn compact(&self, partition: &Partition, tombstone_retention_ms: u64, now_ms: u64) {
        let mut state = self.shared.state.lock();
        let log = state
            .logs
            .get_mut(partition)
            .expect("a partition to compact");
        let mut newer = HashSet::new();
        let mut kept = Vec::new();
        while let Some(entry) = log.entries.pop() {
            let record = &entry.record;
            let expired = entry.time_ms.saturating_add(tombstone_retention_ms) <= now_ms;
            if !newer.insert(record.key.clone()) {
                continue;
            }
            if record.value.is_none() && expired {
                log.tombstones_dropped_below = log.tombstones_dropped_below.max(entry.offset + 1);
                continue;
            }
            kept.push(entry);
        }
        kept.reverse();
        log.entries = kept;
    }

    /// Trims the log of `partition` to what is at or above `before`.
    ///
    /// # Panics
    ///
    /// If the partition does not exist or ends below `before`.
    pub fn delete_records(&self, partition: &Partition, before: Offset) {
        let mut state = self.shared.state.lock();
        let log = state.logs.get_mut(partition).expect("a partition to trim");
        assert!(
            before.0 <= log.end,
            "trim to {before}, the log ends at {}",
            log.end
        );
        log.start = log.start.max(before.0);
        log.entries.retain(|entry| entry.offset >= before.0);
    }

    /// Loses the newest records of `partition`, those at or above `end`, as an unclean election
    /// does.
    ///
    /// # Panics
    ///
    /// If the partition does not exist.
    pub fn lose_records(&self, partition: &Partition, end: Offset) {
        let mut state = self.shared.state.lock();
        let log = state.logs.get_mut(partition).expect("a partition to cut");
        log.end = log.end.min(end.0);
        log.entries.retain(|entry| entry.offset < end.0);
    }

    /// Deletes every partition of `topic` and creates it again, empty and with a new identity.
    pub fn recreate(&self, topic: &str) {
        let topic_id = self.random_id();
        let mut state = self.shared.state.lock();
        state.topics.insert(topic.to_owned(), topic_id);
        for (partition, log) in &mut state.logs {
            if partition.topic == topic {
                *log = Log::new(std::mem::take(&mut log.task), topic_id);
            }
        }
    }

    /// Deletes every partition of `topic`.
    pub fn delete_topic(&self, topic: &str) {
        let mut state = self.shared.state.lock();
        state.topics.remove(topic);
        state.logs.retain(|partition, _| partition.topic != topic);
    }

    fn random_id(&self) -> [u8; 16] {
        let env = &self.shared.env;
        let id = u128::from(env.random_u64()) << 64 | u128::from(env.random_u64());
        id.to_le_bytes()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("cluster", &self.shared.cluster)
            .finish_non_exhaustive()
    }
}

impl Changelog for Memory {
    fn guarantee(&self) -> Guarantee {
        Guarantee::Atomic
    }

    fn bounds(&self, partition: &Partition) -> Result<Option<Bounds>> {
        let state = self.shared.state.lock();
        let Some(log) = state.logs.get(partition) else {
            return Ok(None);
        };
        let told = self.tombstone_retention_ms.is_none();
        Ok(Some(Bounds {
            cluster: self.shared.cluster.clone(),
            topic_id: log.topic_id,
            start: Offset(log.start),
            end: Offset(log.end),
            leader_epoch: 0,
            tombstone_retention_ms: self.tombstone_retention_ms,
            tombstones_dropped_below: Offset(if told {
                log.tombstones_dropped_below
            } else {
                0
            }),
        }))
    }

    fn claim(&self, task: &str, partitions: &[Partition]) -> Result<Box<dyn Session>> {
        super::check_distinct(partitions)?;
        let mut state = self.shared.state.lock();
        for partition in partitions {
            if let Some(log) = state.logs.get(partition)
                && log.task != task
            {
                return Err(super::owned_by_another(partition, &log.task));
            }
        }
        let count = state.owners.len() as u64;
        let owner = state.owners.entry(task.to_owned()).or_insert(Owner {
            id: count,
            epoch: 0,
        });
        owner.epoch += 1;
        let owner = *owner;
        let mut claimed = Vec::new();
        for partition in partitions {
            let topic_id = *state
                .topics
                .entry(partition.topic.clone())
                .or_insert_with(|| self.random_id());
            let log = state
                .logs
                .entry(partition.clone())
                .or_insert_with(|| Log::new(task.to_owned(), topic_id));
            // The fence is a control record.
            log.end += 1;
            claimed.push(Claimed {
                partition: partition.clone(),
                topic_id,
                fence: log.end,
            });
        }
        // Until the first commit a position is what the claim found.
        let next = claimed.iter().map(|claimed| claimed.fence).collect();
        drop(state);
        let pending = Pending::new(partitions.len(), self.limits);
        Ok(Box::new(MemorySession {
            log: self.clone(),
            task: task.to_owned(),
            owner,
            claimed,
            next,
            pending,
        }))
    }

    fn reader(&self, partition: &Partition, from: Offset) -> Result<Box<dyn Reader>> {
        let Some(bounds) = self.bounds(partition)? else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("changelog partition {partition} does not exist"),
            ));
        };
        super::check_range(partition, from, bounds.start, bounds.end)?;
        Ok(Box::new(MemoryReader {
            log: self.clone(),
            partition: partition.clone(),
            topic_id: bounds.topic_id,
            next: from,
            end: None,
        }))
    }
}

impl Log {
    fn new(task: String, topic_id: [u8; 16]) -> Self {
        Self {
            task,
            topic_id,
            start: 0,
            end: 0,
            tombstones_dropped_below: 0,
            entries: Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
struct Claimed {
    partition: Partition,
    topic_id: [u8; 16],
    fence: u64,
}

#[derive(Debug)]
struct MemorySession {
    log: Memory,
    task: String,
    owner: Owner,
    claimed: Vec<Claimed>,
    /// By claimed partition: the offset behind its newest committed record.
    next: Vec<u64>,
    pending: Pending,
}

impl MemorySession {
    /// Runs `act` on the log if this session still owns the task and its topics.
    fn owned<T>(&mut self, act: impl FnOnce(&mut Self, &mut State) -> T) -> Result<T> {
        self.pending.check_alive()?;
        let shared = Arc::clone(&self.log.shared);
        let mut state = shared.state.lock();
        if state.owners.get(&self.task) != Some(&self.owner) {
            let error = super::fenced(&self.task, self.owner);
            return Err(self.pending.die(error));
        }
        for claimed in &self.claimed {
            if state.logs.get(&claimed.partition).map(|log| log.topic_id) != Some(claimed.topic_id)
            {
                let error = Error::new(
                    ErrorKind::Diverged,
                    format!(
                        "the topic of {} was deleted or recreated",
                        claimed.partition
                    ),
                );
                return Err(self.pending.die(error));
            }
        }
        Ok(act(self, &mut state))
    }

    fn positions(&self, time_ms: u64) -> Vec<Position> {
        let position = |(claimed, next): (&Claimed, &u64)| Position {
            cluster: self.log.shared.cluster.clone(),
            topic_id: claimed.topic_id,
            partition: claimed.partition.clone(),
            next: Offset(*next),
            leader_epoch: 0,
            owner: self.owner,
            time_ms,
        };
        self.claimed.iter().zip(&self.next).map(position).collect()
    }

    fn commit(&mut self) -> Result<Vec<Position>> {
        let time_ms = self.log.shared.env.wall_clock_ms();
        self.owned(|session, state| {
            let commit = session
                .pending
                .prepared()
                .expect("an undecided commit is prepared");
            let next = append_all(state, &session.claimed, commit, time_ms);
            for (old, new) in session.next.iter_mut().zip(next) {
                *old = new.unwrap_or(*old);
            }
            session.positions(time_ms)
        })
    }
}

/// Appends the commit and returns, by partition, the offset behind its last record.
fn append_all(
    state: &mut State,
    claimed: &[Claimed],
    commit: &Commit,
    time_ms: u64,
) -> Vec<Option<u64>> {
    let mut ends = Vec::new();
    for (claimed, encoded) in claimed.iter().zip(&commit.partitions) {
        if encoded.count == 0 {
            ends.push(None);
            continue;
        }
        let log = state
            .logs
            .get_mut(&claimed.partition)
            .expect("claimed partitions exist");
        let mut decoder = Decoder::new(&encoded.bytes);
        let mut headers = Vec::new();
        while !decoder.is_empty() {
            let gap = decoder.varint("gap").expect("own encoding");
            assert_eq!(gap, 0, "sessions append without gaps");
            let record = RecordRef::decode(&mut decoder, &mut headers).expect("own encoding");
            let record = Arc::new(Record::from(record));
            log.entries.push(Entry {
                offset: log.end,
                time_ms,
                record,
            });
            log.end += 1;
        }
        ends.push(Some(log.end));
        // The commit marker.
        log.end += 1;
    }
    ends
}

impl Session for MemorySession {
    fn owner(&self) -> Owner {
        self.owner
    }

    fn bounds(&mut self, partition: usize) -> Result<Bounds> {
        self.pending.check_partition(partition)?;
        self.owned(|_, _| ())?;
        let partition = &self.claimed[partition].partition;
        self.log.bounds(partition)?.ok_or_else(|| {
            Error::new(
                ErrorKind::Diverged,
                format!("the topic of {partition} was deleted"),
            )
        })
    }

    fn reader(&mut self, partition: usize, from: Offset) -> Result<Box<dyn Reader>> {
        let bounds = self.bounds(partition)?;
        let claimed = &self.claimed[partition];
        let fence = Offset(claimed.fence);
        super::check_range(&claimed.partition, from, bounds.start, fence)?;
        Ok(Box::new(MemoryReader {
            log: self.log.clone(),
            partition: claimed.partition.clone(),
            topic_id: claimed.topic_id,
            next: from,
            end: Some(fence),
        }))
    }

    fn record_bytes_max(&self) -> u64 {
        self.pending.record_bytes_max()
    }

    fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.pending.reserve(bytes)
    }

    fn append(&mut self, partition: usize, record: RecordRef<'_>) -> Result<()> {
        self.pending.append(partition, record)
    }

    fn prepare(&mut self) -> Result<CommitId> {
        self.owned(|_, _| ())?;
        self.pending.prepare()
    }

    fn poll(&mut self, commit: CommitId) -> Result<Option<Vec<Position>>> {
        if let Some(positions) = self.pending.outcome(commit)? {
            return Ok(Some(positions));
        }
        let outcome = self.commit();
        self.pending.decide(outcome)
    }

    fn wait(&mut self, commit: CommitId) -> Result<Vec<Position>> {
        let positions = self.poll(commit)?;
        Ok(positions.expect("a commit in memory is decided at once"))
    }

    fn abort(&mut self) -> Result<()> {
        self.pending.check_decided()?;
        self.owned(|session, state| {
            for claimed in &session.claimed {
                // The abort marker.
                state
                    .logs
                    .get_mut(&claimed.partition)
                    .expect("claimed partitions exist")
                    .end += 1;
            }
        })?;
        self.pending.abort()
    }

    fn commit_requested(&self) -> bool {
        self.pending.commit_requested()
    }

    fn idle_positions(&mut self) -> Result<Vec<Position>> {
        self.pending.check_decided()?;
        let time_ms = self.log.shared.env.wall_clock_ms();
        self.owned(|session, _| session.positions(time_ms))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryReader {
    log: Memory,
    partition: Partition,
    topic_id: [u8; 16],
    next: Offset,
    /// A restore's end; a follower has none.
    end: Option<Offset>,
}

impl MemoryReader {
    /// Copies the handles of the next records, so that the sink runs without the lock.
    fn take(&self) -> Result<(Vec<Entry>, Offset)> {
        let state = self.log.shared.state.lock();
        let log = state
            .logs
            .get(&self.partition)
            .filter(|log| log.topic_id == self.topic_id);
        let Some(log) = log else {
            return Err(Error::new(
                ErrorKind::Diverged,
                format!("the topic of {} was deleted or recreated", self.partition),
            ));
        };
        let end = self.end.map_or(log.end, |end| end.0);
        super::check_range(&self.partition, self.next, Offset(log.start), Offset(end))?;
        let first = log
            .entries
            .partition_point(|entry| entry.offset < self.next.0);
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in log.entries[first..]
            .iter()
            .take_while(|entry| entry.offset < end)
        {
            if bytes >= FETCH_BYTES {
                return Ok((entries, Offset(entry.offset)));
            }
            bytes += entry.record.key.len() + entry.record.value.as_ref().map_or(0, Vec::len) + 64;
            entries.push(entry.clone());
        }
        Ok((entries, Offset(end)))
    }
}

impl Reader for MemoryReader {
    fn position(&self) -> Offset {
        self.next
    }

    fn fetch(&mut self, sink: &mut Sink<'_>) -> Result<Fetched> {
        let time_ms = self.log.shared.env.wall_clock_ms();
        let (entries, next) = self.take()?;
        for entry in entries {
            entry
                .record
                .with_ref(|record| sink(Offset(entry.offset), record))?;
            self.next = Offset(entry.offset + 1);
        }
        self.next = next;
        let end = match self.end {
            Some(end) => end,
            None => self
                .log
                .bounds(&self.partition)?
                .map_or(next, |bounds| bounds.end),
        };
        Ok(Fetched {
            next,
            at_end: next >= end,
            time_ms,
        })
    }
}
