use std::collections::BTreeSet;

use super::random::Random;
use super::*;
use crate::error::ErrorKind;

const SECTOR: usize = 512;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn names(env: &SimEnv) -> Vec<String> {
    env.list_dir(path("/")).unwrap()
}

fn bytes(env: &SimEnv, name: &str) -> Vec<u8> {
    env.file_bytes(path(name)).unwrap()
}

#[track_caller]
fn io_kind<T>(result: Result<T>) -> io::ErrorKind {
    match result {
        Ok(_) => panic!("must fail"),
        Err(error) => error.io_kind().expect("an I/O error"),
    }
}

/// Sector `number` of a file that has a byte of its own for each.
fn sector(number: u8) -> [u8; SECTOR] {
    [number; SECTOR]
}

/// A file `old` of two synced sectors, rewritten from the second on without a sync; an unsynced
/// file `new`; a synced file `gone` whose removal is not, and `from`, renamed to `to`.
fn half_synced() -> SimEnv {
    let env = SimEnv::new(5);
    let old = env.create_new(path("old")).unwrap();
    old.write_all_at(0, &[sector(1), sector(2)].concat())
        .unwrap();
    old.sync().unwrap();
    for name in ["gone", "from"] {
        env.set_file_bytes(path(name), name);
    }
    env.sync_dir(path("/")).unwrap();

    old.write_all_at(512, &[sector(3), sector(4), sector(5)].concat())
        .unwrap();
    env.create_new(path("new"))
        .unwrap()
        .write_all_at(0, b"unsynced")
        .unwrap();
    env.remove_file(path("gone")).unwrap();
    env.rename(path("from"), path("to")).unwrap();
    env
}

#[test]
fn each_policy_keeps_what_it_says() {
    let env = half_synced();
    let before = env.content_hash();
    let image = env.capture();
    let crash = |policy| image.crash(policy, 9);
    let synced = [sector(1), sector(2)].concat();
    let whole = [sector(1), sector(3), sector(4), sector(5)].concat();

    let kill = crash(CrashPolicy::Kill);
    assert_eq!(kill.content_hash(), before);
    assert_eq!(bytes(&kill, "old"), whole);

    let loss = crash(CrashPolicy::MaxLoss);
    assert_eq!(names(&loss), ["from", "gone", "old"]);
    assert_eq!(bytes(&loss, "old"), synced);
    assert_eq!(bytes(&loss, "from"), b"from");

    let named = crash(CrashPolicy::NamesOnly);
    assert_eq!(names(&named), ["new", "old", "to"]);
    assert_eq!(bytes(&named, "old"), synced);
    assert_eq!(bytes(&named, "new"), b"");
    assert_eq!(bytes(&named, "to"), b"from");

    let data = crash(CrashPolicy::DataOnly);
    assert_eq!(names(&data), ["from", "gone", "old"]);
    assert_eq!(bytes(&data, "old"), whole);

    let zeros = crash(CrashPolicy::ZeroTail);
    assert_eq!(names(&zeros), ["new", "old", "to"]);
    assert_eq!(
        bytes(&zeros, "old"),
        [sector(1), sector(2), sector(0), sector(0)].concat()
    );
    assert_eq!(bytes(&zeros, "new"), [0; 8]);

    let garbage = bytes(&crash(CrashPolicy::GarbageTail), "old");
    assert_eq!(garbage.len(), 4 * SECTOR);
    assert_eq!(garbage[..2 * SECTOR], synced);
    assert_ne!(garbage[2 * SECTOR..], whole[2 * SECTOR..]);
    assert_ne!(garbage[2 * SECTOR..], [0; 2 * SECTOR]);

    // All survivors are durable: a second crash takes nothing more.
    for &policy in CrashPolicy::ALL {
        let first = crash(policy);
        let second = first.capture().crash(CrashPolicy::MaxLoss, 3);
        assert_eq!(first.content_hash(), second.content_hash(), "{policy:?}");
    }
    assert_eq!(
        env.content_hash(),
        before,
        "crashes leave the image's source alone"
    );
}

