use std::path::Path;

use super::*;
use crate::env::sim::{CrashPolicy, FaultKind, FaultPlan, SimEnv};
use crate::key::SeqNo;
use crate::options::Wal;
use crate::version::directory::{CURRENT_NAME, remove_leftovers};
use crate::version::edit::Change;
use crate::version::fixture::{TABLE_BYTES, add, create, meta, store, store_in};
use crate::wal;

const TABLES: u64 = 8;

fn edit(changes: Vec<Change>) -> VersionEdit {
    VersionEdit::new(changes)
}

/// The edits of a short life. The long position makes the manifest roll by itself.
fn life() -> Vec<VersionEdit> {
    let remove = |keyspace, number| Change::RemoveTable { keyspace, number };
    vec![
        edit(vec![create(0, "orders"), Change::NextFile(3)]),
        edit(vec![
            add(0, 0, 1, meta(1, "a", "m", 1, 5)),
            Change::Flushed {
                keyspace: 0,
                seqno: SeqNo(5),
            },
            Change::Position(Some(b"p5".to_vec())),
        ]),
        edit(vec![
            create(1, "stock"),
            add(1, 0, 2, meta(2, "c", "d", 6, 6)),
        ]),
        edit(vec![
            add(0, 0, 3, meta(3, "a", "z", 7, 9)),
            Change::LastSeqNo(SeqNo(11)),
        ]),
        edit(vec![Change::Position(Some(vec![7; 66 << 10]))]),
        edit(vec![
            remove(0, 1),
            remove(0, 3),
            add(0, 1, 0, meta(4, "a", "z", 1, 9)),
        ]),
        edit(vec![Change::Position(None), Change::WalFirst(3)]),
        edit(vec![Change::DropKeyspace { id: 1 }]),
    ]
}

fn first_state() -> State {
    State::new(77, Wal::On, 88)
}

/// What a state says, without the next file number, which open raises above what it finds.
fn facts(state: &State) -> Vec<u8> {
    State {
        next_file: 0,
        ..state.clone()
    }
    .to_edit()
    .encode()
}

/// The states of a life, the first one in front.
fn states(tables: &TableStore, edits: &[VersionEdit]) -> Vec<State> {
    let mut states = vec![first_state()];
    for edit in edits {
        states.push(states.last().unwrap().apply(edit, tables).unwrap());
    }
    states
}

fn put_tables(env: &SimEnv, tables: &TableStore) {
    for number in 1..=TABLES {
        env.set_file_bytes(&tables.path(number), TABLE_BYTES);
    }
}

fn names(tables: &TableStore) -> Vec<String> {
    let mut names = tables.env.list_dir(&tables.dir).unwrap();
    names.retain(|name| name.strip_suffix(".sst").is_none());
    names
}

/// What an open finds; `None` if there is no store.
fn find(tables: &TableStore) -> Option<State> {
    match detect(&*tables.env, &tables.dir).unwrap() {
        Presence::Absent => None,
        Presence::Present => Some(Manifest::open(tables).unwrap().1),
        Presence::Foreign(names) => panic!("foreign {names:?}"),
    }
}

fn found(tables: &TableStore) -> Option<Vec<u8>> {
    find(tables).map(|state| facts(&state))
}

/// Opens what a crash has left, works on, and checks that it counts. Returns the facts after.
fn go_on(env: &SimEnv, tables: &TableStore) -> Vec<u8> {
    if find(tables).is_none() {
        remove_leftovers(env, &tables.dir).unwrap();
        Manifest::create(tables, &first_state()).unwrap();
        return facts(&first_state());
    }
    let (mut manifest, state, _) = Manifest::open(tables).unwrap();
    assert_eq!(found(tables), Some(facts(&state)), "two opens differ");
    manifest.remove_orphans().unwrap();
    assert_eq!(
        found(tables),
        Some(facts(&state)),
        "the removal of orphans changed the state"
    );
    let more = edit(vec![Change::LastSeqNo(SeqNo(1000))]);
    let after = state.apply(&more, tables).unwrap();
    manifest.append(&more, &after).unwrap();
    manifest.close(Lsn(5)).unwrap();
    let names = names(tables);
    assert_eq!(names.len(), 2, "{names:?}");
    facts(&after)
}

