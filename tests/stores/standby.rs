//! Standbys: following, taking over, and what becomes of them when things fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use siltstone::changelog::{Changelog, File, FileOptions, Memory};
use siltstone::env::sim::{CrashPolicy, FaultKind, FaultPlan, SimEnv};
use siltstone::env::{Env, OsEnv};
use siltstone::store::serde::{Bytes, U64, Utf8};
use siltstone::store::{How, RebuildReason, Standby, StoreOptions, Task, TaskOptions};
use siltstone::{ErrorKind, Result};

use crate::rig::{
    Counts, Random, Rig, contents, counts, fails, of, options_on, partition_of, raw, runtime, small,
};

fn copy(standby: &Standby) -> Counts {
    standby.key_value("counts", Utf8, U64).unwrap()
}

fn put(task: &mut Task, key: &str, value: u64) {
    counts(task).put(task, key, &value).unwrap();
}

fn options(env: &SimEnv, log: &Arc<dyn Changelog>) -> TaskOptions {
    let counts = StoreOptions::new("counts").keyspace(small());
    let seen = StoreOptions::timestamped("seen").keyspace(small());
    options_on(env, &"/standby".into(), Arc::clone(log))
        .store(counts)
        .store(seen)
        .restore_bytes_max(64 << 10)
}

/// Follows, is stopped and started, and takes over from an owner that is alive or not.
fn follows(log: &Arc<dyn Changelog>, owner_lives: bool) {
    let (here, there) = (SimEnv::new(1), SimEnv::new(2));
    let mut task = Task::open(options(&here, log)).unwrap();
    let seen = task.timestamped("seen", Utf8, U64).unwrap();
    put(&mut task, "a", 1);
    seen.put(&mut task, "x", &7, 70).unwrap();
    task.commit().unwrap();

    let mut standby = Standby::open(options(&there, log)).unwrap();
    let lag = &standby.lag().unwrap()[0];
    assert_eq!((&*lag.store, lag.position), ("counts", None));
    assert!(lag.offsets() > 0);
    let polled = standby.poll().unwrap();
    assert_eq!(polled.records, 2);
    assert_eq!(polled.restored[0].how, How::Full);
    assert_eq!(standby.lag().unwrap()[0].offsets(), 0);
    let copied = copy(&standby);
    assert_eq!(contents(&copied), of([("a", 1)]));

    put(&mut task, "b", 2);
    counts(&task).delete(&mut task, "a").unwrap();
    task.set_input_position("in", 9).unwrap();
    let frozen = standby.snapshot().unwrap();
    assert_eq!(standby.poll().unwrap().records, 0);
    task.commit().unwrap();
    let polled = standby.poll().unwrap();
    assert_eq!((polled.records, polled.restored.len()), (3, 0));
    assert_eq!(contents(&copied), of([("b", 2)]));
    assert_eq!(copied.at(&frozen).get("a").unwrap(), Some(1));
    assert_eq!(standby.poll().unwrap(), siltstone::store::Polled::default());

    // It goes on from where it was, closed or dropped.
    standby.close().unwrap();
    fails(copied.get("b"), ErrorKind::Closed);
    put(&mut task, "c", 3);
    task.commit().unwrap();
    let mut standby = Standby::open(options(&there, log)).unwrap();
    assert_eq!(standby.poll().unwrap().records, 1);
    let copied = copy(&standby);
    let times = standby.timestamped("seen", Utf8, U64).unwrap();

    put(&mut task, "d", 4);
    task.commit().unwrap();
    put(&mut task, "never", 5);
    let mut owner = Some(task);
    if !owner_lives {
        owner = None;
    }
    let mut task = standby.promote().unwrap();
    if let Some(owner) = &mut owner {
        fails(owner.commit(), ErrorKind::Fenced);
    }
    let restored = task.restored().store("counts").unwrap();
    assert_eq!((restored.how, restored.records), (How::Tail, 1));
    assert_eq!(task.input_position("in").unwrap(), Some(9));
    let expected = of([("b", 2), ("c", 3), ("d", 4)]);
    assert_eq!(contents(&copied), expected);
    assert_eq!(times.get("x").unwrap(), Some((7, 70)));
    // The handle of the standby is one of the task.
    copied.put(&mut task, "e", &5).unwrap();
    task.commit().unwrap();
    task.close().unwrap();
    drop((owner, seen));
    let task = Task::open(options(&here, log)).unwrap();
    assert_eq!(contents(&counts(&task)).len(), 4);
}

