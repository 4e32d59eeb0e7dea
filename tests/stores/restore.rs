//! Restores, and what local state is worth.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use siltstone::ErrorKind;
use siltstone::changelog::{Changelog, File, FileOptions, Offset, Partition};
use siltstone::env::Env;
use siltstone::env::sim::SimEnv;
use siltstone::store::{How, RebuildReason, StoreOptions, Task};

use crate::rig::{Rig, contents, counts, fails, of, options_on, partition_of, runtime, small};

/// A task whose state has three keys, of which one is deleted again, closed in good order.
fn settled(rig: &Rig) {
    let mut task = rig.open();
    for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
        counts(&task).put(&mut task, key, &value).unwrap();
    }
    task.commit().unwrap();
    counts(&task).delete(&mut task, "b").unwrap();
    task.set_input_position("in", 4).unwrap();
    task.commit().unwrap();
    task.close().unwrap();
}

fn expected() -> std::collections::BTreeMap<String, u64> {
    of([("a", 1), ("c", 3)])
}

#[track_caller]
fn opens(rig: &Rig, how: How) -> Task {
    let task = rig.open();
    assert_eq!(task.restored().store("counts").unwrap().how, how);
    task
}

#[test]
fn a_trimmed_changelog_means_a_rebuild() {
    let rig = Rig::new();
    settled(&rig);
    // Another machine goes on, writes everything anew and trims what was before.
    let mut other = Task::open(rig.options_elsewhere()).unwrap();
    let end = rig.end();
    counts(&other).put(&mut other, "z", &26).unwrap();
    other.commit().unwrap();
    drop(other);
    rig.log.delete_records(&partition_of("counts"), end);
    let task = opens(&rig, How::Rebuilt(RebuildReason::Trimmed));
    assert_eq!(contents(&counts(&task)), of([("z", 26)]));
    assert_eq!(task.input_position("in").unwrap(), Some(4));
    task.close().unwrap();
    let task = opens(&rig, How::UpToDate);
    assert_eq!(contents(&counts(&task)), of([("z", 26)]));
}

#[test]
fn a_deleted_key_never_comes_back() {
    let rig = Rig::new();
    settled(&rig);
    let mut other = Task::open(rig.options_elsewhere()).unwrap();
    counts(&other).delete(&mut other, "a").unwrap();
    other.commit().unwrap();
    drop(other);
    rig.env.advance_wall_ms(5000);
    let now_ms = rig.env.wall_clock_ms();
    rig.log.compact(&partition_of("counts"), 1000, now_ms);
    let task = opens(&rig, How::Rebuilt(RebuildReason::TombstonesDropped));
    assert_eq!(contents(&counts(&task)), of([("c", 3)]));
}

#[test]
fn an_old_position_is_stale_where_the_changelog_cannot_tell() {
    let rig = Rig::with_log(|log| log.tombstone_retention_ms(10_000));
    settled(&rig);
    rig.env.advance_wall_ms(7_000);
    opens(&rig, How::UpToDate).close().unwrap();
    rig.env.advance_wall_ms(8_001);
    let task = opens(&rig, How::Rebuilt(RebuildReason::Stale));
    assert_eq!(contents(&counts(&task)), expected());
    assert_eq!(task.input_position("in").unwrap(), Some(4));
    task.close().unwrap();
    // A clock that went back makes the position one of the future.
    rig.env.advance_wall_ms(-5_000);
    let task = opens(&rig, How::Rebuilt(RebuildReason::Stale));
    assert_eq!(contents(&counts(&task)), expected());
}

