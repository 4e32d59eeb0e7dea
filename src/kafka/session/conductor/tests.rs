use std::collections::VecDeque;
use std::time::Duration;

use super::{Conductor, LEARN_MAX, Now};
use crate::changelog::{Partition, RecordRef};
use crate::env::Env;
use crate::env::sim::SimEnv;
use crate::error::ErrorKind;
use crate::kafka::cluster::Cluster;
use crate::kafka::cluster::fixture::{
    ADD_PARTITIONS, DESCRIBE_CONFIGS, END_TRANSACTION, EPOCH_END, FIND_COORDINATOR, Hosts,
    INIT_PRODUCER_ID, METADATA, PRODUCE, added, coordinator, described, ended, epoch_end, metadata,
    produced, producer_id,
};
use crate::kafka::connection::peer::Reply;
use crate::kafka::connection::{Backoff, Deadline, Settings};
use crate::kafka::options::{KafkaOptions, METADATA_AGE_MAX};
use crate::kafka::producer::{BatchLimits, Brokers, Core, Producer, ProducerOptions, Step, Writer};
use crate::kafka::session::LOOK_AGAIN;
use crate::kafka::transaction::{BrokerCoordinator, Heartbeat, Transactions};
use crate::options::Compression;
use crate::sync::{Arc, Mutex};

const SECOND: Duration = Duration::from_secs(1);
/// For how long brokers remember the fence, unless a test says otherwise.
const EXPIRY: Duration = Duration::from_secs(40);
/// How long a transaction may be open.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a broker does when it is asked for its settings.
#[derive(Debug, Clone, Copy)]
enum Told {
    /// For how many seconds it remembers idle producers and transactional ids.
    Seconds(u64, u64),
    /// Takes so long that whoever asks gives up.
    Nothing,
}

/// What the script of the brokers goes by.
struct Script {
    hosts: Vec<&'static str>,
    leader: i32,
    /// How long a question for metadata takes.
    metadata_time: Duration,
    /// Codes of the coordinator's next answers, and how long they take; then it takes everything.
    codes: VecDeque<(i16, Duration)>,
    epoch: i16,
    /// What the coordinator was asked.
    asked: Vec<i16>,
    told: [Told; 2],
    /// Which brokers were asked for their settings.
    learned: Vec<String>,
    /// Where the newest epoch ends, by its leader.
    end: i64,
}

struct Rig {
    env: Arc<SimEnv>,
    script: Arc<Mutex<Script>>,
    conductor: Conductor,
}

fn answer(script: &mut Script, clock: &SimEnv, host: &str, api_key: i16) -> Reply {
    let code = |script: &mut Script| {
        script.asked.push(api_key);
        let (code, time) = script.codes.pop_front().unwrap_or_default();
        clock.advance(time);
        code
    };
    match api_key {
        METADATA => {
            clock.advance(script.metadata_time);
            metadata(&script.hosts, script.leader)
        }
        PRODUCE => produced(99),
        FIND_COORDINATOR => coordinator("one"),
        INIT_PRODUCER_ID => match code(script) {
            0 => {
                script.epoch += 1;
                producer_id(0, 5, script.epoch)
            }
            code => producer_id(code, -1, -1),
        },
        ADD_PARTITIONS => added(code(script)),
        END_TRANSACTION => ended(code(script)),
        // Not the leader any more.
        EPOCH_END if script.leader != 1 => epoch_end(6, -1),
        EPOCH_END => epoch_end(0, script.end),
        DESCRIBE_CONFIGS => {
            script.learned.push(host.to_owned());
            match script.told[usize::from(host == "two")] {
                Told::Seconds(producer, transaction) => described(&[
                    ("producer.id.expiration.ms", &format!("{producer}000")),
                    (
                        "transactional.id.expiration.ms",
                        &format!("{transaction}000"),
                    ),
                ]),
                Told::Nothing => {
                    clock.advance(LEARN_MAX);
                    Reply::Mute
                }
            }
        }
        other => panic!("API {other}"),
    }
}

impl Rig {
    fn new() -> Self {
        Self::of(&[Partition::new("t", 0)], |options| options)
    }

