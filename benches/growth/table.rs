//! The tables, for people and as a csv.

use std::fmt::Write;

use crate::case::Series;
use crate::meter::Finding;
use crate::parent::Line;
use crate::theory::{Expected, expected};

/// A cost that has grown by so much more than it may bends.
const BENDS: f64 = 1.3;

pub(crate) const CSV_HEAD: &str = "series,grown,phase,operations,ops_per_s,caller_ns,all_ns,\
    cost_growth,cost_growth_expected,written,written_growth,written_growth_expected,peak_mib,\
    anonymous_mib\n";

/// One phase of one case beside the same phase of the first case.
struct Row<'a> {
    grown: u64,
    finding: &'a Finding,
    cost: Growth,
    written: Option<Growth>,
}

/// How many times as much as in the first case, and how many times as much it may be.
#[derive(Debug, Clone, Copy)]
struct Growth {
    found: f64,
    expected: f64,
}

impl Growth {
    fn bends(&self) -> bool {
        self.found > BENDS * self.expected
    }
}

/// What an operation of the phase costs: of the threads that call where others do not belong to
/// it, else of all.
fn cost(finding: &Finding) -> f64 {
    match &finding.phase[..] {
        "load" | "get" | "update" | "scan" => finding.caller_ns,
        _ => finding.all_ns,
    }
}

/// The rows of a phase.
fn rows<'a>(lines: &'a [Line], phase: &str) -> Vec<Row<'a>> {
    let of_phase = |line: &'a Line| {
        let finding = line.findings.iter().find(|found| found.phase == phase)?;
        Some((line, finding, expected(&line.case, phase)))
    };
    let found: Vec<(&Line, &Finding, Expected)> = lines.iter().filter_map(of_phase).collect();
    let Some((_, first, first_expected)) = found.first().copied() else {
        return Vec::new();
    };
    let row = |(line, finding, expected): (&Line, &'a Finding, Expected)| Row {
        grown: line.grown,
        finding,
        cost: Growth {
            found: cost(finding) / cost(first),
            expected: expected.ns / first_expected.ns,
        },
        written: expected
            .written
            .zip(first_expected.written)
            .map(|written| Growth {
                found: finding.written / first.written,
                expected: written.0 / written.1,
            }),
    };
    found.into_iter().map(row).collect()
}

fn phases(lines: &[Line]) -> impl Iterator<Item = &str> {
    let first = lines.first().into_iter();
    first.flat_map(|line| line.findings.iter().map(|finding| &finding.phase[..]))
}

/// Phases whose operations are stores: what one costs is told where there are more and more.
const OF_STORES: &[&str] = &["open", "close", "reopen"];

/// The table of a series: the cases of one phase under each other.
pub(crate) fn text(series: Series, lines: &[Line]) -> String {
    let has_stores = matches!(series, Series::Keyspaces | Series::Dbs | Series::Tasks);
    let is_told = |phase: &&str| has_stores || !OF_STORES.contains(phase);
    let mut out = String::new();
    for phase in phases(lines).filter(is_told) {
        let head = format!("{series:?}, {phase}");
        let _ = writeln!(
            out,
            "\n{head:<24}{:>11}{:>11}{:>11}{:>8}{:>6}{:>8}{:>8}{:>6}{:>10}{:>10}",
            "ops/s",
            "caller ns",
            "all ns",
            "grown",
            "may",
            "B/B",
            "grown",
            "may",
            "peak MiB",
            "no files"
        );
        for row in rows(lines, phase) {
            let Row {
                grown,
                finding,
                cost,
                written,
            } = row;
            let bytes = written.map_or_else(
                || format!("{:>8}{:>6}", "", ""),
                |written| format!("{:>8.2}{:>6.2}", written.found, written.expected),
            );
            let bends = cost.bends() || written.is_some_and(|written| written.bends());
            let _ = writeln!(
                out,
                "{grown:>24}{:>11.0}{:>11.0}{:>11.0}{:>8.2}{:>6.2}{:>8.2}{bytes}{:>10.0}{:>10.0}{}",
                finding.speed(),
                finding.caller_ns,
                finding.all_ns,
                cost.found,
                cost.expected,
                finding.written,
                finding.peak_mib,
                finding.anonymous_mib,
                if bends { "  bends" } else { "" }
            );
        }
    }
    out
}

/// The same as lines of a csv, without its head.
pub(crate) fn csv(series: Series, lines: &[Line]) -> String {
    let mut out = String::new();
    for phase in phases(lines) {
        for row in rows(lines, phase) {
            let finding = row.finding;
            let written = row.written.map_or_else(
                || ",".to_owned(),
                |written| format!("{:.3},{:.3}", written.found, written.expected),
            );
            let _ = writeln!(
                out,
                "{series:?},{},{phase},{},{:.0},{:.0},{:.0},{:.3},{:.3},{:.3},\
                 {written},{:.0},{:.0}",
                row.grown,
                finding.operations,
                finding.speed(),
                finding.caller_ns,
                finding.all_ns,
                row.cost.found,
                row.cost.expected,
                finding.written,
                finding.peak_mib,
                finding.anonymous_mib,
            );
        }
    }
    out
}
