//! Reading partitions back: committed records in order, and where a partition starts and ends.
//!
//! - `answers`: what leaders' error codes mean.
//! - `filter`: which batches count, under read-committed.
//! - `stream`: answers of one partition one after the other, the next one asked for before the
//!   newest is used; passing trouble is repaired here.
//! - `reader`: [`FetchReader`], the [`Reader`](crate::changelog::Reader) over such a stream.
//! - `source`: the stream's requests over the network.
//! - `bounds`: where partitions start and end, and who they are.

mod answers;
mod bounds;
mod filter;
#[cfg(test)]
mod fixture;
mod reader;
mod source;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use bounds::{bounds, end_of_epoch, end_offsets};
pub(crate) use reader::{End, FetchReader, find_fence};
