//! The life of a task: commits, aborts, crashes, successors.

use std::sync::Arc;

use siltstone::changelog::faulty::CommitPlan;
use siltstone::changelog::{Changelog, File, FileOptions};
use siltstone::env::OsEnv;
use siltstone::store::{How, Task, TaskOptions};
use siltstone::{ErrorKind, Options, Runtime, RuntimeOptions};

use crate::rig::{Rig, contents, counts, db_options, fails, of, runtime};

fn put(task: &mut Task, key: &str, value: u64) {
    counts(task).put(task, key, &value).unwrap();
}

/// Commit, kill, reopen; lose the disk, restore; close, reopen: on a changelog of its own kind.
fn lives(changelog: &Arc<dyn Changelog>, elsewhere: &dyn Fn(&str) -> TaskOptions) {
    let open = |dir: &str| Task::open(elsewhere(dir).store("counts")).unwrap();
    let mut task = open("a");
    assert_eq!(task.input_position("in").unwrap(), None);
    put(&mut task, "a", 1);
    put(&mut task, "b", 2);
    task.set_input_position("in", 17).unwrap();
    task.commit().unwrap();
    put(&mut task, "a", 100);
    task.set_input_position("in", 18).unwrap();
    assert_eq!(task.input_position("in").unwrap(), Some(18));
    drop(task);

    // Memory is lost with the process; the changelog has what counts.
    let mut task = open("a");
    assert_eq!(task.restored().store("counts").unwrap().how, How::Tail);
    assert_eq!(contents(&counts(&task)), of([("a", 1), ("b", 2)]));
    assert_eq!(task.input_position("in").unwrap(), Some(17));
    counts(&task).delete(&mut task, "b").unwrap();
    task.commit().unwrap();
    task.close().unwrap();

    let mut task = open("b");
    let restored = task.restored().store("counts").unwrap().clone();
    assert_eq!((restored.how, restored.records), (How::Full, 3));
    assert_eq!(contents(&counts(&task)), of([("a", 1)]));
    assert_eq!(task.input_position("in").unwrap(), Some(17));
    put(&mut task, "c", 3);
    task.set_input_position("in", 20).unwrap();
    task.commit().unwrap();
    put(&mut task, "d", 4);
    assert_eq!(task.close().unwrap().aborted_writes, 1);

    // The first machine comes back, with what it had.
    let task = open("a");
    assert_eq!(contents(&counts(&task)), of([("a", 1), ("c", 3)]));
    assert_eq!(task.input_positions().unwrap(), of([("in", 20)]));
    task.close().unwrap();
    let task = open("a");
    assert_eq!(task.restored().store("counts").unwrap().how, How::UpToDate);
    assert_eq!(task.restored().records(), 0);
    task.close().unwrap();
    assert_eq!(
        changelog.guarantee(),
        siltstone::changelog::Guarantee::Atomic
    );
}

#[test]
fn a_task_lives_on_a_changelog_in_memory() {
    let rig = Rig::new();
    let changelog: Arc<dyn Changelog> = Arc::new(rig.changelog.clone());
    lives(&changelog, &|dir| {
        crate::rig::options_on(&rig.env, &format!("/{dir}").into(), Arc::clone(&changelog))
    });
}

#[test]
fn a_task_lives_on_a_changelog_in_files() {
    let dir = tempfile::tempdir().unwrap();
    let log = File::open(dir.path().join("log"), FileOptions::new()).unwrap();
    let changelog: Arc<dyn Changelog> = Arc::new(log);
    let runtime = Runtime::new(RuntimeOptions::new()).unwrap();
    lives(&changelog, &|name| {
        TaskOptions::new("job", 0, dir.path().join(name), Arc::clone(&changelog))
            .runtime(&runtime)
            .db(Options::new().env(Arc::new(OsEnv::new())))
    });
}