#[test]
fn foreign_state_is_left_alone_unless_the_caller_says_otherwise() {
    type Harm = fn(&Rig);
    let harms: [Harm; 3] = [
        |rig| rig.log.recreate(&partition_of("counts").topic),
        |rig| rig.log.delete_topic(&partition_of("counts").topic),
        |rig| rig.log.lose_records(&partition_of("counts"), Offset(2)),
    ];
    for harm in harms {
        let rig = Rig::new();
        settled(&rig);
        harm(&rig);
        let before = rig.log.bounds(&partition_of("counts")).unwrap();
        let told = fails(Task::open(rig.options()).map(drop), ErrorKind::Diverged);
        assert!(told.contains("store counts"), "{told}");
        // The log was not claimed, so that a missing topic is missing still.
        assert_eq!(rig.log.bounds(&partition_of("counts")).unwrap(), before);
        fails(Task::open(rig.options()).map(drop), ErrorKind::Diverged);

        let task = Task::open(rig.options().rebuild(true)).unwrap();
        let how = task.restored().store("counts").unwrap().how;
        assert_eq!(how, How::Rebuilt(RebuildReason::Asked));
        let left = contents(&counts(&task));
        task.close().unwrap();
        assert_eq!(contents(&counts(&opens(&rig, How::UpToDate))), left);
    }
}

#[test]
fn another_cluster_or_partition_is_told_from_the_own_one() {
    let rig = Rig::new();
    settled(&rig);
    let other = Rig::new();
    let options = options_on(&rig.env, &rig.dir, Arc::new(other.log.clone())).store("counts");
    fails(Task::open(options).map(drop), ErrorKind::Diverged);
    assert!(other.log.bounds(&partition_of("counts")).unwrap().is_none());

    let moved = StoreOptions::new("counts").partition(Partition::new("elsewhere", 7));
    let options = options_on(&rig.env, &rig.dir, Arc::new(rig.log.clone())).store(moved);
    let told = fails(Task::open(options).map(drop), ErrorKind::Diverged);
    assert!(told.contains("elsewhere/7"), "{told}");
    assert_eq!(contents(&counts(&opens(&rig, How::UpToDate))), expected());
}

#[test]
fn a_restore_that_is_interrupted_goes_on_where_it_was() {
    let rig = Rig::new();
    let mut task = rig.open();
    for n in 0..3000 {
        counts(&task)
            .put(&mut task, &format!("{:05}", n % 2000), &n)
            .unwrap();
        if n % 500 == 0 {
            task.commit().unwrap();
        }
    }
    task.commit().unwrap();
    let wanted = contents(&counts(&task));
    drop(task);

    let env = SimEnv::new(5);
    let options = || {
        options_on(&env, &rig.dir, Arc::new(rig.changelog.clone()))
            .store(StoreOptions::new("counts").keyspace(small()))
            .restore_bytes_max(64 << 10)
    };
    // The disk fails in the midst of the restore.
    Task::open(options()).unwrap().close().unwrap();
    let all = env.io_count();
    let env = SimEnv::new(5);
    let options = || {
        options_on(&env, &rig.dir, Arc::new(rig.changelog.clone()))
            .store(StoreOptions::new("counts").keyspace(small()))
            .restore_bytes_max(64 << 10)
    };
    env.stop_at(all * 2 / 3);
    assert!(Task::open(options()).is_err());
    let env = env
        .capture()
        .crash(siltstone::env::sim::CrashPolicy::MaxLoss, 1);
    let options = options_on(&env, &rig.dir, Arc::new(rig.changelog.clone()))
        .store(StoreOptions::new("counts").keyspace(small()))
        .restore_bytes_max(64 << 10);
    let task = Task::open(options).unwrap();
    let restored = task.restored().store("counts").unwrap();
    assert_eq!(restored.how, How::Tail);
    assert!(
        restored.records > 0 && restored.records < 3000,
        "{restored:?}"
    );
    assert_eq!(contents(&counts(&task)), wanted);
}

#[test]
fn a_restore_of_many_runs_serves_at_once_and_is_compacted_later() {
    let rig = Rig::new();
    let mut task = rig.open();
    for n in 0..60_000 {
        let key = format!("{:060}", n * 7 % 20_000);
        counts(&task).put(&mut task, &key, &n).unwrap();
        if task.commit_requested() {
            task.commit().unwrap();
        }
    }
    task.commit().unwrap();
    let wanted = contents(&counts(&task));
    drop(task);
    let env = SimEnv::new(6);
    let runtime = runtime(&env, 16 << 20);
    let options = options_on(&env, &rig.dir, Arc::new(rig.changelog.clone()))
        .store("counts")
        .runtime(&runtime)
        .restore_bytes_max(64 << 10);
    let task = Task::open(options).unwrap();
    let runs = |task: &Task| task.stats().unwrap().levels[0].runs;
    assert!(runs(&task) > 64, "{} runs", runs(&task));
    assert_eq!(contents(&counts(&task)), wanted);
    while runtime.run_pending() {}
    assert!(runs(&task) < 4, "{} runs", runs(&task));
    // All at once: no byte was written more than twice.
    assert_eq!(task.stats().unwrap().compactions, 1);
    assert_eq!(contents(&counts(&task)), wanted);
}

