//! The threads of a producer: the router finds leaders, and each leader has a writer, which packs
//! and sends, and for as long as its connection lasts a reader, which takes the answers.
//!
//! The router starts the writers and waits for their end; a writer does the same with its readers.
//! So whoever waits for the router has waited for all.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::super::cluster::Leader;
use super::wire::{Inbound, Outbound, Wire};
use super::{ROUTER_PAUSE, Shared};
use crate::env::JoinHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Condvar, Mutex};

/// How many requests of one connection may be unanswered.
const REQUESTS_MAX: usize = 5;

/// Finds out who leads the partitions.
pub(super) struct Router<W> {
    shared: Arc<Shared<W>>,
    topic_ids: Vec<[u8; 16]>,
    /// For how long a missing partition is waited for.
    missing_max: Duration,
    missing_since: HashMap<usize, Duration>,
    writers: Vec<Box<dyn JoinHandle>>,
}

impl<W: Wire> Router<W> {
    pub(super) fn new(
        shared: Arc<Shared<W>>,
        topic_ids: Vec<[u8; 16]>,
        missing_max: Duration,
    ) -> Self {
        Self {
            shared,
            topic_ids,
            missing_max,
            missing_since: HashMap::new(),
            writers: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        while let Some(unrouted) = self.next() {
            let mut is_open = true;
            for (lane, former) in unrouted {
                let leader = self.shared.wire.leader(lane, former);
                is_open &= self.found(lane, leader);
            }
            if !is_open {
                self.pause();
            }
        }
        for writer in self.writers {
            writer.join();
        }
    }

    /// Waits for partitions that have no leader; `None` ends the thread.
    fn next(&self) -> Option<Vec<(usize, Option<Leader>)>> {
        let mut board = self.shared.board.lock();
        loop {
            if board.is_stopping {
                return None;
            }
            board.core.check_timeout(self.shared.env.monotonic());
            let unrouted = board.core.unrouted();
            if !unrouted.is_empty() {
                return Some(unrouted);
            }
            self.shared.routes.wait_for(&mut board, ROUTER_PAUSE);
        }
    }

    fn pause(&self) {
        let mut board = self.shared.board.lock();
        if !board.is_stopping {
            self.shared.routes.wait_for(&mut board, ROUTER_PAUSE);
        }
    }

    /// Takes what was said of a partition's leader. False if nothing is known yet.
    fn found(&mut self, lane: usize, leader: Result<Leader>) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut board = shared.board.lock();
        let node = match leader {
            Ok(leader) => {
                self.missing_since.remove(&lane);
                let expected = self.topic_ids.get(lane).copied().unwrap_or_default();
                let is_same =
                    [leader.topic_id, expected].contains(&[0; 16]) || leader.topic_id == expected;
                if !is_same {
                    board.core.die(Error::new(
                        ErrorKind::Diverged,
                        format!("the topic of partition {lane} was deleted and created again"),
                    ));
                    self.shared.wake_all();
                    return false;
                }
                board.core.route(lane, leader);
                leader.node
            }
            Err(error) => {
                self.unknown(&mut board.core, lane, &error);
                return false;
            }
        };
        if board.links.insert(node) {
            let writer = LinkWriter {
                shared: Arc::clone(&self.shared),
                node,
            };
            let body = Box::new(move || writer.run());
            match self.shared.env.spawn("kafka-writer", body) {
                Ok(writer) => self.writers.push(writer),
                Err(error) => {
                    board.links.remove(&node);
                    board.core.lose_node(node);
                    board.core.fail(error.into_kind(ErrorKind::Changelog));
                    self.shared.wake_all();
                    return false;
                }
            }
        }
        self.shared.work.notify_all();
        true
    }

