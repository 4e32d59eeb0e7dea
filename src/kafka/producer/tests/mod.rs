//! The state machines against a model of brokers that lose, delay, refuse and move.

mod model;
mod threads;

use std::collections::VecDeque;
use std::time::Duration;

use super::super::cluster::Leader;
use super::super::connection::Backoff;
use super::super::protocol::ErrorCode;
use super::batch::Writer;
use super::core::Core;
use super::lane::{Answer, BatchLimits};
use super::step::Step;
use crate::changelog::RecordRef;
use crate::error::ErrorKind;
use crate::options::Compression;
use crate::sync::Arc;

use model::{Log, Random};

const LANES: usize = 3;
const NODES: usize = 2;

fn limits() -> BatchLimits {
    BatchLimits {
        batch_bytes: 400,
        linger: Duration::from_millis(5),
        compression: Compression::None,
        delivery_timeout: None,
        topic_missing_timeout: Duration::from_secs(3600),
        backoff: Backoff::requests(),
    }
}

/// A request under way: the batches with their bytes.
type Request = Vec<(usize, u64, Arc<Vec<u8>>)>;

/// A producer and its brokers.
struct World {
    random: Random,
    now: Duration,
    core: Core,
    logs: Vec<Log>,
    /// By node: the connection and what was sent over it and not read yet.
    connections: Vec<Option<(u64, VecDeque<Request>)>>,
    next_record: u64,
    /// By partition: records of the commits that succeeded, and of the open one.
    committed: Vec<Vec<u64>>,
    open: Vec<Vec<u64>>,
    prepared: Vec<Vec<u64>>,
    faults: bool,
    clears_state: bool,
    epochs: i16,
    aborts: u64,
}

impl World {
    fn new(seed: u64, is_transactional: bool, clears_state: bool) -> Self {
        let writer = Writer {
            id: 7,
            epoch: 0,
            is_transactional,
        };
        Self {
            random: Random(seed),
            now: Duration::from_secs(1),
            core: Core::new(&limits(), 4000, writer, &[0; LANES]),
            logs: (0..LANES).map(|_| Log::default()).collect(),
            connections: (0..NODES).map(|_| None).collect(),
            next_record: 0,
            committed: vec![Vec::new(); LANES],
            open: vec![Vec::new(); LANES],
            prepared: vec![Vec::new(); LANES],
            faults: true,
            clears_state,
            epochs: 0,
            aborts: 0,
        }
    }

    fn append(&mut self) {
        let value = vec![1; self.random.index(120)];
        let key = self.next_record.to_be_bytes();
        let record = RecordRef::new(&key, Some(&value));
        if self.core.check_healthy().is_err() || !self.core.has_room(record.size()) {
            return;
        }
        let lane = self.random.index(LANES);
        let now = self.now;
        self.core.append(lane, &record, || now);
        self.open[lane].push(self.next_record);
        self.next_record += 1;
    }

    fn send(&mut self) {
        let node = self.random.index(NODES);
        let number = i32::try_from(node).unwrap();
        if self.core.due(number).is_none_or(|due| due > self.now) {
            return;
        }
        let core = &mut self.core;
        let (connection, requests) =
            self.connections[node].get_or_insert_with(|| (core.new_connection(), VecDeque::new()));
        let taken = core.take(number, *connection, 1000, self.now);
        let writer = core.writer();
        let mut request = Vec::new();
        for outgoing in taken {
            let (lane, id) = (outgoing.lane, outgoing.id);
            let bytes = outgoing.pack(writer);
            core.packed(lane, id, Arc::clone(&bytes));
            request.push((lane, id, bytes));
        }
        if !request.is_empty() {
            requests.push_back(request);
        }
    }

