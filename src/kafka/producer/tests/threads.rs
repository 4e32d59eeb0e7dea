//! The threads over a network in memory that cuts connections, loses answers and moves leaders.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::super::cluster::Leader;
use super::super::super::connection::Backoff;
use super::super::super::protocol::ErrorCode;
use super::super::batch::Writer;
use super::super::core::Core;
use super::super::lane::Answer;
use super::super::step::Step;
use super::super::wire::{Inbound, Outbound};
use super::super::{Producer, ProducerOptions, Wire};
use super::model::{Log, Random};
use super::{LANES, NODES, limits, seeds};
use crate::changelog::RecordRef;
use crate::env::{Env, OsEnv};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Condvar, Mutex};

/// The brokers and every connection to them.
struct Network {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    random: Random,
    logs: Vec<Log>,
    connections: Vec<Connection>,
    has_faults: bool,
    is_down: bool,
    cuts: u64,
}

struct Connection {
    node: usize,
    /// Requests that were not carried out.
    requests: VecDeque<Vec<(usize, Vec<u8>)>>,
    is_cut: bool,
}

impl Network {
    fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                random: Random(seed),
                logs: (0..LANES).map(|_| Log::default()).collect(),
                connections: Vec::new(),
                has_faults: true,
                is_down: false,
                cuts: 0,
            }),
            changed: Condvar::new(),
        }
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Io, "the connection is cut")
}

#[derive(Clone)]
struct Model(Arc<Network>);

struct End {
    network: Arc<Network>,
    number: usize,
}

impl Drop for End {
    fn drop(&mut self) {
        self.network.state.lock().connections[self.number].is_cut = true;
        self.network.changed.notify_all();
    }
}

impl Wire for Model {
    type Ticket = ();
    type Outbound = End;
    type Inbound = End;

    fn leader(&self, lane: usize, _former: Option<Leader>) -> Result<Leader> {
        let mut state = self.0.state.lock();
        let node = if state.has_faults && state.random.one_in(5) {
            state.random.index(NODES)
        } else {
            state.logs[lane].leader
        };
        if state.has_faults && state.random.one_in(20) {
            return Err(Error::new(ErrorKind::Changelog, "no leader is known"));
        }
        Ok(Leader {
            node: i32::try_from(node).unwrap(),
            epoch: 0,
            topic_id: [0; 16],
        })
    }

    fn connect(&self, node: i32) -> Result<(End, End)> {
        let mut state = self.0.state.lock();
        if state.is_down {
            return Err(Error::new(ErrorKind::Closed, "shut down"));
        }
        if state.has_faults && state.random.one_in(6) {
            return Err(broken());
        }
        let number = state.connections.len();
        state.connections.push(Connection {
            node: usize::try_from(node).unwrap(),
            requests: VecDeque::new(),
            is_cut: false,
        });
        let end = || End {
            network: Arc::clone(&self.0),
            number,
        };
        Ok((end(), end()))
    }

    fn shut_down(&self) {
        let mut state = self.0.state.lock();
        state.is_down = true;
        for connection in &mut state.connections {
            connection.is_cut = true;
        }
        self.0.changed.notify_all();
    }
}

impl Outbound for End {
    type Ticket = ();

    fn send(&mut self, batches: &[(usize, &[u8])]) -> Result<()> {
        let mut state = self.network.state.lock();
        let is_cut = state.has_faults && state.random.one_in(30);
        let connection = &mut state.connections[self.number];
        if is_cut || connection.is_cut {
            connection.is_cut = true;
            state.cuts += 1;
            self.network.changed.notify_all();
            return Err(broken());
        }
        let owned = batches.iter().map(|(lane, bytes)| (*lane, bytes.to_vec()));
        connection.requests.push_back(owned.collect());
        self.network.changed.notify_all();
        Ok(())
    }
}

impl Inbound for End {
    type Ticket = ();