    /// The owner of `partitions`, a moment after its claim.
    fn of(partitions: &[Partition], set: impl FnOnce(KafkaOptions) -> KafkaOptions) -> Self {
        let env = Arc::new(SimEnv::new(1));
        env.advance(1000 * SECOND);
        let script = Arc::new(Mutex::new(Script {
            hosts: vec!["one", "two"],
            leader: 1,
            metadata_time: Duration::ZERO,
            codes: VecDeque::new(),
            epoch: 0,
            asked: Vec::new(),
            told: [Told::Seconds(40, 80); 2],
            learned: Vec::new(),
            end: 100,
        }));
        let (shared, clock) = (Arc::clone(&script), Arc::clone(&env));
        let hosts =
            Hosts::new(move |host, asked| answer(&mut shared.lock(), &clock, host, asked.api_key));
        let options = KafkaOptions::new("one:9092")
            .env(env.clone())
            .connector(hosts)
            .transaction_timeout(TIMEOUT);
        let cluster = Cluster::new(Settings::new(set(options)).unwrap());
        let id = "task".to_owned();
        let coordinator = BrokerCoordinator::new(cluster.clone(), id.clone(), TIMEOUT);
        let claimed = Transactions::claim(coordinator, partitions.to_vec(), Deadline::NEVER);
        let transactions = claimed.unwrap();
        let limits = BatchLimits {
            batch_bytes: 1000,
            linger: Duration::ZERO,
            compression: Compression::None,
            delivery_timeout: None,
            topic_missing_timeout: SECOND,
            backoff: Backoff::requests(),
        };
        let writer = Writer {
            id: transactions.identity().id,
            epoch: transactions.identity().epoch,
            is_transactional: true,
        };
        let core = Core::new(&limits, 1000, writer, &vec![0; partitions.len()]);
        let options = ProducerOptions {
            limits,
            buffer_bytes: 1000,
            request_bytes_max: 1000,
            block_timeout: SECOND,
            topic_ids: vec![[0; 16]; partitions.len()],
        };
        let brokers = Brokers::new(cluster.clone(), partitions, Some(id));
        let system: Arc<dyn Env> = env.clone();
        let producer = Producer::start(brokers, &system, core, options).unwrap();
        script.lock().asked.clear();
        Self {
            conductor: Conductor {
                cluster,
                partitions: partitions.to_vec(),
                producer: Arc::new(producer),
                transactions,
                is_transactional: true,
                heartbeat: Heartbeat::new(EXPIRY, EXPIRY),
                learn_from: Duration::MAX,
            },
            env,
            script,
        }
    }

    fn look(&self) -> Now {
        self.conductor
            .look(&mut self.conductor.producer.board().core)
    }

    fn core<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        act(&mut self.conductor.producer.board().core)
    }

    /// Does a step as the thread does.
    fn take(&mut self, step: Step) {
        let result = self.conductor.carry_out(step);
        self.conductor.took(result);
    }

    fn append(&self) {
        let record = RecordRef::new(b"key", None);
        self.conductor.producer.append(0, &record).unwrap();
    }

    /// Opens the transaction; it has one record, which is acknowledged.
    fn enlist(&mut self) {
        self.append();
        assert_eq!(self.look(), Now::Do(Step::Enlist(vec![0])));
        self.take(Step::Enlist(vec![0]));
        self.script.lock().asked.clear();
        let producer = Arc::clone(&self.conductor.producer);
        let mut board = producer.board();
        while board.core.acked(0).is_none() {
            producer.wait(&mut board, LOOK_AGAIN);
        }
    }

    fn asked(&self) -> Vec<i16> {
        std::mem::take(&mut self.script.lock().asked)
    }
}

#[test]
fn a_fence_is_renewed_between_transactions_when_a_quarter_of_its_time_is_over() {
    let mut rig = Rig::new();
    assert_eq!(rig.look(), Now::Wait(EXPIRY / 4));
    rig.env.advance(9 * SECOND);
    assert_eq!(rig.look(), Now::Wait(SECOND));
    rig.env.advance(SECOND);
    assert_eq!(rig.look(), Now::Do(Step::Prove));
    // What waits for its transaction goes behind that.
    rig.append();
    assert_eq!(rig.look(), Now::Do(Step::Prove));
    rig.take(Step::Prove);
    assert_eq!(rig.asked(), [ADD_PARTITIONS, END_TRANSACTION]);
    assert_eq!(rig.look(), Now::Do(Step::Enlist(vec![0])));
}

#[test]
fn an_open_transaction_is_given_up_before_its_fence_is_too_old() {
    let mut rig = Rig::new();
    rig.enlist();
    rig.env.advance(EXPIRY / 4);
    assert_eq!(rig.look(), Now::Wait(LOOK_AGAIN), "it goes on for now");
    rig.core(|core| core.check_healthy()).unwrap();
    rig.env.advance(EXPIRY / 4);
    assert_eq!(rig.look(), Now::Changed);
    let error = rig.core(|core| core.check_healthy()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changelog);
    assert!(error.to_string().contains("abort"), "{error}");
    assert_eq!(rig.look(), Now::Wait(LOOK_AGAIN), "until the abort");
    rig.core(Core::begin_abort);
    assert_eq!(rig.look(), Now::Do(Step::Abort));
    rig.take(Step::Abort);
    rig.core(|core| core.check_healthy()).unwrap();
    // Its marker is as good as a beat.
    assert_eq!(rig.look(), Now::Wait(EXPIRY / 4));
}

