//! What the tests of this module share.

use std::path::PathBuf;

use crate::cache::{BlockCache, MemoryBudget};
use crate::env::sim::SimEnv;
use crate::key::SeqNo;
use crate::options::ReadMode;
use crate::slice::Slice;
use crate::sync::Arc;

use super::edit::Change;
use super::state::State;
use super::{TableMeta, TableStore};

/// Length of every table's file.
pub(super) const TABLE_LEN: u64 = TABLE_BYTES.len() as u64;
pub(super) const TABLE_BYTES: [u8; 10] = [0; 10];

pub(super) fn store() -> (SimEnv, TableStore) {
    let env = SimEnv::new(1);
    let store = store_in(&env);
    (env, store)
}

pub(super) fn store_in(env: &SimEnv) -> TableStore {
    TableStore {
        env: Arc::new(env.clone()),
        dir: PathBuf::from("/data/store"),
        cache: Arc::new(BlockCache::new(1 << 20)),
        read_mode: ReadMode::Positional,
        account: MemoryBudget::new(1 << 20).open_free_account(),
    }
}

pub(super) fn meta(
    number: u64,
    low: &str,
    high: &str,
    seqno_min: u64,
    seqno_max: u64,
) -> TableMeta {
    TableMeta {
        number,
        id: number + 1000,
        len: TABLE_LEN,
        entries: 3,
        tombstones: 1,
        raw_bytes: 30,
        smallest: Slice::copy_from(low.as_bytes()),
        largest: Slice::copy_from(high.as_bytes()),
        seqno_min: SeqNo(seqno_min),
        seqno_max: SeqNo(seqno_max),
    }
}

pub(super) fn create(id: u32, name: &str) -> Change {
    Change::CreateKeyspace {
        id,
        name: name.to_owned(),
    }
}

pub(super) fn add(keyspace: u32, level: u8, run: u64, meta: TableMeta) -> Change {
    Change::AddTable {
        keyspace,
        level,
        run,
        meta,
    }
}

/// The numbers of a keyspace's tables, by level and run.
pub(super) fn table_numbers(state: &State, keyspace: u32) -> String {
    let levels = state.keyspaces[&keyspace].version.levels.iter().enumerate();
    let texts = levels
        .filter(|(_, level)| !level.is_empty())
        .map(|(number, level)| {
            let runs = level.runs.iter().map(|run| {
                let numbers = run
                    .tables()
                    .iter()
                    .map(|table| table.meta.number.to_string());
                format!("[{}]", numbers.collect::<Vec<_>>().join(" "))
            });
            format!("{number}: {}", runs.collect::<Vec<_>>().join(" "))
        });
    texts.collect::<Vec<_>>().join("  ")
}
