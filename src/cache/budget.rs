//! The memory budget: one hard limit for the memtables and restores of all stores of a process.
//!
//! Each store has an account with a minimum that nobody else can use, and a reserve that only it
//! may draw on when the budget is spent, so that it can finish a record and commit. What is above
//! the minimum comes out of the common pool.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::planted::{Bug, planted};
use crate::sync::{Arc, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering};

/// The limit, and what every account uses of it.
pub(crate) struct MemoryBudget {
    state: Mutex<State>,
    /// Signalled whenever bytes are given back or a flush has ended, well or not.
    progress: Condvar,
    next_account: AtomicU64,
}

struct State {
    bytes_max: usize,
    accounts: BTreeMap<u64, Usage>,
    /// Sums over all accounts, kept as they change: every write looks at them.
    claimed: usize,
    used: usize,
    /// Counts signals of progress, so that a waiter misses none.
    generation: u64,
    used_most: usize,
}

#[derive(Default)]
struct Usage {
    used: usize,
    minimum: usize,
    reserve: usize,
    /// Part of `used` that was taken from the reserve.
    reserve_used: usize,
}

impl Usage {
    /// What the account takes out of the budget, whether it uses it or not.
    fn claimed(&self) -> usize {
        (self.used - self.reserve_used).max(self.minimum) + self.reserve
    }
}

impl State {
    /// Changes what an account uses, and the sums with it.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Usage)) {
        let usage = self
            .accounts
            .get_mut(&id)
            .expect("an account stays until it is dropped");
        let (claimed, used) = (usage.claimed(), usage.used);
        change(usage);
        self.claimed = self.claimed - claimed + usage.claimed();
        self.used = self.used - used + usage.used;
        self.used_most = self.used_most.max(self.used);
    }

    fn usage(&self, id: u64) -> &Usage {
        self.accounts
            .get(&id)
            .expect("an account stays until it is dropped")
    }
}

impl MemoryBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                bytes_max,
                accounts: BTreeMap::new(),
                claimed: 0,
                used: 0,
                generation: 0,
                used_most: 0,
            }),
            progress: Condvar::new(),
            next_account: AtomicU64::new(1),
        }
    }

    /// Opens an account that always has `minimum` bytes and `reserve` bytes beside them.
    ///
    /// # Errors
    ///
    /// `MemoryLimit` if the budget has no room for them.
    pub(crate) fn open_account(
        self: &Arc<Self>,
        minimum: usize,
        reserve: usize,
    ) -> Result<Arc<Account>> {
        let mut state = self.state.lock();
        let free = state.bytes_max.saturating_sub(state.claimed);
        if minimum + reserve > free {
            return Err(Error::new(
                ErrorKind::MemoryLimit,
                format!(
                    "a store needs {minimum} bytes of memory and {reserve} in reserve; \
                     {free} of the budget's {} are free",
                    state.bytes_max
                ),
            ));
        }
        // Relaxed: only the uniqueness of the number counts.
        let id = self.next_account.fetch_add(1, Ordering::Relaxed);
        let usage = Usage {
            minimum,
            reserve,
            ..Usage::default()
        };
        state.claimed += usage.claimed();
        state.accounts.insert(id, usage);
        Ok(Arc::new(Account {
            budget: Arc::clone(self),
            id,
        }))
    }

    /// An account without minimum and reserve, on a budget that nobody else needs.
    #[cfg(test)]
    pub(crate) fn open_free_account(self) -> Arc<Account> {
        Arc::new(self)
            .open_account(0, 0)
            .expect("no memory is asked for")
    }

    /// Bytes in use by all accounts.
    pub(crate) fn used_bytes(&self) -> usize {
        self.state.lock().used
    }

    /// The most bytes that were ever in use at once.
    pub(crate) fn used_bytes_most(&self) -> usize {
        self.state.lock().used_most
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.state.lock().bytes_max
    }

    /// A number that changes with every progress, to be taken before looking for room.
    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Waits until there was progress since `generation`.
    pub(crate) fn wait_for_progress(&self, generation: u64) {
        let mut state = self.state.lock();
        while state.generation == generation {
            self.progress.wait(&mut state);
        }
    }

    /// Wakes every waiter, to look again.
    pub(crate) fn signal_progress(&self) {
        self.state.lock().generation += 1;
        self.progress.notify_all();
    }
}

/// One store's share of the budget.
pub(crate) struct Account {
    budget: Arc<MemoryBudget>,
    id: u64,
}