#[test]
fn a_torn_prefix_ends_at_a_sector() {
    let image = half_synced().capture();
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let after = image.crash(CrashPolicy::PrefixTorn, seed);
        let old = bytes(&after, "old");
        assert_eq!(old.len() % SECTOR, 0);
        let sectors: Vec<u8> = old.chunks(SECTOR).map(|sector| sector[0]).collect();
        assert!(
            old.chunks(SECTOR)
                .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
        );
        seen.insert(sectors);
        // The oldest changes of names are the first to stay.
        let names = names(&after).join(" ");
        let prefixes = [
            "from gone old",
            "from gone new old",
            "from new old",
            "new old to",
        ];
        assert!(prefixes.contains(&names.as_str()), "{names}");
    }
    let all = [&[1, 2][..], &[1, 3], &[1, 3, 4], &[1, 3, 4, 5]];
    assert_eq!(seen, all.into_iter().map(<[u8]>::to_vec).collect());
}

#[test]
fn a_subset_loses_sectors_and_names_by_themselves() {
    let image = half_synced().capture();
    let mut kept_by_percent = Vec::new();
    for percent in [15, 50, 85] {
        let (mut contents, mut trees, mut kept) = (BTreeSet::new(), BTreeSet::new(), 0);
        for seed in 0..4000 {
            let after = image.crash(CrashPolicy::Subset(percent), seed);
            let old = bytes(&after, "old");
            let sectors: Vec<u8> = old.chunks(SECTOR).map(|sector| sector[0]).collect();
            assert_eq!(sectors[0], 1, "synced sectors stay");
            assert!([2, 3].contains(&sectors[1]));
            kept += sectors.iter().filter(|number| **number > 2).count();
            contents.insert(sectors);
            let names = names(&after);
            let has = |name: &str| names.iter().any(|found| found == name);
            assert!(
                has("from") != has("to"),
                "a rename happens whole or not: {names:?}"
            );
            assert!(has("old"));
            trees.insert(names);
        }
        // Second sector old or new; third and fourth there or not, with a hole between.
        assert_eq!(contents.len(), 8, "{percent}: {contents:?}");
        assert_eq!(trees.len(), 8, "{percent}: {trees:?}");
        kept_by_percent.push(kept);
    }
    assert!(kept_by_percent.is_sorted());
    assert!(
        kept_by_percent[0] < 2400 && kept_by_percent[2] > 9600,
        "{kept_by_percent:?}"
    );
}

#[test]
fn writes_of_one_sector_survive_in_order() {
    let env = SimEnv::new(1);
    env.set_file_bytes(path("a"), [0; 4]);
    let file = env.open_write(path("a")).unwrap();
    for pos in 0..4 {
        file.write_all_at(pos, b"x").unwrap();
    }
    let image = env.capture();
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let found = bytes(&image.crash(CrashPolicy::Subset(50), seed), "a");
        assert!(found.is_sorted_by(|a, b| a >= b), "{found:?}");
        seen.insert(found);
    }
    assert_eq!(seen.len(), 5);
}

#[test]
fn cut_lengths_need_a_sync_too() {
    let env = SimEnv::new(1);
    env.set_file_bytes(path("a"), b"0123456789");
    let file = env.open_write(path("a")).unwrap();
    file.set_len(4).unwrap();
    file.write_all_at(4, b"new").unwrap();
    let after = |policy| bytes(&env.capture().crash(policy, 1), "a");
    assert_eq!(after(CrashPolicy::MaxLoss), b"0123456789");
    assert_eq!(after(CrashPolicy::ZeroTail), b"0123\0\0\0");
    assert_eq!(after(CrashPolicy::DataOnly), b"0123new");
    file.sync().unwrap();
    assert_eq!(after(CrashPolicy::MaxLoss), b"0123new");
}