    fn receive(&mut self, (): &(), visit: &mut dyn FnMut(usize, Answer<'_>)) -> Result<u64> {
        let mut state = self.network.state.lock();
        loop {
            let connection = &mut state.connections[self.number];
            if connection.is_cut {
                return Err(broken());
            }
            if let Some(request) = connection.requests.pop_front() {
                let node = connection.node;
                let answers = state.carry_out(node, request);
                if state.has_faults && state.random.one_in(25) {
                    // Carried out, but the answer is lost.
                    state.connections[self.number].is_cut = true;
                    state.cuts += 1;
                    return Err(broken());
                }
                drop(state);
                for (lane, code, base_offset) in answers {
                    let answer = Answer {
                        code,
                        base_offset,
                        message: None,
                    };
                    visit(lane, answer);
                }
                return Ok(1);
            }
            self.network.changed.wait(&mut state);
        }
    }
}

impl State {
    fn carry_out(
        &mut self,
        node: usize,
        request: Vec<(usize, Vec<u8>)>,
    ) -> Vec<(usize, ErrorCode, i64)> {
        let mut answers = Vec::new();
        for (lane, bytes) in request {
            if self.has_faults && self.random.one_in(60) {
                self.logs[lane].leader = self.random.index(NODES);
            }
            if self.has_faults && self.random.one_in(300) {
                self.logs[lane].batches = VecDeque::from([(-1, 1 << 30, -1)]);
            }
            let log = &mut self.logs[lane];
            let (code, offset) = if log.leader == node {
                log.append(&bytes)
            } else {
                (ErrorCode::NOT_LEADER_OR_FOLLOWER, -1)
            };
            answers.push((lane, code, offset));
        }
        answers
    }
}

/// Does what the core asks for, with a coordinator that always agrees.
fn conduct(producer: &Producer<Model>, network: &Network, epochs: &mut i16) {
    let mut board = producer.board();
    let mut new_epoch = |writer: Writer| {
        *epochs += 1;
        Writer {
            epoch: *epochs,
            ..writer
        }
    };
    let writer = board.core.writer();
    match board.core.step() {
        Step::Wait => return,
        Step::Enlist(lanes) => board.core.enlisted(&lanes),
        Step::Commit(_) => {
            for log in &mut network.state.lock().logs {
                for (_, is_open) in &mut log.records {
                    *is_open = false;
                }
            }
            board.core.committed_now();
        }
        Step::Abort => {
            for log in &mut network.state.lock().logs {
                log.records.retain(|(_, is_open)| !is_open);
            }
            let writer = board.core.is_renumbering().then(|| new_epoch(writer));
            board.core.aborted(writer);
        }
        Step::Doubt | Step::Prove => panic!("nobody asked and no epoch was taken over"),
        Step::Resume => board.core.renumber(new_epoch(writer)),
    }
    drop(board);
    producer.changed();
}

/// Waits for the outcome of what was prepared or aborted.
fn settle(producer: &Producer<Model>, network: &Network, epochs: &mut i16) {
    let mut waits = 0;
    loop {
        conduct(producer, network, epochs);
        let mut board = producer.board();
        if board.core.prepared().is_none() && !board.core.is_aborting() {
            return;
        }
        if board.core.step() == Step::Wait {
            waits += 1;
            assert!(waits < 400, "nothing goes on: {:?}", board.core);
            producer.wait(&mut board, Duration::from_millis(50));
        }
    }
}

fn start(seed: u64, is_transactional: bool) -> (Arc<Network>, Producer<Model>) {
    let network = Arc::new(Network::new(seed));
    let writer = Writer {
        id: 1,
        epoch: 0,
        is_transactional,
    };
    let mut limits = limits();
    limits.linger = Duration::from_millis(1);
    limits.backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(4));
    let options = ProducerOptions {
        limits,
        buffer_bytes: 20_000,
        request_bytes_max: 1500,
        block_timeout: Duration::from_secs(60),
        topic_ids: vec![[0; 16]; LANES],
    };
    let core = Core::new(&options.limits, options.buffer_bytes, writer, &[0; LANES]);
    let env: Arc<dyn Env> = Arc::new(OsEnv::new());
    let model = Model(Arc::clone(&network));
    let producer = Producer::start(model, &env, core, options).unwrap();
    (network, producer)
}

