//! The command line.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};

use super::text::Form;

const AFTER_HELP: &str = "\
Keys and values are typed and printed as text: a byte that is no printable UTF-8 is \\xNN, a
backslash is \\\\. With --hex both are hexadecimal digits.

Exit codes: 0 for success, 1 if the key asked for is not there, 2 for an error.
A store can be open in one process at a time; `dump` reads files of open stores too.

Examples:
  siltstone put ./store greeting hello --create
  siltstone get ./store greeting
  siltstone scan ./store --prefix user: --limit 10
  siltstone verify ./store
  siltstone dump ./store/CURRENT";

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
    /// List the names of the store's keyspaces.
    #[command(after_help = "\
Examples:
  siltstone keyspaces ./store")]
    Keyspaces {
        /// Directory of the store.
        store: PathBuf,
    },
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
