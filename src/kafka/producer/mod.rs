//! Records on their way into the log: batches, their order, and what is done about errors.
//!
//! - `action`: what a broker's answer to a batch means.
//! - `batch`: one batch, from its first record to its acknowledgement.
//! - `lane`: the batches of one partition, in order.
//! - `core`: all partitions of a task, what they share, and what has to be done next.
//! - `wire`: the network as the threads see it.
//! - `link`: the two threads of one broker.
//! - [`Producer`]: the threads, the room, and the waits.

mod action;
mod batch;
mod core;
mod lane;
mod link;
mod step;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::changelog::RecordRef;
use crate::env::{Env, JoinHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};

pub(crate) use self::batch::Writer;
pub(crate) use self::core::Core;
pub(crate) use self::lane::BatchLimits;
pub(crate) use self::step::Step;
pub(crate) use self::wire::{Brokers, Wire};

/// How often the router looks for commits that take too long, and asks for leaders again.
const ROUTER_PAUSE: Duration = Duration::from_millis(100);

/// What the threads of a producer need to know.
#[derive(Debug, Clone)]
pub(crate) struct ProducerOptions {
    pub(crate) limits: BatchLimits,
    /// Bytes of records that wait for their acks.
    pub(crate) buffer_bytes: u64,
    /// Bytes of one request.
    pub(crate) request_bytes_max: usize,
    /// How long an append waits for room.
    pub(crate) block_timeout: Duration,
    /// The identities of the partitions' topics; zeros where brokers do not tell.
    pub(crate) topic_ids: Vec<[u8; 16]>,
}

/// Sends the records of one task to the leaders of its partitions: two threads for each of them,
/// and one that finds them. Somebody else has to do what [`Core::step`] asks for.
pub(crate) struct Producer<W: Wire> {
    shared: Arc<Shared<W>>,
    options: ProducerOptions,
    /// Taken by whoever stops the threads.
    router: Mutex<Option<Box<dyn JoinHandle>>>,
}

/// What all threads see.
struct Shared<W> {
    wire: W,
    env: Arc<dyn Env>,
    request_bytes_max: usize,
    /// Held for short: never while something is packed, sent or waited for.
    board: Mutex<Board>,
    /// There may be something to send, or to stop for.
    work: Condvar,
    /// A partition has lost its leader.
    routes: Condvar,
    /// Something was answered, failed or decided.
    progress: Condvar,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) core: Core,
    is_stopping: bool,
    /// Brokers that have their threads.
    links: BTreeSet<i32>,
}

impl<W: Wire> Producer<W> {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// `Io` if the system starts none.
    pub(crate) fn start(
        wire: W,
        env: &Arc<dyn Env>,
        core: Core,
        options: ProducerOptions,
    ) -> Result<Self> {
        let board = Board {
            core,
            is_stopping: false,
            links: BTreeSet::new(),
        };
        let shared = Arc::new(Shared {
            wire,
            env: Arc::clone(env),
            request_bytes_max: options.request_bytes_max,
            board: Mutex::new(board),
            work: Condvar::new(),
            routes: Condvar::new(),
            progress: Condvar::new(),
        });
        let router = {
            let shared = Arc::clone(&shared);
            let topic_ids = options.topic_ids.clone();
            let missing_max = options.limits.topic_missing_timeout;
            env.spawn(
                "kafka-router",
                Box::new(move || link::Router::new(shared, topic_ids, missing_max).run()),
            )?
        };
        Ok(Self {
            shared,
            options,
            router: Mutex::new(Some(router)),
        })
    }

    /// The state; tell by [`changed`](Self::changed) what was changed in it.
    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        self.shared.board.lock()
    }

    /// Waits until something may have happened, at most for `timeout`.
    pub(crate) fn wait(&self, board: &mut MutexGuard<'_, Board>, timeout: Duration) {
        self.shared.progress.wait_for(board, timeout);
    }

    /// Wakes everybody to look at the state.
    pub(crate) fn changed(&self) {
        self.shared.wake_all();
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// `MemoryLimit` if there is no room at this moment; what [`Core::check_healthy`] says.
    pub(crate) fn append(&self, lane: usize, record: &RecordRef<'_>) -> Result<()> {
        let mut board = self.shared.board.lock();
        board.core.check_healthy()?;
        if !board.core.has_room(record.size()) {
            // What was reserved is there; without a reservation one waits for nothing.
            return Err(self.full(&board, record.size()));
        }
        if board
            .core
            .append(lane, record, || self.shared.env.monotonic())
        {
            drop(board);
            self.shared.work.notify_all();
            self.shared.progress.notify_all();
        }
        Ok(())
    }

    /// Waits until there is room for `bytes`.
    ///
    /// # Errors
    ///
    /// `MemoryLimit` after the block timeout; what [`Core::check_healthy`] says.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        let mut board = self.shared.board.lock();
        let mut end = None;
        loop {
            board.core.check_healthy()?;
            if board.core.has_room(bytes) {
                return Ok(());
            }
            let now = self.shared.env.monotonic();
            let end = *end.get_or_insert(now.saturating_add(self.options.block_timeout));
            if bytes > self.options.buffer_bytes || now >= end {
                return Err(self.full(&board, bytes));
            }
            board.core.close_batches();
            self.shared.work.notify_all();
            self.shared
                .progress
                .wait_for(&mut board, end.saturating_sub(now));
        }
    }

    fn full(&self, board: &Board, bytes: u64) -> Error {
        Error::new(
            ErrorKind::MemoryLimit,
            format!(
                "{} bytes of records wait for their acks, of at most {} (buffer_bytes); {bytes} \
                 more were asked for",
                board.core.used(),
                self.options.buffer_bytes
            ),
        )
    }

    /// Ends all threads and waits for them.
    pub(crate) fn stop(&self) {
        self.shared.board.lock().is_stopping = true;
        self.shared.wire.shut_down();
        self.shared.wake_all();
        let router = self.router.lock().take();
        if let Some(router) = router {
            router.join();
        }
    }
}

impl<W: Wire> fmt::Debug for Producer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<W: Wire> Drop for Producer<W> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Board {
    /// True once the threads have been told to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping
    }
}

impl<W> Shared<W> {
    fn wake_all(&self) {
        self.work.notify_all();
        self.routes.notify_all();
        self.progress.notify_all();
    }
}
