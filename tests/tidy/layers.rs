//! Which module may name which.

use std::collections::BTreeMap;

use crate::source::{Source, is_rust, is_word, line_of, words};

/// The modules by layer. An arrow may point only to a lower layer, or to an earlier module of the
/// same one. The reasons are in `docs/architecture.md`.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "base",
        &[
            "sync", "planted", "prefetch", "error", "slice", "coding", "checksum", "key", "listing",
        ],
    ),
    ("platform", &["env", "options", "arena", "cache", "runtime"]),
    (
        "formats",
        &["journal", "batch", "block", "sstable", "merge"],
    ),
    ("state", &["memtable", "wal", "version"]),
    ("work", &["compaction"]),
    ("engine", &["db"]),
    ("port", &["changelog", "kafka"]),
    ("stores", &["store"]),
    ("face", &["inspect", "url", "fuzzing", "bin", "lib"]),
];
const LAYER_PLATFORM: usize = 1;
const LAYER_PORT: usize = 6;

/// Which module each name at the crate's root comes from, as `lib.rs` re-exports them.
pub(crate) fn root_names(lib: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (pos, _) in lib.match_indices("pub use ") {
        let item = &lib[pos + "pub use ".len()..];
        let item = &item[..item.find(';').unwrap_or(item.len())];
        let (module, list) = item.split_once("::").unwrap_or((item, ""));
        for name in list
            .split(|char| !is_word(char))
            .filter(|name| !name.is_empty())
        {
            names.insert(name.to_owned(), module.trim().to_owned());
        }
    }
    names
}

/// The names that follow `crate::` in `code`, with their positions; those of a list one by one.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for pos in words(code, "crate::") {
        let rest = &code[pos + "crate::".len()..];
        let name_at = |text: &str| text.chars().take_while(|char| is_word(*char)).collect();
        if !rest.starts_with('{') {
            paths.push((pos, name_at(rest)));
            continue;
        }
        let mut depth = 0;
        let mut at_start = false;
        for (index, char) in rest.char_indices() {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(char, '{' | ',') {
                at_start = true;
            } else if at_start && is_word(char) {
                paths.push((pos, name_at(&rest[index..])));
                at_start = false;
            }
        }
    }
    paths
}

/// The layer of a module and its row there.
fn place(module: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(layer, (_, modules))| {
        modules
            .iter()
            .position(|row| *row == module)
            .map(|row| (layer, row))
    })
}

/// Whether `from` may name `to`, both being in the layer map.
pub(crate) fn may_name(from: &str, to: &str) -> bool {
    let (Some(source), Some(target)) = (place(from), place(to)) else {
        return false;
    };
    if from == to {
        return true;
    }
    // The ports stand beside the engine: what they need of it is the journal's format, no more.
    let port_reaches = target.0 <= LAYER_PLATFORM || target.0 == LAYER_PORT || to == "journal";
    target < source && (source.0 != LAYER_PORT || port_reaches)
}

pub(crate) fn check_arrows(
    source: &Source,
    root: &BTreeMap<String, String>,
    out: &mut Vec<String>,
) {
    let Some(module) = source.module().filter(|_| is_rust(&source.path)) else {
        return;
    };
    if place(module).is_none() {
        out.push(source.complain(1, &format!("module `{module}` is not in the layer map")));
        return;
    }
    for (pos, name) in crate_paths(&source.code) {
        let target = root.get(&name).unwrap_or(&name);
        let line = line_of(&source.code, pos);
        if !may_name(module, target) {
            out.push(source.complain(line, &format!("`{module}` may not name `{target}`")));
        }
    }
    for pos in words(&source.code, "super::") {
        let rest = &source.code[pos..];
        let names = rest.split("::");
        let supers = names.take_while(|name| *name == "super").count();
        let inner = source.code[..pos].ends_with("super::");
        let line = line_of(&source.code, pos);
        if !inner && supers >= source.depth() && !source.is_test(line) {
            out.push(source.complain(line, "reaches the crate's root by `super`: say `crate`"));
        }
    }
}
