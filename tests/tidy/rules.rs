//! How long things may be, which names belong to one file, and what must not be left.

use crate::source::{Source, block_end, is_rust, line_of, words};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;

/// Names that belong to some files alone: what is banned, and where it is at home.
pub(crate) const HOMES: &[(&str, &[&str])] = &[
    (
        "std::fs",
        &["src/env/os.rs", "src/env/sim/", "src/env/contract.rs"],
    ),
    ("Instant::now", &["src/env/os.rs", "src/env/sim/"]),
    ("SystemTime::now", &["src/env/os.rs", "src/env/sim/"]),
    ("thread::spawn", &["src/env/os.rs", "src/env/sim/"]),
    ("thread::Builder", &["src/env/os.rs", "src/env/sim/"]),
    ("thread::sleep", &["src/env/os.rs", "src/env/sim/"]),
    ("std::sync", &["src/sync/mod.rs", "src/sync/model.rs"]),
    ("std::net", &["src/kafka/connection/"]),
    ("parking_lot", &["src/sync/mod.rs"]),
    (
        "unsafe",
        &[
            "src/prefetch.rs",
            "src/arena.rs",
            "src/memtable/",
            "src/env/os.rs",
        ],
    ),
];

/// Of these, what unit tests and models may use anywhere.
const TESTS_MAY: &[&str] = &["thread::spawn"];

/// Signs of work that was put off, in code or comments.
pub(crate) const UNFINISHED_WORDS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];
/// The same, in code alone.
pub(crate) const UNFINISHED_CODE: &[&str] = &[
    "todo!",
    "unimplemented!",
    "#[ignore",
    "#[allow",
    "#![allow",
    "dbg!",
];

pub(crate) fn check_sizes(source: &Source, out: &mut Vec<String>) {
    if !is_rust(&source.path) {
        return;
    }
    let lines = source
        .in_tests
        .iter()
        .filter(|in_tests| !**in_tests)
        .count();
    if lines > FILE_LINES_MAX {
        out.push(source.complain(1, &format!("{lines} lines, at most {FILE_LINES_MAX}")));
    }
    for (index, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_COLUMNS_MAX {
            let what = format!("{columns} columns, at most {LINE_COLUMNS_MAX}");
            out.push(source.complain(index + 1, &what));
        }
    }
    for pos in words(&source.code, "fn ") {
        let Some(end) = body_end(&source.code, pos) else {
            continue;
        };
        let line = line_of(&source.code, pos);
        let lines = line_of(&source.code, end) - line + 1;
        if lines > FUNCTION_LINES_MAX {
            let what = format!("a function of {lines} lines, at most {FUNCTION_LINES_MAX}");
            out.push(source.complain(line, &what));
        }
    }
}

/// Position behind the body of the function whose `fn` is at `pos`, or `None` without a body.
fn body_end(code: &str, pos: usize) -> Option<usize> {
    let mut depth = 0;
    for (index, char) in code[pos..].char_indices() {
        match char {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => return block_end(code, pos + index),
            _ => {}
        }
    }
    None
}

pub(crate) fn check_homes(source: &Source, out: &mut Vec<String>) {
    for (name, homes) in HOMES.iter().filter(|_| source.is_library()) {
        if homes.iter().any(|home| source.path.starts_with(home)) {
            continue;
        }
        for pos in words(&source.code, name) {
            let line = line_of(&source.code, pos);
            if TESTS_MAY.contains(name) && source.is_test(line) {
                continue;
            }
            out.push(source.complain(line, &format!("`{name}` belongs to {}", homes.join(", "))));
        }
    }
    // Waiting is a condition variable, in tests as well.
    if !source.is_library() {
        for pos in words(&source.code, "thread::sleep") {
            let line = line_of(&source.code, pos);
            out.push(source.complain(line, "sleeps: wait for what it waits for"));
        }
    }
}

pub(crate) fn check_finished(source: &Source, out: &mut Vec<String>) {
    for word in UNFINISHED_WORDS {
        for masked in [&source.code, &source.comments] {
            for pos in words(masked, word) {
                out.push(source.complain(line_of(masked, pos), &format!("`{word}`")));
            }
        }
    }
    for name in UNFINISHED_CODE {
        for pos in words(&source.code, name) {
            out.push(source.complain(line_of(&source.code, pos), &format!("`{name}`")));
        }
    }
}

/// A section of `docs/format.md` that a comment cites must be there.
pub(crate) fn check_citations(source: &Source, format: &str, out: &mut Vec<String>) {
    const CITATION: &str = "`docs/format.md`, section";
    // A citation may run over the end of a line of comment.
    let joined: Vec<&str> = source.comments.lines().map(str::trim).collect();
    for (index, _) in joined.iter().enumerate() {
        let text = joined[index..(index + 3).min(joined.len())].join(" ");
        let text = text
            .replace(" ///", "")
            .replace(" //!", "")
            .replace(" //", "");
        let Some(at) = text.find(CITATION) else {
            continue;
        };
        let starts_here = at < joined[index].len();
        let cited = text[at..].split('"').nth(1).unwrap_or("");
        let known = format
            .lines()
            .any(|line| line.trim_start_matches('#').trim() == cited);
        if starts_here && !known {
            let what = format!("cites section {cited:?}, which docs/format.md lacks");
            out.push(source.complain(index + 1, &what));
        }
    }
}

/// The folders that a page may point into.
const FOLDERS: &[&str] = &["src/", "tests/", "benches/", "examples/", "fuzz/", "docs/"];

/// A file that a page names in backticks must be there, and `file::test` must be a function in it.
pub(crate) fn check_pointers(page: &Source, sources: &[Source], out: &mut Vec<String>) {
    if is_rust(&page.path) {
        return;
    }
    for (index, line) in page.text.lines().enumerate() {
        for token in line.split('`').skip(1).step_by(2) {
            let (path, name) = token.split_once("::").unwrap_or((token, ""));
            let points = FOLDERS.iter().any(|folder| path.starts_with(folder));
            if !points || path.contains(['*', ' ', '{', '<']) {
                continue;
            }
            let is_there = |source: &&Source| {
                source.path == path || (path.ends_with('/') && source.path.starts_with(path))
            };
            let target = sources.iter().find(is_there);
            let has_name = |source: &Source| words(&source.code, &format!("fn {name}")).count() > 0;
            if !target.is_some_and(|source| name.is_empty() || has_name(source)) {
                out.push(page.complain(index + 1, &format!("there is no `{token}`")));
            }
        }
    }
}