#[test]
fn a_standby_follows_and_takes_over_from_a_live_or_dead_owner() {
    for owner_lives in [true, false] {
        let memory = Memory::new(Arc::new(SimEnv::new(3)));
        follows(&(Arc::new(memory) as Arc<dyn Changelog>), owner_lives);
        let env: Arc<dyn Env> = Arc::new(SimEnv::new(4));
        let file = File::open("/log", FileOptions::new().env(env)).unwrap();
        follows(&(Arc::new(file) as Arc<dyn Changelog>), owner_lives);
    }
}

#[test]
fn a_standby_of_many_records_flushes_and_keeps_its_place() {
    let rig = Rig::new();
    let mut task = Task::open(rig.options_elsewhere()).unwrap();
    let runtime = runtime(&rig.env, 16 << 20);
    let mut standby = Standby::open(rig.options().runtime(&runtime)).unwrap();
    standby.poll().unwrap();
    for n in 0..20_000 {
        put(&mut task, &format!("{:050}", n % 3000), n);
        if task.commit_requested() || n % 5000 == 0 {
            task.commit().unwrap();
            standby.poll().unwrap();
            while runtime.run_pending() {}
        }
    }
    task.commit().unwrap();
    standby.poll().unwrap();
    assert_eq!(contents(&copy(&standby)), contents(&counts(&task)));
    assert!(standby.stats().unwrap().flushes > 0);
    drop(standby);
    // What was in memory only is read again, and not more.
    let mut standby = Standby::open(rig.options()).unwrap();
    let again = standby.poll().unwrap().records;
    assert!(again < 20_000, "{again} records");
    assert_eq!(contents(&copy(&standby)), contents(&counts(&task)));
}

#[test]
fn partitions_that_do_not_exist_are_waited_for() {
    let rig = Rig::new();
    let mut standby = Standby::open(rig.options()).unwrap();
    assert_eq!(standby.poll().unwrap().records, 0);
    let lag = &standby.lag().unwrap()[0];
    assert_eq!((lag.end, lag.offsets()), (None, 0));
    assert!(rig.log.bounds(&partition_of("counts")).unwrap().is_none());
    fails(
        standby.key_value("none", Utf8, U64).map(drop),
        ErrorKind::NotFound,
    );
    fails(
        standby.timestamped("counts", Utf8, U64).map(drop),
        ErrorKind::InvalidArgument,
    );
    let mut task = Task::open(rig.options_elsewhere()).unwrap();
    put(&mut task, "a", 1);
    task.commit().unwrap();
    assert_eq!(standby.poll().unwrap().records, 1);
    assert_eq!(contents(&copy(&standby)), of([("a", 1)]));
    // Nothing was lost of one that took over before anything was there.
    let empty = Rig::new();
    let task = Standby::open(empty.options()).unwrap().promote().unwrap();
    assert_eq!(task.restored().store("counts").unwrap().how, How::Full);
}

#[test]
fn what_is_trimmed_or_dropped_under_a_standby_is_rebuilt() {
    type Harm = fn(&Rig);
    let harms: [(Harm, RebuildReason); 2] = [
        (
            |rig| rig.log.delete_records(&partition_of("counts"), rig.end()),
            RebuildReason::Trimmed,
        ),
        (
            |rig| {
                let now_ms = rig.env.wall_clock_ms() + 10_000;
                rig.log.compact(&partition_of("counts"), 1000, now_ms);
            },
            RebuildReason::TombstonesDropped,
        ),
    ];
    for (harm, reason) in harms {
        let rig = Rig::new();
        let mut task = Task::open(rig.options_elsewhere()).unwrap();
        put(&mut task, "a", 1);
        task.commit().unwrap();
        let mut standby = Standby::open(rig.options()).unwrap();
        standby.poll().unwrap();
        let old = copy(&standby);
        counts(&task).delete(&mut task, "a").unwrap();
        put(&mut task, "b", 2);
        task.commit().unwrap();
        harm(&rig);
        put(&mut task, "c", 3);
        task.commit().unwrap();
        let polled = standby.poll().unwrap();
        assert_eq!(polled.restored[0].how, How::Rebuilt(reason));
        fails(old.get("a"), ErrorKind::NotFound);
        let copied = copy(&standby);
        assert_eq!(copied.get("a").unwrap(), None);
        assert_eq!(copied.get("c").unwrap(), Some(3));
        // And it goes on following.
        put(&mut task, "d", 4);
        task.commit().unwrap();
        assert_eq!(standby.poll().unwrap().records, 1);
        assert_eq!(copied.get("d").unwrap(), Some(4));
    }
}

