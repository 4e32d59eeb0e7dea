//! What reads pay for runs that stand above each other in level 0, and its merge once they have
//! paid enough.

use crate::compaction;
use crate::sync::{AtomicU64, Ordering};

use super::DbInner;
use super::view::KeyspaceView;

/// One get in so many is counted, for all of them: so gets seldom write to shared memory.
const GETS_A_COUNT: u64 = 64;
/// A search for an entry to begin a walk at costs about as much as so many gets, for each run.
const GETS_A_SEEK: u64 = 8;
/// So many entries that a walk passes cost about as much as a get, for each run.
const ENTRIES_A_GET: u64 = 8;

/// Runs of level 0 beyond one that reads of a keyspace have asked, in gets, since reads last had
/// them merged.
///
/// Counts that readers leave beside each other may be lost or seen late: nothing rests on them
/// but when a merge begins, so all of it is relaxed.
#[derive(Debug, Default)]
pub(crate) struct RunsAsked {
    asked: AtomicU64,
    /// The price that a compaction was last asked for at, so that it is not for every read.
    announced: AtomicU64,
}

impl RunsAsked {
    pub(crate) fn count(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Begins to count anew: level 0 is being merged.
    pub(crate) fn forget(&self) {
        self.asked.store(0, Ordering::Relaxed);
        self.announced.store(0, Ordering::Relaxed);
    }

    fn add(&self, runs: u64) {
        if runs > 0 {
            self.asked.fetch_add(runs, Ordering::Relaxed);
        }
    }

    /// True once for each price that was paid.
    fn announces(&self, price: u64) -> bool {
        self.count() >= price && self.announced.swap(price, Ordering::Relaxed) != price
    }
}

impl KeyspaceView {
    /// Runs of level 0 beyond one.
    fn extra_runs(&self) -> u64 {
        self.version.levels[0].runs.len().saturating_sub(1) as u64
    }

    /// Counts a walk that was placed so many times and has passed so many entries.
    pub(super) fn count_walk(&self, seeks: u64, entries: u64) {
        let gets = seeks * GETS_A_SEEK + entries / ENTRIES_A_GET;
        self.runs_asked.add(gets * self.extra_runs());
    }
}

impl DbInner {
    /// Counts a get that has asked so many runs; `hash` is its key's.
    #[inline]
    pub(super) fn count_get(&self, keyspace: &KeyspaceView, hash: u64, runs: usize) {
        if runs > 1 && hash.is_multiple_of(GETS_A_COUNT) {
            let extra = keyspace.extra_runs().min(runs as u64 - 1);
            keyspace.runs_asked.add(extra * GETS_A_COUNT);
            self.merge_level0_if_paid(keyspace);
        }
    }

