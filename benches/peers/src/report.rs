//! The table of ratios: which number of which workload is a line, and which ratio is the goal.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::engine::Name;
use crate::parent::Results;
use crate::workload::Workload;

/// Which way a number is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Good {
    High,
    Low,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    workload: Workload,
    value: &'static str,
    unit: &'static str,
    good: Good,
    /// How far ahead Siltstone is to be of the better of RocksDB and fjall.
    pub(crate) goal: f64,
    /// The workload whose numbers of the peers count, where it is another one.
    against: Option<Workload>,
}

const fn speed(name: &'static str, workload: Workload, goal: f64) -> Line {
    Line {
        name,
        workload,
        value: "ops_per_s",
        unit: "ops/s",
        good: Good::High,
        goal,
        against: None,
    }
}

const fn low(
    name: &'static str,
    workload: Workload,
    value: &'static str,
    unit: &'static str,
    goal: f64,
) -> Line {
    Line {
        name,
        workload,
        value,
        unit,
        good: Good::Low,
        goal,
        against: None,
    }
}

const fn settled(name: &'static str, workload: Workload) -> Line {
    Line {
        value: "settled_ops_per_s",
        ..speed(name, workload, 1.0)
    }
}

use Workload as W;

const WA17: &str = "write amplification, ratio 17, WAL";
const WA160: &str = "write amplification, ratio 160, WAL";

pub(crate) const LINES: &[Line] = &[
    speed("fillrandom", W::Fillrandom, 3.0),
    settled("fillrandom until settled", W::Fillrandom),
    speed("fillseq", W::Fillseq, 1.5),
    speed("overwrite", W::Overwrite, 3.0),
    settled("overwrite until settled", W::Overwrite),
    speed("readrandom, cache holds all", W::ReadrandomAll, 3.0),
    speed("readrandom, cache holds part", W::ReadrandomPart, 2.0),
    speed("readmissing", W::Readmissing, 2.0),
    speed("readseq", W::Readseq, 3.0),
    speed("readreverse", W::Readreverse, 3.0),
    speed("seekrandom, next 10", W::Seek10, 3.0),
    speed("seekrandom, next 100", W::Seek100, 3.0),
    speed("updaterandom (get + put)", W::Updaterandom, 4.0),
    speed("YCSB A", W::YcsbA, 3.0),
    speed("YCSB B", W::YcsbB, 3.0),
    speed("YCSB C", W::YcsbC, 3.0),
    speed("YCSB D", W::YcsbD, 3.0),
    speed("YCSB E", W::YcsbE, 3.0),
    speed("YCSB F", W::YcsbF, 3.0),
    speed("readwhilewriting", W::Readwhilewriting, 3.0),
    speed("fillsync, 1 thread", W::Fillsync1, 1.0),
    speed("fillsync, 8 threads", W::Fillsync8, 1.2),
    speed("fillbatch", W::Fillbatch, 2.5),
    low(
        "longest put of fillrandom",
        W::Fillrandom,
        "max_us",
        "us",
        2.0,
    ),
    low("open after a kill", W::Recovery, "open_s", "s", 4.0),
    low(
        "peak memory of fillrandom",
        W::Fillrandom,
        "peak_mib",
        "MiB",
        1.0,
    ),
    low(WA17, W::WriteAmp17, "write_amp", "B/B", 1.0),
    Line {
        against: Some(W::WriteAmp17),
        ..low(
            "  without WAL, peers with",
            W::WriteAmp17NoWal,
            "write_amp",
            "B/B",
            1.25,
        )
    },
    low(
        "  without WAL, peers too",
        W::WriteAmp17NoWal,
        "write_amp",
        "B/B",
        1.0,
    ),
    low("  space", W::WriteAmp17, "space_amp", "B/B", 1.0),
    low(WA160, W::WriteAmp160, "write_amp", "B/B", 1.0 / 0.7),
    Line {
        against: Some(W::WriteAmp160),
        ..low(
            "  without WAL, peers with",
            W::WriteAmp160NoWal,
            "write_amp",
            "B/B",
            1.0 / 0.6,
        )
    },
    low(
        "  without WAL, peers too",
        W::WriteAmp160NoWal,
        "write_amp",
        "B/B",
        1.0,
    ),
    low("  space", W::WriteAmp160, "space_amp", "B/B", 1.0),
];

impl Line {
    fn value(&self, results: &Results, engine: Name) -> Option<f64> {
        let workload = match self.against {
            Some(other) if engine != Name::Siltstone => other,
            _ => self.workload,
        };
        results.median(engine, workload, self.value)
    }

