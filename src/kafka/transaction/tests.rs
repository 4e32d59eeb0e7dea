use std::collections::VecDeque;
use std::time::Duration;

use super::{Coordinator, Decision, Identity, Outcome, Transactions};
use crate::changelog::Partition;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::connection::{Backoff, Deadline};
use crate::kafka::protocol::ErrorCode;

/// One answer of the script.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Code(i16),
    /// A producer id and epoch.
    Given(i64, i16),
    /// The connection breaks; the request may have been carried out.
    Lost,
}

use Answer::{Code, Given, Lost};

/// A coordinator that answers from a script and writes down what it was asked.
#[derive(Debug)]
struct Script {
    answers: VecDeque<Answer>,
    asked: Vec<String>,
    can_resume: bool,
    /// The deadline is over when they are spent.
    pauses_left: u32,
    now: Duration,
    /// Zero: any transaction may have been open for too long.
    timeout: Duration,
}

impl Script {
    fn answer(&mut self, asked: String) -> Result<(ErrorCode, Identity)> {
        self.now += Duration::from_secs(1);
        self.asked.push(asked);
        let none = Identity { id: -1, epoch: -1 };
        match self.answers.pop_front().expect("the script goes on") {
            Code(code) => Ok((ErrorCode(code), none)),
            Given(id, epoch) => Ok((ErrorCode::NONE, Identity { id, epoch })),
            Lost => Err(Error::new(ErrorKind::Io, "broken")),
        }
    }
}

impl Coordinator for Script {
    fn init_producer_id(
        &mut self,
        resume: Option<Identity>,
        _: Deadline,
    ) -> Result<(ErrorCode, Identity)> {
        self.answer(match resume {
            Some(identity) => format!("resume {}/{}", identity.id, identity.epoch),
            None => "init".to_owned(),
        })
    }

    fn can_resume(&mut self, _: Deadline) -> Result<bool> {
        Ok(self.can_resume)
    }

    fn add_partitions(
        &mut self,
        identity: Identity,
        partitions: &[Partition],
        _: Deadline,
    ) -> Result<ErrorCode> {
        let asked = format!("add {} as {}", partitions.len(), identity.epoch);
        self.answer(asked).map(|(code, _)| code)
    }

    fn end_transaction(
        &mut self,
        identity: Identity,
        decision: Decision,
        _: Deadline,
    ) -> Result<ErrorCode> {
        let asked = format!("{decision:?} as {}", identity.epoch);
        self.answer(asked).map(|(code, _)| code)
    }

    fn find_anew(&mut self) {
        self.asked.push("find".to_owned());
    }

    fn pause(&mut self, _: &mut Backoff, _: Deadline) -> Result<()> {
        self.pauses_left -= 1;
        Ok(())
    }

    fn is_over(&self, _: Deadline) -> bool {
        self.pauses_left == 0
    }

    fn now(&self) -> (Duration, u64) {
        (self.now, self.now.as_secs())
    }

    fn transaction_timeout(&self) -> Duration {
        self.timeout
    }

    fn transactional_id(&self) -> &'static str {
        "task"
    }
}

const NEVER: Deadline = Deadline::NEVER;

fn claim(answers: &[Answer]) -> Result<Transactions<Script>> {
    let partitions = vec![Partition::new("a", 0), Partition::new("b", 0)];
    claim_all(partitions, answers)
}

fn claim_all(partitions: Vec<Partition>, answers: &[Answer]) -> Result<Transactions<Script>> {
    let script = Script {
        answers: answers.iter().copied().collect(),
        asked: Vec::new(),
        can_resume: true,
        pauses_left: 3,
        now: Duration::ZERO,
        timeout: Duration::ZERO,
    };
    Transactions::claim(script, partitions, NEVER)
}

/// An owner as 7/5 who has forgotten how it got there.
fn owner(answers: &[Answer]) -> Transactions<Script> {
    let mut transactions = claim(&[Given(7, 5), Code(0), Code(0)]).unwrap();
    transactions.coordinator.asked.clear();
    transactions.coordinator.pauses_left = 3;
    transactions.coordinator.answers.extend(answers);
    transactions
}