    /// A broker takes the oldest request of a connection and answers it, or fails.
    fn answer(&mut self) {
        let node = self.random.index(NODES);
        let Some((connection, requests)) = &mut self.connections[node] else {
            return;
        };
        let connection = *connection;
        let Some(request) = requests.pop_front() else {
            return;
        };
        if self.faults && self.random.one_in(12) {
            // The connection is cut: some of what is under way arrives nevertheless.
            let (_, mut rest) = self.connections[node].take().unwrap();
            rest.push_front(request);
            let arrives = self.random.index(rest.len() + 1);
            for (lane, _, bytes) in rest.into_iter().take(arrives).flatten() {
                if self.logs[lane].leader == node {
                    self.logs[lane].append(&bytes);
                }
            }
            self.core.lost(connection);
            self.core.lose_node(i32::try_from(node).unwrap());
            return;
        }
        for (lane, id, bytes) in request {
            let (code, base_offset) = self.answer_one(node, lane, &bytes);
            let answer = Answer {
                code,
                base_offset,
                message: None,
            };
            let random = self.random.next();
            let at = (self.now, random);
            if !self.core.answered(connection, (lane, id), answer, 1, at) {
                self.connections[node] = None;
                self.core.lost(connection);
                return;
            }
        }
    }

    fn answer_one(&mut self, node: usize, lane: usize, bytes: &[u8]) -> (ErrorCode, i64) {
        let before = [3, 5, 6, 9, 13, 19, 8, 56, 72, 74, 75, 89, 2, -1, 35];
        let after = [7, 20];
        let pick = self.random.below(40);
        if self.faults && pick < 3 {
            return (ErrorCode(before[self.random.index(before.len())]), -1);
        }
        let log = &mut self.logs[lane];
        if log.leader != node {
            return (ErrorCode::NOT_LEADER_OR_FOLLOWER, -1);
        }
        let answer = log.append(bytes);
        match pick {
            3 if self.faults => (ErrorCode(after[self.random.index(after.len())]), -1),
            4 if self.faults && answer.0.is_ok() => (ErrorCode::DUPLICATE_SEQUENCE_NUMBER, -1),
            _ => answer,
        }
    }

    fn route(&mut self) {
        for (lane, _) in self.core.unrouted() {
            // What the metadata say may be old.
            let node = if self.faults && self.random.one_in(5) {
                self.random.index(NODES)
            } else {
                self.logs[lane].leader
            };
            let leader = Leader {
                node: i32::try_from(node).unwrap(),
                epoch: 0,
                topic_id: [0; 16],
            };
            self.core.route(lane, leader);
        }
    }

    fn new_epoch(&mut self) -> Writer {
        self.epochs += 1;
        Writer {
            epoch: self.epochs,
            ..self.core.writer()
        }
    }

    fn conduct(&mut self) {
        match self.core.step() {
            Step::Wait | Step::Prove => {}
            Step::Enlist(lanes) => self.core.enlisted(&lanes),
            Step::Commit(_) => {
                for lane in 0..LANES {
                    let records = std::mem::take(&mut self.prepared[lane]);
                    let log = self.logs[lane].numbers();
                    // All that is acknowledged is in the log.
                    assert!(records.iter().all(|record| log.contains(record)));
                    self.committed[lane].extend(records);
                    for (_, is_open) in &mut self.logs[lane].records {
                        *is_open = false;
                    }
                }
                self.core.committed_now();
                for lane in 0..LANES {
                    let end = self.logs[lane].records.len() as u64;
                    assert!(self.core.committed(lane).0 <= end);
                }
            }
            Step::Abort => {
                self.abort_logs();
                let writer = self.core.is_renumbering().then(|| self.new_epoch());
                self.core.aborted(writer);
            }
            Step::Doubt => {
                self.abort_logs();
                let writer = self.new_epoch();
                self.core.undoubted(writer);
            }
            Step::Resume => {
                let writer = self.new_epoch();
                self.core.renumber(writer);
            }
        }
    }

    fn abort_logs(&mut self) {
        for log in &mut self.logs {
            // Offsets stay taken; readers skip them.
            for record in &mut log.records {
                if record.1 {
                    *record = (u64::MAX, false);
                }
            }
        }
    }

