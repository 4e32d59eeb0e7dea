//! Memory that all stores of a process share: the block cache (`blocks`), and the budget
//! (`budget`) of everything that is no cache.

mod blocks;
mod budget;

pub(crate) use blocks::{BlockCache, Pin, SharedBytes};
pub(crate) use budget::{Account, Charge, MemoryBudget};
