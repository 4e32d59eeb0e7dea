//! The changelog on Apache Kafka: its protocol, its producer and its restorer, on blocking threads.
//!
//! - [`protocol`]: requests, responses and record batches as bytes; no I/O.

mod protocol;