/// The same with an open transaction.
fn open(answers: &[Answer]) -> Transactions<Script> {
    let mut transactions = owner(&[Code(0)]);
    transactions.add(&[0], NEVER).unwrap();
    transactions.coordinator.answers.extend(answers);
    transactions
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn is_aborted(outcome: Result<Option<Outcome>>) -> bool {
    matches!(outcome.unwrap(), Some(Outcome::Aborted(_)))
}

#[test]
fn a_claim_fences_by_an_empty_transaction_over_all_partitions() {
    let claimed = claim(&[Code(16), Given(7, 5), Code(51), Code(0), Code(0)]).unwrap();
    let asked = &claimed.coordinator.asked;
    assert_eq!(
        asked,
        &[
            "init",
            "find",
            "init",
            "add 2 as 5",
            "add 2 as 5",
            "Abort as 5"
        ]
    );
    assert_eq!(claimed.identity(), Identity { id: 7, epoch: 5 });
    assert_eq!(claimed.identity().owner().epoch, 5);
    // The newest marker was asked for after the fourth answer.
    assert_eq!(claimed.beat_at(), Duration::from_secs(4));
    assert_eq!(claimed.open_since(), None);
}

#[test]
fn a_claim_that_is_overtaken_is_fenced() {
    for code in [47, 90, 49] {
        assert_eq!(kind(claim(&[Given(7, 5), Code(code)])), ErrorKind::Fenced);
        let at_end = claim(&[Given(7, 5), Code(0), Code(code)]);
        assert_eq!(kind(at_end), ErrorKind::Fenced);
    }
}

#[test]
fn a_claim_that_is_refused_says_why() {
    assert_eq!(kind(claim(&[Code(50)])), ErrorKind::InvalidArgument);
    assert_eq!(kind(claim(&[Code(0)])), ErrorKind::Corruption);
    for code in [53, 42] {
        let error = claim(&[Code(code)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changelog);
        assert!(error.to_string().contains(&code.to_string()), "{error}");
    }
    let error = claim(&[Given(7, 5), Code(29)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changelog);
    assert_eq!(kind(claim(&[Lost, Lost, Lost, Lost])), ErrorKind::Changelog);
}

#[test]
fn a_commit_is_answered_whatever_is_lost() {
    let mut transactions = open(&[Code(0)]);
    assert_eq!(
        transactions.end(Decision::Commit, NEVER).unwrap(),
        Some(Outcome::Committed)
    );
    assert_eq!(transactions.open_since(), None);

    // The answer is lost until the deadline, then it is asked for again.
    let mut transactions = open(&[Lost; 4]);
    assert_eq!(transactions.end(Decision::Commit, NEVER).unwrap(), None);
    let refused = transactions.end(Decision::Abort, NEVER);
    assert_eq!(kind(refused), ErrorKind::InvalidArgument);
    assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::InvalidArgument);
    assert_eq!(kind(transactions.resume(NEVER)), ErrorKind::InvalidArgument);
    assert_eq!(
        kind(transactions.add(&[1], NEVER)),
        ErrorKind::InvalidArgument
    );
    transactions.coordinator.answers.push_back(Code(0));
    let outcome = transactions.end(Decision::Commit, NEVER).unwrap();
    assert_eq!(outcome, Some(Outcome::Committed));

    let mut transactions = open(&[Lost, Code(48)]);
    assert!(is_aborted(transactions.end(Decision::Commit, NEVER)));
}

/// A copy of the request that is on its way still would end the next transaction of this epoch.
#[test]
fn an_end_whose_answer_was_lost_asks_for_a_new_epoch() {
    for decision in [Decision::Commit, Decision::Abort] {
        let mut transactions = open(&[Code(0)]);
        transactions.end(decision, NEVER).unwrap().unwrap();
        assert!(!transactions.is_end_uncertain());

        let mut transactions = open(&[Lost, Code(0), Given(7, 6)]);
        transactions.end(decision, NEVER).unwrap().unwrap();
        assert!(transactions.is_end_uncertain());
        assert_eq!(transactions.resume(NEVER).unwrap().identity.epoch, 6);
        assert!(!transactions.is_end_uncertain());
    }
    let mut beating = owner(&[Code(0), Lost, Code(0)]);
    beating.beat(NEVER).unwrap();
    assert!(beating.is_end_uncertain());

    let lost_once = [Code(0), Lost, Code(0), Given(7, 6), Code(0), Code(0)];
    let answers = [&[Given(7, 5)][..], &lost_once].concat();
    let claimed = claim(&answers).unwrap();
    assert_eq!(claimed.identity(), Identity { id: 7, epoch: 6 });
    assert_eq!(claimed.coordinator.asked.last().unwrap(), "Abort as 6");
    assert!(claimed.coordinator.asked.contains(&"resume 7/5".to_owned()));
    assert!(!claimed.is_end_uncertain());
}

#[test]
fn a_timeout_is_told_from_another_owner() {
    // The coordinator gives the next epoch only to the newest owner.
    let mut transactions = open(&[Code(90), Given(7, 7)]);
    assert!(is_aborted(transactions.end(Decision::Commit, NEVER)));
    assert_eq!(transactions.identity(), Identity { id: 7, epoch: 7 });
    assert_eq!(transactions.coordinator.asked.last().unwrap(), "resume 7/5");

    let mut transactions = open(&[Code(47), Code(90)]);
    let fenced = transactions.end(Decision::Commit, NEVER);
    assert_eq!(kind(fenced), ErrorKind::Fenced);
    assert_eq!(kind(transactions.add(&[0], NEVER)), ErrorKind::Fenced);
    assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Fenced);

    // Brokers that are too old to tell.
    let mut transactions = open(&[Code(90)]);
    transactions.coordinator.can_resume = false;
    let fenced = transactions.end(Decision::Commit, NEVER);
    assert_eq!(kind(fenced), ErrorKind::Fenced);

    // Nobody is told before it is known.
    let mut transactions = open(&[Code(90), Lost, Lost, Lost, Lost]);
    assert_eq!(transactions.end(Decision::Commit, NEVER).unwrap(), None);
    transactions.coordinator.answers.push_back(Given(7, 6));
    assert!(is_aborted(transactions.end(Decision::Commit, NEVER)));
}

#[test]
fn a_transaction_that_expires_while_it_grows_asks_for_an_abort() {
    let mut transactions = open(&[Code(90), Given(7, 7)]);
    assert_eq!(kind(transactions.add(&[1], NEVER)), ErrorKind::Changelog);
    assert_eq!(kind(transactions.add(&[1], NEVER)), ErrorKind::Changelog);
    assert!(is_aborted(transactions.end(Decision::Commit, NEVER)));
    transactions.coordinator.answers.extend([Code(0)]);
    transactions.add(&[0], NEVER).unwrap();
    assert_eq!(transactions.coordinator.asked.last().unwrap(), "add 1 as 7");
}

#[test]
fn a_commit_that_may_only_be_aborted_is_aborted() {
    let mut transactions = open(&[Code(120), Code(0)]);
    assert!(is_aborted(transactions.end(Decision::Commit, NEVER)));
    assert_eq!(transactions.coordinator.asked.last().unwrap(), "Abort as 5");
    // A refusal leaves the transaction open, for the abort.
    let mut transactions = open(&[Code(42), Code(0)]);
    let refused = transactions.end(Decision::Commit, NEVER);
    assert_eq!(kind(refused), ErrorKind::Changelog);
    assert!(is_aborted(transactions.end(Decision::Abort, NEVER)));
}

#[test]
fn partitions_are_added_once_a_transaction() {
    let mut transactions = owner(&[Code(0), Code(0), Code(0), Code(0)]);
    transactions.add(&[0], NEVER).unwrap();
    transactions.add(&[0, 1], NEVER).unwrap();
    transactions.add(&[1, 0], NEVER).unwrap();
    assert!(transactions.open_since().is_some());
    transactions.end(Decision::Commit, NEVER).unwrap().unwrap();
    transactions.add(&[1], NEVER).unwrap();
    let asked = &transactions.coordinator.asked;
    assert_eq!(
        asked,
        &["add 1 as 5", "add 1 as 5", "Commit as 5", "add 1 as 5"]
    );
}

#[test]
fn an_owner_resumes_after_it_aborted_what_was_open() {
    let mut transactions = open(&[Code(0), Given(7, 6)]);
    let resumed = transactions.resume(NEVER).unwrap();
    assert_eq!(resumed.identity, Identity { id: 7, epoch: 6 });
    assert!(!resumed.has_new_id);
    let asked = &transactions.coordinator.asked;
    assert_eq!(asked, &["add 1 as 5", "Abort as 5", "resume 7/5"]);

    let mut transactions = owner(&[Code(90)]);
    assert_eq!(kind(transactions.resume(NEVER)), ErrorKind::Fenced);
    let mut transactions = owner(&[]);
    transactions.coordinator.can_resume = false;
    assert_eq!(kind(transactions.resume(NEVER)), ErrorKind::Unsupported);
}

#[test]
fn a_new_id_is_fenced_again_where_epochs_are_used_up_and_refused_elsewhere() {
    let mut transactions = owner(&[Given(8, 0), Code(0), Code(0)]);
    transactions.identity.epoch = i16::MAX - 1;
    let resumed = transactions.resume(NEVER).unwrap();
    assert!(resumed.has_new_id);
    assert_eq!(resumed.identity, Identity { id: 8, epoch: 0 });
    let asked = &transactions.coordinator.asked;
    assert_eq!(asked, &["resume 7/32766", "add 2 as 0", "Abort as 0"]);

    let mut transactions = owner(&[Given(8, 0)]);
    assert_eq!(kind(transactions.resume(NEVER)), ErrorKind::Fenced);
}

#[test]
fn a_beat_proves_the_ownership_or_tells_its_loss() {
    let mut transactions = owner(&[Code(0), Code(0)]);
    let before = transactions.beat_at();
    let proved_ms = transactions.beat(NEVER).unwrap();
    assert!(transactions.beat_at() > before);
    assert_eq!(proved_ms, transactions.proved_ms());

    // A transaction over one partition renews the marker of that one alone.
    let mut transactions = open(&[Code(0)]);
    let before = transactions.beat_at();
    transactions.end(Decision::Commit, NEVER).unwrap().unwrap();
    assert_eq!(transactions.beat_at(), before);

    let mut transactions = owner(&[Code(49)]);
    assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Fenced);
    // An old epoch is looked into by the next beat.
    let mut transactions = owner(&[Code(90), Given(7, 6), Code(0), Code(0)]);
    assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Changelog);
    transactions.beat(NEVER).unwrap();
    assert_eq!(transactions.identity(), Identity { id: 7, epoch: 6 });
    let mut transactions = owner(&[Code(90), Code(90)]);
    assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Changelog);
    assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Fenced);
}

