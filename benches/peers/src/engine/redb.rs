//! redb: a B-tree. It compresses nothing, has no filters, and a put is a transaction of its own.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Direction, Engine};
use crate::Result;
use crate::records::{Key, Value};
use crate::settings::Settings;

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("bench");
/// Commits after which one is durable: pages are free for others only behind such a one.
const COMMITS_MAX: u64 = 10_000;

type View = ReadOnlyTable<&'static [u8], &'static [u8]>;

struct State {
    /// The table as it was after the last commit, once somebody has asked for it.
    view: Option<View>,
    /// Commits since the last durable one.
    commits: u64,
}

pub(crate) struct Redb {
    db: Database,
    state: Mutex<State>,
}

impl Redb {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert<'a>(
        &self,
        entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        synced: bool,
    ) -> Result<()> {
        let mut transaction = self.db.begin_write()?;
        let is_durable = {
            let mut state = self.state();
            state.commits += 1;
            let is_durable = synced || state.commits == COMMITS_MAX;
            if is_durable {
                state.commits = 0;
            }
            is_durable
        };
        transaction.set_durability(if is_durable {
            Durability::Immediate
        } else {
            Durability::None
        })?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in entries {
                table.insert(key, value)?;
            }
        }
        transaction.commit()?;
        self.state().view = None;
        Ok(())
    }

    /// Reads go on in the same transaction until something is written.
    fn with_view<T>(&self, read: impl FnOnce(&View) -> Result<T>) -> Result<T> {
        let mut state = self.state();
        if state.view.is_none() {
            state.view = Some(self.db.begin_read()?.open_table(TABLE)?);
        }
        match &state.view {
            Some(view) => read(view),
            None => Err("there is no view".into()),
        }
    }
}

impl Engine for Redb {
    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        if !settings.wal {
            return Err("redb has no log that could be off".into());
        }
        std::fs::create_dir_all(dir)?;
        let db = Database::builder()
            .set_cache_size(settings.cache_bytes)
            .create(dir.join("redb"))?;
        let this = Self {
            db,
            state: Mutex::new(State {
                view: None,
                commits: 0,
            }),
        };
        // A table exists from its first write on.
        this.insert(std::iter::empty(), true)?;
        Ok(this)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.insert(std::iter::once((key, value)), false)
    }

    fn put_synced(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.insert(std::iter::once((key, value)), true)
    }

    fn put_batch(&self, entries: &[(Key, Value)]) -> Result<()> {
        let entries = entries.iter().map(|(key, value)| (&key[..], &value[..]));
        self.insert(entries, false)
    }

    fn get<T>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> T) -> Result<T> {
        self.with_view(|view| {
            let value = view.get(key)?;
            Ok(read(value.as_ref().map(|value| value.value())))
        })
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: u64,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<u64> {
        self.with_view(|view| {
            let mut range = match from {
                Some(from) => view.range(from..)?,
                None => view.iter()?,
            };
            let mut visited = 0;
            while visited < limit {
                let next = match direction {
                    Direction::Forward => range.next(),
                    Direction::Reverse => range.next_back(),
                };
                let Some((key, value)) = next.transpose()? else {
                    break;
                };
                visit(key.value(), value.value());
                visited += 1;
            }
            Ok(visited)
        })
    }

    fn flush(&self) -> Result<()> {
        self.insert(std::iter::empty(), true)
    }

    fn close(self) -> Result<()> {
        self.flush()
    }
}
