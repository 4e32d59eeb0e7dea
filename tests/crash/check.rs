//! Opening what a crash left, and comparing it with what the model allows.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use siltstone::env::sim::{CrashPolicy, SimEnv, SimImage};
use siltstone::{Durability, WriteBatch};

use crate::model::{Hashes, History, Window, describe_trees, entry_hash};
use crate::operation::Setup;
use crate::random::mix;
use crate::store::{Files, Store};

/// One of so many images is also flushed, compacted and checked for files left behind.
const THOROUGH_EVERY: u64 = 4;
/// Policies of a crash during a recovery. Of one in `ALL_EVERY` of the recoveries that are crashed
/// at all, it is every policy.
const NESTED_POLICIES: [CrashPolicy; 4] = [
    CrashPolicy::Kill,
    CrashPolicy::MaxLoss,
    CrashPolicy::PrefixTorn,
    CrashPolicy::Subset(50),
];

const ALL_EVERY: u64 = 8;
/// A recovery that follows on the crash of another one may be crashed as well, and so on, down to
/// so many crashes in a row, each so many powers of two more seldom.
const DEPTH_MAX: u32 = 2;
const NESTED_SHIFT: u32 = 1;

/// What a store held that was opened after a crash, by the hash of the files' contents.
pub(crate) type Seen = HashMap<(u64, bool), Hashes>;

/// How many images were opened.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) crashes: u64,
    pub(crate) images: u64,
    /// Of crashed recoveries, and of those after them.
    pub(crate) nested_images: u64,
    pub(crate) deep_images: u64,
    /// Images whose recovery was crashed before each I/O under every policy.
    pub(crate) exhausted: u64,
}

impl Counts {
    fn count(&mut self, depth: u32) {
        match depth {
            0 => self.images += 1,
            1 => self.nested_images += 1,
            _ => self.deep_images += 1,
        }
    }

    pub(crate) fn all(&self) -> u64 {
        self.images + self.nested_images + self.deep_images
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.images += other.images;
        self.nested_images += other.nested_images;
        self.deep_images += other.deep_images;
        self.exhausted += other.exhausted;
    }
}

/// Where a check failed, for the reader of the report.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) place: String,
    pub(crate) message: String,
}

/// How many seeds a policy is tried with.
fn seeds(policy: CrashPolicy) -> u64 {
    match policy {
        CrashPolicy::PrefixTorn | CrashPolicy::Subset(_) => 2,
        _ => 1,
    }
}

/// Checks the images of a run under every policy.
pub(crate) struct Checker<'a> {
    /// Opens, uses and judges a disk; the number decides about details.
    pub(crate) inspect: &'a dyn Fn(&SimEnv, u64) -> Result<Hashes, String>,
    /// What a disk holds, for people.
    pub(crate) contents: &'a dyn Fn(&SimEnv) -> String,
    pub(crate) history: &'a History,
    pub(crate) is_faulty: bool,
    /// One of so many images is also crashed while it is recovered.
    pub(crate) nested_every: u64,
    pub(crate) seen: Seen,
    pub(crate) counts: Counts,
}

impl Checker<'_> {
    pub(crate) fn check_all(&mut self, io: u64, image: &SimImage) -> Result<(), Failure> {
        for &policy in CrashPolicy::ALL {
            for number in 0..seeds(policy) {
                self.check(io, image, policy, mix(io, number))?;
            }
        }
        Ok(())
    }

    /// Checks what one policy leaves of the disk before the I/O `io`.
    pub(crate) fn check(
        &mut self,
        io: u64,
        image: &SimImage,
        policy: CrashPolicy,
        seed: u64,
    ) -> Result<(), Failure> {
        let fail = |message| Failure {
            place: format!("crash before I/O {io}, {policy:?} with seed {seed}"),
            message,
        };
        self.counts.crashes += 1;
        let env = image.crash(policy, seed);
        let hash = env.content_hash();
        // Bytes that a failed sync gave up look like others, and are not.
        let key = (hash, self.is_faulty && policy == CrashPolicy::Kill);
        let window = self.history.window(io, policy == CrashPolicy::Kill);
        let found = if let Some(found) = self.seen.get(&key) {
            *found
        } else {
            let lossy = key.1.then(|| self.history.window(io, false));
            let found = self.inspect(&env, hash, lossy, 0).map_err(fail)?;
            self.seen.insert(key, found);
            found
        };
        if self.history.find(&found, window).is_some() {
            return Ok(());
        }
        let expected = self.history.describe(window);
        let env = image.crash(policy, seed);
        Err(fail(format!("{expected}found:\n{}", (self.contents)(&env))))
    }

    /// Opens the store twice, uses it, and crashes some of the recoveries, of those some again.
    ///
    /// Where `lossy` is given, bytes that a failed sync gave up are still there, and a power loss
    /// before the recovery has saved them may leave any state of that window.
    fn inspect(
        &mut self,
        env: &SimEnv,
        hash: u64,
        lossy: Option<Window>,
        depth: u32,
    ) -> Result<Hashes, String> {
        self.counts.count(depth);
        let is_crashed = hash.is_multiple_of(self.nested_every << (NESTED_SHIFT * depth));
        let is_crashed = is_crashed && depth < DEPTH_MAX;
        env.record(is_crashed);
        let found = guarded(|| (self.inspect)(env, hash))?;
        if !is_crashed {
            return Ok(found);
        }
        let is_exhaustive = depth == 0 && (hash / self.nested_every).is_multiple_of(ALL_EVERY);
        self.counts.exhausted += u64::from(is_exhaustive);
        for (io, image) in env.take_recorded() {
            for &policy in CrashPolicy::ALL {
                let seeds = if is_exhaustive {
                    seeds(policy)
                } else {
                    u64::from(NESTED_POLICIES.contains(&policy))
                };
                for number in 0..seeds {
                    let seed = mix(hash, io).wrapping_add(number);
                    let nested = image.crash(policy, seed);
                    self.check_nested(&nested, &found, lossy, depth + 1)
                        .map_err(|error| {
                            format!("{policy:?} before I/O {io} of the recovery: {error}")
                        })?;
                }
            }
        }
        Ok(found)
    }

    /// Opens what a crash left of a recovery, which has to come to what it came to without one.
    fn check_nested(
        &mut self,
        nested: &SimEnv,
        found: &Hashes,
        lossy: Option<Window>,
        depth: u32,
    ) -> Result<(), String> {
        let hash = nested.content_hash();
        let again = if let Some(again) = self.seen.get(&(hash, false)) {
            *again
        } else {
            let again = self.inspect(nested, hash, lossy, depth)?;
            self.seen.insert((hash, false), again);
            again
        };
        let is_allowed = again == *found
            || lossy.is_some_and(|window| self.history.find(&again, window).is_some());
        if is_allowed {
            return Ok(());
        }
        Err(format!(
            "found {again:?} after the recovery that crashed, {found:?} by the one that did not"
        ))
    }
}