#[test]
fn an_old_epoch_of_a_young_transaction_is_another_owner_who_is_not_disturbed() {
    type Act = fn(&mut Transactions<Script>) -> Result<()>;
    let add: Act = |owner| owner.add(&[0], NEVER);
    let end: Act = |owner| {
        owner.add(&[0], NEVER)?;
        owner.end(Decision::Commit, NEVER).map(drop)
    };
    let beat: Act = |owner| owner.beat(NEVER).map(drop);
    for (act, answers) in [
        (add, &[Code(90)][..]),
        (end, &[Code(0), Code(47)]),
        (beat, &[Code(0), Code(90)]),
    ] {
        // Each answer takes a second.
        let mut young = owner(answers);
        young.coordinator.timeout = Duration::from_secs(3);
        let error = act(&mut young).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
        let asked = &young.coordinator.asked;
        assert!(
            !asked.iter().any(|asked| asked.starts_with("resume")),
            "{asked:?}"
        );
    }
    let mut old = owner(&[Code(0), Code(47), Given(7, 6)]);
    old.coordinator.timeout = Duration::from_secs(2);
    end(&mut old).unwrap();
    assert!(old.coordinator.asked.contains(&"resume 7/5".to_owned()));
}

#[test]
fn a_fence_that_was_not_ended_leaves_nothing_out_of_the_next_transaction() {
    for code in [53, 120, 42, 29] {
        let mut transactions = owner(&[Code(0), Code(code), Code(0), Code(0)]);
        assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Changelog);
        transactions.add(&[0], NEVER).unwrap();
        let outcome = transactions.end(Decision::Commit, NEVER).unwrap();
        assert_eq!(outcome, Some(Outcome::Committed), "{code}");
        let asked = &transactions.coordinator.asked;
        let expected = ["add 2 as 5", "Abort as 5", "add 1 as 5", "Commit as 5"];
        assert_eq!(asked, &expected, "{code}");
    }
    // The deadline ends the repetitions of those that pass.
    for code in [14, 15, 16, 51] {
        let mut transactions = owner(&[Code(0), Code(code), Code(code), Code(code), Code(code)]);
        assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Changelog);
        transactions.coordinator.answers = [Code(0), Code(0)].into();
        transactions.coordinator.asked.clear();
        transactions.add(&[0], NEVER).unwrap();
        transactions.end(Decision::Commit, NEVER).unwrap().unwrap();
        let asked = &transactions.coordinator.asked;
        assert_eq!(asked, &["add 1 as 5", "Commit as 5"], "{code}");
    }
    // A beat that finds out first that the epoch was old.
    let mut transactions = open(&[Code(90), Lost, Lost, Lost, Lost]);
    assert_eq!(transactions.end(Decision::Commit, NEVER).unwrap(), None);
    transactions.coordinator.answers = [Given(7, 6), Code(53), Code(0)].into();
    assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Changelog);
    transactions.add(&[0], NEVER).unwrap();
    assert_eq!(transactions.coordinator.asked.last().unwrap(), "add 1 as 6");
}

