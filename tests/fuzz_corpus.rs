//! The bodies of the fuzz targets, run with a stable compiler over the committed corpus and over
//! changed copies of it.
//!
//! `SILTSTONE_WRITE_CORPUS=1` writes the seeds into `fuzz/corpus/`. `SILTSTONE_SEED` repeats a
//! run with the seed that a failure has printed; `SILTSTONE_RUNS` sets how many changed copies of
//! the corpus each target gets.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

use std::path::{Path, PathBuf};
use std::{env, fs, panic};

use siltstone::fuzzing::{TARGETS, Target};

/// Longest input: longer ones only take time.
const INPUT_LEN_MAX: usize = 4096;

fn corpus_dir(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target.name)
}

/// The committed inputs and the seeds, which are the same unless something has changed.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    assert!(!inputs.is_empty(), "{} has no seeds", target.name);
    // A packaged crate comes without the corpus.
    if let Ok(entries) = fs::read_dir(corpus_dir(target)) {
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        inputs.extend(paths.iter().map(|path| fs::read(path).unwrap()));
    }
    inputs
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// `SplitMix64`, as in the public domain code by Sebastiano Vigna (2015).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// A copy with some changes of the kinds that fuzzers make.
    fn change(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(6) {
            let pos = self.below(input.len());
            match self.below(6) {
                0 if !input.is_empty() => input[pos] = self.byte(),
                1 if !input.is_empty() => input[pos] ^= 1 << self.below(8),
                2 => input.truncate(pos),
                3 => input.insert(pos, [0, 0x7f, 0x80, 0xff][self.below(4)]),
                4 => {
                    let other = &corpus[self.below(corpus.len())];
                    input.truncate(pos);
                    input.extend_from_slice(&other[self.below(other.len()).min(other.len())..]);
                }
                _ => input.extend((0..self.below(32)).map(|_| self.byte())),
            }
        }
        input.truncate(INPUT_LEN_MAX);
        input
    }
}

fn run(name: &str, runs: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    if env::var_os("SILTSTONE_WRITE_CORPUS").is_some() {
        fs::create_dir_all(corpus_dir(target)).unwrap();
        for (index, seed) in (target.seeds)().iter().enumerate() {
            fs::write(corpus_dir(target).join(format!("seed-{index:02}")), seed).unwrap();
        }
    }
    let corpus = corpus(target);
    for input in &corpus {
        (target.run)(input);
    }
    let seed = number("SILTSTONE_SEED").unwrap_or(1);
    let runs = number("SILTSTONE_RUNS").unwrap_or(runs);
    println!(
        "{name}: {} inputs, {runs} changed ones, SILTSTONE_SEED={seed}",
        corpus.len()
    );
    for run in 0..runs {
        let mut random = Random(seed.wrapping_mul(1 << 32).wrapping_add(run));
        let input = random.change(&corpus);
        if fails(target, &input) {
            let input = shrink(target, input);
            println!("{name}: run {run} fails, and so does {input:?}");
            (target.run)(&input);
        }
    }
}

fn fails(target: &Target, input: &[u8]) -> bool {
    panic::catch_unwind(|| (target.run)(input)).is_err()
}

/// Takes away what is not needed for the failure.
fn shrink(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut size = input.len() / 2;
    while size > 0 {
        let mut pos = 0;
        while pos + size <= input.len() {
            let mut less = input.clone();
            less.drain(pos..pos + size);
            if fails(target, &less) {
                input = less;
            } else {
                pos += size;
            }
        }
        size /= 2;
    }
    panic::set_hook(hook);
    input
}

#[test]
fn batch() {
    run("batch", 3000);
}

#[test]
fn block() {
    run("block", 2000);
}

#[test]
fn changelog_segment() {
    run("changelog_segment", 1000);
}

#[test]
fn coding() {
    run("coding", 3000);
}

#[test]
fn damaged_store() {
    run("damaged_store", 300);
}

#[test]
fn journal() {
    run("journal", 2000);
}

#[test]
fn kafka_batch() {
    run("kafka_batch", 3000);
}

#[test]
fn kafka_frame() {
    run("kafka_frame", 5000);
}

#[test]
fn manifest() {
    run("manifest", 3000);
}

#[test]
fn operations() {
    run("operations", 300);
}

#[test]
fn table() {
    run("table", 1000);
}

/// Each target is a program of `fuzz/`, and each runs here.
#[test]
fn every_target_is_wired_up() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("fuzz").is_dir() {
        // A packaged crate comes without the programs.
        return;
    }
    let tests = include_str!("fuzz_corpus.rs");
    for target in TARGETS {
        let name = target.name;
        assert!(
            tests.contains(&format!("run(\"{name}\", ")),
            "{name} does not run here"
        );
        let program = root.join(format!("fuzz/fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(program).unwrap();
        assert!(text.contains(&format!("fuzzing::{name}(data)")), "{name}");
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