#[test]
fn an_abort_goes_back_to_the_last_commit_and_the_task_goes_on() {
    let rig = Rig::new();
    let mut task = rig.open();
    let counts = counts(&task);
    // Counts words, failing at every third record half-way; each word must count once.
    let words = ["a", "b", "a", "c", "b", "a", "d", "a", "b"];
    let mut failed = [false; 9];
    loop {
        let next = task.input_position("in").unwrap().unwrap_or(0);
        let index = usize::try_from(next).unwrap();
        let Some(word) = words.get(index) else { break };
        let count = counts.get(word).unwrap().unwrap_or(0);
        counts.put(&mut task, word, &(count + 1)).unwrap();
        task.set_input_position("in", next + 1).unwrap();
        if index % 3 == 2 && !failed[index] {
            failed[index] = true;
            assert!(task.abort().unwrap() >= 1);
            continue;
        }
        if index % 2 == 1 {
            task.commit().unwrap();
        }
    }
    task.commit().unwrap();
    let expected = of([("a", 4), ("b", 3), ("c", 1), ("d", 1)]);
    assert_eq!(contents(&counts), expected);
    let elsewhere = Task::open(rig.options_elsewhere()).unwrap();
    assert_eq!(contents(&crate::rig::counts(&elsewhere)), expected);
    fails(task.commit(), ErrorKind::Fenced);
}

#[test]
fn a_second_owner_fences_the_first() {
    let rig = Rig::new();
    let mut first = rig.open();
    put(&mut first, "a", 1);
    first.commit().unwrap();
    put(&mut first, "a", 2);
    let mut second = Task::open(rig.options_elsewhere()).unwrap();
    assert_eq!(contents(&counts(&second)), of([("a", 1)]));

    fails(first.commit(), ErrorKind::Fenced);
    // It stays so, and reading goes on.
    fails(first.commit(), ErrorKind::Fenced);
    fails(first.abort(), ErrorKind::Fenced);
    fails(first.idle(), ErrorKind::Fenced);
    fails(counts(&first).put(&mut first, "a", &3), ErrorKind::Fenced);
    fails(first.set_input_position("in", 1), ErrorKind::Fenced);
    assert_eq!(counts(&first).get("a").unwrap(), Some(2));
    assert_eq!(
        counts(&first).committed().unwrap().get("a").unwrap(),
        Some(1)
    );
    fails(first.close(), ErrorKind::Fenced);

    put(&mut second, "b", 2);
    second.commit().unwrap();
    let third = rig.open();
    assert_eq!(contents(&counts(&third)), of([("a", 1), ("b", 2)]));
}

#[test]
fn an_idle_owner_finds_out_that_it_was_fenced() {
    let rig = Rig::new();
    let mut first = rig.open();
    first.idle().unwrap();
    let _second = Task::open(rig.options_elsewhere()).unwrap();
    fails(first.idle(), ErrorKind::Fenced);
}

#[test]
fn after_a_failed_append_only_an_abort_is_possible() {
    let rig = Rig::new();
    let mut task = rig.open();
    put(&mut task, "a", 1);
    task.commit().unwrap();
    put(&mut task, "a", 2);
    rig.changelog.fail_appends(1);
    fails(counts(&task).put(&mut task, "b", &1), ErrorKind::Changelog);
    let told = fails(task.commit(), ErrorKind::Changelog);
    assert!(told.contains("must abort"), "{told}");
    fails(counts(&task).put(&mut task, "c", &1), ErrorKind::Changelog);
    fails(task.begin_commit(), ErrorKind::Changelog);
    task.abort().unwrap();
    assert_eq!(contents(&counts(&task)), of([("a", 1)]));
    put(&mut task, "c", 3);
    task.commit().unwrap();
    drop(task);
    assert_eq!(contents(&counts(&rig.open())), of([("a", 1), ("c", 3)]));
}

