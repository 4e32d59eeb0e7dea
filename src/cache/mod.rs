//! Memory that all stores of a process share: the block cache (`blocks`), and the budget
//! (`budget`) of everything that is no cache.

mod blocks;
mod budget;

pub(crate) use blocks::{BlockCache, PREFETCHED_LEN_MAX, Pin, SharedBytes};
pub(crate) use budget::{Account, Charge, MemoryBudget};