#[test]
fn syncing_a_directory_saves_its_names_only() {
    let env = SimEnv::new(1);
    env.create_dir(path("a")).unwrap();
    env.create_dir(path("b")).unwrap();
    env.create_new(path("a/x")).unwrap();
    env.create_new(path("b/y")).unwrap();
    let after = || env.capture().crash(CrashPolicy::MaxLoss, 1).files();
    env.sync_dir(path("a")).unwrap();
    assert_eq!(
        after(),
        [] as [PathBuf; 0],
        "nothing leads to the directory"
    );
    env.sync_dir(path("/")).unwrap();
    assert_eq!(after(), [path("/a/x")]);
    // The rename takes the creation that it builds on along.
    env.rename(path("b/y"), path("a/z")).unwrap();
    env.create_new(path("b/late")).unwrap();
    env.sync_dir(path("a")).unwrap();
    assert_eq!(after(), [path("/a/x"), path("/a/z")]);
    env.remove_file(path("a/x")).unwrap();
    assert_eq!(after(), [path("/a/x"), path("/a/z")]);
    env.sync_dir(path("a")).unwrap();
    assert_eq!(after(), [path("/a/z")]);
}

#[test]
fn files_without_a_way_to_them_are_dropped() {
    let env = SimEnv::new(1);
    let held = env.create_new(path("held")).unwrap();
    held.write_all_at(0, b"held").unwrap();
    for _ in 0..10 {
        env.create_new(path("a")).unwrap();
        env.create_dir(path("d")).unwrap();
        env.create_new(path("d/x")).unwrap();
        env.remove_file(path("d/x")).unwrap();
        env.remove_dir(path("d")).unwrap();
        env.remove_file(path("a")).unwrap();
        env.sync_dir(path("/")).unwrap();
    }
    env.remove_file(path("held")).unwrap();
    env.sync_dir(path("/")).unwrap();
    let count = || {
        let disk = &env.shared.state.lock().disk;
        (disk.nodes.len(), disk.pending_names.len())
    };
    assert_eq!(count(), (2, 0));
    held.read_exact_at(0, &mut [0; 4]).unwrap();
    drop(held);
    env.sync_dir(path("/")).unwrap();
    assert_eq!(count(), (1, 0));
}

#[test]
fn a_failed_sync_gives_the_bytes_up_for_ever() {
    let env = SimEnv::new(1);
    env.set_file_bytes(path("a"), b"old ");
    let file = env.open_write(path("a")).unwrap();
    file.write_all_at(4, b"dead").unwrap();
    env.set_fault(FaultPlan::once(env.io_count(), FaultKind::Eio));
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(env.fault_count(), 1);
    assert_eq!(bytes(&env, "a"), b"old dead");
    file.sync().unwrap();
    file.write_all_at(8, b" new").unwrap();
    file.sync().unwrap();
    let crash = |policy| env.capture().crash(policy, 1);
    assert_eq!(bytes(&env, "a"), b"old dead new");
    assert_eq!(
        bytes(&crash(CrashPolicy::MaxLoss), "a"),
        b"old \0\0\0\0 new"
    );
    assert_eq!(
        bytes(&crash(CrashPolicy::DataOnly), "a"),
        b"old \0\0\0\0 new"
    );
    // The system outlives the process and still shows them; then the power goes.
    let kill = crash(CrashPolicy::Kill);
    assert_eq!(bytes(&kill, "a"), b"old dead new");
    let after = kill.capture().crash(CrashPolicy::MaxLoss, 1);
    assert_eq!(bytes(&after, "a"), b"old \0\0\0\0 new");
    file.write_all_at(4, b"live").unwrap();
    file.sync().unwrap();
    assert_eq!(bytes(&crash(CrashPolicy::MaxLoss), "a"), b"old live new");
}

