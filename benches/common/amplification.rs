//! Criterion's measurement of write amplification: bytes written for each byte of the user.

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};

/// Its values are ratios that a run returns by `iter_custom`; nothing is timed.
pub(crate) struct WriteAmplification;

impl Measurement for WriteAmplification {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) -> Self::Intermediate {}

    fn end(&self, (): Self::Intermediate) -> Self::Value {
        // Only runs that return their own value are measured.
        0.0
    }

    fn add(&self, first: &Self::Value, second: &Self::Value) -> Self::Value {
        first + second
    }

    fn zero(&self) -> Self::Value {
        0.0
    }

    fn to_f64(&self, value: &Self::Value) -> f64 {
        // Criterion takes a value of zero for a broken clock.
        value.max(f64::MIN_POSITIVE)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Ratio
    }
}

struct Ratio;

impl ValueFormatter for Ratio {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        "B/B"
    }

    fn scale_throughputs(
        &self,
        _typical: f64,
        _throughput: &Throughput,
        _values: &mut [f64],
    ) -> &'static str {
        "B/B"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "B/B"
    }
}