    /// What the caller does about commits.
    fn commit(&mut self) {
        match self.core.outcome() {
            Some(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Changelog);
                self.prepared = vec![Vec::new(); LANES];
            }
            _ if self.core.prepared().is_some() => return,
            _ => {}
        }
        if self.core.is_aborting() {
            return;
        }
        if self.core.check_healthy().is_err() || (self.faults && self.random.one_in(20)) {
            self.core.begin_abort();
            self.open = vec![Vec::new(); LANES];
            self.aborts += 1;
            return;
        }
        self.core.prepare();
        self.prepared = std::mem::replace(&mut self.open, vec![Vec::new(); LANES]);
    }

    fn act(&mut self) {
        match self.random.below(14) {
            0..=4 if !self.core.is_aborting() => self.append(),
            5..=6 => self.send(),
            7..=8 => self.answer(),
            9 => self.route(),
            10 => self.conduct(),
            11 if self.random.one_in(4) => self.commit(),
            12 => self.now += Duration::from_millis(self.random.below(300)),
            13 if self.faults && self.random.one_in(20) => {
                let lane = self.random.index(LANES);
                self.logs[lane].leader = self.random.index(NODES);
                if self.clears_state && self.random.one_in(3) {
                    // A new leader that lost what it knew of producers refuses what does not
                    // begin at zero, as some brokers do.
                    self.logs[lane].batches = VecDeque::from([(-1, 1 << 30, -1)]);
                }
            }
            _ => {}
        }
    }

    /// Goes on without faults until everything is decided.
    fn settle(&mut self) {
        self.faults = false;
        for _ in 0..200_000 {
            let is_done = self.core.prepared().is_none()
                && !self.core.is_aborting()
                && self.open.iter().all(Vec::is_empty)
                && self.core.check_healthy().is_ok();
            if is_done {
                return;
            }
            match self.random.below(6) {
                0 => self.send(),
                1 => self.answer(),
                2 => self.route(),
                3 => self.conduct(),
                4 => self.commit(),
                _ => self.now += Duration::from_millis(100),
            }
        }
        panic!("it never settles: {:?}", self.core.step());
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("SILTSTONE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..150).collect(),
    }
}

#[test]
fn commits_of_transactions_are_in_the_log_once_and_in_order() {
    let (mut records, mut epochs) = (0, 0);
    for seed in seeds() {
        eprintln!("seed {seed}");
        let mut world = World::new(seed, true, seed % 3 == 0);
        for _ in 0..3000 {
            world.act();
        }
        world.settle();
        for lane in 0..LANES {
            let log = &world.logs[lane].records;
            let visible = log
                .iter()
                .filter(|(number, is_open)| *number != u64::MAX && !is_open);
            let visible: Vec<u64> = visible.map(|(number, _)| *number).collect();
            assert_eq!(
                visible, world.committed[lane],
                "seed {seed}, partition {lane}"
            );
            records += visible.len();
        }
        epochs += world.epochs;
    }
    eprintln!("{records} records, {epochs} new epochs");
    assert!(records > 500 && epochs > 0);
}

#[test]
fn batches_without_transactions_are_in_the_log_once_and_in_order() {
    let (mut records, mut epochs) = (0, 0);
    for seed in seeds() {
        eprintln!("seed {seed}");
        let mut world = World::new(seed, false, seed % 3 == 0);
        for _ in 0..3000 {
            world.act();
        }
        world.settle();
        for lane in 0..LANES {
            let log = world.logs[lane].numbers();
            // Of a record that a new epoch repeated the newest counts: what is older than it never
            // follows it.
            let is_newest = |index: usize| !log[index + 1..].contains(&log[index]);
            let newest: Vec<u64> = (0..log.len())
                .filter(|index| is_newest(*index))
                .map(|index| log[index])
                .collect();
            assert!(newest.is_sorted(), "seed {seed}, partition {lane}: {log:?}");
            let committed = &world.committed[lane];
            assert!(
                committed.iter().all(|record| newest.contains(record)),
                "seed {seed}"
            );
            if world.epochs == 0 {
                assert_eq!(log, newest, "seed {seed}: nothing was repeated");
            }
            if world.aborts == 0 {
                assert_eq!(&newest, committed, "seed {seed}");
            }
            records += log.len();
        }
        epochs += world.epochs;
    }
    eprintln!("{records} records, {epochs} new epochs");
    assert!(records > 500 && epochs > 0);
}