#[test]
fn what_is_trimmed_or_dropped_while_it_is_read_is_read_again() {
    let rig = Rig::new();
    settled(&rig);
    let mut task = Task::open(rig.options_elsewhere()).unwrap();
    // Larger than one fetch.
    for n in 0..40_000 {
        counts(&task)
            .put(&mut task, &format!("filler-{n:060}"), &n)
            .unwrap();
        if task.commit_requested() {
            task.commit().unwrap();
        }
    }
    counts(&task).delete(&mut task, "a").unwrap();
    task.commit().unwrap();
    drop(task);

    let calls = Arc::new(AtomicU64::new(0));
    let (log, partition, env) = (rig.log.clone(), partition_of("counts"), rig.env.clone());
    let options = rig.options_elsewhere().on_progress(move |progress| {
        if progress.store == "counts" && calls.fetch_add(1, Ordering::Relaxed) == 0 {
            // The tombstone of `a` goes after its put was read.
            let now_ms = env.wall_clock_ms() + 10_000;
            log.compact(&partition, 1000, now_ms);
        }
    });
    let task = Task::open(options).unwrap();
    let how = task.restored().store("counts").unwrap().how;
    assert_eq!(how, How::Rebuilt(RebuildReason::TombstonesDropped));
    assert_eq!(counts(&task).get("a").unwrap(), None);
    assert_eq!(counts(&task).get("c").unwrap(), Some(3));
    assert_eq!(contents(&counts(&task)).len(), 40_001);
}

/// The position of a restore that was cut short lies above the tombstone that it missed.
#[test]
fn a_restore_that_is_cut_short_does_not_hide_what_it_missed() {
    let rig = Rig::new();
    settled(&rig);
    let mut task = Task::open(rig.options_elsewhere()).unwrap();
    // The tombstone lies behind the first fetch and before the last.
    for n in 0..60_000 {
        let counts = counts(&task);
        counts
            .put(&mut task, &format!("filler-{n:060}"), &n)
            .unwrap();
        if n == 20_000 {
            counts.delete(&mut task, "a").unwrap();
        }
        if task.commit_requested() {
            task.commit().unwrap();
        }
    }
    task.commit().unwrap();
    drop(task);

    let calls = Arc::new(AtomicU64::new(0));
    let (log, env) = (rig.log.clone(), rig.env.clone());
    let options = rig.options().restore_bytes_max(64 << 10);
    let options = options.on_progress(move |progress| {
        if progress.store != "counts" {
            return;
        }
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => {
                let now_ms = env.wall_clock_ms() + 10_000;
                log.compact(&partition_of("counts"), 1000, now_ms);
            }
            3 => env.stop_at(env.io_count() + 5),
            _ => {}
        }
    });
    assert!(Task::open(options).is_err());
    let env = rig.env.capture();
    let env = env.crash(siltstone::env::sim::CrashPolicy::MaxLoss, 1);
    let options = options_on(&env, &rig.dir, Arc::new(rig.log.clone())).store("counts");
    let task = Task::open(options).unwrap();
    let how = task.restored().store("counts").unwrap().how;
    assert_eq!(how, How::Rebuilt(RebuildReason::TombstonesDropped));
    assert_eq!(counts(&task).get("a").unwrap(), None);
    assert_eq!(contents(&counts(&task)).len(), 60_001);
}