#[test]
fn a_commit_without_a_transaction_is_none() {
    let mut transactions = owner(&[]);
    assert!(is_aborted(transactions.end(Decision::Commit, NEVER)));
    assert!(transactions.coordinator.asked.is_empty());
}

/// The claim of a next epoch would count as an attack on the transaction that is open.
#[test]
fn a_fence_that_may_be_open_is_aborted_before_a_new_epoch() {
    let mut transactions = owner(&[Lost; 4]);
    assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Changelog);
    assert!(transactions.is_end_uncertain());
    transactions.coordinator.answers = [Code(48), Given(7, 6)].into();
    transactions.coordinator.asked.clear();
    assert_eq!(transactions.resume(NEVER).unwrap().identity.epoch, 6);
    let asked = &transactions.coordinator.asked;
    assert_eq!(asked, &["Abort as 5", "resume 7/5"]);
}

#[test]
fn an_outage_for_longer_than_a_transaction_may_be_open_is_not_another_owner() {
    type Act = fn(&mut Transactions<Script>) -> ErrorKind;
    let add: Act = |owner| kind(owner.add(&[0], NEVER));
    let beat: Act = |owner| kind(owner.beat(NEVER));
    for (act, asked) in [(add, "add 1 as 5"), (beat, "add 2 as 5")] {
        // The answers are lost for four seconds; the coordinator ended the fence after three.
        let mut transactions = owner(&[Code(0), Lost, Lost, Lost, Lost]);
        transactions.coordinator.timeout = Duration::from_secs(3);
        assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Changelog);
        transactions.coordinator.answers = [Code(90), Given(7, 6)].into();
        assert_eq!(act(&mut transactions), ErrorKind::Changelog);
        let all = &transactions.coordinator.asked;
        assert!(all.contains(&asked.to_owned()), "{all:?}");
        if asked == "add 2 as 5" {
            transactions.coordinator.answers.extend([Code(0), Code(0)]);
            transactions.beat(NEVER).unwrap();
        }
        assert_eq!(transactions.identity(), Identity { id: 7, epoch: 6 });
    }
    // What was ended for sure does not count.
    let mut transactions = owner(&[Code(0), Code(0), Code(90)]);
    transactions.coordinator.timeout = Duration::from_secs(3);
    transactions.beat(NEVER).unwrap();
    transactions.coordinator.now += Duration::from_secs(10);
    assert_eq!(kind(transactions.beat(NEVER)), ErrorKind::Fenced);
}