#[test]
fn every_crash_leaves_the_state_before_or_after() {
    let (env, tables) = store();
    let edits = life();
    let states = states(&tables, &edits);
    env.record(true);
    let mut manifest = Manifest::create(&tables, &states[0]).unwrap();
    let mut acked = vec![env.io_count()];
    put_tables(&env, &tables);
    for (edit, after) in edits.iter().zip(&states[1..]) {
        manifest.append(edit, after).unwrap();
        acked.push(env.io_count());
    }
    manifest.close(Lsn(9)).unwrap();
    env.record(false);
    let mut images = env.take_recorded();
    images.push((env.io_count(), env.capture()));
    assert!(manifest.bytes_written() > 2 * (66 << 10));

    let facts: Vec<_> = states.iter().map(facts).collect();
    let mut count = 0;
    for (index, image) in &images {
        let done = acked.iter().filter(|io| *io <= index).count();
        let mut allowed = vec![facts.get(done).cloned()];
        allowed.push(done.checked_sub(1).map(|last| facts[last].clone()));
        allowed.retain(|facts| done == 0 || facts.is_some());
        for &policy in CrashPolicy::ALL {
            for seed in 0..6 {
                let what = format!("CRASH_AT={index} POLICY={policy:?} SEED={seed}");
                let crashed = image.crash(policy, seed);
                let tables = store_in(&crashed);
                let before = found(&tables);
                assert!(allowed.contains(&before), "{what}");
                crashed.record(true);
                let after = go_on(&crashed, &tables);
                crashed.record(false);
                assert_eq!(found(&tables), Some(after.clone()), "{what}");
                for (inner, image) in crashed.take_recorded() {
                    let twice =
                        image.crash(CrashPolicy::ALL[usize::try_from(seed).unwrap() + 3], seed);
                    let found = found(&store_in(&twice));
                    assert!(
                        found == before || found.as_ref() == Some(&after),
                        "{what}, then at {inner}"
                    );
                    count += 1;
                }
                count += 1;
            }
        }
    }
    assert!(count > 10_000, "only {count} images");
}

#[test]
fn a_failed_io_never_loses_what_was_reported_done() {
    let mut failures = 0;
    for &kind in FaultKind::ALL {
        for goes_on in [false, true] {
            for at in 0.. {
                let (env, tables) = store();
                let plan = if goes_on {
                    FaultPlan::starting
                } else {
                    FaultPlan::once
                };
                env.set_fault(plan(at, kind));
                let allowed = live_with_faults(&env, &tables);
                if env.fault_count() == 0 {
                    break;
                }
                failures += 1;
                env.clear_faults();
                let image = env.capture();
                for &policy in CrashPolicy::ALL {
                    let crashed = image.crash(policy, at);
                    let tables = store_in(&crashed);
                    let found = found(&tables);
                    let what = format!("FAULT_AT={at} {kind:?} on={goes_on} POLICY={policy:?}");
                    assert!(allowed.contains(&found), "{what}");
                    go_on(&crashed, &tables);
                }
            }
        }
    }
    assert!(failures > 200, "only {failures} failures");
}

