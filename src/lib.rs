//! Siltstone is an embedded, pure-Rust LSM state store for stream processing.
//!
//! A stream task keeps its state (counts, joins, windows) in stores on the machine that it runs
//! on. Every change also goes to a changelog, and when the machine dies, the state is restored
//! from there on another one: nothing that was committed is lost, and no deleted key comes back.


mod arena;
mod batch;
mod block;
mod cache;
mod checksum;
mod coding;
mod compaction;
pub mod env;
mod error;
mod journal;
mod key;
#[cfg(feature = "cli")]
mod listing;
mod memtable;
mod merge;
pub mod options;
mod planted;
mod runtime;
mod slice;
mod sstable;
mod sync;
mod version;
mod wal;

pub use batch::{BATCH_LEN_MAX, WriteBatch};
pub use error::{Error, ErrorKind, Result};
pub use key::{KEY_LEN_MAX, KeyspaceId, Mark, SeqNo, VALUE_LEN_MAX};
pub use options::{
    Compression, Durability, IfMissing, KeyspaceOptions, Options, ReadMode, RuntimeOptions, Wal,
};
pub use runtime::Runtime;
pub use slice::Slice;

