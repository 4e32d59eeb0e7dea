//! A store whose entries are all in tables of the last level.

use crate::records::{key, value};
use crate::store::Store;

pub(crate) const ENTRIES: u64 = 50_000;

pub(crate) fn filled() -> Store {
    let store = Store::new();
    for number in 0..ENTRIES {
        store.keyspace.put(key(number), value(number)).expect("put");
    }
    store.db.flush().expect("flush");
    store.keyspace.compact().expect("compact");
    store
}
