//! A model of a partition's leader, and random numbers.

use std::collections::VecDeque;

use super::super::super::protocol::ErrorCode;
use super::super::super::protocol::records::{Batches, Scratch};

/// Brokers refuse batches that are longer, so that some have to be split.
const MESSAGE_BYTES_MAX: usize = 300;

/// A generator of numbers that a seed names.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// A partition's leader: its log, and what it knows of the producer.
#[derive(Default)]
pub(super) struct Log {
    /// The records' numbers, and whether they are in a transaction that is open.
    pub(super) records: Vec<(u64, bool)>,
    pub(super) leader: usize,
    pub(super) epoch: Option<i16>,
    /// First and last sequence number and offset of the newest batches, as many as Kafka keeps.
    pub(super) batches: VecDeque<(i32, i32, i64)>,
}

impl Log {
    /// What a leader does with a batch.
    pub(super) fn append(&mut self, bytes: &[u8]) -> (ErrorCode, i64) {
        if bytes.len() > MESSAGE_BYTES_MAX {
            let count = Batches::new(bytes).next().unwrap().unwrap().count;
            if count > 1 {
                return (ErrorCode::MESSAGE_TOO_LARGE, -1);
            }
        }
        let batch = Batches::new(bytes).next().unwrap().unwrap();
        batch.verify().unwrap();
        let count = i32::try_from(batch.count).unwrap();
        let first = batch.base_sequence;
        let last = (first.cast_unsigned() + batch.count - 1) & i32::MAX.cast_unsigned();
        let last = last.cast_signed();
        match self.epoch {
            Some(epoch) if batch.producer_epoch < epoch => {
                return (ErrorCode::INVALID_PRODUCER_EPOCH, -1);
            }
            Some(epoch) if batch.producer_epoch == epoch => {
                let same = self
                    .batches
                    .iter()
                    .find(|(from, to, _)| (*from, *to) == (first, last));
                if let Some((_, _, offset)) = same {
                    return (ErrorCode::NONE, *offset);
                }
                let newest = self.batches.back().expect("an epoch comes with a batch").1;
                if first != newest.wrapping_add(1) & i32::MAX {
                    return (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
                }
            }
            Some(_) if first != 0 => return (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1),
            // A producer that is not known may begin anywhere.
            _ => {}
        }
        if self.epoch != Some(batch.producer_epoch) {
            self.batches.clear();
        }
        self.epoch = Some(batch.producer_epoch);
        let offset = i64::try_from(self.records.len()).unwrap();
        self.batches.push_back((first, last, offset));
        if self.batches.len() > 5 {
            self.batches.pop_front();
        }
        let before = self.records.len();
        let is_open = batch.is_transactional();
        batch
            .for_each(&mut Scratch::default(), |_, record| {
                let number = u64::from_be_bytes(record.key.try_into().unwrap());
                self.records.push((number, is_open));
                Ok(())
            })
            .unwrap();
        assert_eq!(self.records.len(), before + usize::try_from(count).unwrap());
        (ErrorCode::NONE, offset)
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.records.iter().map(|(number, _)| *number).collect()
    }
}
