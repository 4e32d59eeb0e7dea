//! Stores: the state of a stream task, kept here and in a changelog.
//!
//! A [`Task`] owns the stores of one partition of a job: it restores what is missing, takes the
//! writes, and makes them count all at once with [`Task::commit`]. A [`KeyValue`] or a
//! [`Timestamped`] is a typed handle to one of its stores. A [`Serde`] turns keys and values into
//! bytes. A [`Standby`] follows the changelog of a task that somebody else owns, to take it over.
//!
//! In reading order: [`serde`], `codec` (what a record is in a store), then `positions` (how far
//! the local tables cover each changelog partition), `decide` (whether local state may be used),
//! `restore` (from a changelog into tables), `task`, `key_value`, `timestamped` and `standby`. An
//! arrow between them points back in this list only.

mod codec;
mod decide;
mod key_value;
mod positions;
mod restore;
pub mod serde;
mod standby;
mod task;
mod timestamped;

pub use decide::RebuildReason;
pub use key_value::{Entries, KeyValue, View};
pub use restore::{How, Progress, Restored, RestoredStore};
pub use serde::Serde;
pub use standby::{Lag, Polled, Standby};
pub use task::{Closed, StoreOptions, Task, TaskOptions};
pub use timestamped::{Stamp, Stamped, Timestamped};
