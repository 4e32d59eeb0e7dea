//! The owner's session: records through the producer, commits through the coordinator.
//!
//! - `claim`: topics, the fence, and where it lies.
//! - `conductor`: the thread that speaks with the coordinator.

mod claim;
mod conductor;

use std::time::Duration;

use super::cluster::Cluster;
use super::fetcher::{self, End, FetchReader};
use super::producer::{Brokers, Core, Producer};
use crate::changelog::{
    Bounds, CommitId, Guarantee, Offset, Owner, Partition, Position, Reader, RecordRef, Session,
    check_range,
};
use crate::env::JoinHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

pub(super) use claim::claim;

/// A wait that somebody else ends looks again after that long.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What a claim found of one partition.
#[derive(Debug, Clone)]
struct Claimed {
    partition: Partition,
    topic_id: [u8; 16],
    /// The offset behind the own fence.
    fence: Offset,
}

/// See [`Session`]. A background thread prepares, commits and aborts; this is its caller's side.
pub(super) struct KafkaSession {
    /// For readers and bounds; the producer's has a shutdown of its own.
    cluster: Cluster,
    cluster_id: String,
    guarantee: Guarantee,
    owner: Owner,
    claimed: Vec<Claimed>,
    /// When the request was sent that fenced, by the wall clock.
    fenced_ms: u64,
    producer: Arc<Producer<Brokers>>,
    conductor: Option<Box<dyn JoinHandle>>,
    record_bytes_max: u64,
    newest: CommitId,
    /// The positions of the newest commit, once it is decided.
    answer: Option<Vec<Position>>,
}

impl std::fmt::Debug for KafkaSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSession")
            .field("owner", &self.owner)
            .field("claimed", &self.claimed)
            .finish_non_exhaustive()
    }
}

impl KafkaSession {
    fn claimed(&self, partition: usize) -> Result<&Claimed> {
        self.claimed.get(partition).ok_or_else(|| {
            Error::invalid(format!(
                "partition index {partition}; the session claimed {}",
                self.claimed.len()
            ))
        })
    }

    fn positions(&self, core: &Core) -> Vec<Position> {
        let position = |(lane, claimed): (usize, &Claimed)| {
            let (next, acked_ms) = core.committed(lane);
            Position {
                cluster: self.cluster_id.clone(),
                topic_id: claimed.topic_id,
                partition: claimed.partition.clone(),
                next: Offset(next),
                leader_epoch: core.leader_epoch(lane),
                owner: self.owner,
                time_ms: match self.guarantee {
                    Guarantee::Atomic => core.proved_ms(),
                    Guarantee::PerBatch => core.proved_ms().max(acked_ms),
                },
            }
        };
        self.claimed.iter().enumerate().map(position).collect()
    }

    fn check_decided(&self, core: &Core) -> Result<()> {
        core.check_alive()?;
        match core.prepared() {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!(
                "commit {} is not decided yet: wait for it first",
                self.newest.0
            ))),
        }
    }

    /// What became of `commit`, by the state of now.
    fn decided(&self, core: &Core, commit: CommitId) -> Result<Option<Vec<Position>>> {
        core.check_alive()?;
        if commit != self.newest || commit == CommitId(0) {
            return Err(Error::invalid(format!(
                "commit {} is not the newest one, {}",
                commit.0, self.newest.0
            )));
        }
        if self.answer.is_some() {
            return Ok(self.answer.clone());
        }
        match core.outcome() {
            None => Ok(None),
            Some(Ok(())) => Ok(Some(self.positions(core))),
            Some(Err(error)) => Err(error),
        }
    }

    fn wait_until<T>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&mut Core) -> Option<T>,
    ) -> Option<T> {
        let settings = self.cluster.settings();
        let deadline = settings.deadline(timeout);
        let mut board = self.producer.board();
        loop {
            if let Some(found) = look(&mut board.core) {
                return Some(found);
            }
            let left = deadline.remaining(settings.env());
            if left.is_zero() {
                return None;
            }
            self.producer.wait(&mut board, left.min(LOOK_AGAIN));
        }
    }

    fn operation_timeout(&self) -> Duration {
        self.cluster.settings().options().operation_timeout
    }

    fn stop(&mut self) {
        self.producer.stop();
        if let Some(conductor) = self.conductor.take() {
            conductor.join();
        }
    }
}

impl Session for KafkaSession {
    fn owner(&self) -> Owner {
        self.owner
    }

