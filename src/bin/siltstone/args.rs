//! The command line.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand, ValueEnum};

use super::text::Form;

const AFTER_HELP: &str = "\
Keys and values are typed and printed as text: a byte that is no printable UTF-8 is \\xNN, a
backslash is \\\\. With --hex both are hexadecimal digits.

Exit codes: 0 for success, 1 if the key or topic asked for is not there or a topic differs from
what it should be, 2 for an error.
A store can be open in one process at a time; `dump` reads files of open stores too.

Examples:
  siltstone put ./store greeting hello --create
  siltstone get ./store greeting
  siltstone scan ./store --prefix user: --limit 10
  siltstone verify ./store
  siltstone dump ./store/CURRENT
  siltstone restore kafka://localhost:9092/words ./copy --store counts

Where a command takes a CHANGELOG, it is a directory or
kafka://HOST:PORT[,HOST:PORT...]/PREFIX[?OPTION=VALUE&...] with the options ca=FILE (encrypt),
user=NAME, password-file=FILE or password-env=VARIABLE, mechanism=NAME, timeout-ms=N and
plain-without-tls=true.";

/// Looks into the stores and changelogs of Siltstone.
#[derive(Debug, Parser)]
#[command(name = "siltstone", version, after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the value of a key; exit with 1 if there is none.
    #[command(after_help = "\
Examples:
  siltstone get ./store greeting
  siltstone get ./store 'id\\x00\\x01' --keyspace users
  siltstone get ./store 6964 --hex")]
    Get {
        #[command(flatten)]
        target: Target,
        /// The key.
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
    /// Put one key; durable, also against power loss, on return.
    #[command(after_help = "\
Examples:
  siltstone put ./store greeting hello
  siltstone put ./new-store greeting hello --create --keyspace words")]
    Put {
        #[command(flatten)]
        target: Target,
        /// The key.
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// Its value.
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Create the store and the keyspace if they are missing.
        #[arg(long)]
        create: bool,
    },
    /// Delete one key, whether it is there or not; durable on return.
    #[command(after_help = "\
Examples:
  siltstone delete ./store greeting")]
    Delete {
        #[command(flatten)]
        target: Target,
        /// The key.
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
    /// Print entries in the order of their keys, as KEY<TAB>VALUE.
    #[command(after_help = "\
Examples:
  siltstone scan ./store
  siltstone scan ./store --from a --to b
  siltstone scan ./store --prefix user: --reverse --limit 1 --keys-only")]
    Scan(Scan),
    /// Print what the store holds, level by level.
    #[command(after_help = "\
Examples:
  siltstone stats ./store")]
    Stats {
        /// Directory of the store.
        store: PathBuf,
    },
    /// Read every block of every table and check all checksums and orders.
    #[command(after_help = "\
The log and the manifest are checked as well, by opening the store.

Examples:
  siltstone verify ./store && echo sound")]
    Verify {
        /// Directory of the store.
        store: PathBuf,
    },
    /// Print what a file of a store or a changelog holds, and where and why it ends.
    #[command(after_help = "\
Takes tables (.sst), segments of write-ahead logs (.wal) and changelogs (.log, .base), manifests,
CURRENT, and a changelog's INDEX and CHANGELOG. What a file is, its content tells, not its name.
A torn tail behind the durable end is no error: a crash leaves one. Damage below it is.

Examples:
  siltstone dump ./store/CURRENT
  siltstone dump ./store/00000001.wal | less
  siltstone dump ./changelog/task-count/INDEX")]
    Dump {
        /// The file.
        file: PathBuf,
    },
    /// Bring a task's state up to where its changelog ends, without taking the task over.
    #[command(after_help = "\
What is there already is gone on from. The task may run elsewhere meanwhile.

Examples:
  siltstone restore ./changelog ./copy --job word-count --store counts
  siltstone restore kafka://localhost:9092/words ./copy --store counts --partition 3
  siltstone restore kafka://localhost:9092/app ./copy --timestamped views=app-views-changelog")]
    Restore {
        #[command(flatten)]
        task: Stores,
        /// Directory of the state; made if it is missing.
        state: PathBuf,
        /// Replace state that does not belong to the changelog by what the changelog has.
        #[arg(long)]
        rebuild: bool,
    },
    /// Keep a task's state close to its changelog, until this is ended.
    #[command(after_help = "\
It may be killed whenever one likes: it goes on from where it was, and so does a task that is
opened on its directory.

Examples:
  siltstone standby kafka://localhost:9092/words ./copy --store counts")]
    Standby {
        #[command(flatten)]
        task: Stores,
        /// Directory of the state; made if it is missing.
        state: PathBuf,
        /// Replace state that does not belong to the changelog by what the changelog has.
        #[arg(long)]
        rebuild: bool,
        /// How long to rest between two looks at the changelog.
        #[arg(long, value_name = "MS", default_value_t = 200)]
        every_ms: u64,
        /// End in good order after so many looks.
        #[arg(long, value_name = "N")]
        polls: Option<u64>,
    },
    /// Create changelog topics, or tell how they are.
    Topic {
        #[command(subcommand)]
        command: TopicCommand,
    },
    /// List the names of the store's keyspaces.
    #[command(after_help = "\
Examples:
  siltstone keyspaces ./store")]
    Keyspaces {
        /// Directory of the store.
        store: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create the topics of these stores that are missing; exit with 1 if an existing one differs.
    #[command(after_help = "\
The topic of the input positions is created with them. An existing topic is never altered.

Examples:
  siltstone topic create kafka://localhost:9092/words --store counts --partitions 4
  siltstone topic create kafka://localhost:9092/app --store views --preset kafka-streams")]
    Create {
        #[command(flatten)]
        stores: Stores,
        #[command(flatten)]
        shape: Shape,
    },
    /// Print where partitions start and end, and how topics differ from what they should be; exit
    /// with 1 if they do or are missing.
    #[command(after_help = "\
Examples:
  siltstone topic describe kafka://localhost:9092/words --store counts
  siltstone topic describe ./changelog --job word-count --store counts")]
    Describe {
        #[command(flatten)]
        stores: Stores,
        #[command(flatten)]
        shape: Shape,
    },
}

/// A task's changelog and the stores that are meant.
#[derive(Debug, Arguments)]
pub(crate) struct Stores {
    /// Directory or URL of the changelog.
    pub(crate) changelog: String,
    /// The job, by whose name its topics and its owners are known; the prefix of a Kafka URL unless
    /// given.
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,
    /// The task's number, which is that of its partitions.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) partition: u32,
    /// A key-value store, and its topic if that is not JOB-NAME-changelog.
    #[arg(
        long,
        value_name = "NAME[=TOPIC]",
        required_unless_present = "timestamped"
    )]
    pub(crate) store: Vec<String>,
    /// A timestamped store, likewise.
    #[arg(long, value_name = "NAME[=TOPIC]")]
    pub(crate) timestamped: Vec<String>,
}

