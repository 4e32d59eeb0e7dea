//! Siltstone is an embedded, pure-Rust LSM state store for stream processing.
//!
//! A stream task keeps its state (counts, joins, windows) in stores on the machine that it runs
//! on. Every change also goes to a changelog, and when the machine dies, the state is restored
//! from there on another one: nothing that was committed is lost, and no deleted key comes back.
//!
//! - [`store::Task`] is what a stream task embeds: typed stores, a commit that covers all of them
//!   and the position of the input, restore, and fencing of a former owner.
//! - [`changelog`] is the contract with the log; a [file](changelog::File) is the default, and
//!   [`ChangelogUrl`] names one in a line of text.
//! - [`Db`] is the engine below, of use by itself: an ordered map with a write-ahead log, atomic
//!   batches over keyspaces, snapshots and ranges.
//! - [`Runtime`] holds the threads, the block cache and the one memory budget that any number of
//!   stores share.
//! - [`env`](mod@env) is everything outside: the operating system, or (feature `sim`) a simulated
//!   disk that loses, tears and reorders what was not synced, to crash-test one's own task on.

mod arena;
mod batch;
mod block;
mod cache;
pub mod changelog;
mod checksum;
mod coding;
mod compaction;
mod db;
pub mod env;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "cli")]
pub mod inspect;
mod journal;
#[cfg(feature = "kafka")]
pub mod kafka;
mod key;
#[cfg(feature = "cli")]
mod listing;
mod memtable;
mod merge;
pub mod options;
mod planted;
mod prefetch;
mod runtime;
mod slice;
mod sstable;
pub mod store;
mod sync;
mod url;
mod version;
mod wal;

pub use batch::{BATCH_LEN_MAX, WriteBatch};
pub use db::{Cursor, Db, Entry, Keyspace, LevelStats, Range, Snapshot, Stats};
pub use error::{Error, ErrorKind, Result};
pub use key::{KEY_LEN_MAX, KeyspaceId, Mark, SeqNo, VALUE_LEN_MAX};
pub use options::{
    Compression, Durability, IfMissing, KeyspaceOptions, Options, ReadMode, RuntimeOptions,
    Strategy, Wal,
};
pub use runtime::Runtime;
pub use slice::Slice;
pub use url::ChangelogUrl;

/// Compiles and runs the examples of the front page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
