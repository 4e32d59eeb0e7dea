//! Changelog topics: how they are named, created and compared with what they should be; and what
//! brokers are set to.
//!
//! An existing topic is never altered: what differs is reported.

mod expiration;
mod names;
mod topics;

pub use expiration::FenceExpiration;
pub(crate) use expiration::fence_expiration;
pub use names::TopicNames;
pub(crate) use topics::Topics;
pub use topics::{TopicDifference, TopicOptions};