impl Account {
    /// Takes `bytes` out of the minimum or the common pool, if there is room.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        let mut state = self.budget.state.lock();
        let usage = state.usage(self.id);
        // What is taken out of the minimum is claimed already.
        let unclaimed = usage
            .minimum
            .saturating_sub(usage.used - usage.reserve_used);
        let more = bytes.saturating_sub(unclaimed);
        if more > 0 && state.claimed + more > state.bytes_max {
            return false;
        }
        state.change(self.id, |usage| usage.used += bytes);
        true
    }

    /// Takes `bytes` out of this account's reserve, if it has as much left.
    pub(crate) fn try_take_reserve(&self, bytes: usize) -> bool {
        let mut state = self.budget.state.lock();
        let usage = state.usage(self.id);
        if usage.reserve_used + bytes > usage.reserve {
            return false;
        }
        state.change(self.id, |usage| {
            if !planted(Bug::ReserveGivenTwice) {
                usage.reserve_used += bytes;
            }
            usage.used += bytes;
        });
        true
    }

    /// Counts `bytes` that are in use already, above the limit if it must be: the slack of an
    /// arena's chunk, or the one arena of an in-memory compaction.
    pub(crate) fn take_anyway(&self, bytes: usize) {
        let mut state = self.budget.state.lock();
        state.change(self.id, |usage| usage.used += bytes);
    }

    /// Gives `bytes` back, to the reserve first.
    pub(crate) fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut state = self.budget.state.lock();
        state.change(self.id, |usage| {
            assert!(
                usage.used >= bytes,
                "an account gives back no more than it took"
            );
            usage.used -= bytes;
            usage.reserve_used = usage.reserve_used.saturating_sub(bytes).min(usage.used);
        });
        state.generation += 1;
        drop(state);
        if planted(Bug::BudgetWakesNobody) {
            return;
        }
        self.budget.progress.notify_all();
    }

    /// An empty charge on this account.
    pub(crate) fn charge(self: &Arc<Self>) -> Charge {
        Charge {
            account: Arc::clone(self),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut state = self.budget.state.lock();
        if let Some(usage) = state.accounts.remove(&self.id) {
            state.claimed -= usage.claimed();
            state.used -= usage.used;
        }
        state.generation += 1;
        drop(state);
        self.budget.progress.notify_all();
    }
}

/// Bytes of an account that belong to one memtable, given back when it is dropped.
pub(crate) struct Charge {
    account: Arc<Account>,
    bytes: AtomicUsize,
}

impl Charge {
    /// Takes over bytes that were taken from the account before.
    pub(crate) fn adopt(&self, bytes: usize) {
        // Relaxed: one writer; the last value is read by whoever drops the charge.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Raises the charge to `bytes`, above the budget's limit if it must be.
    pub(crate) fn raise_to(&self, bytes: usize) {
        let held = self.bytes.load(Ordering::Relaxed);
        if bytes > held {
            self.account.take_anyway(bytes - held);
            self.adopt(bytes - held);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.give_back(*self.bytes.get_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_is_there_whatever_others_take() {
        let budget = Arc::new(MemoryBudget::new(1000));
        let quiet = budget.open_account(300, 50).unwrap();
        let hot = budget.open_account(100, 50).unwrap();
        assert!(hot.try_take(600));
        assert!(!hot.try_take(1));
        assert!(quiet.try_take(300));
        assert!(!quiet.try_take(1));
        hot.give_back(600);
        assert!(quiet.try_take(500));
        assert_eq!(budget.used_bytes(), 800);
        assert_eq!(budget.used_bytes_most(), 900);
    }

    #[test]
    fn a_reserve_is_drawn_once_and_filled_again() {
        let budget = Arc::new(MemoryBudget::new(100));
        let account = budget.open_account(50, 50).unwrap();
        assert!(account.try_take(50));
        assert!(!account.try_take(1));
        assert!(account.try_take_reserve(40));
        assert!(!account.try_take_reserve(11));
        account.give_back(90);
        assert!(account.try_take_reserve(50));
    }

    #[test]
    fn a_budget_without_room_refuses_an_account() {
        let budget = Arc::new(MemoryBudget::new(100));
        let first = budget.open_account(60, 0).unwrap();
        let error = budget.open_account(50, 0).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::MemoryLimit);
        drop(first);
        budget.open_account(50, 0).unwrap();
    }
}
