//! Stores: the state of a stream task, kept here and in a changelog.
//!
//! A [`Task`] owns the stores of one partition of a job: it restores what is missing, takes the
//! writes, and makes them count all at once with [`Task::commit`]. A [`KeyValue`] is a typed handle
//! to one of its stores. A [`Serde`] turns keys and values into bytes.
//!
//! In reading order: [`serde`], then `positions` (how far the local tables cover each changelog
//! partition), `decide` (whether local state may be used), `restore` (from a changelog into
//! tables), `task`, and `key_value`. An arrow between them points back in this list only.

mod decide;
mod key_value;
mod positions;
mod restore;
pub mod serde;
mod task;

pub use decide::RebuildReason;
pub use key_value::{Entries, KeyValue, View};
pub use restore::{How, Progress, Restored, RestoredStore};
pub use serde::Serde;
pub use task::{Closed, StoreOptions, Task, TaskOptions};