#[test]
fn a_failed_commit_takes_nothing_with_it() {
    let rig = Rig::new();
    let mut task = rig.open();
    task.set_input_position("in", 1).unwrap();
    put(&mut task, "a", 1);
    task.commit().unwrap();
    for fail_prepare in [true, false] {
        put(&mut task, "a", 2);
        task.set_input_position("in", 2).unwrap();
        if fail_prepare {
            rig.changelog.fail_prepares(1);
        } else {
            rig.changelog.plan_commit(CommitPlan {
                fails: true,
                ..CommitPlan::default()
            });
        }
        fails(task.commit(), ErrorKind::Changelog);
        fails(task.commit(), ErrorKind::Changelog);
        fails(task.idle(), ErrorKind::Changelog);
        task.abort().unwrap();
        assert_eq!(task.input_position("in").unwrap(), Some(1));
        assert_eq!(contents(&counts(&task)), of([("a", 1)]));
    }
    put(&mut task, "a", 3);
    task.commit().unwrap();
    let elsewhere = Task::open(rig.options_elsewhere()).unwrap();
    assert_eq!(contents(&counts(&elsewhere)), of([("a", 3)]));
}

#[test]
fn writes_go_on_while_a_commit_is_on_its_way() {
    let rig = Rig::new();
    let mut task = rig.open();
    let plan = CommitPlan {
        polls_before: 2,
        polls_after: 1,
        fails: false,
    };
    rig.changelog.plan_commit(plan);
    put(&mut task, "a", 1);
    task.set_input_position("in", 1).unwrap();
    task.begin_commit().unwrap();
    put(&mut task, "b", 2);
    task.set_input_position("in", 2).unwrap();
    fails(task.begin_commit(), ErrorKind::InvalidArgument);
    fails(task.abort(), ErrorKind::InvalidArgument);
    assert_eq!(counts(&task).committed().unwrap().get("a").unwrap(), None);
    let mut polls = 0;
    while !task.poll_commit().unwrap() {
        polls += 1;
        put(&mut task, "c", polls);
    }
    assert_eq!(polls, 3);
    assert!(task.poll_commit().unwrap());
    assert_eq!(
        counts(&task).committed().unwrap().get("a").unwrap(),
        Some(1)
    );
    task.abort().unwrap();
    assert_eq!(contents(&counts(&task)), of([("a", 1)]));
    assert_eq!(task.input_position("in").unwrap(), Some(1));
    put(&mut task, "d", 4);
    task.commit().unwrap();
    drop(task);
    let task = rig.open();
    assert_eq!(contents(&counts(&task)), of([("a", 1), ("d", 4)]));
    assert_eq!(task.input_position("in").unwrap(), Some(1));
}

#[test]
fn a_failure_behind_a_commit_that_is_on_its_way_waits_for_it() {
    for fails_too in [false, true] {
        let rig = Rig::new();
        let mut task = rig.open();
        let plan = CommitPlan {
            polls_before: 2,
            polls_after: 0,
            fails: fails_too,
        };
        rig.changelog.plan_commit(plan);
        put(&mut task, "a", 1);
        task.begin_commit().unwrap();
        put(&mut task, "b", 1);
        rig.changelog.fail_appends(1);
        fails(counts(&task).put(&mut task, "b", &2), ErrorKind::Changelog);
        fails(task.abort(), ErrorKind::InvalidArgument);
        let outcome = task.wait_commit();
        assert_eq!(outcome.is_err(), fails_too);
        fails(counts(&task).put(&mut task, "b", &3), ErrorKind::Changelog);
        task.abort().unwrap();
        let expected = if fails_too { of([]) } else { of([("a", 1)]) };
        assert_eq!(contents(&counts(&task)), expected);
        task.commit().unwrap();
        drop(task);
        assert_eq!(contents(&counts(&rig.open())), expected);
    }
}

#[test]
fn a_commit_whose_answer_was_lost_is_found_by_the_next_open() {
    let rig = Rig::new();
    let mut task = rig.open();
    let plan = CommitPlan {
        polls_before: 0,
        polls_after: 10,
        fails: false,
    };
    rig.changelog.plan_commit(plan);
    put(&mut task, "a", 1);
    task.set_input_position("in", 1).unwrap();
    task.begin_commit().unwrap();
    assert!(!task.poll_commit().unwrap());
    drop(task);
    let task = rig.open();
    assert_eq!(contents(&counts(&task)), of([("a", 1)]));
    assert_eq!(task.input_position("in").unwrap(), Some(1));
}