#[test]
fn stores_into_a_map_are_steps_without_errors() {
    let env = SimEnv::new(1);
    env.set_file_bytes(path("a"), vec![b'o'; 3 * SECTOR]);
    let file = env.open_write(path("a")).unwrap();
    let mut map = file.map_shared(3 * SECTOR as u64).unwrap();
    env.record(true);
    let first = env.io_count();
    map.write(0, &[b'n'; 3 * SECTOR]);
    map.write(0, b"N");
    assert_eq!(env.io_count(), first + 2);
    env.record(false);
    let images = env.take_recorded();
    assert_eq!(images.len(), 2);
    let fronts = images
        .iter()
        .map(|(_, image)| image.file_bytes(path("a")).unwrap()[0]);
    assert_eq!(fronts.collect::<Vec<_>>(), *b"on");
    // A kill keeps all of it, a power loss any sectors.
    let image = env.capture();
    let kept = bytes(&image.crash(CrashPolicy::Kill, 1), "a");
    assert_eq!((kept[0], &kept[1..]), (b'N', &[b'n'; 3 * SECTOR - 1][..]));
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let found = bytes(&image.crash(CrashPolicy::Subset(50), seed), "a");
        seen.insert(found.chunks(SECTOR).map(|it| it[0]).collect::<Vec<_>>());
    }
    assert_eq!(seen.len(), 3 * 2 * 2, "{seen:?}");

    // No fault reaches a store, no full or read-only disk.
    env.set_fault(FaultPlan::starting(env.io_count(), FaultKind::Eio));
    env.set_capacity(Some(0));
    env.set_read_only(true);
    map.write(1, b"!");
    assert_eq!(env.fault_count(), 0);
    env.set_read_only(false);
    assert_eq!(&bytes(&env, "a")[..3], b"N!n");
    env.clear_faults();
    env.stop_at(env.io_count());
    map.write(1, b"?");
    env.clear_faults();
    assert_eq!(&bytes(&env, "a")[..3], b"N!n");
    // To map is a read, and may fail.
    env.set_read_fault(env.read_count());
    assert!(file.map_shared(1).is_none());
    assert!(file.map_shared(1).is_some());
}

#[test]
fn faults_do_what_their_kind_says() {
    let run = |kind, at: u64| {
        let env = SimEnv::new(3);
        env.set_fault(FaultPlan::once(at, kind));
        let errors = [
            env.create_new(path("a")).err(),
            env.open_write(path("a"))
                .and_then(|file| file.write_all_at(0, &[7; 1000]))
                .err(),
            env.open_write(path("a")).and_then(|file| file.sync()).err(),
            env.rename(path("a"), path("b")).err(),
        ];
        for (index, error) in (0..).zip(&errors) {
            assert!(error.is_some() || index != at, "{kind:?} at {at}");
            assert!(error.is_none() || index >= at, "{kind:?} at {at}");
        }
        env
    };
    let lens = |env: &SimEnv, name| env.file_bytes(path(name)).map(|bytes| bytes.len());
    for kind in [FaultKind::Eio, FaultKind::Enospc] {
        assert!(run(kind, 0).files().is_empty());
        assert_eq!(lens(&run(kind, 1), "b"), Some(0));
        assert_eq!(lens(&run(kind, 3), "a"), Some(1000));
    }
    let short = lens(&run(FaultKind::ShortWrite, 1), "b").unwrap();
    assert!((1..1000).contains(&short), "{short}");
    assert_eq!(
        lens(&run(FaultKind::ShortWrite, 1), "b"),
        Some(short),
        "the seed decides"
    );
    assert_eq!(lens(&run(FaultKind::LateError, 0), "b"), Some(1000));
    assert_eq!(lens(&run(FaultKind::LateError, 1), "b"), Some(1000));
    assert_eq!(lens(&run(FaultKind::LateError, 3), "b"), Some(1000));

    // What of the file is durable after a sync that failed in each way.
    for (kind, is_saved) in [(FaultKind::Enospc, false), (FaultKind::LateError, true)] {
        let env = run(kind, 2);
        env.sync_dir(path("/")).unwrap();
        let after = env.capture().crash(CrashPolicy::MaxLoss, 1);
        assert_eq!(bytes(&after, "b").len() == 1000, is_saved, "{kind:?}");
    }
}

#[test]
fn a_fault_can_go_on() {
    let env = SimEnv::new(1);
    env.set_fault(FaultPlan::starting(1, FaultKind::Enospc));
    let file = env.create_new(path("a")).unwrap();
    for _ in 0..3 {
        assert_eq!(
            io_kind(file.write_all_at(0, b"x")),
            io::ErrorKind::StorageFull
        );
    }
    assert_eq!((env.io_count(), env.fault_count()), (4, 3));
    env.clear_faults();
    file.write_all_at(0, b"x").unwrap();
    env.set_read_fault(env.read_count() + 1);
    let mut byte = [0];
    file.read_exact_at(0, &mut byte).unwrap();
    assert_eq!(
        file.read_exact_at(0, &mut byte).unwrap_err().kind(),
        ErrorKind::Io
    );
    file.read_exact_at(0, &mut byte).unwrap();
}

