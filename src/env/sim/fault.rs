//! Errors on demand.

use std::io;

use super::random::Random;

/// How an I/O fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The call does nothing and reports an I/O error (`EIO`). A failed sync also gives the
    /// file's unsynced bytes up: they can still be read, but no later sync saves them.
    Eio,
    /// The same with "no space left" ([`io::ErrorKind::StorageFull`]).
    Enospc,
    /// A write writes a random part of its bytes, from the front; a sync saves a random part of
    /// the unsynced writes, from the oldest, and gives the others up; any other call does nothing.
    /// All report an I/O error.
    ShortWrite,
    /// The call does all its work, durably if it is a sync, and reports an I/O error.
    LateError,
}

impl FaultKind {
    /// All kinds, for a loop over them.
    pub const ALL: &'static [Self] = &[Self::Eio, Self::Enospc, Self::ShortWrite, Self::LateError];
}

/// Which I/Os fail, and how. Given to [`SimEnv::set_fault`](super::SimEnv::set_fault).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultPlan {
    at: u64,
    kind: FaultKind,
    goes_on: bool,
}

impl FaultPlan {
    /// Only the mutating I/O with the index `at` fails.
    pub fn once(at: u64, kind: FaultKind) -> Self {
        Self {
            at,
            kind,
            goes_on: false,
        }
    }

    /// The mutating I/O with the index `at` fails, and all after it.
    pub fn starting(at: u64, kind: FaultKind) -> Self {
        Self {
            at,
            kind,
            goes_on: true,
        }
    }
}

/// What is to fail, and what has been counted so far.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) plan: Option<FaultPlan>,
    pub(super) stop_at: Option<u64>,
    pub(super) read_fault: Option<(u64, ReadFault)>,
    pub(super) capacity: Option<u64>,
    pub(super) is_read_only: bool,
    pub(super) io_count: u64,
    pub(super) read_count: u64,
    pub(super) fault_count: u64,
}

/// How a read fails.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadFault {
    Eio,
    Flip,
}

/// What becomes of one mutating I/O.
pub(super) enum Verdict {
    Run,
    Fail(io::Error),
    Short(Random),
    Late,
}

impl Faults {
    /// Fails once the simulated machine has stopped.
    pub(super) fn check_running(&self) -> io::Result<()> {
        match self.stop_at {
            Some(stop_at) if self.io_count >= stop_at => Err(io::Error::other("simulated crash")),
            _ => Ok(()),
        }
    }

    /// Counts a read and says whether it may go on; it gives where a bit is to be flipped in what
    /// is read.
    pub(super) fn read(&mut self, seed: u64) -> io::Result<Option<Random>> {
        self.check_running()?;
        let index = self.read_count;
        self.read_count += 1;
        match self.read_fault {
            Some((at, fault)) if at == index => {
                self.fault_count += 1;
                match fault {
                    ReadFault::Eio => Err(eio()),
                    ReadFault::Flip => Ok(Some(Random::part(seed, index))),
                }
            }
            _ => Ok(None),
        }
    }

    /// Counts a mutating I/O and says what becomes of it.
    pub(super) fn mutate(&mut self, seed: u64) -> Verdict {
        let index = self.io_count;
        self.io_count += 1;
        if self.is_read_only {
            return Verdict::Fail(io::ErrorKind::PermissionDenied.into());
        }
        let kind = match self.plan {
            Some(plan) if index == plan.at || (plan.goes_on && index > plan.at) => plan.kind,
            _ => return Verdict::Run,
        };
        self.fault_count += 1;
        match kind {
            FaultKind::Eio => Verdict::Fail(eio()),
            FaultKind::Enospc => Verdict::Fail(io::ErrorKind::StorageFull.into()),
            FaultKind::ShortWrite => Verdict::Short(Random::part(seed, index)),
            FaultKind::LateError => Verdict::Late,
        }
    }
}

pub(super) fn eio() -> io::Error {
    rustix::io::Errno::IO.into()
}
