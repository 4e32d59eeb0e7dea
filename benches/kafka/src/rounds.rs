//! The rounds: every client does the same, one after the other, again and again.

use std::collections::BTreeMap;
use std::process::Command;

use crate::Outcome;
use crate::command::Settings;
use crate::java::Java;
use crate::measured::Measured;
use crate::table;

/// What was measured, by what was done and by whom, in the order of rounds.
pub(crate) type Results = BTreeMap<(Work, Client), Vec<Measured>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    Produce,
    Fetch,
    Decode,
    Restore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    Siltstone,
    /// In one transaction.
    SiltstoneAtomic,
    Librdkafka,
    Krafka,
    Streams,
}

/// The task's namespace in restores.
const NAMESPACE: &str = "restored";

struct Rounds<'a> {
    settings: &'a Settings,
    java: Java,
    results: Results,
}

/// Measures everything, and prints it.
pub(crate) fn compare(settings: &Settings) -> Outcome<()> {
    let java = Java::start(&settings.java, &settings.bootstrap, &settings.folder)?;
    let mut rounds = Rounds {
        settings,
        java,
        results: Results::new(),
    };
    for round in 0..settings.rounds {
        rounds.transfer(round)?;
    }
    if settings.restores > 0 {
        let topic = format!("{NAMESPACE}-store-changelog");
        let records = settings.restored.to_string();
        rounds.run("fill", &[&topic, &records, "--atomic"])?;
        for round in 0..settings.restores {
            rounds.restore(round)?;
        }
    }
    table::print(&rounds.results);
    Ok(())
}

impl Rounds<'_> {
    /// Everybody writes; then everybody reads what librdkafka wrote.
    fn transfer(&mut self, round: u32) -> Outcome<()> {
        const WRITERS: [Client; 4] = [
            Client::Librdkafka,
            Client::Siltstone,
            Client::Krafka,
            Client::SiltstoneAtomic,
        ];
        const READERS: [Client; 3] = [Client::Siltstone, Client::Librdkafka, Client::Krafka];
        let topic = |client| format!("{client:?}-{round}");
        for client in turned(WRITERS, round) {
            self.java.ask(&format!("create {} 1", topic(client)))?;
            self.transfer_by(Work::Produce, client, &topic(client))?;
        }
        let written = topic(Client::Librdkafka);
        for client in turned(READERS, round) {
            self.transfer_by(Work::Fetch, client, &written)?;
        }
        let segment = self.settings.logs.join(format!("{written}-0"));
        let segment = segment.join(format!("{:020}.log", 0));
        let decoded = self.ours(&["decode", &segment.to_string_lossy()])?;
        self.note(Work::Decode, Client::Siltstone, decoded);
        for client in WRITERS {
            self.java.ask(&format!("delete {}", topic(client)))?;
        }
        Ok(())
    }

    fn transfer_by(&mut self, work: Work, client: Client, topic: &str) -> Outcome<()> {
        let records = self.settings.records.to_string();
        let is_produce = work == Work::Produce;
        let word = if is_produce { "produce" } else { "fetch" };
        let measured = match client {
            Client::Siltstone => self.run(word, &[topic, &records])?,
            Client::SiltstoneAtomic => self.run(word, &[topic, &records, "--atomic"])?,
            Client::Krafka => self.run(&format!("krafka-{word}"), &[topic, &records])?,
            Client::Librdkafka => {
                let mut command = Command::new(&self.settings.librdkafka);
                command.args([word, &self.settings.bootstrap, topic, &records]);
                told_by(&mut command)?
            }
            Client::Streams => return Err("Kafka Streams only restores".into()),
        };
        self.note(work, client, measured);
        Ok(())
    }

    /// Both restore the same topic.
    fn restore(&mut self, round: u32) -> Outcome<()> {
        for client in turned([Client::Siltstone, Client::Streams], round) {
            let folder = self.settings.folder.join(format!("{client:?}-{round}"));
            std::fs::create_dir_all(&folder)?;
            let measured = if client == Client::Streams {
                self.streams(&folder)?
            } else {
                let records = self.settings.restored.to_string();
                self.run("restore", &[NAMESPACE, &records, &folder.to_string_lossy()])?
            };
            std::fs::remove_dir_all(&folder)?;
            self.note(Work::Restore, client, measured);
        }
        Ok(())
    }

    fn streams(&self, folder: &std::path::Path) -> Outcome<Measured> {
        let settings = self.settings;
        let mut java = Java::start(&settings.java, &settings.bootstrap, folder)?;
        // Starting up and writing classes is not the restore.
        java.ask(&format!("leader {NAMESPACE}-store-changelog 0"))?;
        let (before, _) = java.system()?;
        let told = java.ask(&format!("streams-time {NAMESPACE}"))?;
        let (written, memory_mib) = java.system()?;
        let mut measured = Measured::parse(&told)?;
        let raw = measured.records * (crate::ours::KEY_LEN + crate::ours::VALUE_LEN) as f64;
        let restored = settings.restored as f64;
        if measured.records < restored {
            return Err(format!("Kafka Streams restored {}", measured.records).into());
        }
        measured.more = vec![(written - before) / raw, measured.seconds, memory_mib];
        Ok(measured)
    }

    /// A command of this program in a process of its own.
    fn run(&self, word: &str, words: &[&str]) -> Outcome<Measured> {
        let mut all = vec![word, &self.settings.bootstrap];
        all.extend(words);
        self.ours(&all)
    }

    fn ours(&self, words: &[&str]) -> Outcome<Measured> {
        told_by(Command::new(std::env::current_exe()?).args(words))
    }

    fn note(&mut self, work: Work, client: Client, measured: Measured) {
        println!(
            "{work:?} {client:?}: {:.2} M records/s, {:.3} us of processors a record{}",
            measured.rate(),
            measured.cpu_us(),
            match measured.more[..] {
                [written, merged, memory] => format!(
                    "; {written:.2} bytes written for one of records, merged after {merged:.1} s, \
                     {memory:.0} MiB"
                ),
                _ => String::new(),
            }
        );
        self.results
            .entry((work, client))
            .or_default()
            .push(measured);
    }
}

/// Who went first goes later in the next round.
fn turned<const COUNT: usize>(mut clients: [Client; COUNT], round: u32) -> [Client; COUNT] {
    clients.rotate_left(round as usize % COUNT);
    clients
}

/// Runs a client to its end, and reads what it measured.
fn told_by(command: &mut Command) -> Outcome<Measured> {
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {} {said}", output.status).into());
    }
    Measured::parse(&String::from_utf8(output.stdout)?)
}
