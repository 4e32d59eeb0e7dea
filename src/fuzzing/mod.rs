//! The bodies of the fuzz targets: each takes any bytes, and panics where the crate breaks a
//! promise. The crates of `fuzz/` call them one by one; `tests/fuzz_corpus.rs` runs all of them
//! over the committed corpus with a stable compiler.
//!
//! Only built with the feature `fuzzing`, for the tests of this crate: not part of its API.
//!
//! In reading order: `input` turns bytes into choices, `formats` feeds the decoders,
//! `tables` blocks and tables, `changelogs` a changelog's files,
//! `kafka` what brokers send, `setup` (a store's options), `stores` a whole store.

mod changelogs;
mod formats;
mod input;
#[cfg(feature = "kafka")]
mod kafka;
mod setup;
mod stores;
mod tables;

pub use changelogs::changelog_segment;
pub use formats::{batch, coding, journal, manifest};
#[cfg(feature = "kafka")]
pub use kafka::{kafka_batch, kafka_decode, kafka_frame, kafka_produce};
pub use stores::{check_options, damaged_store, operations};
pub use tables::{block, table};

/// A target's name, its body, and what makes its first inputs.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As in `fuzz/fuzz_targets/`.
    pub name: &'static str,
    /// Panics where a promise is broken.
    pub run: fn(&[u8]),
    /// Inputs that reach far, from which a fuzzer goes on.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "batch",
        run: batch,
        seeds: formats::batch_seeds,
    },
    Target {
        name: "block",
        run: block,
        seeds: tables::block_seeds,
    },
    Target {
        name: "changelog_segment",
        run: changelog_segment,
        seeds: changelogs::changelog_seeds,
    },
    Target {
        name: "coding",
        run: coding,
        seeds: formats::coding_seeds,
    },
    Target {
        name: "damaged_store",
        run: damaged_store,
        seeds: stores::damage_seeds,
    },
    Target {
        name: "journal",
        run: journal,
        seeds: formats::journal_seeds,
    },
    #[cfg(feature = "kafka")]
    Target {
        name: "kafka_batch",
        run: kafka_batch,
        seeds: kafka::batch_seeds,
    },
    #[cfg(feature = "kafka")]
    Target {
        name: "kafka_frame",
        run: kafka_frame,
        seeds: kafka::frame_seeds,
    },
    Target {
        name: "manifest",
        run: manifest,
        seeds: formats::manifest_seeds,
    },
    Target {
        name: "operations",
        run: operations,
        seeds: stores::operation_seeds,
    },
    Target {
        name: "table",
        run: table,
        seeds: tables::table_seeds,
    },
];