#[test]
fn a_changelog_that_is_another_one_is_told_and_nothing_is_changed() {
    let rig = Rig::new();
    let mut task = Task::open(rig.options_elsewhere()).unwrap();
    put(&mut task, "a", 1);
    task.commit().unwrap();
    let mut standby = Standby::open(rig.options()).unwrap();
    standby.poll().unwrap();
    rig.log.recreate(&partition_of("counts").topic);
    fails(standby.poll(), ErrorKind::Diverged);
    assert_eq!(contents(&copy(&standby)), of([("a", 1)]));
    let before = rig.end();
    fails(standby.promote().map(drop), ErrorKind::Diverged);
    assert_eq!(rig.end(), before);
    fails(Standby::open(rig.options()).map(drop), ErrorKind::Diverged);
}

#[test]
fn the_position_of_a_quiet_standby_follows_the_clock() {
    let rig = Rig::with_log(|log| log.tombstone_retention_ms(100_000));
    let mut task = Task::open(rig.options_elsewhere()).unwrap();
    put(&mut task, "a", 1);
    task.commit().unwrap();
    let mut standby = Standby::open(rig.options()).unwrap();
    for _ in 0..10 {
        standby.poll().unwrap();
        rig.env.advance(std::time::Duration::from_secs(61));
    }
    standby.poll().unwrap();
    drop(standby);
    let mut standby = Standby::open(rig.options()).unwrap();
    assert!(standby.poll().unwrap().restored.is_empty());
    // One that has not looked for too long may have missed a tombstone.
    rig.env.advance_wall_ms(100_000);
    let polled = standby.poll().unwrap();
    let stale = How::Rebuilt(RebuildReason::Stale);
    assert_eq!(polled.restored[0].how, stale);
}

/// What the stores of a standby hold.
fn read(standby: &Standby) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let store = standby.key_value("counts", Bytes, Bytes).unwrap();
    store.entries().unwrap().collect::<Result<_>>().unwrap()
}

/// A changelog with records to come: `feed` makes its owner write some more.
struct Source {
    log: Arc<dyn Changelog>,
    task: Task,
    random: Random,
}

impl Source {
    fn new() -> Self {
        let log: Arc<dyn Changelog> = Arc::new(Memory::new(Arc::new(SimEnv::new(8))));
        let task = Task::open(options(&SimEnv::new(9), &log)).unwrap();
        let random = Random(5);
        Self { log, task, random }
    }

    fn feed(&mut self) {
        let store = raw(&self.task, "counts");
        for _ in 0..120 {
            let key = format!("{:03}", self.random.below(60)).into_bytes();
            let len = usize::try_from(self.random.below(200)).unwrap();
            if self.random.below(4) == 0 {
                store.delete(&mut self.task, &key).unwrap();
            } else {
                store.put(&mut self.task, &key, &vec![b'v'; len]).unwrap();
            }
        }
        self.task.commit().unwrap();
    }

    fn expected(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let store = raw(&self.task, "counts");
        store.entries().unwrap().collect::<Result<_>>().unwrap()
    }
}

/// A short life of a standby with a restore, flushes, stops and starts. Errors end it.
fn short_life(env: &SimEnv, source: &mut Source) -> Result<()> {
    source.feed();
    for _ in 0..2 {
        let mut standby = Standby::open(options(env, &source.log))?;
        standby.poll()?;
        for _ in 0..3 {
            source.feed();
            standby.poll()?;
        }
        standby.close()?;
        source.feed();
    }
    let mut standby = Standby::open(options(env, &source.log))?;
    standby.poll()?;
    source.feed();
    standby.poll()?;
    Ok(())
}