/// Commits and aborts; returns by partition the records of commits that succeeded.
fn run(
    seed: u64,
    network: &Network,
    producer: &Producer<Model>,
    epochs: &mut i16,
) -> Vec<Vec<u64>> {
    let mut random = Random(seed);
    let mut committed = vec![Vec::new(); LANES];
    let mut next = 0_u64;
    for round in 0..12 {
        let mut open = vec![Vec::new(); LANES];
        for _ in 0..random.below(120) {
            let value = vec![1; random.index(100)];
            let key = next.to_be_bytes();
            let record = RecordRef::new(&key, Some(&value));
            conduct(producer, network, epochs);
            // There is always room in time: the core's steps are done by this thread.
            while !producer.board().core.has_room(record.size()) {
                conduct(producer, network, epochs);
                if producer.board().core.check_healthy().is_err() {
                    break;
                }
                let mut board = producer.board();
                board.core.close_batches();
                producer.wait(&mut board, Duration::from_millis(10));
            }
            let lane = random.index(LANES);
            if producer.append(lane, &record).is_ok() {
                open[lane].push(next);
                next += 1;
            }
        }
        let is_healthy = producer.board().core.check_healthy().is_ok();
        if is_healthy && !random.one_in(5) {
            let mut board = producer.board();
            // It may have failed in between.
            if board.core.check_healthy().is_ok() {
                board.core.prepare();
                drop(board);
                producer.changed();
                settle(producer, network, epochs);
                if producer.board().core.outcome().unwrap().is_ok() {
                    for (lane, records) in open.into_iter().enumerate() {
                        committed[lane].extend(records);
                    }
                    continue;
                }
            }
        }
        assert!(round < 12);
        producer.board().core.begin_abort();
        producer.changed();
        settle(producer, network, epochs);
    }
    committed
}

#[test]
fn threads_commit_transactions_once_and_in_order() {
    let (mut records, mut cuts) = (0, 0);
    for seed in seeds().into_iter().take(20) {
        eprintln!("seed {seed}");
        let (network, producer) = start(seed, true);
        let committed = run(seed, &network, &producer, &mut 0);
        producer.stop();
        let state = network.state.lock();
        for (lane, committed) in committed.iter().enumerate() {
            assert_eq!(state.logs[lane].numbers(), *committed, "seed {seed}");
            records += committed.len();
        }
        cuts += state.cuts;
    }
    eprintln!("{records} records, {cuts} cuts");
    assert!(records > 0 && cuts > 0);
}

#[test]
fn threads_without_transactions_lose_nothing_and_keep_the_order() {
    let (mut records, mut cuts) = (0, 0);
    for seed in seeds().into_iter().take(20) {
        eprintln!("seed {seed}");
        let (network, producer) = start(seed, false);
        let committed = run(seed, &network, &producer, &mut 0);
        producer.stop();
        let state = network.state.lock();
        for (lane, committed) in committed.iter().enumerate() {
            let log = state.logs[lane].numbers();
            let is_newest = |index: usize| !log[index + 1..].contains(&log[index]);
            let newest = (0..log.len()).filter(|index| is_newest(*index));
            let newest: Vec<u64> = newest.map(|index| log[index]).collect();
            assert!(newest.is_sorted(), "seed {seed}: {log:?}");
            assert!(committed.iter().all(|record| newest.contains(record)));
            records += log.len();
        }
        cuts += state.cuts;
    }
    eprintln!("{records} records, {cuts} cuts");
    assert!(records > 0 && cuts > 0);
}

#[test]
fn a_full_buffer_is_a_memory_limit_and_makes_room_by_acks() {
    let (network, producer) = start(1, false);
    network.state.lock().has_faults = false;
    let error = producer.reserve(20_001).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MemoryLimit);
    assert!(error.to_string().contains("20000"), "{error}");
    let value = [0; 1000];
    for number in 0..100_u64 {
        let key = number.to_be_bytes();
        let record = RecordRef::new(&key, Some(&value));
        producer.reserve(record.size()).unwrap();
        producer.append(0, &record).unwrap();
    }
    producer.board().core.prepare();
    producer.changed();
    settle(&producer, &network, &mut 0);
    assert_eq!(network.state.lock().logs[0].records.len(), 100);
}