#[test]
fn a_flip_changes_one_bit_of_one_read() {
    let env = SimEnv::new(1);
    let file = env.create_new(path("a")).unwrap();
    file.write_all_at(0, b"seven bytes").unwrap();
    env.set_read_flip(env.read_count() + 1);
    let read = || {
        let mut bytes = [0; 11];
        file.read_exact_at(0, &mut bytes).unwrap();
        bytes
    };
    assert_eq!(&read(), b"seven bytes");
    let flipped = read();
    let bits: u32 = (flipped.iter().zip(b"seven bytes"))
        .map(|(got, put)| (got ^ put).count_ones())
        .sum();
    assert_eq!(bits, 1);
    assert_eq!(&read(), b"seven bytes");
    assert_eq!(env.fault_count(), 1);
    env.set_read_flip(env.read_count());
    assert_eq!(file.len().unwrap(), 11, "there are no bytes to flip");
}

#[test]
fn a_stop_ends_everything() {
    let env = SimEnv::new(1);
    env.stop_at(2);
    let file = env.create_new(path("a")).unwrap();
    file.write_all_at(0, b"x").unwrap();
    let before = env.content_hash();
    assert_eq!(io_kind(file.write_all_at(0, b"y")), io::ErrorKind::Other);
    assert_eq!(io_kind(file.sync()), io::ErrorKind::Other);
    assert_eq!(io_kind(file.len()), io::ErrorKind::Other);
    assert_eq!(io_kind(env.open(path("a"))), io::ErrorKind::Other);
    assert_eq!(io_kind(env.list_dir(path("/"))), io::ErrorKind::Other);
    assert_eq!(io_kind(env.lock(path("LOCK"))), io::ErrorKind::Other);
    assert_eq!(env.io_count(), 2);
    assert_eq!(env.content_hash(), before);
    let after = env.capture().crash(CrashPolicy::Kill, 1);
    after.create_new(path("b")).unwrap();
}

#[test]
fn a_full_disk_takes_what_fits() {
    let env = SimEnv::new(1);
    env.set_capacity(Some(10));
    let file = env.create_new(path("a")).unwrap();
    file.write_all_at(0, b"12345678").unwrap();
    assert_eq!(
        io_kind(file.write_all_at(8, b"9abc")),
        io::ErrorKind::StorageFull
    );
    assert_eq!(bytes(&env, "a"), b"123456789a");
    file.write_all_at(0, b"overwrites").unwrap();
    assert_eq!(io_kind(file.set_len(11)), io::ErrorKind::StorageFull);
    assert_eq!(
        io_kind(env.create_new(path("b"))),
        io::ErrorKind::StorageFull
    );
    assert_eq!(
        io_kind(env.create_dir(path("b"))),
        io::ErrorKind::StorageFull
    );
    env.remove_file(path("a")).unwrap();
    assert_eq!(
        io_kind(env.create_new(path("b"))),
        io::ErrorKind::StorageFull,
        "still open"
    );
    drop(file);
    env.create_new(path("b")).unwrap().set_len(10).unwrap();
    env.set_capacity(None);
    env.create_new(path("c")).unwrap();
}

#[test]
fn a_read_only_disk_changes_nothing() {
    let env = SimEnv::new(1);
    env.set_file_bytes(path("dir/a"), b"a");
    let file = env.open_write(path("dir/a")).unwrap();
    env.set_read_only(true);
    let denied = io::ErrorKind::PermissionDenied;
    assert_eq!(io_kind(env.create_new(path("b"))), denied);
    assert_eq!(io_kind(file.write_all_at(0, b"b")), denied);
    assert_eq!(io_kind(env.rename(path("dir/a"), path("b"))), denied);
    assert_eq!(io_kind(env.open_write(path("dir/a"))), denied);
    assert_eq!(io_kind(env.lock(path("LOCK"))), denied);
    assert_eq!(read_a(&env), b"a");
    env.set_read_only(false);
    file.write_all_at(0, b"b").unwrap();
    assert_eq!(read_a(&env), b"b");
}