/// Lives as far as faults allow and returns what may be found afterwards.
fn live_with_faults(env: &SimEnv, tables: &TableStore) -> Vec<Option<Vec<u8>>> {
    let mut state = first_state();
    let mut allowed = vec![None, Some(facts(&state))];
    let Ok(mut manifest) = Manifest::create(tables, &state) else {
        return allowed;
    };
    allowed.remove(0);
    put_tables(env, tables);
    for edit in life() {
        // An edit that needs one that failed cannot be made.
        let Ok(after) = state.apply(&edit, tables) else {
            continue;
        };
        match manifest.append(&edit, &after) {
            Ok(()) => {
                allowed = vec![Some(facts(&after))];
                state = after;
            }
            Err(error) => {
                allowed.push(Some(facts(&after)));
                if error.kind() == ErrorKind::Poisoned {
                    let again = manifest.append(&edit, &after).unwrap_err();
                    assert_eq!(again.kind(), ErrorKind::Poisoned);
                    assert_eq!(
                        manifest.close(Lsn(1)).unwrap_err().kind(),
                        ErrorKind::Poisoned
                    );
                    return allowed;
                }
                assert_eq!(error.kind(), ErrorKind::Io);
            }
        }
    }
    let _ = manifest.close(Lsn(1));
    allowed
}

#[test]
fn a_full_disk_is_survived_once_there_is_room() {
    let (env, tables) = store();
    let mut manifest = Manifest::create(&tables, &first_state()).unwrap();
    put_tables(&env, &tables);
    let edits = life();
    let states = states(&tables, &edits);
    manifest.append(&edits[0], &states[1]).unwrap();
    env.set_capacity(Some(0));
    for _ in 0..3 {
        let error = manifest.append(&edits[1], &states[2]).unwrap_err();
        assert_eq!(
            error.io_kind(),
            Some(std::io::ErrorKind::StorageFull),
            "{error}"
        );
    }
    assert_eq!(
        find(&tables).map(|state| facts(&state)),
        Some(facts(&states[1]))
    );
    env.set_capacity(None);
    manifest.append(&edits[1], &states[2]).unwrap();
    assert_eq!(found(&tables), Some(facts(&states[2])));
    assert_eq!(names(&tables).len(), 2, "{:?}", names(&tables));
}

#[test]
fn damage_to_a_closed_store_is_found_or_harmless() {
    let (env, tables) = store();
    let mut edits = life();
    edits.remove(4);
    let states = states(&tables, &edits);
    let mut manifest = Manifest::create(&tables, &states[0]).unwrap();
    put_tables(&env, &tables);
    for (edit, after) in edits.iter().zip(&states[1..]) {
        manifest.append(edit, after).unwrap();
    }
    manifest.close(Lsn(9)).unwrap();
    let whole = found(&tables).unwrap();
    let manifest = manifest_name(FIRST_MANIFEST);
    let check = |what: &str| match Manifest::open(&tables) {
        Ok((_, state, current)) => {
            assert_eq!(facts(&state), whole, "{what}");
            assert!(current.clean && current.wal_end == Lsn(9));
        }
        Err(error) => assert_ne!(error.kind(), ErrorKind::NotFound, "{what}"),
    };
    for name in [CURRENT_NAME, &manifest] {
        let path = tables.dir.join(name);
        let bytes = env.file_bytes(&path).unwrap();
        for pos in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[pos] ^= flip;
                env.set_file_bytes(&path, damaged);
                check(&format!("{name}: byte {pos} flipped by {flip:#x}"));
            }
            env.set_file_bytes(&path, &bytes[..pos]);
            check(&format!("{name}: cut to {pos}"));
            if name != CURRENT_NAME {
                assert!(Manifest::open(&tables).is_err(), "{name}: cut to {pos}");
            }
        }
        env.set_file_bytes(&path, [&bytes[..], &[0; 100]].concat());
        check(&format!("{name}: too long"));
        env.set_file_bytes(&path, &bytes);
    }
    assert_eq!(found(&tables), Some(whole.clone()));
}

