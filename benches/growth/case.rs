//! The series, and their cases.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::records::{KEY_LEN, VALUE_LEN};

/// The budget of all stores of a case, and what of it is block cache.
pub(crate) const MEMORY_BYTES: usize = 512 << 20;
pub(crate) const CACHE_BYTES: usize = 256 << 20;
pub(crate) const MEMTABLE_BYTES: usize = 64 << 20;

/// What grows along a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    Records,
    Values,
    Keyspaces,
    Dbs,
    Tasks,
    Threads,
}

/// What the stores of a case are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Of one `Db`, with a log.
    Keyspaces,
    /// Each with a log of its own; they share a runtime.
    Dbs,
    /// Without logs, on a changelog in memory; they share a runtime.
    Tasks,
}

/// What a child does.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Case {
    #[arg(long, value_enum, default_value = "keyspaces", hide = true)]
    pub(crate) kind: Kind,
    #[arg(long, default_value_t = 1, hide = true)]
    pub(crate) stores: u64,
    /// Of all stores together.
    #[arg(id = "case-records", long, default_value_t = 1, hide = true)]
    pub(crate) records: u64,
    #[arg(long, default_value_t = VALUE_LEN, hide = true)]
    pub(crate) value_len: usize,
    #[arg(long, default_value_t = 1, hide = true)]
    pub(crate) threads: u64,
    #[arg(id = "case-updates-max", long, default_value_t = 1, hide = true)]
    pub(crate) updates_max: u64,
    /// Milliseconds between two looks at whether background work is done.
    #[arg(long, default_value_t = 200, hide = true)]
    pub(crate) look_ms: u64,
}

/// How large cases may be.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Limits {
    /// The longest case of the series `records`.
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) records_max: u64,
    /// Records of the cases of all other series, of all their stores together; fewer or more of
    /// other lengths, so that their bytes are as many.
    #[arg(long, default_value_t = 5_000_000)]
    pub(crate) records: u64,
    /// The most stores of a case.
    #[arg(long, default_value_t = 500)]
    pub(crate) stores_max: u64,
    /// The most updates of a case; else each record is updated once on the average.
    #[arg(long, default_value_t = 10_000_000)]
    pub(crate) updates_max: u64,
}

impl Limits {
    pub(crate) const TEST: Self = Self {
        records_max: 3000,
        records: 2000,
        stores_max: 20,
        updates_max: 10_000,
    };
}

const RECORDS: &[u64] = &[1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000];
const STORES: &[u64] = &[1, 10, 20, 100, 500];
const VALUES: &[usize] = &[10, 100, 1 << 10, 8 << 10, 64 << 10];
const THREADS: &[u64] = &[1, 2, 4];

impl Series {
    pub(crate) const ALL: &[Self] = &[
        Self::Records,
        Self::Values,
        Self::Keyspaces,
        Self::Dbs,
        Self::Tasks,
        Self::Threads,
    ];

    /// Its cases, each with what has grown.
    pub(crate) fn cases(self, limits: &Limits) -> Vec<(u64, Case)> {
        let base = Case {
            kind: Kind::Keyspaces,
            stores: 1,
            records: limits.records,
            value_len: VALUE_LEN,
            threads: 1,
            updates_max: limits.updates_max,
            look_ms: 200,
        };
        let of_stores = |kind| {
            let few = STORES.iter().filter(|stores| **stores <= limits.stores_max);
            let case = |stores: &u64| {
                let stores = *stores;
                (
                    stores,
                    Case {
                        kind,
                        stores,
                        ..base
                    },
                )
            };
            few.map(case).collect()
        };
        match self {
            Self::Records => {
                let first = RECORDS[0].min(limits.records_max);
                let more = RECORDS[1..].iter().copied();
                let few = more.filter(|records| *records <= limits.records_max);
                let case = |records| (records, Case { records, ..base });
                std::iter::once(first).chain(few).map(case).collect()
            }
            Self::Values => {
                let bytes = base.records * base.record_bytes();
                let case = |value_len: &usize| {
                    let case = Case {
                        value_len: *value_len,
                        ..base
                    };
                    let records = (bytes / case.record_bytes()).max(1);
                    (*value_len as u64, Case { records, ..case })
                };
                VALUES.iter().map(case).collect()
            }
            Self::Keyspaces => of_stores(Kind::Keyspaces),
            Self::Dbs => of_stores(Kind::Dbs),
            Self::Tasks => of_stores(Kind::Tasks),
            Self::Threads => {
                let case = |threads: &u64| {
                    let threads = *threads;
                    (threads, Case { threads, ..base })
                };
                THREADS.iter().map(case).collect()
            }
        }
    }
}

impl Case {
    /// Bytes of the user in a record.
    pub(crate) fn record_bytes(&self) -> u64 {
        (KEY_LEN + self.value_len) as u64
    }

    pub(crate) fn reads(&self) -> u64 {
        self.records
            .clamp(100_000, 1_000_000)
            .min(10 * self.records)
    }

    pub(crate) fn updates(&self) -> u64 {
        self.records.min(self.updates_max)
    }

    pub(crate) fn look(&self) -> Duration {
        Duration::from_millis(self.look_ms)
    }

    /// The arguments that a child is told its case with.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let kind = self.kind.to_possible_value().expect("no kind is skipped");
        let told = [
            ("--kind", kind.get_name().to_owned()),
            ("--stores", self.stores.to_string()),
            ("--case-records", self.records.to_string()),
            ("--value-len", self.value_len.to_string()),
            ("--threads", self.threads.to_string()),
            ("--case-updates-max", self.updates_max.to_string()),
            ("--look-ms", self.look_ms.to_string()),
        ];
        let pair = |(name, value): (&str, String)| [name.to_owned(), value];
        told.into_iter().flat_map(pair).collect()
    }
}