fn read_a(env: &SimEnv) -> Vec<u8> {
    crate::env::read_file(env, path("dir/a"), 100).unwrap()
}

#[test]
fn a_crash_frees_locks_and_keeps_the_clocks() {
    let env = SimEnv::new(1);
    assert_eq!(env.wall_clock_ms(), 1_767_225_600_000);
    let _guard = env.lock(path("LOCK")).unwrap();
    env.advance_wall_ms(-1000);
    env.advance(Duration::from_secs(5));
    assert!(env.monotonic() >= Duration::from_secs(5));
    let after = env.capture().crash(CrashPolicy::Kill, 1);
    assert_eq!(after.wall_clock_ms(), 1_767_225_599_000);
    assert_eq!(after.monotonic(), env.monotonic());
    assert_eq!((after.io_count(), after.read_count()), (0, 0));
    after.lock(path("LOCK")).unwrap();
    assert_eq!(after.io_count(), 0, "the lock file was there");
}

/// Work whose every choice comes from the environment, until that stops.
fn churn(env: &SimEnv) {
    let mut random = Random::new(env.random_u64());
    for _ in 0..200 {
        let name = format!("f{}", random.index(0..4));
        let other = format!("f{}", random.index(0..4));
        let done = match random.index(0..8) {
            0 => env.create_new(path(&name)).map(drop),
            1 => env.rename(path(&name), path(&other)),
            2 => env.remove_file(path(&name)),
            3 => env.sync_dir(path("/")),
            4 => env.open_write(path(&name)).and_then(|file| file.sync()),
            5 => env.hard_link(path(&name), path(&other)),
            _ => env.open_write(path(&name)).and_then(|file| {
                let mut bytes = vec![0; random.index(1..2000)];
                random.fill(&mut bytes);
                file.write_all_at(file.len()?, &bytes)
            }),
        };
        if let Err(error) = done {
            if error.io_kind() == Some(io::ErrorKind::Other) {
                return;
            }
            let kinds = [
                Some(io::ErrorKind::NotFound),
                Some(io::ErrorKind::AlreadyExists),
            ];
            assert!(kinds.contains(&error.io_kind()), "{error}");
        }
    }
}

#[test]
fn the_seed_decides_everything() {
    let hashes = |seed| {
        let env = SimEnv::new(seed);
        env.record(true);
        churn(&env);
        env.record(false);
        let recorded = env.take_recorded();
        assert_eq!(recorded.len() as u64, env.io_count());
        assert!(
            recorded
                .iter()
                .map(|(index, _)| *index)
                .eq(0..env.io_count())
        );
        let mut hashes = vec![env.content_hash()];
        for (_, image) in &recorded {
            hashes.push(image.content_hash());
            let crashes = CrashPolicy::ALL
                .iter()
                .map(|&policy| image.crash(policy, seed));
            hashes.extend(crashes.map(|after| after.content_hash()));
        }
        hashes
    };
    let first = hashes(1);
    assert_eq!(first, hashes(1));
    assert_ne!(first, hashes(2));
}

#[test]
fn a_recorded_image_is_what_a_stop_there_leaves() {
    let env = SimEnv::new(7);
    env.record(true);
    churn(&env);
    assert!(env.io_count() > 50);
    for (index, image) in env.take_recorded().iter().step_by(7) {
        let stopped = SimEnv::new(7);
        stopped.stop_at(*index);
        churn(&stopped);
        assert_eq!(stopped.io_count(), *index);
        assert_eq!(stopped.content_hash(), image.content_hash());
        for &policy in CrashPolicy::ALL {
            let (a, b) = (stopped.capture().crash(policy, 1), image.crash(policy, 1));
            assert_eq!(a.content_hash(), b.content_hash(), "{policy:?}");
        }
    }
}
