//! Where outputs are cut into tables.

use crate::slice::Slice;

/// Decides between two user keys whether a new table begins.
///
/// Outputs end at borders of the level below theirs, so that a later compaction of one of them
/// takes in few tables there that it only grazes. The more borders a table has crossed, the longer
/// it is made before it is cut, as in `RocksDB` ("Reduce write amplification by aligning compaction
/// output file boundaries", 2022): between half and twice the wanted size.
pub(crate) struct Cutter<'a> {
    table_bytes: u64,
    /// First keys of the tables below, ascending.
    borders: &'a [Slice],
    next_border: usize,
    /// Borders within the table so far.
    crossed: u64,
}

/// Crossed borders that count towards the size of a table.
const CROSSED_MAX: u64 = 8;
/// Percent of the wanted size at which a table may be cut at a border.
const CUT_PERCENT_MIN: u64 = 50;
/// Percent that each crossed border adds.
const CUT_PERCENT_A_BORDER: u64 = 5;

impl<'a> Cutter<'a> {
    pub(crate) fn new(table_bytes: u64, borders: &'a [Slice]) -> Self {
        debug_assert!(borders.is_sorted(), "borders out of order");
        Self {
            table_bytes,
            borders,
            next_border: 0,
            crossed: 0,
        }
    }

    /// True if `user`, which is behind all keys so far, begins a new table; `bytes` are those of
    /// the table so far, 0 if it has no entry.
    pub(crate) fn cuts_before(&mut self, user: &[u8], bytes: u64) -> bool {
        let borders = &self.borders[self.next_border..];
        let passed = borders
            .iter()
            .take_while(|border| ***border <= *user)
            .count();
        self.next_border += passed;
        if bytes == 0 {
            self.crossed = 0;
            return false;
        }
        self.crossed += passed as u64;
        let cuts = if self.borders.is_empty() {
            bytes >= self.table_bytes
        } else {
            let percent = CUT_PERCENT_MIN + CUT_PERCENT_A_BORDER * self.crossed.min(CROSSED_MAX);
            let is_long_enough = bytes.saturating_mul(100) >= self.table_bytes * percent;
            passed > 0 && is_long_enough || bytes >= 2 * self.table_bytes
        };
        if cuts {
            self.crossed = 0;
        }
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts entries of 10 bytes with keys 0, 1, 2 .. into tables of about 100; the sizes.
    fn sizes(keys: u8, borders: &[u8]) -> Vec<u64> {
        let borders: Vec<Slice> = borders.iter().map(|b| Slice::copy_from(&[*b])).collect();
        let mut cutter = Cutter::new(100, &borders);
        let mut sizes = vec![0];
        for key in 0..keys {
            let last = sizes.last_mut().unwrap();
            if cutter.cuts_before(&[key], *last) {
                sizes.push(10);
            } else {
                *last += 10;
            }
        }
        sizes
    }

    #[test]
    fn without_borders_tables_have_the_wanted_size() {
        assert_eq!(sizes(25, &[]), [100, 100, 50]);
    }

    #[test]
    fn tables_end_at_borders_within_half_and_twice_the_size() {
        assert_eq!(sizes(30, &[3, 8, 16]), [80, 80, 140]);
        assert_eq!(sizes(50, &[25, 45]), [200, 200, 100]);
        assert_eq!(sizes(30, &[5]), [200, 100]);
        assert_eq!(sizes(30, &[6]), [60, 200, 40]);
    }
}
