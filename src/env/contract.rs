//! What every environment promises, checked on each of them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sim::SimEnv;
use super::{Env, OsEnv, create_dir_all, read_file};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, AtomicBool, Ordering};

/// Runs `check` in an empty directory of each environment.
fn on_each(check: impl Fn(&dyn Env, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    check(&OsEnv::new(), directory.path());
    let sim = SimEnv::new(1);
    let directory = PathBuf::from("/work");
    sim.create_dir(&directory).unwrap();
    check(&sim, &directory);
}

#[track_caller]
fn fails<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("must fail"),
        Err(error) => error,
    }
}

#[track_caller]
fn fails_with<T>(result: Result<T>, kind: io::ErrorKind, path: &Path) {
    let error = fails(result);
    assert_eq!(error.io_kind(), Some(kind), "{error}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    let is_missing = kind == io::ErrorKind::NotFound;
    assert_eq!(error.kind() == ErrorKind::NotFound, is_missing, "{error:?}");
}

fn put(env: &dyn Env, path: &Path, bytes: &[u8]) {
    env.create_new(path)
        .unwrap()
        .write_all_at(0, bytes)
        .unwrap();
}

fn get(env: &dyn Env, path: &Path) -> Vec<u8> {
    read_file(env, path, 1 << 20).unwrap()
}

#[test]
fn a_file_is_written_and_read_by_position() {
    on_each(|env, dir| {
        let path = dir.join("a");
        let file = env.create_new(&path).unwrap();
        assert!(file.map(0).is_none());
        file.write_all_at(0, b"hello").unwrap();
        file.write_all_at(8, b"you").unwrap();
        file.write_all_at(0, b"").unwrap();
        assert_eq!(file.len().unwrap(), 11);
        assert_eq!(get(env, &path), b"hello\0\0\0you");
        file.set_len(3).unwrap();
        file.set_len(6).unwrap();
        file.sync().unwrap();
        env.sync_dir(dir).unwrap();
        assert_eq!(get(env, &path), b"hel\0\0\0");

        let reader = env.open(&path).unwrap();
        let mut two = [0; 2];
        reader.read_exact_at(1, &mut two).unwrap();
        assert_eq!(&two, b"el");
        reader.read_exact_at(9, &mut []).unwrap();
        fails_with(
            reader.read_exact_at(5, &mut two),
            io::ErrorKind::UnexpectedEof,
            &path,
        );
        fails_with(
            reader.read_exact_at(90, &mut two),
            io::ErrorKind::UnexpectedEof,
            &path,
        );
        assert_eq!(fails(reader.write_all_at(0, b"x")).kind(), ErrorKind::Io);
        assert_eq!(fails(reader.set_len(0)).kind(), ErrorKind::Io);
        env.open_write(&path)
            .unwrap()
            .write_all_at(0, b"H")
            .unwrap();
        assert_eq!(get(env, &path), b"Hel\0\0\0");
        assert_eq!(
            fails(file.write_all_at(u64::MAX - 1, b"far")).kind(),
            ErrorKind::Io
        );
        assert_eq!(fails(file.set_len(u64::MAX)).kind(), ErrorKind::Io);
        assert_eq!(file.len().unwrap(), 6);
        assert_eq!(
            fails(read_file(env, &path, 5)).kind(),
            ErrorKind::Corruption
        );
    });
}

#[test]
fn a_map_shows_the_file() {
    on_each(|env, dir| {
        let path = dir.join("a");
        put(env, &path, b"some bytes");
        let file = env.open(&path).unwrap();
        assert!(file.map(0).is_none());
        assert!(file.map(11).is_none(), "longer than the file");
        if let Some(mapped) = file.map(4) {
            drop(file);
            env.remove_file(&path).unwrap();
            assert_eq!(mapped, b"some");
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    put(&OsEnv::new(), &path, b"some bytes");
    let mapped = OsEnv::new().open(&path).unwrap().map(10);
    assert_eq!(mapped.expect("maps"), b"some bytes");
}

#[test]
fn what_is_written_through_a_shared_map_is_the_files() {
    on_each(|env, dir| {
        let path = dir.join("a");
        put(env, &path, &[b'.'; 10_000]);
        assert!(
            env.open(&path).unwrap().map_shared(10).is_none(),
            "read only"
        );
        let file = env.open_write(&path).unwrap();
        assert!(file.map_shared(0).is_none());
        assert!(file.map_shared(10_001).is_none(), "longer than the file");
        let Some(mut map) = file.map_shared(9000) else {
            return;
        };
        drop(file);
        map.write(0, b"first");
        map.write(4090, b"over a page's end");
        map.write(8995, b"last.");
        map.write(8999, b"!");
        map.write(9000, b"");
        let mut expected = vec![b'.'; 10_000];
        expected[..5].copy_from_slice(b"first");
        expected[4090..4107].copy_from_slice(b"over a page's end");
        expected[8995..9000].copy_from_slice(b"last!");
        assert_eq!(get(env, &path), expected);
        let beyond = std::panic::AssertUnwindSafe(|| map.write(8999, b"no"));
        assert!(std::panic::catch_unwind(beyond).is_err());
        assert_eq!(get(env, &path), expected);
        // The file outlives its name, and the map both.
        env.remove_file(&path).unwrap();
        map.write(0, b"again");
    });
}

#[test]
fn the_system_maps_what_is_overwritten_in_place() {
    // Linux has a file system in memory, where such maps work, wherever tests run.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("a");
    let file = OsEnv::new().create_new(&path).unwrap();
    file.write_all_at(0, &[0; 100]).unwrap();
    let mut map = file.map_shared(100).expect("maps");
    map.write(10, b"bytes");
    assert_eq!(get(&OsEnv::new(), &path)[9..16], *b"\0bytes\0");
    // This one has no place at all for the bytes of its files.
    let proc = OsEnv::new()
        .open_write(Path::new("/proc/self/comm"))
        .unwrap();
    assert!(proc.map_shared(1).is_none());
}

#[test]
fn paths_that_cannot_be_used_are_told_apart() {
    on_each(|env, dir| {
        let file = dir.join("file");
        let missing = dir.join("missing");
        let below_file = file.join("x");
        let other_dir = dir.join("dir");
        env.create_dir(&other_dir).unwrap();
        put(env, &file, b"1");
        fails_with(env.create_new(&file), io::ErrorKind::AlreadyExists, &file);
        fails_with(env.create_dir(&file), io::ErrorKind::AlreadyExists, &file);
        fails_with(
            env.create_new(&missing.join("x")),
            io::ErrorKind::NotFound,
            &missing,
        );
        fails_with(
            env.create_new(&below_file),
            io::ErrorKind::NotADirectory,
            &file,
        );
        fails_with(env.open(&missing), io::ErrorKind::NotFound, &missing);
        fails_with(env.open_write(&missing), io::ErrorKind::NotFound, &missing);
        fails_with(env.open(dir), io::ErrorKind::IsADirectory, dir);
        fails_with(env.open_write(dir), io::ErrorKind::IsADirectory, dir);
        fails_with(env.metadata(&missing), io::ErrorKind::NotFound, &missing);
        fails_with(env.list_dir(&missing), io::ErrorKind::NotFound, &missing);
        fails_with(env.list_dir(&file), io::ErrorKind::NotADirectory, &file);
        fails_with(env.sync_dir(&missing), io::ErrorKind::NotFound, &missing);
        fails_with(env.sync_dir(&file), io::ErrorKind::NotADirectory, &file);
        fails_with(env.remove_file(&missing), io::ErrorKind::NotFound, &missing);
        fails_with(env.remove_dir(&missing), io::ErrorKind::NotFound, &missing);
        fails_with(env.remove_dir(&file), io::ErrorKind::NotADirectory, &file);
        fails_with(env.remove_dir(dir), io::ErrorKind::DirectoryNotEmpty, dir);
        fails_with(
            env.rename(&missing, &file),
            io::ErrorKind::NotFound,
            &missing,
        );
        fails_with(
            env.rename(&file, &other_dir),
            io::ErrorKind::IsADirectory,
            &file,
        );
        fails_with(
            env.hard_link(&missing, &file),
            io::ErrorKind::NotFound,
            &missing,
        );
        fails_with(
            env.hard_link(&file, &file),
            io::ErrorKind::AlreadyExists,
            &file,
        );
        fails_with(
            env.lock(&missing.join("x")),
            io::ErrorKind::NotFound,
            &missing,
        );
        assert_eq!(get(env, &file), b"1");
    });
}

#[test]
fn names_come_go_and_move() {
    on_each(|env, dir| {
        let (a, b, c) = (dir.join("a"), dir.join("b"), dir.join("sub/c"));
        create_dir_all(env, &dir.join("sub/deep")).unwrap();
        create_dir_all(env, &dir.join("sub/deep")).unwrap();
        put(env, &b, b"B");
        put(env, &a, b"A");
        assert_eq!(env.list_dir(dir).unwrap(), ["a", "b", "sub"]);
        assert!(env.metadata(&dir.join("sub")).unwrap().is_dir);
        let found = env.metadata(&a).unwrap();
        assert_eq!((found.len, found.is_dir), (1, false));

        let replaced = env.open(&b).unwrap();
        env.rename(&a, &b).unwrap();
        assert_eq!(env.list_dir(dir).unwrap(), ["b", "sub"]);
        assert_eq!(get(env, &b), b"A");
        let mut byte = [0];
        replaced.read_exact_at(0, &mut byte).unwrap();
        assert_eq!(&byte, b"B", "an open file outlives its name");

        env.hard_link(&b, &c).unwrap();
        env.rename(&b, &c).unwrap();
        assert_eq!(get(env, &b), b"A", "two names of one file: nothing moves");
        env.open_write(&c).unwrap().write_all_at(0, b"Z").unwrap();
        assert_eq!(get(env, &b), b"Z");
        env.remove_file(&b).unwrap();
        assert_eq!(get(env, &c), b"Z");
        env.rename(&c, &a).unwrap();
        env.remove_dir(&dir.join("sub/deep")).unwrap();
        env.remove_dir(&dir.join("sub")).unwrap();
        env.sync_dir(dir).unwrap();
        assert_eq!(env.list_dir(dir).unwrap(), ["a"]);
        assert_eq!(get(env, &a), b"Z");
        replaced.read_exact_at(0, &mut byte).unwrap();
    });
}

#[test]
fn a_lock_has_one_holder() {
    on_each(|env, dir| {
        let path = dir.join("LOCK");
        let guard = env.lock(&path).unwrap();
        let refused = fails(env.lock(&path));
        assert_eq!(refused.kind(), ErrorKind::Locked);
        assert!(
            refused.to_string().contains(path.to_str().unwrap()),
            "{refused}"
        );
        let other = env.lock(&dir.join("OTHER")).unwrap();
        // An unrelated handle that closes must not free the lock.
        drop(env.open(&path).unwrap());
        assert_eq!(fails(env.lock(&path)).kind(), ErrorKind::Locked);
        drop(guard);
        let guard = env.lock(&path).unwrap();
        assert_eq!(fails(env.lock(&path)).kind(), ErrorKind::Locked);
        drop((guard, other));
        env.remove_file(&path).unwrap();
    });
}

#[test]
fn threads_run_and_end_also_by_a_panic() {
    on_each(|env, _| {
        let ran = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ran);
        let body = move || {
            let name = std::thread::current().name().map(str::to_owned);
            assert_eq!(name.as_deref(), Some("siltstone-test"));
            seen.store(true, Ordering::Release);
        };
        env.spawn("test", Box::new(body)).unwrap().join();
        assert!(ran.load(Ordering::Acquire));
        env.spawn("test", Box::new(|| panic!("as it should")))
            .unwrap()
            .join();
    });
}

#[test]
fn clocks_and_randomness_move() {
    on_each(|env, dir| {
        let (wall, start) = (env.wall_clock_ms(), env.monotonic());
        assert!(wall > 1_750_000_000_000, "{wall}");
        put(env, &dir.join("a"), b"a");
        assert!(env.monotonic() > start);
        assert!(env.monotonic() < start + Duration::from_secs(600));
        assert_ne!(env.random_u64(), env.random_u64());
    });
}

#[test]
fn names_that_are_not_text_are_left_alone() {
    use std::os::unix::ffi::OsStrExt;

    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    std::fs::write(&odd, b"x").unwrap();
    put(&OsEnv::new(), &dir.path().join("plain"), b"x");
    assert_eq!(OsEnv::new().list_dir(dir.path()).unwrap(), ["plain"]);
    assert_eq!(fails(SimEnv::new(1).create_new(&odd)).kind(), ErrorKind::Io);
}
