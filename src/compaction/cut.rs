//! Where outputs are cut into tables.

use crate::slice::Slice;

/// What a border means for tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A table ends at a border where its size allows, so that a later compaction of it takes in
    /// few tables below that it only grazes.
    Near,
    /// A table ends at each border: what lies on its two sides is compacted apart.
    At,
}

/// Decides between two user keys whether a new table begins.
///
/// With [`Cut::Near`], the more borders a table has crossed, the longer it is made before it is
/// cut, as in `RocksDB` ("Reduce write amplification by aligning compaction output file
/// boundaries", 2022): between half and twice the wanted size.
pub(crate) struct Cutter<'a> {
    table_bytes: u64,
    cut: Cut,
    /// Ascending.
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
    pub(crate) fn new(table_bytes: u64, cut: Cut, borders: &'a [Slice]) -> Self {
        debug_assert!(borders.is_sorted(), "borders out of order");
        Self {
            table_bytes,
            cut,
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
        } else if self.cut == Cut::At {
            passed > 0 || bytes >= 2 * self.table_bytes
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
        sizes_of(Cut::Near, keys, borders)
    }

    fn sizes_of(cut: Cut, keys: u8, borders: &[u8]) -> Vec<u64> {
        let borders: Vec<Slice> = borders.iter().map(|b| Slice::copy_from(&[*b])).collect();
        let mut cutter = Cutter::new(100, cut, &borders);
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

    #[test]
    fn tables_end_at_each_border_that_counts() {
        assert_eq!(sizes_of(Cut::At, 30, &[3, 8]), [30, 50, 200, 20]);
        assert_eq!(sizes_of(Cut::At, 5, &[0, 9]), [50]);
        assert_eq!(sizes_of(Cut::At, 25, &[]), [100, 100, 50]);
    }
}
