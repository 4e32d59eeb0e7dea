//! Files that are missing, empty, of another store, of another time, or no files.

use std::collections::BTreeSet;

use siltstone::ErrorKind;
use siltstone::env::Env;

use super::store::{self, Store, look, named, path};
use super::watchdog::within;

/// A segment that got no record before the close is not missed.
fn is_unused(store: &Store, name: &str) -> bool {
    name.contains(".wal") && store.bytes(name).len() <= super::forge::SEGMENT_HEADER_LEN
}

#[test]
fn a_missing_file_is_told() {
    let (store, runtime) = (Store::build(1), store::runtime());
    for name in store.all_names() {
        let env = store.copy();
        env.remove_file(&path(&name)).unwrap();
        let seen = look(&env, &runtime, &store.contents, &format!("{name} removed"));
        let is_harmless = name == "LOCK" || is_unused(&store, &name);
        assert_eq!(
            !seen.refused, is_harmless,
            "{name} removed: {:?}",
            seen.errors
        );
        for error in &seen.errors {
            assert_eq!(
                error.kind(),
                ErrorKind::Corruption,
                "{name} removed: {error}"
            );
        }
        if name.contains(".wal") {
            // Which files there were, a missing one cannot tell.
            assert!(
                seen.errors
                    .iter()
                    .all(|error| error.to_string().contains(".wal"))
            );
        } else {
            named(&seen, &name, "removed");
        }
        let after = look(&env, &runtime, &store.contents, "once more");
        assert_eq!(
            after.refused, seen.refused,
            "{name}: a failed open changed something"
        );
    }
}

#[test]
fn an_empty_file_or_a_directory_in_its_place_is_told() {
    let (store, runtime) = (Store::build(1), store::runtime());
    for name in store.all_names() {
        let env = store.copy();
        env.set_file_bytes(&path(&name), []);
        let seen = look(&env, &runtime, &store.contents, &format!("{name} emptied"));
        assert!(
            seen.refused || name == "LOCK" || is_unused(&store, &name),
            "{name} emptied"
        );
        named(&seen, &name, "emptied");

        let env = store.copy();
        env.remove_file(&path(&name)).unwrap();
        env.create_dir(&path(&name)).unwrap();
        let seen = look(
            &env,
            &runtime,
            &store.contents,
            &format!("{name} a directory"),
        );
        assert!(seen.refused, "{name} a directory");
        named(&seen, &name, "a directory");
    }
}

#[test]
fn files_that_change_places_are_told() {
    let (store, runtime) = (Store::build(1), store::runtime());
    for kind in [".sst", ".wal"] {
        let names = store.names(kind);
        for one in &names {
            for two in names.iter().filter(|two| two > &one) {
                let env = store.copy();
                env.set_file_bytes(&path(one), store.bytes(two));
                env.set_file_bytes(&path(two), store.bytes(one));
                let what = format!("{one} and {two} changed places");
                let seen = look(&env, &runtime, &store.contents, &what);
                assert!(!seen.errors.is_empty(), "{what}");
                for error in &seen.errors {
                    assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
                    let text = error.to_string();
                    assert!(text.contains(one) || text.contains(two), "{what}: {error}");
                }
            }
        }
    }
}

#[test]
fn files_of_another_store_are_told() {
    let (store, runtime) = (Store::build(1), store::runtime());
    let other = Store::build(2);
    assert_eq!(other.all_names(), store.all_names(), "only ids differ");
    assert_eq!(other.contents, store.contents);
    for name in store.all_names() {
        if name == "LOCK" {
            continue;
        }
        let env = store.copy();
        env.set_file_bytes(&path(&name), other.bytes(&name));
        let what = format!("{name} of another store");
        let seen = look(&env, &runtime, &store.contents, &what);
        assert!(!seen.errors.is_empty(), "{what}");
        for error in &seen.errors {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
        }
        if name != "CURRENT" {
            named(&seen, &name, &what);
        }
    }
}

#[test]
fn files_of_an_earlier_time_are_told_or_do_no_harm() {
    within(120, || {
        let (store, runtime) = (Store::build(1), store::runtime());
        let mut tried = BTreeSet::new();
        for name in store.all_names() {
            tried.insert((name.clone(), store.bytes(&name)));
            for image in &store.earlier {
                let Some(bytes) = image.file_bytes(&path(&name)) else {
                    continue;
                };
                if !tried.insert((name.clone(), bytes.clone())) {
                    continue;
                }
                let env = store.copy();
                env.set_file_bytes(&path(&name), bytes);
                let what = format!("an earlier {name}");
                let seen = look(&env, &runtime, &store.contents, &what);
                for error in &seen.errors {
                    assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
                }
            }
        }
        assert!(tried.len() > 50, "only {} versions of files", tried.len());
    });
}

#[test]
fn files_that_nobody_knows_are_kept_and_ignored() {
    let (store, runtime) = (Store::build(1), store::runtime());
    let env = store.copy();
    for name in [
        "notes.txt",
        "1.sst",
        "00000001.SST",
        "MANIFEST-1",
        "x.wal",
        "CURRENT.bak",
    ] {
        env.set_file_bytes(&path(name), "kept");
    }
    let seen = look(&env, &runtime, &store.contents, "unknown files");
    assert!(seen.errors.is_empty(), "{:?}", seen.errors);
    for name in [
        "notes.txt",
        "1.sst",
        "00000001.SST",
        "MANIFEST-1",
        "x.wal",
        "CURRENT.bak",
    ] {
        assert_eq!(env.file_bytes(&path(name)).unwrap(), b"kept", "{name}");
    }
    // Tables by our names that no edit knows are left over from a crash, if they are older.
    env.set_file_bytes(&path("00000001.sst"), "left over");
    let seen = look(&env, &runtime, &store.contents, "an orphan");
    assert!(seen.errors.is_empty(), "{:?}", seen.errors);
    let is_live = store.all_names().iter().any(|name| name == "00000001.sst");
    assert!(is_live || env.file_bytes(&path("00000001.sst")).is_none());
}
