//! A walk over the tables of a run, for readers.

use crate::error::Result;
use crate::merge::{Chain, Links};
use crate::sstable::{self, Access};
use crate::sync::Arc;

use super::{Run, Table};

/// A cursor over a run, whose tables are opened as they are reached.
pub(crate) type RunCursor = Chain<RunTables>;

/// A run's tables, kept alive.
pub(crate) struct RunTables(Vec<Arc<Table>>);

impl Links for RunTables {
    type Cursor = sstable::Cursor;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn largest(&self, index: usize) -> &[u8] {
        &self.0[index].meta.largest
    }

    fn smallest(&self, index: usize) -> &[u8] {
        &self.0[index].meta.smallest
    }

    fn open(&self, index: usize) -> Result<Self::Cursor> {
        Ok(self.0[index].reader()?.cursor(Access::Cached))
    }
}

impl Run {
    /// A cursor over the run.
    pub(crate) fn cursor(&self) -> RunCursor {
        Chain::new(RunTables(self.tables().to_vec()))
    }
}
