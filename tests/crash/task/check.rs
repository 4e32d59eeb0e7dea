//! Opening what a crash left of a task.

use std::path::Path;

use siltstone::Result;
use siltstone::env::Env as _;
use siltstone::env::sim::{CrashPolicy, SimEnv};

use crate::model::{Hashes, entry_hash};

use super::list::TaskList;
use super::prefix::Local;
use super::{INPUTS, Opened, STATE_DIR, position_bytes, text};

/// What a disk holds, for people.
pub(crate) fn contents(env: &SimEnv, list: &TaskList) -> String {
    let opened = Opened::open(env, list);
    opened
        .and_then(|opened| opened.describe())
        .unwrap_or_else(|error| error.to_string())
}

/// Opens a task after a crash, again after that, once more without its local state, and commits
/// to it. Returns what it held at first. `salt` decides about details. Only the first open is
/// recorded. Before all that, what the tables hold by themselves is read from a copy.
pub(crate) fn inspect(
    env: &SimEnv,
    list: &TaskList,
    salt: u64,
) -> std::result::Result<Hashes, String> {
    let bare = (salt / 64)
        .is_multiple_of(4)
        .then(|| env.capture().crash(CrashPolicy::Kill, salt));
    let local = Local::read(&env.capture().crash(CrashPolicy::Kill, salt), list)
        .map_err(|error| format!("the tables alone: {error:?}"))?;
    let opened = Opened::open(env, list).map_err(text)?;
    let found = opened.hashes().map_err(text)?;
    local.compare(&opened)?;
    let mut env = env.clone();
    let Opened { task, stores, .. } = opened;
    drop(stores);
    match salt / 256 % 3 {
        0 => drop(task.close().map_err(text)?),
        1 => drop(task),
        _ => {
            // What an open has shown must be durable.
            env.record(false);
            env = env.capture().crash(CrashPolicy::MaxLoss, salt);
            drop(task);
        }
    }
    env.record(false);
    let mut opened = Opened::open(&env, list).map_err(|error| format!("second open: {error:?}"))?;
    let again = opened.hashes().map_err(text)?;
    if again != found {
        return Err(format!(
            "the first open found {found:?}, the second {again:?}"
        ));
    }
    let expected = commit_to(&mut opened, &found).map_err(text)?;
    let written = opened.hashes().map_err(text)?;
    if written != expected {
        return Err(format!(
            "after a commit {written:?} instead of {expected:?}"
        ));
    }
    if (salt / 1024).is_multiple_of(4) {
        // Nothing was closed: what counts is in the changelog.
        drop(opened);
        remove_state(&env).map_err(text)?;
        let restored = Opened::open(&env, list).map_err(text)?;
        let restored = restored.hashes().map_err(text)?;
        if restored != expected {
            return Err(format!(
                "the changelog restores {restored:?}, not {expected:?}"
            ));
        }
    }
    if let Some(bare) = bare {
        remove_state(&bare).map_err(text)?;
        let restored =
            Opened::open(&bare, list).map_err(|error| format!("without local state: {error:?}"))?;
        let restored = restored.hashes().map_err(text)?;
        if restored != found {
            return Err(format!(
                "the changelog alone restores {restored:?}, not {found:?}"
            ));
        }
    }
    Ok(found)
}

fn commit_to(opened: &mut Opened, found: &Hashes) -> Result<Hashes> {
    const KEY: &[u8] = b"~after";
    let mut expected = *found;
    let Opened { task, stores, .. } = opened;
    for (store, hash) in stores.iter().zip(&mut expected) {
        store.put(task, KEY, b"written")?;
        *hash = hash.map(|it| it.wrapping_add(entry_hash(KEY, b"written")));
    }
    task.set_input_position("after", 1)?;
    expected[INPUTS] =
        expected[INPUTS].map(|it| it.wrapping_add(entry_hash(b"after", &position_bytes(1))));
    task.commit()?;
    Ok(expected)
}

/// Takes the local state away, as a new machine would be without it.
fn remove_state(env: &SimEnv) -> Result<()> {
    for path in env.files() {
        if path.starts_with(STATE_DIR) {
            env.remove_file(&path)?;
        }
    }
    match env.metadata(Path::new(STATE_DIR)) {
        Ok(_) => env.sync_dir(Path::new(STATE_DIR)),
        Err(_) => Ok(()),
    }
}
