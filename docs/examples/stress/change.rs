//! The changes of workers. Each follows from its number, so that parent and child agree on it.

use crate::plan::RoundPlan;
use crate::random::Random;
use crate::state::{Stamp, Write};

/// The keyspaces of the map. Of the first ones each key has one worker that writes it; the last
/// two are always written together, alike, and by every worker.
pub(crate) const KEYSPACES: [&str; 5] = ["own-0", "own-1", "own-2", "left", "right"];
pub(crate) const OWN_KEYSPACES: usize = 3;
/// The stores of the task.
pub(crate) const STORES: [&str; 3] = ["a", "b", "c"];
/// The key that each commit of a task puts into each store.
pub(crate) const MARKER: u32 = 0;

const KEYS: u32 = 1600;
const KEYS_HOT: u32 = 64;
const KEYS_SHARED: u32 = 24;

/// Who makes a change: a worker in a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maker {
    pub(crate) seed: u64,
    pub(crate) round: u32,
    pub(crate) worker: u32,
}

impl Maker {
    fn random(self, salt: u64, change: u32) -> Random {
        let (round, worker) = (u64::from(self.round), u64::from(self.worker));
        Random::of(&[self.seed, round, worker, salt, u64::from(change)])
    }

    fn stamp(self, change: u32, part: u32) -> Stamp {
        Stamp {
            round: self.round,
            worker: self.worker,
            change,
            part,
        }
    }

    /// A batch of the map: the writes, and whether it is synced.
    pub(crate) fn batch(self, change: u32, plan: &RoundPlan) -> (Vec<Write>, bool) {
        let mut random = self.random(10, change);
        let synced = random.one_in(plan.synced_one_in);
        if self.is_shared(change, plan) {
            let key = random.below(KEYS_SHARED);
            let stamp = (!random.one_in(6)).then_some(self.stamp(change, 0));
            let write = |keyspace| Write {
                keyspace,
                key,
                stamp,
            };
            let writes = vec![write(OWN_KEYSPACES), write(OWN_KEYSPACES + 1)];
            return (writes, synced);
        }
        let writes = 0..=random.below(plan.batch_len_max);
        let writes = writes.map(|part| {
            let keys = if random.one_in(2) { KEYS_HOT } else { KEYS };
            let key = random.below(keys);
            Write {
                keyspace: random.index(OWN_KEYSPACES),
                key: key - key % plan.workers + self.worker,
                stamp: (!random.one_in(5)).then_some(self.stamp(change, part)),
            }
        });
        (writes.collect(), synced)
    }

    /// Whether a change is one of shared keys.
    fn is_shared(self, change: u32, plan: &RoundPlan) -> bool {
        plan.shared_one_in != 0 && self.random(11, change).one_in(plan.shared_one_in)
    }

    /// A commit of the task: its writes in order, the marker in every store among them.
    pub(crate) fn commit(self, change: u32) -> Vec<Write> {
        let mut random = self.random(12, change);
        let len = random.pick(&[0, 3, 30, 300]);
        let mut writes = self.task_writes(change, len, &mut random);
        writes.extend((0..STORES.len()).map(|keyspace| Write {
            keyspace,
            key: MARKER,
            stamp: Some(self.stamp(change, 1 << 20)),
        }));
        writes
    }

    /// Writes of the task that are taken back before the commit, if there are to be any.
    pub(crate) fn aborted(self, change: u32) -> Option<Vec<Write>> {
        let mut random = self.random(13, change);
        let len = random.below(40);
        random
            .one_in(8)
            .then(|| self.task_writes(change, len, &mut random))
    }

    fn task_writes(self, change: u32, len: u32, random: &mut Random) -> Vec<Write> {
        let writes = (0..len).map(|part| {
            let keys = if random.one_in(2) { KEYS_HOT } else { KEYS };
            Write {
                keyspace: random.index(STORES.len()),
                key: MARKER + 1 + random.below(keys),
                stamp: (!random.one_in(4)).then_some(self.stamp(change, part)),
            }
        });
        writes.collect()
    }
}
