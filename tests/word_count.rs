//! The example `word_count`, run as a user runs it, killed, and robbed of its files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Where cargo puts examples, seen from the test.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let name = format!("word_count{}", std::env::consts::EXE_SUFFIX);
    let binary = test
        .ancestors()
        .nth(2)
        .expect("target/debug")
        .join("examples")
        .join(name);
    assert!(
        binary.exists(),
        "{} is missing: run all tests, or `cargo build --example word_count` first",
        binary.display()
    );
    binary
}

/// Pseudorandom numbers that are the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }
}

/// A directory with input, and room for state and changelog.
struct Place {
    dir: TempDir,
}

impl Place {
    /// Fills `input` with about two megabytes in files of many sizes.
    fn new(seed: u64) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let mut random = Random(seed);
        fs::create_dir_all(place.path("input/sub/deep")).unwrap();
        for number in 0..40 {
            let folder = ["", "sub/", "sub/deep/"][usize::try_from(random.below(3)).unwrap()];
            let words = [3, 50, 20_000][usize::try_from(random.below(3)).unwrap()];
            fs::write(
                place.path(&format!("input/{folder}{number}.txt")),
                text(&mut random, words),
            )
            .unwrap();
        }
        fs::write(place.path("input/empty"), b"").unwrap();
        fs::write(place.path("input/no-words"), b"1234 \xff\xfe\n").unwrap();
        // Longer than what is read at once, and than a key may be.
        let long = [&b"Start "[..], &b"Q".repeat(600_000), b" end"].concat();
        fs::write(place.path("input/long"), long).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--state").arg(self.path("state"));
        command.arg("--changelog").arg(self.path("changelog"));
        command.args(args).stdin(Stdio::null());
        command
    }

    /// What a run to the end prints.
    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        let (out, err) = (text_of(output.stdout), text_of(output.stderr));
        assert!(output.status.success(), "{err}");
        out
    }

    #[track_caller]
    fn dump(&self) -> String {
        self.run(&["--dump", self.path("input").to_str().unwrap()])
    }

    /// Begins a run and kills it after so long.
    fn run_and_kill(&self, after: Duration) {
        let input = self.path("input");
        let args = ["--commit-bytes", "30000", "--dump", input.to_str().unwrap()];
        let mut command = self.command(&args);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let (ended, end) = mpsc::channel();
        let listener = thread::spawn(move || {
            let mut err = String::new();
            stderr.read_to_string(&mut err).unwrap();
            let _ = ended.send(());
            err
        });
        // It may come to its end before, but it never fails.
        let _ = end.recv_timeout(after);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let err = listener.join().unwrap();
        assert!(status.success() || status.code().is_none(), "{err}");
    }

    /// The newest segment of the changelog.
    fn last_segment(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.path("changelog/task-word-count-0")).ok()?;
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|name| name == "log"))
            .max()
    }

    fn expected(&self) -> String {
        let mut counts = BTreeMap::new();
        count_dir(&self.path("input"), &mut counts);
        list(&counts)
    }
}

fn listed(bytes: &[u8]) -> String {
    let mut counts = BTreeMap::new();
    count_bytes(bytes, &mut counts);
    list(&counts)
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().fold(String::new(), |mut out, (word, count)| {
        writeln!(out, "{count}\t{word}").unwrap();
        out
    })
}

fn text(random: &mut Random, words: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..words {
        // Some words are frequent, many are rare.
        let limit = [20, 1000, 1_000_000][usize::try_from(random.below(3)).unwrap()];
        let mut number = random.below(limit) + 1;
        while number > 0 {
            let base = if random.below(4) == 0 { b'A' } else { b'a' };
            out.push(base + u8::try_from(number % 26).unwrap());
            number /= 26;
        }
        let between = [" ", "\n", ", ", "7", "é", "-", "\0"];
        out.extend_from_slice(between[usize::try_from(random.below(7)).unwrap()].as_bytes());
    }
    if random.below(2) == 0 {
        // The end of the file ends this word.
        out.extend_from_slice(b"atTheEnd");
    }
    out
}

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

fn count_dir(dir: &Path, counts: &mut BTreeMap<String, u64>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count_dir(&path, counts);
        } else {
            count_bytes(&fs::read(&path).unwrap(), counts);
        }
    }
}

fn count_bytes(bytes: &[u8], counts: &mut BTreeMap<String, u64>) {
    for word in bytes
        .split(|byte| !byte.is_ascii_alphabetic())
        .filter(|word| !word.is_empty())
    {
        let word = &word[..word.len().min(65_535)];
        let word = text_of(word.to_ascii_lowercase());
        *counts.entry(word).or_default() += 1;
    }
}

