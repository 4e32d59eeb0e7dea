//! Medians and ratios of what was measured, and their goals.

use crate::measured::Measured;
use crate::rounds::{Client, Results, Work};

/// One figure of every round.
type Figure = fn(&Measured) -> f64;

/// What has to be reached.
#[derive(Debug, Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn tell(self, value: f64) -> String {
        let (word, limit, is_met) = match self {
            Goal::AtLeast(limit) => ("at least", limit, value >= limit),
            Goal::AtMost(limit) => ("at most", limit, value <= limit),
        };
        let outcome = if is_met { "met" } else { "MISSED" };
        format!("{word} {limit}: {outcome}")
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

/// Prints a row for every figure of every client, then the goals. Ratios are medians of those of
/// the rounds, so that what slows a round as a whole counts nothing.
pub(crate) fn print(results: &Results) {
    println!();
    println!("| what | client | M records/s | us of processors a record | MiB | bytes written |");
    println!("|---|---|---|---|---|---|");
    for ((work, client), rounds) in results {
        let of = |figure: Figure| median(rounds.iter().map(figure).collect());
        let or_none = |value: f64, digits: usize| match value.is_nan() {
            true => String::new(),
            false => format!("{value:.digits$}"),
        };
        println!(
            "| {work:?} | {client:?} | {:.2} | {:.3} | {} | {} |",
            of(Measured::rate),
            of(Measured::cpu_us),
            or_none(of(|measured| more(measured, 2)), 0),
            or_none(of(|measured| more(measured, 0)), 2),
        );
    }
    println!();
    for (what, value, goal) in goals(results) {
        if value.is_nan() {
            continue;
        }
        println!("{what}: {value:.2}, {}", goal.tell(value));
    }
}

/// One of the numbers that only restores have.
fn more(measured: &Measured, index: usize) -> f64 {
    measured.more.get(index).copied().unwrap_or(f64::NAN)
}

fn goals(results: &Results) -> Vec<(&'static str, f64, Goal)> {
    use Client::{Librdkafka, Siltstone, Streams};
    let of = |work: Work, client: Client| results.get(&(work, client)).cloned().unwrap_or_default();
    let figure =
        |work: Work, figure: Figure| median(of(work, Siltstone).iter().map(figure).collect());
    let ratio = |work: Work, peer: Client, figure: Figure| {
        let (ours, theirs) = (of(work, Siltstone), of(work, peer));
        let pairs = ours.iter().zip(&theirs);
        median(
            pairs
                .map(|(ours, theirs)| figure(ours) / figure(theirs))
                .collect(),
        )
    };
    vec![
        (
            "produce, times librdkafka",
            ratio(Work::Produce, Librdkafka, Measured::rate),
            Goal::AtLeast(1.5),
        ),
        (
            "produce, processors a record, times librdkafka",
            ratio(Work::Produce, Librdkafka, Measured::cpu_us),
            Goal::AtMost(0.25),
        ),
        (
            "fetch and decode, times librdkafka",
            ratio(Work::Fetch, Librdkafka, Measured::rate),
            Goal::AtLeast(2.0),
        ),
        (
            "decode alone, M records/s of a processor",
            figure(Work::Decode, |measured| 1.0 / measured.cpu_us()),
            Goal::AtLeast(20.0),
        ),
        (
            "restore, M records/s",
            figure(Work::Restore, Measured::rate),
            Goal::AtLeast(2.2),
        ),
        (
            "restore, times Kafka Streams",
            ratio(Work::Restore, Streams, Measured::rate),
            Goal::AtLeast(5.0),
        ),
        (
            "restored and merged, bytes written for one of records",
            figure(Work::Restore, |measured| more(measured, 0)),
            Goal::AtMost(2.2),
        ),
    ]
}