#[test]
fn what_is_missing_or_of_another_length_is_named() {
    let (env, tables) = store();
    let mut manifest = Manifest::create(&tables, &first_state()).unwrap();
    put_tables(&env, &tables);
    let edits = life();
    let states = states(&tables, &edits);
    manifest.append(&edits[0], &states[1]).unwrap();
    manifest.append(&edits[1], &states[2]).unwrap();
    let refused = |name: &str, why: &str| {
        let error = Manifest::open(&tables).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert!(
            error.to_string().contains(name) && error.to_string().contains(why),
            "{error}"
        );
    };
    let (table, current) = (tables.path(1), tables.dir.join(CURRENT_NAME));
    env.set_file_bytes(&table, [0; 3]);
    refused("00000001.sst", "3 bytes long");
    env.remove_file(&table).unwrap();
    refused("00000001.sst", "");
    env.set_file_bytes(&table, TABLE_BYTES);
    let bytes = env.file_bytes(&current).unwrap();
    env.remove_file(&current).unwrap();
    refused("00000001.sst", "CURRENT is missing");
    env.set_file_bytes(&current, &bytes);
    env.remove_file(&tables.dir.join(manifest_name(1))).unwrap();
    refused("MANIFEST-00000001", "");
}

#[test]
fn a_lost_current_is_never_an_empty_store() {
    let (env, tables) = store();
    let mut manifest = Manifest::create(&tables, &first_state()).unwrap();
    let current = tables.dir.join(CURRENT_NAME);
    let bytes = env.file_bytes(&current).unwrap();
    // As a creation that crashed: nothing is lost.
    env.remove_file(&current).unwrap();
    env.set_file_bytes(&tables.dir.join(wal::segment_name(1)), [1; 20]);
    assert_eq!(find(&tables).map(|_| ()), None);
    env.set_file_bytes(&tables.dir.join(wal::segment_name(1)), [1; 200]);
    let error = detect(&env, &tables.dir).unwrap_err();
    assert!(error.to_string().contains("00000001.wal"), "{error}");
    env.remove_file(&tables.dir.join(wal::segment_name(1)))
        .unwrap();
    // One edit is enough to lose.
    env.set_file_bytes(&current, &bytes);
    let edits = life();
    manifest
        .append(&edits[0], &first_state().apply(&edits[0], &tables).unwrap())
        .unwrap();
    env.remove_file(&current).unwrap();
    let error = remove_leftovers(&env, &tables.dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("MANIFEST-00000001"), "{error}");
    assert!(Manifest::create(&tables, &first_state()).is_err());
}