#[test]
fn every_word_is_counted_once_however_often_it_runs() {
    let place = Place::new(1);
    let expected = place.expected();
    assert_eq!(place.dump(), expected);
    assert_eq!(place.dump(), expected);
    // Files that are new or longer are counted on.
    fs::write(place.path("input/0-new"), "new words").unwrap();
    let path = place.path("input/no-words");
    fs::OpenOptions::new()
        .append(true)
        .open(path)
        .unwrap()
        .write_all(b"words now")
        .unwrap();
    assert_eq!(place.dump(), place.expected());
    fs::write(place.path("input/0-new"), "new").unwrap();
    let output = place
        .command(&["--dump", place.path("input").to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of(output.stderr).contains("0-new ends before byte 9"));
}

#[test]
fn the_most_frequent_come_first() {
    let place = Place::new(2);
    let input = place.path("few");
    fs::write(&input, "b a c B, C b d").unwrap();
    let input = input.to_str().unwrap();
    assert_eq!(place.run(&["--top", "3", input]), "3\tb\n2\tc\n1\ta\n");
    assert_eq!(place.run(&["--top", "0", input, input]), "");
    assert_eq!(place.run(&[input]), "3\tb\n2\tc\n1\ta\n1\td\n");
}

#[test]
fn stdin_is_skipped_up_to_where_it_was_counted() {
    let place = Place::new(3);
    let whole = text(&mut Random(77), 100_000);
    // The end of the input ends a word, so the first part ends between two.
    let space = |byte: &u8| *byte == b' ';
    let part = &whole[..=whole[..whole.len() / 2].iter().rposition(space).unwrap()];
    let begin = |args: &[&str]| {
        let mut command = place.command(&[&["--commit-bytes", "9999"], args].concat());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        (child, stdin)
    };
    let feed = |bytes: &[u8]| {
        let (child, mut stdin) = begin(&["--dump"]);
        let bytes = bytes.to_vec();
        let feeder = thread::spawn(move || stdin.write_all(&bytes));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap().unwrap();
        text_of(output.stdout)
    };
    assert_eq!(feed(part), listed(part));
    // Killed in the midst of the rest, wherever that is.
    let (mut child, mut stdin) = begin(&["-"]);
    stdin.write_all(&whole[..whole.len() - 1000]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(feed(&whole), listed(&whole));
}

#[test]
fn kills_lose_and_double_nothing() {
    for seed in 1..=2 {
        let place = Place::new(100 + seed);
        let mut random = Random(seed);
        for _ in 0..12 {
            place.run_and_kill(Duration::from_millis(random.below(40)));
        }
        assert_eq!(place.dump(), place.expected(), "seed {seed}");
    }
}

#[test]
fn a_state_that_vanishes_is_made_again() {
    let place = Place::new(200);
    let mut random = Random(200);
    for round in 0..9 {
        place.run_and_kill(Duration::from_millis(5 + random.below(30)));
        if round % 3 == 2 {
            fs::remove_dir_all(place.path("state")).unwrap_or_default();
        }
    }
    assert_eq!(place.dump(), place.expected());
    fs::remove_dir_all(place.path("state")).unwrap();
    let output = place
        .command(&["--dump", place.path("input").to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(text_of(output.stdout), place.expected());
    let told = text_of(output.stderr);
    assert!(told.contains("restored counts: full; "), "{told}");
}

#[test]
fn what_a_crash_leaves_behind_the_end_of_the_changelog_does_not_count() {
    let place = Place::new(300);
    let mut random = Random(300);
    for _ in 0..8 {
        place.run_and_kill(Duration::from_millis(5 + random.below(30)));
        let Some(segment) = place.last_segment() else {
            continue;
        };
        let garbage: Vec<u8> = (0..random.below(300))
            .map(|byte| (byte % 251) as u8)
            .collect();
        fs::OpenOptions::new()
            .append(true)
            .open(segment)
            .unwrap()
            .write_all(&garbage)
            .unwrap();
        if random.below(3) == 0 {
            fs::remove_dir_all(place.path("state")).unwrap_or_default();
        }
    }
    assert_eq!(place.dump(), place.expected());
}

#[test]
fn a_foreign_changelog_is_refused_until_a_rebuild_is_asked_for() {
    let place = Place::new(400);
    let input = place.path("few");
    fs::write(&input, "one two two").unwrap();
    let input = input.to_str().unwrap();
    place.run(&[input]);
    fs::remove_dir_all(place.path("changelog")).unwrap();
    let output = place.command(&[input]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = text_of(output.stderr);
    assert!(told.contains("ask for a rebuild"), "{told}");
    // The new changelog is empty, so everything is counted anew.
    assert_eq!(place.run(&["--rebuild", input]), "2\ttwo\n1\tone\n");
}
