//! Changelog topics: how they are named, created and compared with what they should be.
//!
//! An existing topic is never altered: what differs is reported.

mod names;
mod topics;

pub use names::TopicNames;
pub(crate) use topics::Topics;
pub use topics::{TopicDifference, TopicOptions};
