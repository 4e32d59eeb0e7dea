//! The named workloads. Each runs in a process of its own, on one engine, and checks the answers
//! that it gets: a broken adapter must not win.

mod mixes;
mod reads;
mod recovery;
mod write_amp;
mod writes;

use std::path::PathBuf;

use crate::Result;
use crate::engine::{Engine, Name};
use crate::meter::Findings;
use crate::records::Keys;
use crate::settings::Settings;

pub(crate) use recovery::fill as fill_for_recovery;

/// What a workload begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Empty,
    /// All records, put in random order, settled, closed. Read, but not written to.
    Shared,
    /// A copy of that.
    Own,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    Fillrandom,
    Fillseq,
    Fillbatch,
    Overwrite,
    ReadrandomAll,
    ReadrandomPart,
    Readmissing,
    Readseq,
    Readreverse,
    Seek10,
    Seek100,
    Updaterandom,
    YcsbA,
    YcsbB,
    YcsbC,
    YcsbD,
    YcsbE,
    YcsbF,
    Readwhilewriting,
    Fillsync1,
    Fillsync8,
    Recovery,
    WriteAmp17,
    #[value(name = "write-amp17-no-wal")]
    WriteAmp17NoWal,
    WriteAmp160,
    #[value(name = "write-amp160-no-wal")]
    WriteAmp160NoWal,
    /// Not a line of the table: makes what others begin with.
    #[value(hide = true)]
    Prepare,
}

impl Workload {
    pub(crate) fn text(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn base(self) -> Base {
        match self {
            Self::ReadrandomAll
            | Self::ReadrandomPart
            | Self::Readmissing
            | Self::Readseq
            | Self::Readreverse
            | Self::Seek10
            | Self::Seek100
            | Self::YcsbC => Base::Shared,
            Self::Overwrite
            | Self::Updaterandom
            | Self::YcsbA
            | Self::YcsbB
            | Self::YcsbD
            | Self::YcsbE
            | Self::YcsbF
            | Self::Readwhilewriting => Base::Own,
            _ => Base::Empty,
        }
    }

    /// fjall cannot do without its journal. redb is a B-tree: it writes a page for each record, and
    /// without a sync nothing of it survives a kill.
    pub(crate) fn runs_on(self, engine: Name) -> bool {
        match self {
            Self::WriteAmp17NoWal | Self::WriteAmp160NoWal => {
                !matches!(engine, Name::Fjall | Name::Redb)
            }
            Self::WriteAmp17 | Self::WriteAmp160 | Self::Recovery => engine != Name::Redb,
            _ => true,
        }
    }
}

/// What a child works on.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) dir: PathBuf,
    pub(crate) records: u64,
    pub(crate) seed: u64,
}

impl Job {
    fn keys(&self) -> Keys {
        Keys::new(self.records)
    }

    /// Single reads or mixed operations.
    fn operations(&self) -> u64 {
        self.records.min(1_000_000)
    }

    fn open<E: Engine>(&self, settings: &Settings) -> Result<E> {
        E::open(&self.dir.join("store"), settings)
    }
}

pub(crate) fn run<E: Engine>(workload: Workload, job: &Job) -> Result<Findings> {
    use Workload as W;
    match workload {
        W::Fillrandom => writes::fill::<E>(job, writes::Order::Random, false),
        W::Fillseq => writes::fill::<E>(job, writes::Order::Sequential, false),
        W::Prepare => writes::fill::<E>(job, writes::Order::Random, true),
        W::Fillbatch => writes::fill_batches::<E>(job),
        W::Overwrite => writes::overwrite::<E>(job),
        W::Fillsync1 => writes::fill_synced::<E>(job, 1),
        W::Fillsync8 => writes::fill_synced::<E>(job, 8),
        W::ReadrandomAll => reads::random::<E>(job, reads::Cached::All),
        W::ReadrandomPart => reads::random::<E>(job, reads::Cached::Part),
        W::Readmissing => reads::missing::<E>(job),
        W::Readseq => reads::all::<E>(job, crate::engine::Direction::Forward),
        W::Readreverse => reads::all::<E>(job, crate::engine::Direction::Reverse),
        W::Seek10 => reads::seeks::<E>(job, 10),
        W::Seek100 => reads::seeks::<E>(job, 100),
        W::Updaterandom => mixes::update::<E>(job),
        W::YcsbA => mixes::ycsb::<E>(job, &mixes::A),
        W::YcsbB => mixes::ycsb::<E>(job, &mixes::B),
        W::YcsbC => mixes::ycsb::<E>(job, &mixes::C),
        W::YcsbD => mixes::ycsb::<E>(job, &mixes::D),
        W::YcsbE => mixes::ycsb::<E>(job, &mixes::E),
        W::YcsbF => mixes::ycsb::<E>(job, &mixes::F),
        W::Readwhilewriting => mixes::read_while_writing::<E>(job),
        W::Recovery => recovery::run::<E>(job),
        W::WriteAmp17 => write_amp::overwrite::<E>(job, &write_amp::SMALL, true),
        W::WriteAmp17NoWal => write_amp::overwrite::<E>(job, &write_amp::SMALL, false),
        W::WriteAmp160 => write_amp::overwrite::<E>(job, &write_amp::LARGE, true),
        W::WriteAmp160NoWal => write_amp::overwrite::<E>(job, &write_amp::LARGE, false),
    }
}