    fn bounds(&mut self, partition: usize) -> Result<Bounds> {
        let claimed = self.claimed(partition)?;
        self.producer.board().core.check_alive()?;
        let deadline = self.cluster.settings().operation_deadline();
        let bounds = fetcher::bounds(&self.cluster, &claimed.partition, deadline)?;
        bounds.ok_or_else(|| {
            Error::new(
                ErrorKind::Diverged,
                format!("the topic of {} was deleted", claimed.partition),
            )
        })
    }

    fn reader(&mut self, partition: usize, from: Offset) -> Result<Box<dyn Reader>> {
        let bounds = self.bounds(partition)?;
        let claimed = self.claimed(partition)?;
        check_range(&claimed.partition, from, bounds.start, claimed.fence)?;
        let end = End {
            offset: claimed.fence,
            time_ms: self.fenced_ms,
        };
        let partition = claimed.partition.clone();
        let reader = FetchReader::new(self.cluster.clone(), partition, from, Some(end))?;
        Ok(Box::new(reader))
    }

    fn record_bytes_max(&self) -> u64 {
        self.record_bytes_max
    }

    fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.producer.reserve(bytes)
    }

    fn append(&mut self, partition: usize, record: RecordRef<'_>) -> Result<()> {
        self.claimed(partition)?;
        let (size, max) = (record.size(), self.record_bytes_max);
        if size > max {
            return Err(Error::invalid(format!(
                "changelog record of {size} bytes, at most {max} (record_bytes_max)"
            )));
        }
        self.producer.append(partition, &record)
    }

    fn prepare(&mut self) -> Result<CommitId> {
        // Whether the task is still this owner's is being asked: a failed commit and a session that
        // is fenced are not the same to the caller.
        self.wait_until(self.operation_timeout(), |core| {
            (!core.is_doubted()).then_some(())
        });
        let mut board = self.producer.board();
        self.check_decided(&board.core)?;
        board.core.check_healthy()?;
        board.core.prepare();
        drop(board);
        self.newest.0 += 1;
        self.answer = None;
        self.producer.changed();
        Ok(self.newest)
    }

    fn poll(&mut self, commit: CommitId) -> Result<Option<Vec<Position>>> {
        let answer = self.decided(&self.producer.board().core, commit)?;
        self.answer.clone_from(&answer);
        Ok(answer)
    }

    fn wait(&mut self, commit: CommitId) -> Result<Vec<Position>> {
        loop {
            let decided =
                self.wait_until(LOOK_AGAIN, |core| self.decided(core, commit).transpose());
            if let Some(decided) = decided {
                let answer = decided?;
                self.answer = Some(answer.clone());
                return Ok(answer);
            }
        }
    }

    fn abort(&mut self) -> Result<()> {
        let mut board = self.producer.board();
        self.check_decided(&board.core)?;
        board.core.begin_abort();
        drop(board);
        self.producer.changed();
        let aborted = self.wait_until(self.operation_timeout(), |core| {
            if let Err(error) = core.check_alive() {
                return Some(Err(error));
            }
            (!core.is_aborting()).then_some(Ok(()))
        });
        aborted.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Changelog,
                "the abort is not through yet: the brokers do not answer",
            ))
        })
    }

    fn commit_requested(&self) -> bool {
        let from = self.producer.board().core.commit_wanted_from();
        from.is_some_and(|from| self.cluster.settings().env().monotonic() >= from)
    }

    fn idle_positions(&mut self) -> Result<Vec<Position>> {
        let mut board = self.producer.board();
        self.check_decided(&board.core)?;
        board.core.ask_proof();
        drop(board);
        self.producer.changed();
        let positions = self.wait_until(self.operation_timeout(), |core| {
            if let Err(error) = core.check_alive() {
                return Some(Err(error));
            }
            let proof = core.take_proof()?;
            Some(proof.map(|()| self.positions(core)))
        });
        positions.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Changelog,
                "the ownership could not be proved: the brokers do not answer",
            ))
        })
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        let timeout = self.operation_timeout();
        self.wait_until(timeout, |core| {
            (core.prepared().is_none() || core.check_alive().is_err()).then_some(())
        });
        let is_open = {
            let board = self.producer.board();
            board.core.check_alive().is_ok() && board.core.prepared().is_none()
        };
        let closed = if is_open { self.abort() } else { Ok(()) };
        self.stop();
        closed
    }
}

impl Drop for KafkaSession {
    fn drop(&mut self) {
        self.stop();
    }
}
