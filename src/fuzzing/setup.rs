//! How a store under test is set up: drawn from the input, where the environment does not say.

use crate::options::{
    Compression, KeyspaceOptions, Options, ReadMode, RuntimeOptions, Strategy, Wal,
};

use super::input::Input;

/// The environment variable that sets options: `name=value`, with commas between them.
const VARIABLE: &str = "SILTSTONE_FUZZ_OPTIONS";

/// The upper levels fill and empty often.
const LAZY: Strategy = Strategy::LazyLeveled {
    runs_max: 2,
    ratio: 2,
};

/// Few bytes of everything, so that short runs reach all parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) wal: Wal,
    read_mode: ReadMode,
    memory_bytes_max: usize,
    cache_bytes: usize,
    memtable_bytes_max: usize,
    wal_bytes_max: u64,
    block_bytes: usize,
    table_bytes: u64,
    compaction: Strategy,
    level_ratio: u32,
    level0_runs_max: usize,
    compression: Compression,
    uncompressed_levels: Option<usize>,
    filter_bits: Option<(u32, u32)>,
}

impl Setup {
    /// # Panics
    ///
    /// If the environment names options that there are not; [`from_environment`] tells first.
    pub(super) fn draw(input: &mut Input<'_>) -> Self {
        let wal = [Wal::On, Wal::Off][input.index(2)];
        let read_mode = [ReadMode::Mapped, ReadMode::Positional][input.index(2)];
        let shape = input.index(10);
        let drawn = Self {
            wal,
            read_mode,
            block_bytes: 64 << (shape % 5),
            compaction: [Strategy::Leveled, LAZY][shape / 5],
            compression: [Compression::Lz4, Compression::None][input.index(2)],
            memory_bytes_max: 8 << 20,
            cache_bytes: 1 << 20,
            memtable_bytes_max: 8 << 10,
            wal_bytes_max: 64 << 10,
            table_bytes: 2 << 10,
            level_ratio: 2,
            level0_runs_max: 2,
            uncompressed_levels: None,
            filter_bits: None,
        };
        from_environment(drawn).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(super) fn runtime(&self) -> RuntimeOptions {
        RuntimeOptions::new()
            .threads(0)
            .memory_bytes_max(self.memory_bytes_max)
            .cache_bytes(self.cache_bytes)
    }

    pub(super) fn db(&self) -> Options {
        Options::new()
            .wal(self.wal)
            .read_mode(self.read_mode)
            .memtable_bytes_max(self.memtable_bytes_max)
            .wal_bytes_max(self.wal_bytes_max)
    }

    pub(super) fn keyspace(&self) -> KeyspaceOptions {
        let mut options = KeyspaceOptions::new()
            .block_bytes(self.block_bytes)
            .table_bytes(self.table_bytes)
            .compaction(self.compaction)
            .level_ratio(self.level_ratio)
            .level0_runs_max(self.level0_runs_max)
            .compression(self.compression);
        if let Some(levels) = self.uncompressed_levels {
            options = options.uncompressed_levels(levels);
        }
        if let Some((upper, last)) = self.filter_bits {
            options = options.filter_bits(upper, last);
        }
        options
    }

    /// Sets what `list` names: `name=value`, with commas between them.
    fn with(mut self, list: &str) -> Result<Self, String> {
        for item in list.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let (name, value) = item
                .split_once('=')
                .ok_or_else(|| format!("{item:?} is not of the form name=value"))?;
            self.set(name.trim(), value.trim())
                .map_err(|why| format!("{item:?}: {why}"))?;
        }
        Ok(self)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "wal" => self.wal = one_of(value, &[("on", Wal::On), ("off", Wal::Off)])?,
            "read_mode" => {
                let modes = [
                    ("mapped", ReadMode::Mapped),
                    ("positional", ReadMode::Positional),
                ];
                self.read_mode = one_of(value, &modes)?;
            }
            "compression" => {
                let kinds = [("lz4", Compression::Lz4), ("none", Compression::None)];
                self.compression = one_of(value, &kinds)?;
            }
            "compaction" => {
                let kinds = [("leveled", Strategy::Leveled), ("lazy-leveled", LAZY)];
                self.compaction = one_of(value, &kinds)?;
            }
            "filter_bits" => {
                let (upper, last) = value.split_once('/').unwrap_or((value, value));
                self.filter_bits = Some((number(upper)?, number(last)?));
            }
            "memory_bytes_max" => self.memory_bytes_max = number(value)?,
            "cache_bytes" => self.cache_bytes = number(value)?,
            "memtable_bytes_max" => self.memtable_bytes_max = number(value)?,
            "wal_bytes_max" => self.wal_bytes_max = number(value)?,
            "block_bytes" => self.block_bytes = number(value)?,
            "table_bytes" => self.table_bytes = number(value)?,
            "level_ratio" => self.level_ratio = number(value)?,
            "level0_runs_max" => self.level0_runs_max = number(value)?,
            "uncompressed_levels" => self.uncompressed_levels = Some(number(value)?),
            _ => {
                return Err(
                    "there is no such option; there are wal, read_mode, compression, \
                            compaction, filter_bits, memory_bytes_max, cache_bytes, \
                            memtable_bytes_max, wal_bytes_max, block_bytes, table_bytes, \
                            level_ratio, level0_runs_max and uncompressed_levels"
                        .into(),
                );
            }
        }
        Ok(())
    }
}

/// What the environment says, over `setup`.
pub(super) fn from_environment(setup: Setup) -> Result<Setup, String> {
    match std::env::var(VARIABLE) {
        Ok(list) => setup
            .with(&list)
            .map_err(|error| format!("{VARIABLE}: {error}")),
        Err(_) => Ok(setup),
    }
}

fn one_of<T: Copy>(value: &str, all: &[(&str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(name, _)| *name == value);
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        format!("it is one of {}", names.join(", "))
    })
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{value:?} is not a number that fits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn() -> Setup {
        Setup::draw(&mut Input::new(&[]))
    }

    #[test]
    fn named_options_replace_what_was_drawn() {
        let list = "wal=off, read_mode=positional,compression=none,filter_bits=16/10,\
                    compaction=lazy-leveled,\
                    memory_bytes_max=1,cache_bytes=2,memtable_bytes_max=3,wal_bytes_max=4,\
                    block_bytes=5,table_bytes=6,level_ratio=7,level0_runs_max=8,\
                    uncompressed_levels=9";
        let expected = Setup {
            wal: Wal::Off,
            read_mode: ReadMode::Positional,
            compression: Compression::None,
            compaction: LAZY,
            filter_bits: Some((16, 10)),
            memory_bytes_max: 1,
            cache_bytes: 2,
            memtable_bytes_max: 3,
            wal_bytes_max: 4,
            block_bytes: 5,
            table_bytes: 6,
            level_ratio: 7,
            level0_runs_max: 8,
            uncompressed_levels: Some(9),
        };
        assert_eq!(drawn().with(list), Ok(expected));
        assert_eq!(drawn().with(""), Ok(drawn()));
    }

    #[test]
    fn wrong_options_are_named() {
        for (list, part) in [
            ("block", "\"block\" is not of the form name=value"),
            ("blok_bytes=512", "there is no such option"),
            ("block_bytes=many", "\"many\" is not a number"),
            ("level_ratio=99999999999", "is not a number that fits"),
            ("wal=of", "it is one of on, off"),
            ("filter_bits=1/x", "\"x\" is not a number"),
        ] {
            let error = drawn().with(list).unwrap_err();
            assert!(error.contains(part), "{list}: {error}");
        }
    }
}