/// What a store holds, for people.
pub(crate) fn contents(env: &SimEnv, setup: &Setup) -> String {
    match Store::open(env, setup, setup.has_log).and_then(|store| store.trees()) {
        Ok(trees) => {
            let mut text = String::new();
            describe_trees(&mut text, trees.each_ref().map(Option::as_ref));
            text
        }
        Err(error) => error.to_string(),
    }
}

/// Turns a panic into an error.
pub(crate) fn guarded<T>(act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("without a text")))
    })
}

/// Opens a store after a crash, again after that, and writes to it. Returns what it held at
/// first. `salt` decides about details. Only the first open is recorded.
pub(crate) fn inspect(env: &SimEnv, setup: &Setup, salt: u64) -> Result<Hashes, String> {
    let text = |error: siltstone::Error| format!("{error:?}");
    let store = Store::open(env, setup, setup.has_log).map_err(text)?;
    let found = store.hashes().map_err(text)?;
    store.db.verify().map_err(text)?;
    let mut env = env.clone();
    match salt / 64 % 3 {
        0 => store.db.close().map_err(text)?,
        1 => {}
        _ => {
            // What an open has shown must be durable.
            env.record(false);
            env = env.capture().crash(CrashPolicy::MaxLoss, salt);
        }
    }
    env.record(false);
    drop(store);
    let mut store = Store::open(&env, setup, setup.has_log)
        .map_err(|error| format!("second open: {error:?}"))?;
    let again = store.hashes().map_err(text)?;
    if again != found {
        return Err(format!(
            "the first open found {found:?}, the second {again:?}"
        ));
    }
    let expected = write_to(&mut store, setup, &found).map_err(text)?;
    let written = store.hashes().map_err(text)?;
    if written != expected {
        return Err(format!("after a write {written:?} instead of {expected:?}"));
    }
    if (salt / 256).is_multiple_of(THOROUGH_EVERY) {
        compact_all(store, &env, setup, &expected)?;
    }
    Ok(found)
}

/// Writes to every keyspace, in one batch, and returns what must be there then.
fn write_to(store: &mut Store, setup: &Setup, found: &Hashes) -> siltstone::Result<Hashes> {
    const KEY: &[u8] = b"~after";
    let mut expected = *found;
    if found.iter().all(Option::is_none) {
        let name = crate::operation::NAMES[0];
        store.keyspaces[0] = Some(store.db.keyspace(name, setup.keyspaces.clone())?);
        expected[0] = Some(0);
    }
    let mut batch = WriteBatch::new();
    for (hash, keyspace) in expected.iter_mut().zip(&store.keyspaces) {
        if let (Some(hash), Some(keyspace)) = (hash, keyspace) {
            batch.put(keyspace, KEY, "written")?;
            *hash = hash.wrapping_add(entry_hash(KEY, b"written"));
        }
    }
    let durability = if setup.has_log {
        Durability::Synced
    } else {
        Durability::Buffered
    };
    store.db.write(batch, durability)?;
    Ok(expected)
}

/// Gives everything that recovery may have left to do its chance, and looks at the files.
fn compact_all(store: Store, env: &SimEnv, setup: &Setup, expected: &Hashes) -> Result<(), String> {
    let text = |error: siltstone::Error| format!("after recovery: {error:?}");
    store.db.flush().map_err(text)?;
    for keyspace in store.keyspaces.iter().flatten() {
        keyspace.compact().map_err(text)?;
    }
    while store.runtime.run_pending() {}
    store.db.close().map_err(text)?;
    drop(store);
    let store = Store::open(env, setup, setup.has_log).map_err(text)?;
    let found = store.hashes().map_err(text)?;
    if found != *expected {
        return Err(format!("{found:?} after compactions, not {expected:?}"));
    }
    store.db.verify().map_err(text)?;
    let stats = store.db.stats().map_err(text)?;
    if let Some(error) = stats.background_error {
        return Err(format!("background error: {error}"));
    }
    let tables: usize = stats.levels.iter().map(|level| level.tables).sum();
    let files = Files::of(&env.files());
    let is_bounded = files.tables == tables
        && files.manifests.len() == 1
        && files.temporary == 0
        && files.logs.len() <= if setup.has_log { 3 } else { 0 };
    if !is_bounded {
        return Err(format!(
            "{tables} tables are in use, and there are {files:?}"
        ));
    }
    Ok(())
}