    /// Asks for a compaction once reads have paid for it.
    pub(super) fn merge_level0_if_paid(&self, keyspace: &KeyspaceView) {
        let price = compaction::level0_price(&keyspace.version, &keyspace.options);
        if price.is_some_and(|price| keyspace.runs_asked.announces(price)) {
            self.submit_compaction();
        }
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use super::*;
    use crate::db::read::view_of;
    use crate::db::tests::runtime;
    use crate::db::{Db, Keyspace};
    use crate::env::sim::SimEnv;
    use crate::options::{KeyspaceOptions, Options, Strategy};
    use crate::runtime::Runtime;
    use crate::sync::Arc;

    const KEYS: u32 = 300;

    struct Store {
        runtime: Runtime,
        db: Db,
        keyspace: Keyspace,
    }

    impl Store {
        /// Data in the last level, and three runs of other keys in level 0.
        fn open(strategy: Strategy) -> Self {
            let env = SimEnv::new(1);
            let runtime = runtime(&env);
            let options = Options::new().env(Arc::new(env));
            let db = Db::open_with("/db", options, &runtime).unwrap();
            let layout = KeyspaceOptions::new().compaction(strategy);
            let keyspace = db.keyspace("a", layout).unwrap();
            let store = Self {
                runtime,
                db,
                keyspace,
            };
            (0..KEYS).for_each(|number| store.put(number, "below"));
            store.keyspace.compact().unwrap();
            for round in 0..3 {
                (round..KEYS)
                    .step_by(4)
                    .for_each(|number| store.put(number, "above"));
                store.db.flush().unwrap();
            }
            store.work();
            assert_eq!(store.level0_runs(), 3);
            store
        }

        fn put(&self, number: u32, value: &str) {
            self.keyspace.put(number.to_be_bytes(), value).unwrap();
        }

        fn work(&self) {
            while self.runtime.run_pending() {}
        }

        fn view(&self) -> Arc<KeyspaceView> {
            let inner = self.db.inner();
            let id = self.keyspace.id_in(inner).unwrap();
            Arc::clone(view_of(&inner.view(), id).unwrap())
        }

        fn level0_runs(&self) -> usize {
            self.view().version.levels[0].runs.len()
        }

        fn price(&self) -> u64 {
            let view = self.view();
            compaction::level0_price(&view.version, &view.options).unwrap()
        }

        /// Gets of all keys, which each ask two runs too many, but for those found early.
        fn get_all(&self) {
            for number in 0..KEYS {
                let expected = if number % 4 < 3 { "above" } else { "below" };
                let found = self.keyspace.get(number.to_be_bytes()).unwrap();
                assert_eq!(found.unwrap(), expected);
            }
        }
    }

    #[test]
    fn gets_have_level0_merged_once_they_have_paid() {
        let store = Store::open(Strategy::lazy_leveled());
        let mut gets = 0;
        let price = store.price();
        while store.level0_runs() > 0 {
            store.get_all();
            store.work();
            gets += u64::from(KEYS);
            assert!(gets < 10 * price, "never merged");
        }
        // None asks more than two runs too many; counts go in steps.
        assert!(gets > price / 4, "merged after {gets}");
        store.get_all();
    }

    #[test]
    fn walks_pay_for_where_they_are_placed_and_what_they_pass() {
        let store = Store::open(Strategy::lazy_leveled());
        let price = store.price();
        // Two runs too many, each for as much as eight gets.
        let seeks = price / (2 * GETS_A_SEEK);
        let mut cursor = store.keyspace.cursor().unwrap();
        (0..seeks).for_each(|_| cursor.seek(7_u32.to_be_bytes()).unwrap());
        drop(store.keyspace.cursor().unwrap());
        store.work();
        assert_eq!(store.level0_runs(), 3);
        cursor.seek_to_first().unwrap();
        drop(store.keyspace.cursor().unwrap());
        store.work();
        assert_eq!(store.level0_runs(), 0);

        let store = Store::open(Strategy::lazy_leveled());
        let mut cursor = store.keyspace.cursor().unwrap();
        for _ in 0..price * ENTRIES_A_GET / (2 * u64::from(KEYS)) {
            cursor.seek_to_first().unwrap();
            while cursor.is_valid() {
                cursor.next().unwrap();
            }
        }
        drop(cursor);
        drop(store.keyspace.cursor().unwrap());
        store.work();
        assert_eq!(store.level0_runs(), 0);
    }

    #[test]
    fn leveled_merges_nothing_for_reads() {
        let store = Store::open(Strategy::Leveled);
        let mut cursor = store.keyspace.cursor().unwrap();
        (0..10_000).for_each(|_| cursor.seek_to_first().unwrap());
        drop(store.keyspace.cursor().unwrap());
        store.work();
        assert_eq!(store.level0_runs(), 3);
    }

    #[test]
    fn a_price_is_announced_once_and_counting_begins_anew() {
        let asked = RunsAsked::default();
        asked.add(99);
        assert!(!asked.announces(100));
        asked.add(1);
        assert!(asked.announces(100));
        assert!(!asked.announces(100));
        asked.add(50);
        assert!(asked.announces(120), "more to merge, and paid again");
        asked.forget();
        assert_eq!(asked.count(), 0);
        assert!(!asked.announces(1));
    }
}
