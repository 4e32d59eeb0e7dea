//! Numbers drawn at random, all alike or a few of them most of the time.

use crate::records::mixed;

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mixed(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// From 0 up to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Ranks from 0 on, the lower the likelier: the generator of YCSB (Gray et al., "Quickly
/// generating billion-record synthetic databases", 1994), constant 0.99.
pub(crate) struct Zipfian {
    items: f64,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipfian {
    #[expect(clippy::cast_precision_loss, reason = "counts of records fit")]
    pub(crate) fn new(items: u64) -> Self {
        let zeta = |items: u64| {
            (1..=items)
                .map(|rank| (rank as f64).powf(-THETA))
                .sum::<f64>()
        };
        let (two, all) = (zeta(2), zeta(items));
        Self {
            items: items as f64,
            zeta: all,
            eta: (1.0 - (2.0 / items as f64).powf(1.0 - THETA)) / (1.0 - two / all),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the number of items"
    )]
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let unit = random.unit();
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let rank = self.items * (self.eta * unit - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.items as u64 - 1)
    }
}
