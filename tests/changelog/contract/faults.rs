//! Commits that fail, or whose outcome is told late.

use super::*;

pub(super) fn failed_calls_ask_for_an_abort<R: Rig>(rig: &Wrapped<R>) {
    let log = rig.open();
    let [first, _] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    for round in 0..2 {
        session.append(0, put("a", "1")).unwrap();
        if round == 0 {
            rig.faults().fail_appends(1);
            assert_eq!(kind(session.append(0, put("b", "1"))), ErrorKind::Changelog);
        } else {
            rig.faults().fail_prepares(1);
            assert_eq!(kind(session.prepare()), ErrorKind::Changelog);
        }
        assert_eq!(kind(session.append(0, put("c", "1"))), ErrorKind::Changelog);
        assert_eq!(kind(session.reserve(1)), ErrorKind::Changelog);
        assert_eq!(kind(session.prepare()), ErrorKind::Changelog);
        session.abort().unwrap();
    }
    session.append(0, put("d", "1")).unwrap();
    commit(&mut *session);
    assert_eq!(keys(&*log, &first), ["d"]);
}

pub(super) fn a_failed_commit_takes_what_is_behind_it_along<R: Rig>(rig: &Wrapped<R>) {
    let log = rig.open();
    let [first, _] = partitions();
    let mut session = log.claim(TASK, &partitions()).unwrap();
    rig.faults().plan_commit(CommitPlan {
        polls_before: 3,
        polls_after: 0,
        fails: true,
    });
    session.append(0, put("a", "1")).unwrap();
    let id = session.prepare().unwrap();
    session.append(0, put("b", "1")).unwrap();
    assert_eq!(session.poll(id).unwrap(), None);
    assert_eq!(kind(session.abort()), ErrorKind::InvalidArgument);
    assert_eq!(kind(session.wait(id)), ErrorKind::Changelog);
    assert_eq!(kind(session.poll(id)), ErrorKind::Changelog);
    assert_eq!(kind(session.append(0, put("c", "1"))), ErrorKind::Changelog);
    session.abort().unwrap();
    session.append(0, put("d", "1")).unwrap();
    commit(&mut *session);
    assert_eq!(keys(&*log, &first), ["d"]);
}

/// The owner dies between its question and the answer.
pub(super) fn an_undecided_commit_is_found_or_not_but_whole<R: Rig>(rig: &Wrapped<R>) {
    let log = rig.open();
    let partitions = partitions();
    let mut counts = Vec::new();
    for polls in 0..6 {
        let mut session = log.claim(TASK, &partitions).unwrap();
        rig.faults().plan_commit(CommitPlan {
            polls_before: 3,
            polls_after: 9,
            fails: false,
        });
        session.append(0, put("a", "1")).unwrap();
        session.append(1, put("a", "1")).unwrap();
        let id = session.prepare().unwrap();
        for _ in 0..polls {
            assert_eq!(session.poll(id).unwrap(), None);
        }
        drop(session);
        let mut session = log.claim(TASK, &partitions).unwrap();
        let mut found = |index| drain(&mut *session.reader(index, Offset(0)).unwrap()).len();
        let (one, other) = (found(0), found(1));
        assert_eq!(one, other);
        counts.push(one);
    }
    assert_eq!(counts, [0, 0, 0, 0, 1, 2]);
}