#[test]
fn nothing_is_asked_of_anybody_for_a_session_that_is_dead_or_has_nothing() {
    let mut rig = Rig::new();
    rig.core(|core| core.die(crate::Error::new(ErrorKind::Fenced, "another")));
    rig.conductor.learn_from = Duration::ZERO;
    rig.env.advance(EXPIRY);
    assert_eq!(rig.look(), Now::Wait(LOOK_AGAIN));
    let rig = Rig::of(&[], |options| options);
    rig.env.advance(EXPIRY);
    assert_eq!(rig.look(), Now::Wait(LOOK_AGAIN), "nothing to fence");
}

#[test]
fn the_thread_ends_with_the_producer() {
    let mut rig = Rig::new();
    rig.core(Core::ask_proof);
    assert_eq!(rig.conductor.next(), Some(Step::Prove));
    rig.conductor.producer.stop();
    assert_eq!(rig.conductor.next(), None);
}

#[test]
fn whoever_asks_for_a_proof_is_answered() {
    let mut rig = Rig::new();
    rig.core(Core::ask_proof);
    assert_eq!(rig.look(), Now::Do(Step::Prove));
    rig.env.advance(SECOND);
    rig.take(Step::Prove);
    rig.core(Core::take_proof).unwrap().unwrap();
    assert_eq!(rig.conductor.transactions.beat_at(), 1001 * SECOND);
    // Within a transaction no other is needed.
    rig.enlist();
    rig.core(Core::ask_proof);
    assert_eq!(rig.look(), Now::Do(Step::Prove));
    rig.take(Step::Prove);
    assert_eq!(rig.asked(), [ADD_PARTITIONS]);
    rig.core(Core::take_proof).unwrap().unwrap();
}

#[test]
fn a_proof_that_fails_is_told_and_proves_nothing_against_the_session() {
    let mut rig = Rig::new();
    rig.core(Core::ask_proof);
    // Not allowed to write to the transactional id, and asked once more.
    let refused = (53, Duration::ZERO);
    rig.script.lock().codes.extend([refused, refused]);
    rig.take(Step::Prove);
    assert_eq!(rig.asked(), [ADD_PARTITIONS, ADD_PARTITIONS]);
    let error = rig.core(Core::take_proof).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changelog);
    assert!(error.to_string().contains("53"), "{error}");
    rig.core(|core| core.check_healthy()).unwrap();
}

#[test]
fn an_old_epoch_is_another_owner() {
    let mut rig = Rig::new();
    rig.core(Core::ask_proof);
    rig.script.lock().codes.push_back((47, SECOND));
    rig.take(Step::Prove);
    assert_eq!(rig.asked(), [ADD_PARTITIONS], "the question would hurt it");
    let error = rig.core(|core| core.check_alive()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    let told = rig.core(Core::take_proof).unwrap().unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Fenced);
    rig.env.advance(EXPIRY);
    assert_eq!(rig.look(), Now::Wait(LOOK_AGAIN));
}

#[test]
fn an_old_epoch_after_a_stall_is_looked_into_and_another_one_taken() {
    let mut rig = Rig::new();
    rig.core(Core::ask_proof);
    rig.script.lock().codes.push_back((47, TIMEOUT));
    rig.take(Step::Prove);
    let renewed = [INIT_PRODUCER_ID, ADD_PARTITIONS, END_TRANSACTION];
    assert_eq!(rig.asked()[1..], renewed);
    rig.core(Core::take_proof).unwrap().unwrap();
    // Sequence numbers begin again under the new epoch.
    assert_eq!(rig.conductor.transactions.identity().epoch, 2);
    assert_eq!(rig.look(), Now::Do(Step::Resume));
    rig.take(Step::Resume);
    assert_eq!(rig.core(|core| core.writer().epoch), 3);
    rig.core(|core| core.check_healthy()).unwrap();
}

#[test]
fn a_proof_that_finds_the_transaction_ended_fails_its_commit() {
    let mut rig = Rig::new();
    rig.enlist();
    rig.core(Core::ask_proof);
    rig.env.advance(TIMEOUT);
    rig.script.lock().codes.push_back((47, Duration::ZERO));
    rig.take(Step::Prove);
    let error = rig.core(|core| core.check_healthy()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changelog);
    assert!(error.to_string().contains("open for too long"), "{error}");
    rig.core(|core| core.check_alive()).unwrap();
}