/// What topics are created as and compared with.
#[derive(Debug, Arguments)]
pub(crate) struct Shape {
    /// As many as the job has tasks.
    #[arg(long, value_name = "N")]
    pub(crate) partitions: Option<u32>,
    /// How many brokers hold each partition; the brokers' default unless given.
    #[arg(long, value_name = "N")]
    pub(crate) replication: Option<u16>,
    /// Whose way of configuring changelog topics.
    #[arg(long, value_enum, default_value_t = Preset::Siltstone)]
    pub(crate) preset: Preset,
    /// Another configuration, by Kafka's name for it.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) config: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    Siltstone,
    KafkaStreams,
    Samza,
}

/// Which entries are meant, and how they are written.
#[derive(Debug, Arguments)]
pub(crate) struct Target {
    /// Directory of the store.
    pub(crate) store: PathBuf,
    /// The keyspace; may be left out if the store has just one.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) keyspace: Option<String>,
    /// Keys and values are hexadecimal digits.
    #[arg(long)]
    hex: bool,
}

impl Target {
    pub(crate) fn form(&self) -> Form {
        if self.hex { Form::Hex } else { Form::Escaped }
    }
}

#[derive(Debug, Arguments)]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The first key, inclusive.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// Where to end, exclusive.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    /// Only keys that begin with this.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["from", "to"])]
    #[arg(allow_hyphen_values = true)]
    pub(crate) prefix: Option<String>,
    /// From the last key to the first.
    #[arg(long)]
    pub(crate) reverse: bool,
    /// At most so many entries.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print keys without values.
    #[arg(long)]
    pub(crate) keys_only: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