#[test]
fn a_restore_that_is_slower_than_the_changelog_forgets_is_given_up() {
    let rig = Rig::with_log(|log| log.tombstone_retention_ms(1000));
    settled(&rig);
    let env = rig.env.clone();
    let elsewhere = options_on(&rig.env, &"/there".into(), Arc::new(rig.log.clone()))
        .store("counts")
        .on_progress(move |_| env.advance_wall_ms(900));
    let told = fails(Task::open(elsewhere).map(drop), ErrorKind::Changelog);
    assert!(told.contains("rebuilt 2 times"), "{told}");
}

#[test]
fn progress_is_told_and_reaches_the_end() {
    let rig = Rig::new();
    settled(&rig);
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let options = rig.options_elsewhere().on_progress(move |progress| {
        let line = (
            progress.store.to_owned(),
            progress.records,
            progress.position,
            progress.end,
        );
        sink.lock().unwrap().push(line);
    });
    let task = Task::open(options).unwrap();
    let told = told.lock().unwrap();
    let (_, records, position, end) = told.iter().rfind(|line| line.0 == "counts").unwrap();
    assert_eq!((*records, position), (4, end));
    let restored = task.restored();
    assert_eq!(restored.records(), 5);
    assert_eq!(restored.store("counts").unwrap().end, *position);
}

#[test]
fn stores_come_and_go() {
    let rig = Rig::new();
    settled(&rig);
    let two = || rig.options().store("sums");
    let mut task = Task::open(two()).unwrap();
    assert_eq!(task.restored().store("counts").unwrap().how, How::UpToDate);
    assert_eq!(task.restored().store("sums").unwrap().how, How::Full);
    let sums = crate::rig::raw(&task, "sums");
    sums.put(&mut task, b"s", b"1").unwrap();
    task.commit().unwrap();
    drop((sums, task));

    // Without it, it stays as it is; what it lacks is read when it is back.
    let task = rig.open();
    assert_eq!(task.restored().unused, ["sums"]);
    task.close().unwrap();
    let mut task = Task::open(two()).unwrap();
    assert_eq!(task.restored().store("sums").unwrap().how, How::Tail);
    assert_eq!(
        crate::rig::raw(&task, "sums").get(b"s").unwrap(),
        Some(b"1".to_vec())
    );
    fails(task.drop_unused("sums"), ErrorKind::InvalidArgument);
    task.close().unwrap();

    let mut task = rig.open();
    task.drop_unused("sums").unwrap();
    assert!(task.restored().unused.is_empty());
    fails(task.drop_unused("sums"), ErrorKind::NotFound);
    task.close().unwrap();
    let task = Task::open(two()).unwrap();
    assert_eq!(task.restored().store("sums").unwrap().how, How::Full);
    assert_eq!(
        crate::rig::raw(&task, "sums").get(b"s").unwrap(),
        Some(b"1".to_vec())
    );
}

#[test]
fn a_changelog_in_files_tells_what_it_dropped() {
    let env = SimEnv::new(1);
    let shared: Arc<dyn Env> = Arc::new(env.clone());
    let options = FileOptions::new().env(shared).tombstone_retention_ms(1000);
    let log = File::open("/log", options.segment_bytes_max(4 << 10)).unwrap();
    let log = Arc::new(log);
    let open = |dir: &str| {
        let changelog: Arc<dyn Changelog> = log.clone();
        Task::open(options_on(&env, &dir.into(), changelog).store("counts")).unwrap()
    };
    let mut task = open("/a");
    counts(&task).put(&mut task, "a", &1).unwrap();
    counts(&task).put(&mut task, "b", &2).unwrap();
    task.commit().unwrap();
    task.close().unwrap();
    let mut task = open("/b");
    counts(&task).delete(&mut task, "a").unwrap();
    task.commit().unwrap();
    task.close().unwrap();
    env.advance_wall_ms(10_000);
    // Two claims later, the segments of the former ones are closed.
    open("/b").close().unwrap();
    open("/b").close().unwrap();
    log.compact("job-0").unwrap();
    assert!(crate::rig::records(&*log, &partition_of("counts")).len() < 3);
    let task = open("/a");
    let how = task.restored().store("counts").unwrap().how;
    assert_eq!(how, How::Rebuilt(RebuildReason::TombstonesDropped));
    assert_eq!(contents(&counts(&task)), of([("b", 2)]));
}
