//! A source file, with its code told from its comments, its literals and its tests.

use std::collections::BTreeSet;
use std::path::Path;

/// One file, with its code and its comments told apart. Both have blanks where the other, or the
/// text of a literal, stands, so that their lines agree.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) code: String,
    pub(crate) comments: String,
    /// For each line: whether it is in an inline module of tests, or the whole file is.
    pub(crate) in_tests: Vec<bool>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = if is_rust(path) {
            split(text)
        } else {
            (String::new(), text.to_owned())
        };
        let in_tests = inline_tests(&code, text.lines().count());
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            comments,
            in_tests,
        }
    }

    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.in_tests.get(line - 1).copied().unwrap_or(false)
    }

    pub(crate) fn is_library(&self) -> bool {
        self.path.starts_with("src/")
    }

    pub(crate) fn complain(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// The top module of a file under `src`.
    pub(crate) fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let first = inside.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    /// How many modules lie between this one and the root, itself included.
    pub(crate) fn depth(&self) -> usize {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside
            .split('/')
            .filter(|part| !matches!(*part, "mod.rs" | "lib.rs" | "main.rs"))
            .count()
    }
}

pub(crate) fn is_rust(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "rs")
}

/// Splits Rust source into code and comments. Literals are in neither; their quotes are code.
pub(crate) fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let mut pos = 0;
    while pos < chars.len() {
        let rest = &chars[pos..];
        let after_word = pos > 0 && is_word(chars[pos - 1]);
        let (len, kind) = if let Some(len) = comment_len(rest) {
            (len, Kind::Comment)
        } else if let Some(len) = literal_len(rest, after_word) {
            (len, Kind::Literal)
        } else {
            (1, Kind::Code)
        };
        for (index, char) in rest[..len].iter().enumerate() {
            let edge = index == 0 || index == len - 1;
            let blank = if *char == '\n' { '\n' } else { ' ' };
            code.push(match kind {
                Kind::Code => *char,
                Kind::Literal if edge => '"',
                _ => blank,
            });
            comments.push(if kind == Kind::Comment { *char } else { blank });
        }
        pos += len;
    }
    (code, comments)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

pub(crate) fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn comment_len(rest: &[char]) -> Option<usize> {
    match rest {
        ['/', '/', ..] => Some(
            rest.iter()
                .position(|char| *char == '\n')
                .unwrap_or(rest.len()),
        ),
        ['/', '*', ..] => {
            let (mut depth, mut pos) = (0, 0);
            while pos < rest.len() {
                let change = match rest[pos..] {
                    ['/', '*', ..] => 1,
                    ['*', '/', ..] => -1,
                    _ => 0,
                };
                depth += change;
                pos += if change == 0 { 1 } else { 2 };
                if depth == 0 {
                    break;
                }
            }
            Some(pos.min(rest.len()))
        }
        _ => None,
    }
}

/// Length of the string or character that `rest` begins with, or `None`.
fn literal_len(rest: &[char], after_word: bool) -> Option<usize> {
    match rest {
        ['\'', '\\', _, tail @ ..] => Some(tail.iter().position(|char| *char == '\'')? + 4),
        // Without the closing quote it is a lifetime.
        ['\'', _, '\'', ..] => Some(3),
        ['"', ..] => Some(string_len(rest)),
        // What stands before the `r` of a raw string is left in the code.
        ['r', tail @ ..] if !after_word || tail.first() == Some(&'#') => raw_string_len(rest),
        ['r', '"', ..] => raw_string_len(rest),
        _ => None,
    }
}

fn string_len(rest: &[char]) -> usize {
    let mut pos = 1;
    while pos < rest.len() && rest[pos] != '"' {
        pos += if rest[pos] == '\\' { 2 } else { 1 };
    }
    (pos + 1).min(rest.len())
}

fn raw_string_len(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|char| **char == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let mut close = vec!['"'];
    close.resize(1 + hashes, '#');
    let open = 2 + hashes;
    let end = rest[open..]
        .windows(close.len())
        .position(|window| window == close);
    Some(end.map_or(rest.len(), |end| open + end + close.len()))
}

/// The line, from 1, of a place in code or comments.
pub(crate) fn line_of(masked: &str, pos: usize) -> usize {
    masked[..pos].matches('\n').count() + 1
}

/// Where `name` stands as whole words.
pub(crate) fn words<'a>(masked: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    masked
        .match_indices(name)
        .map(|(pos, _)| pos)
        .filter(move |pos| {
            let before = masked[..*pos].chars().next_back();
            let after = masked[pos + name.len()..].chars().next();
            let starts = !name.starts_with(is_word) || !before.is_some_and(is_word);
            let ends = !name.ends_with(is_word) || !after.is_some_and(is_word);
            starts && ends
        })
}

/// Position behind the brace that closes the first one at or behind `from`, or `None`.
pub(crate) fn block_end(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (pos, char) in code[from..].char_indices() {
        match char {
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(from + pos + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// What is compiled for tests only: each attribute's position and the `mod` behind it.
fn test_modules(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices("#[cfg(").filter_map(|(pos, _)| {
        let condition = &code[pos + "#[cfg(".len()..];
        let for_tests = condition.starts_with("test)") || condition.starts_with("all(test,");
        let mut item = condition[condition.find(']')? + 1..].trim_start();
        while item.starts_with("#[") {
            item = item[item.find(']')? + 1..].trim_start();
        }
        let item = item.strip_prefix("pub(crate) ").unwrap_or(item);
        Some((pos, item.strip_prefix("mod ").filter(|_| for_tests)?))
    })
}

fn inline_tests(code: &str, lines: usize) -> Vec<bool> {
    let mut in_tests = vec![false; lines];
    for (pos, module) in test_modules(code) {
        let opens = module
            .find(['{', ';'])
            .is_some_and(|end| module[end..].starts_with('{'));
        if let Some(end) = block_end(code, pos).filter(|_| opens) {
            in_tests[line_of(code, pos) - 1..line_of(code, end)].fill(true);
        }
    }
    in_tests
}

/// Marks the files that are modules of tests as a whole.
pub(crate) fn mark_test_files(sources: &mut [Source]) {
    let mut homes = BTreeSet::new();
    for source in sources.iter().filter(|source| source.is_library()) {
        let stem = source.path.trim_end_matches(".rs");
        let folder = ["/mod", "/lib", "/main"]
            .iter()
            .find_map(|end| stem.strip_suffix(end));
        let folder = folder.unwrap_or(stem);
        for (_, module) in test_modules(&source.code) {
            let name: String = module.chars().take_while(|char| is_word(*char)).collect();
            homes.insert(format!("{folder}/{name}"));
        }
    }
    for source in sources {
        let path = source.path.as_str();
        let at_home = |home: &String| {
            path.strip_prefix(home.as_str())
                .is_some_and(|rest| rest.starts_with(['.', '/']))
        };
        if homes.iter().any(at_home) {
            source.in_tests.fill(true);
        }
    }
}