#[test]
fn a_claim_ends_at_its_deadline_and_does_not_fence_a_newer_one() {
    let lost = |epoch| [Given(7, epoch), Code(0), Lost, Code(0)];
    let answers = [lost(5), lost(6), lost(7)].concat();
    assert_eq!(kind(claim(&answers)), ErrorKind::Changelog);
    let overtaken = [&lost(5)[..], &[Code(90)]].concat();
    assert_eq!(kind(claim(&overtaken)), ErrorKind::Fenced);
    // With no partitions nothing can be open.
    let claimed = claim_all(Vec::new(), &[Lost, Given(7, 5)]).unwrap();
    assert!(!claimed.is_end_uncertain());
}

#[test]
fn a_proof_waits_for_the_abort_of_what_cannot_go_on() {
    // Nothing was answered of the first partition of a transaction.
    let mut transactions = owner(&[Lost; 4]);
    assert_eq!(kind(transactions.add(&[0], NEVER)), ErrorKind::Changelog);
    assert!(!transactions.is_idle());
    assert_eq!(kind(transactions.prove(NEVER)), ErrorKind::Changelog);
    transactions.coordinator.answers.extend([Code(48)]);
    assert!(is_aborted(transactions.end(Decision::Abort, NEVER)));
    transactions.coordinator.answers.extend([Code(0), Code(0)]);
    assert!(transactions.is_idle());
    transactions.prove(NEVER).unwrap();

    let mut transactions = open(&[Code(90), Given(7, 6)]);
    assert_eq!(kind(transactions.prove(NEVER)), ErrorKind::Changelog);
    assert!(transactions.is_expired() && !transactions.is_idle());
    assert_eq!(kind(transactions.prove(NEVER)), ErrorKind::Changelog);

    // The question about a partition changes nothing about it.
    let mut transactions = open(&[Lost; 4]);
    assert_eq!(kind(transactions.prove(NEVER)), ErrorKind::Changelog);
    transactions.coordinator.answers.extend([Code(0)]);
    transactions.coordinator.asked.clear();
    transactions.prove(NEVER).unwrap();
    assert_eq!(transactions.coordinator.asked, ["add 1 as 5"]);
}