#[test]
fn presence_tells_absent_present_and_foreign() {
    let (env, tables) = store();
    let presence = || detect(&env, &tables.dir);
    assert_eq!(presence().unwrap(), Presence::Absent);
    assert_eq!(
        Manifest::open(&tables).map(|_| ()).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    env.set_file_bytes(&tables.dir.join("notes.txt"), b"mine");
    assert_eq!(
        presence().unwrap(),
        Presence::Foreign(vec!["notes.txt".to_owned()])
    );
    remove_leftovers(&env, &tables.dir).unwrap();
    Manifest::create(&tables, &first_state()).unwrap();
    assert_eq!(presence().unwrap(), Presence::Present);
    for refused in [
        Manifest::create(&tables, &first_state()).map(|_| ()),
        remove_leftovers(&env, &tables.dir),
        detect(&env, &tables.dir.join("notes.txt")).map(|_| ()),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(
        env.file_bytes(&tables.dir.join("notes.txt")).unwrap(),
        b"mine"
    );
}

#[test]
fn only_orphans_go_and_numbers_are_never_given_twice() {
    let (env, tables) = store();
    let mut manifest = Manifest::create(&tables, &first_state()).unwrap();
    let change = edit(vec![create(0, "a"), add(0, 1, 0, meta(4, "a", "b", 1, 2))]);
    let after = first_state().apply(&change, &tables).unwrap();
    env.set_file_bytes(&tables.path(4), TABLE_BYTES);
    manifest.append(&change, &after).unwrap();
    manifest.close(Lsn::ZERO).unwrap();
    let put = |name: &str| env.set_file_bytes(&tables.dir.join(name), b"x");
    let (go, stay) = (
        ["00000003.sst", "MANIFEST-00000009", "CURRENT.tmp"],
        ["00000005.sst", "3.sst", "00000001.wal", "LOCK"],
    );
    go.iter().chain(&stay).for_each(|name| put(name));
    let (mut manifest, state, current) = Manifest::open(&tables).unwrap();
    assert!(current.clean);
    assert_eq!(state.next_file, 6);
    assert_eq!(
        manifest.orphans().len(),
        go.len(),
        "{:?}",
        manifest.orphans()
    );
    manifest.remove_orphans().unwrap();
    let names = env.list_dir(&tables.dir).unwrap();
    assert!(
        go.iter().all(|gone| !names.iter().any(|name| name == gone)),
        "{names:?}"
    );
    assert!(
        stay.iter()
            .all(|kept| names.iter().any(|name| name == kept)),
        "{names:?}"
    );
    assert!(names.contains(&manifest_name(10)), "{names:?}");
    // By now the number is one that was given out.
    let (manifest, ..) = Manifest::open(&tables).unwrap();
    assert_eq!(manifest.orphans(), [tables.path(5)]);
}

#[test]
fn a_quiet_open_and_close_writes_only_current() {
    let (env, tables) = store();
    let mut manifest = Manifest::create(&tables, &first_state()).unwrap();
    manifest.close(Lsn(3)).unwrap();
    let reads_only = env.io_count();
    let (mut manifest, _, current) = Manifest::open(&tables).unwrap();
    assert_eq!(env.io_count(), reads_only);
    assert!(current.clean && current.wal_end == Lsn(3) && current.wal_id == 88);
    manifest.close(Lsn(4)).unwrap();
    assert_eq!(manifest.bytes_written(), CURRENT_LEN as u64);
    assert_eq!(manifest.settle().unwrap_err().kind(), ErrorKind::Closed);
    let (mut manifest, state, current) = Manifest::open(&tables).unwrap();
    assert_eq!(
        (current.manifest, current.wal_end),
        (FIRST_MANIFEST, Lsn(4))
    );
    // Another write-ahead log forgets the end of the last one.
    let change = edit(vec![Change::WalId(99)]);
    manifest
        .append(&change, &state.apply(&change, &tables).unwrap())
        .unwrap();
    let current = Current::read(&env, &tables.dir).unwrap();
    assert_eq!(
        (current.wal_id, current.wal_end, current.clean),
        (99, Lsn::ZERO, false)
    );
    assert_eq!(names(&tables), [CURRENT_NAME, "MANIFEST-00000002"]);
    assert!(
        !env.files()
            .contains(&Path::new("/data/store/CURRENT.tmp").to_path_buf())
    );
}

#[test]
fn what_an_open_has_seen_survives_its_clean_close() {
    for with_orphans in [false, true] {
        let (env, tables) = store();
        let mut manifest = Manifest::create(&tables, &first_state()).unwrap();
        put_tables(&env, &tables);
        let edits = life();
        let states = states(&tables, &edits);
        manifest.append(&edits[0], &states[1]).unwrap();
        // The write of the next edit succeeds, its sync fails, and the process dies.
        env.set_fault(FaultPlan::once(env.io_count() + 1, FaultKind::Eio));
        let error = manifest.append(&edits[1], &states[2]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
        drop(manifest);
        let (mut manifest, seen, _) = Manifest::open(&tables).unwrap();
        assert_eq!(facts(&seen), facts(&states[2]));
        if with_orphans {
            env.set_file_bytes(&tables.dir.join("CURRENT.tmp"), b"");
            let (mut manifest, ..) = Manifest::open(&tables).unwrap();
            manifest.remove_orphans().unwrap();
        } else {
            manifest.close(Lsn::ZERO).unwrap();
        }
        let after = env.capture().crash(CrashPolicy::MaxLoss, 1);
        assert_eq!(found(&store_in(&after)), Some(facts(&seen)));
    }
}
