//! What the tables hold by themselves, against the part of the changelog that they cover.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use siltstone::changelog::{Changelog as _, Offset, Partition};
use siltstone::env::sim::SimEnv;
use siltstone::store::How;
use siltstone::{Db, Options, Result, Runtime, RuntimeOptions, Wal};

use crate::operation::NAMES;

use super::list::TaskList;
use super::{INPUT_STORE, NAMESPACE, Opened, Outcome, STATE_DIR, STORES, text};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// The local state of a task without what its changelog adds, by the name of the store.
pub(super) struct Local(BTreeMap<String, Entries>);

impl Local {
    /// Reads the tables in `env`, which this changes, and checks their structure.
    pub(super) fn read(env: &SimEnv, list: &TaskList) -> Result<Self> {
        let env = Arc::new(env.clone());
        let runtime = Runtime::new(
            RuntimeOptions::new()
                .env(env.clone())
                .threads(0)
                .memory_bytes_max(4 << 20)
                .cache_bytes(64 << 10),
        )?;
        let options = Options::new()
            .env(env)
            .wal(Wal::Off)
            .read_mode(list.setup.read_mode)
            .record_writes_max(64 << 10);
        let db = Db::open_with(Path::new(STATE_DIR), options, &runtime)?;
        db.verify()?;
        let mut stores = BTreeMap::new();
        for name in db.keyspace_names()? {
            let keyspace = db.keyspace(&name, list.setup.keyspaces.clone())?;
            let mut entries = Entries::new();
            for entry in keyspace.entries()? {
                let entry = entry?;
                entries.insert(entry.key.to_vec(), entry.value.to_vec());
            }
            stores.insert(name, entries);
        }
        Ok(Self(stores))
    }

    /// Compares each store with the records below the position that `opened` found beside it.
    pub(super) fn compare(&self, opened: &Opened) -> Outcome {
        for name in NAMES[..STORES].iter().chain(&[INPUT_STORE]) {
            let local = self.0.get(*name);
            let Some(restored) = opened.task.restored().store(name) else {
                return Err(format!("nothing is said of the restore of {name}"));
            };
            match restored.how {
                How::UpToDate | How::Tail => {
                    let local = local.ok_or_else(|| format!("{name} is not there"))?;
                    compare(name, local, restored.start, opened)?;
                }
                How::Full if local.is_some_and(|local| !local.is_empty()) => {
                    return Err(format!("{name} held something and was read as if empty"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The tables hold what the records below `position` add up to. Compaction of the changelog may
/// have dropped the record of a key only for a newer one of that key.
fn compare(name: &str, local: &Entries, position: Offset, opened: &Opened) -> Outcome {
    let partition = Partition::new(format!("{NAMESPACE}-{name}-changelog"), 0);
    let bounds = opened.log.bounds(&partition).map_err(text)?;
    let bounds = bounds.ok_or_else(|| format!("{partition} is not there"))?;
    let mut below = Entries::new();
    let mut above = BTreeSet::new();
    let mut reader = opened.log.reader(&partition, bounds.start).map_err(text)?;
    loop {
        let fetched = reader.fetch(&mut |offset, record| {
            if offset >= position {
                above.insert(record.key.to_vec());
            } else if let Some(value) = record.value {
                below.insert(record.key.to_vec(), value.to_vec());
            } else {
                below.remove(record.key);
            }
            Ok(())
        });
        if fetched.map_err(text)?.at_end {
            break;
        }
    }
    let keys: BTreeSet<_> = local.keys().chain(below.keys()).collect();
    for key in keys {
        let (held, told) = (local.get(key), below.get(key));
        let is_compacted = told.is_none() && above.contains(key);
        if held != told && !is_compacted {
            return Err(format!(
                "the tables hold {held:?} for {key:?} of {name}, the changelog below {position} \
                 {told:?}"
            ));
        }
    }
    Ok(())
}