    /// How far Siltstone is ahead of the best of these; below 1 it is behind.
    pub(crate) fn ratio(&self, results: &Results, peers: &[Name]) -> Option<f64> {
        let own = self.value(results, Name::Siltstone)?;
        let ratio = |peer: &Name| {
            let other = self.value(results, *peer)?;
            Some(if self.good == Good::High {
                own / other
            } else {
                other / own
            })
        };
        peers.iter().filter_map(ratio).min_by(f64::total_cmp)
    }

    /// The same by what the calling thread used of processors: other work on the machine changes
    /// it less than the time that passes.
    fn processor_ratio(&self, results: &Results) -> Option<f64> {
        let line = Self {
            value: "caller_ns",
            good: Good::Low,
            ..*self
        };
        line.ratio(results, RIVALS)
            .filter(|_| self.value == "ops_per_s")
    }

    fn is_measured(&self, results: &Results) -> bool {
        Name::ALL
            .iter()
            .any(|engine| self.value(results, *engine).is_some())
    }
}

/// The engines that the goals are told against: logs and sorted runs as Siltstone is.
pub(crate) const RIVALS: &[Name] = &[Name::Rocksdb, Name::Fjall];

fn shown(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 1_000_000.0 => format!("{:.2} M", value / 1_000_000.0),
        Some(value) if value >= 10_000.0 => format!("{:.0} k", value / 1000.0),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// The table of ratios, of latencies, and of processor time.
pub(crate) fn print(results: &Results) {
    print_ratios(results);
    print_each(
        results,
        "latency of one operation, us: p50 / p99 / p99.9 / max",
        |engine, line| {
            let of = |name| shown(results.median(engine, line.workload, name));
            let p50 = results.median(engine, line.workload, "p50_us")?;
            let p50 = shown(Some(p50));
            Some(format!(
                "{p50} / {} / {} / {}",
                of("p99_us"),
                of("p999_us"),
                of("max_us")
            ))
        },
    );
    let title = "processor time of one operation: ns of the calling thread / us of all threads";
    print_each(results, title, |engine, line| {
        let caller = results.median(engine, line.workload, "caller_ns")?;
        let all = results.median(engine, line.workload, "all_us");
        Some(format!("{caller:.0} / {}", shown(all)))
    });
}

fn print_ratios(results: &Results) {
    print!("\n{:<36}{:<7}", "workload", "unit");
    for engine in &results.engines {
        print!("{:>11}", engine.text());
    }
    println!("{:>8}{:>8}{:>8}{:>8}", "ratio", "goal", "by cpu", "/ redb");
    for line in LINES.iter().filter(|line| line.is_measured(results)) {
        print!("{:<36}{:<7}", line.name, line.unit);
        for engine in &results.engines {
            print!("{:>11}", shown(line.value(results, *engine)));
        }
        let ratio = shown(line.ratio(results, RIVALS));
        let redb = shown(line.ratio(results, &[Name::Redb]));
        let processor = shown(line.processor_ratio(results));
        println!("{ratio:>8}{:>8.2}{processor:>8}{redb:>8}", line.goal);
    }
}

/// One table with a row for each workload that has such numbers.
fn print_each(results: &Results, title: &str, cell: impl Fn(Name, &Line) -> Option<String>) {
    println!("\n{title}");
    for line in LINES.iter().filter(|line| line.value == "ops_per_s") {
        let cells = results.engines.iter().map(|engine| cell(*engine, line));
        let cells: Vec<Option<String>> = cells.collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        print!("{:<30}", line.name);
        for cell in cells {
            print!("{:>30}", cell.unwrap_or_else(|| "-".to_owned()));
        }
        println!();
    }
}

pub(crate) fn write_ratios(results: &Results, path: &Path) -> Result<()> {
    let mut out = String::from("workload,unit");
    for engine in Name::ALL {
        write!(out, ",{}", engine.text())?;
    }
    out += ",ratio,ratio_redb,goal\n";
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for line in LINES.iter().filter(|line| line.is_measured(results)) {
        write!(out, "\"{}\",{}", line.name.trim(), line.unit)?;
        for engine in Name::ALL {
            write!(out, ",{}", number(line.value(results, engine)))?;
        }
        let ratio = number(line.ratio(results, RIVALS));
        let redb = number(line.ratio(results, &[Name::Redb]));
        writeln!(out, ",{ratio},{redb},{}", line.goal)?;
    }
    Ok(fs::write(path, out)?)
}
