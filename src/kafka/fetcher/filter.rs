//! Which batches of an answer are records that count.

use std::collections::HashSet;

use crate::error::Result;
use crate::kafka::protocol::messages::AbortedTransaction;
use crate::kafka::protocol::records::{Batch, ControlType, Scratch};

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its records are committed.
    Deliver,
    /// Its records were aborted, or it holds none that are meant for readers.
    Skip,
}

/// Tells committed batches of one answer from aborted ones, which brokers send along with a list
/// of the aborted transactions that reach into the answer. Wants every batch, in order.
#[derive(Debug, Default)]
pub(super) struct ReadCommitted {
    /// The newest first, so that the next one is at the end.
    ahead: Vec<AbortedTransaction>,
    /// Producers whose transaction, at this point of the log, will be aborted.
    aborting: HashSet<i64>,
}

impl ReadCommitted {
    /// `aborted` in any order.
    pub(super) fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_unstable_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self {
            ahead: aborted,
            aborting: HashSet::new(),
        }
    }

    pub(super) fn judge(&mut self, batch: &Batch<'_>, scratch: &mut Scratch) -> Result<Verdict> {
        let last_offset = batch.last_offset();
        while let Some(begun) = self.ahead.pop_if(|next| next.first_offset <= last_offset) {
            self.aborting.insert(begun.producer_id);
        }
        if batch.is_control() {
            if batch.control_type(scratch)? == Some(ControlType::Abort) {
                self.aborting.remove(&batch.producer_id);
            }
            return Ok(Verdict::Skip);
        }
        if batch.is_transactional() && self.aborting.contains(&batch.producer_id) {
            return Ok(Verdict::Skip);
        }
        Ok(Verdict::Deliver)
    }
}