#[test]
fn whatever_a_crash_leaves_of_a_standby_is_completed_and_can_take_over() {
    let env = SimEnv::new(4);
    let mut source = Source::new();
    env.record(true);
    short_life(&env, &mut source).unwrap();
    let images = env.take_recorded();
    assert!(images.len() > 50, "{} images", images.len());
    let expected = source.expected();
    let mut checked = 0;
    for (index, image) in &images {
        for policy in CrashPolicy::ALL {
            let env = image.crash(*policy, *index);
            let what = format!("CRASH_AT={index} POLICY={policy:?}");
            let opened = Standby::open(options(&env, &source.log));
            let mut standby = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
            if checked % 3 > 0 {
                let polled = standby.poll();
                polled.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(read(&standby), expected, "{what}");
            }
            if checked % 3 < 2 {
                let task = standby.promote();
                let task = task.unwrap_or_else(|error| panic!("{what}: {error}"));
                let store = raw(&task, "counts");
                let found: BTreeMap<_, _> =
                    store.entries().unwrap().collect::<Result<_>>().unwrap();
                assert_eq!(found, expected, "{what}");
            }
            checked += 1;
        }
    }
    assert!(checked > 300, "{checked} crashes");
}

#[test]
fn whatever_io_fails_under_a_standby_it_is_told_and_the_next_goes_on() {
    let env = SimEnv::new(4);
    short_life(&env, &mut Source::new()).unwrap();
    let count = env.io_count();
    let mut failed = 0;
    for &kind in FaultKind::ALL {
        for at in 0..count {
            let env = SimEnv::new(4);
            let mut source = Source::new();
            env.set_fault(FaultPlan::once(at, kind));
            failed += usize::from(short_life(&env, &mut source).is_err());
            env.clear_faults();
            let what = format!("FAULT_AT={at} KIND={kind:?}");
            let opened = Standby::open(options(&env, &source.log));
            let mut standby = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
            let polled = standby.poll();
            polled.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(read(&standby), source.expected(), "{what}");
        }
    }
    assert!(failed > 0, "no fault was met");
}

#[test]
fn a_standby_far_behind_reads_into_tables() {
    let rig = Rig::new();
    let mut task = Task::open(rig.options_elsewhere()).unwrap();
    put(&mut task, "a", 1);
    task.commit().unwrap();
    let mut standby = Standby::open(rig.options()).unwrap();
    standby.poll().unwrap();
    put(&mut task, "b", 2);
    task.commit().unwrap();
    standby.poll().unwrap();
    drop(task);
    // Control records spend offsets.
    let mut session = rig.log.claim("job-0", &[partition_of("counts")]).unwrap();
    for _ in 0..1_100_000 {
        session.abort().unwrap();
    }
    let mut task = Task::open(rig.options_elsewhere()).unwrap();
    put(&mut task, "c", 3);
    task.commit().unwrap();
    let polled = standby.poll().unwrap();
    assert_eq!(polled.restored[0].how, How::Tail);
    assert_eq!(
        contents(&copy(&standby)),
        of([("a", 1), ("b", 2), ("c", 3)])
    );
}

#[test]
fn stores_are_restored_side_by_side_on_the_threads_of_a_runtime() {
    let log: Arc<dyn Changelog> = Arc::new(Memory::new(Arc::new(OsEnv::new())));
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..5).map(|n| format!("store-{n}")).collect();
    let options = |dir: &str, path: &std::path::Path| {
        let runtime = siltstone::RuntimeOptions::new().threads(4);
        let runtime = siltstone::Runtime::new(runtime).unwrap();
        let options = TaskOptions::new("job", 0, path.join(dir), Arc::clone(&log));
        names
            .iter()
            .fold(options.runtime(&runtime), |options, name| {
                options.store(name.as_str())
            })
            .restore_bytes_max(64 << 10)
    };
    let mut task = Task::open(options("a", dir.path())).unwrap();
    for n in 0..10_000_u64 {
        for (index, name) in (0..).zip(&names) {
            let key = (n * 7919 % 4000).to_be_bytes();
            let value = (n + index).to_be_bytes();
            raw(&task, name).put(&mut task, &key, &value).unwrap();
        }
        if task.commit_requested() {
            task.commit().unwrap();
        }
    }
    task.commit().unwrap();
    let copies = Task::open(options("b", dir.path())).unwrap();
    for name in &names {
        let of = |task: &Task| -> Vec<_> {
            let entries = raw(task, name).entries().unwrap();
            entries.collect::<Result<_>>().unwrap()
        };
        assert_eq!(of(&copies), of(&task), "{name}");
        let restored = copies.restored().store(name).unwrap();
        assert_eq!((restored.how, restored.records), (How::Full, 10_000));
    }
    copies.close().unwrap();
    let copies = Task::open(options("b", dir.path())).unwrap();
    assert_eq!(copies.restored().records(), 0);
}