    fn unknown(&mut self, core: &mut super::Core, lane: usize, error: &Error) {
        if error.kind() != ErrorKind::NotFound {
            self.missing_since.remove(&lane);
            return;
        }
        let now = self.shared.env.monotonic();
        let since = *self.missing_since.entry(lane).or_insert(now);
        if now.saturating_sub(since) >= self.missing_max {
            core.fail(error.into_kind(ErrorKind::Changelog));
            self.shared.progress.notify_all();
        }
    }
}

/// What a writer hands to its reader: requests in the order of their answers.
struct Pipe<T> {
    state: Mutex<PipeState<T>>,
    changed: Condvar,
}

struct PipeState<T> {
    requests: VecDeque<Request<T>>,
    /// Requests sent or about to be, and not answered.
    unanswered: usize,
    /// The connection is of no use any more.
    is_broken: bool,
}

struct Request<T> {
    ticket: T,
    /// Partition and batch.
    batches: Vec<(usize, u64)>,
}

impl<T> Pipe<T> {
    fn new() -> Self {
        Self {
            state: Mutex::new(PipeState {
                requests: VecDeque::new(),
                unanswered: 0,
                is_broken: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn break_off(&self) {
        self.state.lock().is_broken = true;
        self.changed.notify_all();
    }
}

/// Sends to one broker.
struct LinkWriter<W> {
    shared: Arc<Shared<W>>,
    node: i32,
}

impl<W: Wire> LinkWriter<W> {
    fn run(self) {
        while self.wait_for_work() {
            match self.shared.wire.connect(self.node) {
                Ok((outbound, inbound)) => self.serve(outbound, inbound),
                Err(error) if error.kind() == ErrorKind::Closed => return,
                Err(_) => self.lose_node(),
            }
        }
    }

    fn lose_node(&self) {
        self.shared.board.lock().core.lose_node(self.node);
        self.shared.routes.notify_all();
    }

    /// Waits until there is something to connect for; false at the end.
    fn wait_for_work(&self) -> bool {
        let mut board = self.shared.board.lock();
        loop {
            if board.is_stopping {
                return false;
            }
            let now = self.shared.env.monotonic();
            match board.core.due(self.node) {
                Some(due) if due <= now => return true,
                Some(due) => {
                    self.shared
                        .work
                        .wait_for(&mut board, due.saturating_sub(now));
                }
                None => self.shared.work.wait(&mut board),
            }
        }
    }

    /// Sends over one connection until it breaks.
    fn serve(&self, mut outbound: W::Outbound, inbound: W::Inbound) {
        let connection = self.shared.board.lock().core.new_connection();
        let pipe = Arc::new(Pipe::new());
        let reader = LinkReader {
            shared: Arc::clone(&self.shared),
            pipe: Arc::clone(&pipe),
            inbound,
            connection,
        };
        let reader = self
            .shared
            .env
            .spawn("kafka-reader", Box::new(move || reader.run()));
        if let Ok(reader) = reader {
            while let Some(request) = self.next(connection, &pipe, &mut outbound) {
                pipe.state.lock().requests.push_back(request);
                pipe.changed.notify_all();
            }
            pipe.break_off();
            // Closes the connection, and so ends the reader's wait.
            drop(outbound);
            reader.join();
        }
        self.shared.board.lock().core.lost(connection);
        self.lose_node();
        // A partition may have another leader by now, whose writer waits for what this connection
        // left unanswered.
        self.shared.work.notify_all();
        self.shared.progress.notify_all();
    }

    /// Waits for batches and sends them; `None` if the connection or the producer is at its end.
    fn next(
        &self,
        connection: u64,
        pipe: &Pipe<W::Ticket>,
        outbound: &mut W::Outbound,
    ) -> Option<Request<W::Ticket>> {
        let (taken, writer) = self.take(connection, pipe)?;
        let mut packed = Vec::with_capacity(taken.len());
        for outgoing in taken {
            let (lane, id) = (outgoing.lane, outgoing.id);
            packed.push((lane, id, outgoing.pack(writer)));
        }
        let mut board = self.shared.board.lock();
        for (lane, id, bytes) in &packed {
            board.core.packed(*lane, *id, Arc::clone(bytes));
        }
        drop(board);
        let slices = packed.iter().map(|(lane, _, bytes)| (*lane, &bytes[..]));
        let slices: Vec<(usize, &[u8])> = slices.collect();
        let ticket = outbound.send(&slices).ok()?;
        let batches = packed.iter().map(|(lane, id, _)| (*lane, *id)).collect();
        Some(Request { ticket, batches })
    }

    fn take(
        &self,
        connection: u64,
        pipe: &Pipe<W::Ticket>,
    ) -> Option<(Vec<super::batch::Outgoing>, super::Writer)> {
        let mut board = self.shared.board.lock();
        loop {
            // The reader changes these before it takes the board's lock and wakes this thread.
            let (is_broken, is_full) = {
                let pipe = pipe.state.lock();
                (pipe.is_broken, pipe.unanswered >= REQUESTS_MAX)
            };
            if board.is_stopping || is_broken {
                return None;
            }
            let now = self.shared.env.monotonic();
            let due = if is_full {
                None
            } else {
                board.core.due(self.node)
            };
            match due {
                Some(due) if due > now => {
                    self.shared
                        .work
                        .wait_for(&mut board, due.saturating_sub(now));
                }
                Some(_) => {
                    let bytes_max = self.shared.request_bytes_max;
                    let taken = board.core.take(self.node, connection, bytes_max, now);
                    if !taken.is_empty() {
                        pipe.state.lock().unanswered += 1;
                        return Some((taken, board.core.writer()));
                    }
                    // What is due waits for answers over another connection.
                    self.shared.work.wait(&mut board);
                }
                None => self.shared.work.wait(&mut board),
            }
        }
    }
}

/// Takes the answers of one connection.
struct LinkReader<W: Wire> {
    shared: Arc<Shared<W>>,
    pipe: Arc<Pipe<W::Ticket>>,
    inbound: W::Inbound,
    connection: u64,
}

impl<W: Wire> LinkReader<W> {
    fn run(mut self) {
        while let Some(request) = self.next() {
            if !self.take_answer(&request) {
                break;
            }
        }
        self.pipe.break_off();
        // The writer looks at the pipe under this lock.
        drop(self.shared.board.lock());
        self.shared.work.notify_all();
    }

    fn next(&self) -> Option<Request<W::Ticket>> {
        let mut pipe = self.pipe.state.lock();
        loop {
            if pipe.is_broken {
                return None;
            }
            if let Some(request) = pipe.requests.pop_front() {
                return Some(request);
            }
            self.pipe.changed.wait(&mut pipe);
        }
    }

    /// False if the connection is of no use any more.
    fn take_answer(&mut self, request: &Request<W::Ticket>) -> bool {
        let mut answers = Vec::with_capacity(request.batches.len());
        let received = self.inbound.receive(&request.ticket, &mut |lane, answer| {
            let message = answer.message.map(str::to_owned);
            answers.push((lane, answer.code, answer.base_offset, message));
        });
        let Ok(sent_ms) = received else { return false };
        let at = (self.shared.env.monotonic(), self.shared.env.random_u64());
        self.pipe.state.lock().unanswered -= 1;
        let mut board = self.shared.board.lock();
        let mut is_good = true;
        for (lane, id) in &request.batches {
            let answer = answers.iter().find(|(of, ..)| of == lane);
            let Some((_, code, base_offset, message)) = answer else {
                // An answer that leaves out what was asked leaves it unknown.
                is_good = false;
                continue;
            };
            let answer = super::lane::Answer {
                code: *code,
                base_offset: *base_offset,
                message: message.as_deref(),
            };
            let batch = (*lane, *id);
            is_good &= board
                .core
                .answered(self.connection, batch, answer, sent_ms, at);
        }
        drop(board);
        self.shared.wake_all();
        is_good
    }
}