#[test]
fn what_brokers_tell_of_themselves_says_how_often_a_fence_is_renewed() {
    let mut rig = Rig::new();
    rig.script.lock().told = [Told::Seconds(400, 800), Told::Seconds(600, 240)];
    rig.conductor.learn_from = Duration::ZERO;
    assert_eq!(rig.look(), Now::Do(Step::Wait), "the time to ask");
    rig.take(Step::Wait);
    assert_eq!(rig.conductor.learn_from, Duration::MAX);
    // A quarter of the shortest of all.
    assert_eq!(
        rig.conductor.heartbeat,
        Heartbeat::new(240 * SECOND, 240 * SECOND)
    );
    rig.env.advance(60 * SECOND);
    assert_eq!(rig.look(), Now::Do(Step::Prove));
    // Somebody has asked lately.
    rig.script.lock().learned.clear();
    rig.take(Step::Wait);
    assert!(rig.script.lock().learned.is_empty());
}

#[test]
fn a_broker_that_does_not_tell_leaves_the_others_their_time_and_is_asked_again() {
    let mut rig = Rig::new();
    rig.script.lock().told = [Told::Nothing, Told::Seconds(4, 8)];
    rig.take(Step::Wait);
    assert_eq!(rig.script.lock().learned, ["one", "two"]);
    let heartbeat = Heartbeat::new(4 * SECOND, 8 * SECOND);
    assert_eq!(rig.conductor.heartbeat, heartbeat);
    let now = rig.env.monotonic();
    assert_eq!(rig.conductor.learn_from, now + LOOK_AGAIN);
    // What it tells later is shorter.
    rig.script.lock().told = [Told::Seconds(2, 8), Told::Seconds(4, 8)];
    rig.env.advance(LOOK_AGAIN);
    rig.take(Step::Wait);
    assert_eq!(
        rig.conductor.heartbeat,
        Heartbeat::new(2 * SECOND, 8 * SECOND)
    );
    assert_eq!(rig.conductor.learn_from, Duration::MAX);
}

#[test]
fn brokers_of_which_none_tells_are_taken_at_the_option_or_at_what_was_known() {
    let mut rig = Rig::of(&[Partition::new("t", 0)], |options| {
        options.fence_expiration_max(20 * SECOND)
    });
    rig.script.lock().told = [Told::Nothing; 2];
    rig.take(Step::Wait);
    assert_eq!(
        rig.conductor.heartbeat,
        Heartbeat::new(20 * SECOND, 20 * SECOND)
    );
    let mut rig = Rig::new();
    rig.take(Step::Wait);
    assert_eq!(rig.conductor.learn_from, Duration::MAX);
    rig.script.lock().told = [Told::Nothing; 2];
    rig.env.advance(METADATA_AGE_MAX);
    rig.take(Step::Wait);
    assert_eq!(rig.script.lock().learned.len(), 4);
    assert_eq!(rig.conductor.heartbeat, Heartbeat::new(EXPIRY, EXPIRY));
    assert!(rig.conductor.learn_from < Duration::MAX);
}

/// A record is in the log, up to offset 100, and new sequence numbers are due.
fn acknowledged() -> Rig {
    let mut rig = Rig::new();
    rig.enlist();
    rig.core(Core::want_renumbering);
    rig
}

#[test]
fn acknowledged_records_are_looked_for_before_anything_is_built_upon_them() {
    let mut rig = acknowledged();
    assert_eq!(rig.core(|core| core.acked(0)), Some((100, 7)));
    rig.take(Step::Resume);
    rig.core(|core| core.check_healthy()).unwrap();

    let mut rig = acknowledged();
    rig.script.lock().end = 99;
    rig.take(Step::Resume);
    let error = rig.core(|core| core.check_alive()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Diverged);
    assert!(error.to_string().contains("ends at 99"), "{error}");
}

#[test]
fn a_leader_that_does_not_prove_who_it_is_ends_no_session() {
    let mut rig = acknowledged();
    {
        let mut script = rig.script.lock();
        script.hosts = vec!["one", "bad"];
        script.leader = 2;
        script.metadata_time = 20 * SECOND;
    }
    rig.take(Step::Resume);
    let error = rig.core(|core| core.check_healthy()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changelog);
    rig.core(|core| core.check_alive()).unwrap();
    // Another one leads, and the session goes on.
    rig.script.lock().leader = 1;
    rig.core(Core::begin_abort);
    while rig.core(|core| core.is_aborting()) {
        rig.take(Step::Abort);
    }
    rig.core(|core| core.check_healthy()).unwrap();
}