#[test]
fn closing_waits_for_a_commit_on_its_way_and_takes_back_the_rest() {
    let rig = Rig::new();
    let mut task = rig.open();
    rig.changelog.plan_commit(CommitPlan {
        polls_before: 3,
        ..CommitPlan::default()
    });
    put(&mut task, "a", 1);
    task.begin_commit().unwrap();
    put(&mut task, "b", 1);
    put(&mut task, "c", 1);
    let counts = counts(&task);
    assert_eq!(task.close().unwrap().aborted_writes, 2);
    fails(counts.get("a"), ErrorKind::Closed);
    let task = rig.open();
    assert_eq!(task.restored().store("counts").unwrap().how, How::UpToDate);
    assert_eq!(contents(&crate::rig::counts(&task)), of([("a", 1)]));
}

#[test]
fn state_is_written_when_it_is_full_and_never_before_it_counts() {
    let rig = Rig::new();
    let mut task = rig.open();
    for n in 0..500 {
        put(&mut task, &format!("key-{n}"), n);
    }
    assert!(task.commit_requested());
    assert_eq!(task.stats().unwrap().table_bytes(), 0);
    task.commit().unwrap();
    task.flush().unwrap();
    assert!(task.stats().unwrap().table_bytes() > 0);
    drop(task);
    let task = rig.open();
    assert_eq!(task.restored().records(), 0);
    assert_eq!(contents(&counts(&task)).len(), 500);
}

#[test]
fn the_position_of_a_quiet_task_follows_the_clock() {
    let rig = Rig::with_log(|log| log.tombstone_retention_ms(1000));
    let mut task = rig.open();
    put(&mut task, "a", 1);
    task.commit().unwrap();
    task.flush().unwrap();
    for _ in 0..5 {
        rig.env.advance_wall_ms(500);
        task.idle().unwrap();
    }
    drop(task);
    let task = rig.open();
    assert_eq!(task.restored().store("counts").unwrap().how, How::UpToDate);
}

#[test]
fn a_changelog_that_is_full_asks_for_a_commit_and_gets_one() {
    let rig = Rig::with_log(|log| log.commit_bytes_max(4000));
    let mut task = rig.open();
    let mut written = 0;
    for n in 0..200 {
        task.set_input_position("in", n).unwrap();
        let key = n.to_string();
        while let Err(error) = counts(&task).put(&mut task, &key, &n) {
            assert_eq!(error.kind(), ErrorKind::MemoryLimit);
            assert!(task.commit_requested() && written > 0);
            task.commit().unwrap();
            written = 0;
        }
        written += 1;
    }
    task.commit().unwrap();
    assert_eq!(contents(&counts(&task)).len(), 200);
    assert_eq!(task.input_position("in").unwrap(), Some(199));
}

#[test]
fn many_tasks_of_one_thread_share_a_small_budget_without_waiting_for_each_other() {
    let rig = Rig::new();
    let runtime = runtime(&rig.env, 2 << 20);
    let options = |n: u32| {
        let changelog: Arc<dyn Changelog> = Arc::new(rig.changelog.clone());
        TaskOptions::new("many", n, format!("/many-{n}"), changelog)
            .runtime(&runtime)
            .db(db_options(&rig.env)
                .memtable_bytes_max(1 << 20)
                .memory_bytes_min(8 << 10)
                .record_writes_max(16 << 10))
            .store("counts")
    };
    let mut tasks: Vec<Task> = (0..40).map(|n| Task::open(options(n)).unwrap()).collect();
    let mut commits = 0;
    for round in 0..400_u64 {
        for task in &mut tasks {
            let counts = counts(task);
            let key = format!("key-{round:040}");
            while let Err(error) = counts.put(task, &key, &round) {
                assert_eq!(error.kind(), ErrorKind::MemoryLimit);
                task.commit().unwrap();
                commits += 1;
            }
            if task.commit_requested() {
                task.commit().unwrap();
                commits += 1;
            }
        }
    }
    let (most, max) = runtime.memtable_bytes_most_and_max();
    assert!(commits > 0, "the budget was never spent: {most} of {max}");
    for mut task in tasks {
        task.commit().unwrap();
        assert_eq!(contents(&counts(&task)).len(), 400);
        task.close().unwrap();
    }
}
