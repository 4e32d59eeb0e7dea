use super::*;
use crate::layers::may_name;
use crate::rules::{HOMES, UNFINISHED_CODE, UNFINISHED_WORDS};
use crate::source::split;

/// What is found in a file of this path and text, beside a `lib.rs`.
fn found(path: &str, text: &str) -> Vec<String> {
    let lib = "pub use error::{Error, Result};\npub use db::Db;\n";
    let mut sources = [
        Source::new("src/lib.rs", lib),
        Source::new("docs/format.md", "# Formats\n\n## Journal\n"),
        Source::new(path, text),
    ];
    check_all(&mut sources)
}

#[track_caller]
fn breaks(path: &str, text: &str, expected: &[&str]) {
    assert_eq!(found(path, text), expected);
}

#[test]
fn arrows_point_down() {
    breaks(
        "src/db/read.rs",
        "use crate::version::Version;\nuse crate::{key, Error};",
        &[],
    );
    breaks(
        "src/version/mod.rs",
        "use crate::{\n    key::{SeqNo, Mark},\n    db::{self, key},\n};\nfn f(_: crate::Db) {}",
        &[
            "src/version/mod.rs:1: `version` may not name `db`",
            "src/version/mod.rs:5: `version` may not name `db`",
        ],
    );
    breaks(
        "src/key.rs",
        "use crate::env::Env;",
        &["src/key.rs:1: `key` may not name `env`"],
    );
    breaks(
        "src/rest.rs",
        "",
        &["src/rest.rs:1: module `rest` is not in the layer map"],
    );
    let by_super = "src/wal.rs:1: reaches the crate's root by `super`: say `crate`";
    breaks("src/wal.rs", "use super::db::Db;", &[by_super]);
    breaks(
        "src/db/mod.rs",
        "use super::super::key;",
        &[&by_super.replace("wal.rs", "db/mod.rs")],
    );
    breaks(
        "src/db/read.rs",
        "use super::DbInner;\n// crate::store\n",
        &[],
    );
}

#[test]
fn ports_stand_beside_the_engine() {
    assert!(may_name("changelog", "journal") && may_name("kafka", "changelog"));
    for (from, to) in [
        ("changelog", "db"),
        ("db", "changelog"),
        ("kafka", "db"),
        ("db", "kafka"),
        ("changelog", "batch"),
        ("changelog", "wal"),
        ("changelog", "kafka"),
    ] {
        assert!(!may_name(from, to), "{from} -> {to}");
    }
    assert!(may_name("store", "db") && may_name("store", "changelog"));
}

#[test]
fn long_things_are_found() {
    let long = "fn f() {\n".to_owned() + &"    g();\n".repeat(69) + "}\n";
    let path = "src/db/a.rs";
    breaks(
        path,
        &long,
        &["src/db/a.rs:1: a function of 71 lines, at most 70"],
    );
    breaks(path, &long.replacen("    g();\n", "", 1), &[]);
    breaks(
        path,
        &"\n".repeat(601),
        &["src/db/a.rs:1: 601 lines, at most 600"],
    );
    let tests = "\n".repeat(590) + "#[cfg(test)]\nmod tests {\n" + &"\n".repeat(50) + "}\n";
    breaks(path, &tests, &[]);
    let wide = format!("// {}\n", "x".repeat(98));
    breaks(path, &wide, &["src/db/a.rs:1: 101 columns, at most 100"]);
    breaks("docs/a.md", &wide, &[]);
}

#[test]
fn a_file_of_tests_has_no_longest() {
    let mut sources = [
        Source::new("src/db/mod.rs", "#[cfg(test)]\nmod tests;\n"),
        Source::new("src/db/tests.rs", &"\n".repeat(700)),
        Source::new("src/db/tests/model.rs", &"\n".repeat(700)),
        Source::new("src/db/tests_of.rs", &"\n".repeat(700)),
    ];
    let expected = "src/db/tests_of.rs:1: 700 lines, at most 600";
    assert_eq!(check_all(&mut sources), [expected]);
}

#[test]
fn names_stay_at_home() {
    for (name, homes) in HOMES {
        let text = format!("fn f() {{\n    {name} {{}}\n}}\n");
        let expected = format!("src/db/a.rs:2: `{name}` belongs to {}", homes.join(", "));
        breaks("src/db/a.rs", &text, &[&expected]);
        let home = if homes[0].ends_with('/') {
            format!("{}a.rs", homes[0])
        } else {
            homes[0].to_owned()
        };
        breaks(&home, &text, &[]);
        breaks(
            "src/db/a.rs",
            &format!("// {name}\nfn f() {{ \"{name}\"; }}\n"),
            &[],
        );
    }
    let model = "#[cfg(test)]\n#[cfg(shuttle)]\nmod models {\n    fn f() { thread::spawn(g) }\n}\n";
    breaks("src/db/a.rs", model, &[]);
    let sleeps = ["tests/a.rs:1: sleeps: wait for what it waits for"];
    breaks("tests/a.rs", "fn f() { std::thread::sleep(x) }", &sleeps);
}

#[test]
fn unfinished_work_is_found() {
    for word in UNFINISHED_WORDS {
        breaks("docs/a.md", word, &[&format!("docs/a.md:1: `{word}`")]);
        breaks(
            "src/db/a.rs",
            &format!("\n// {word} it"),
            &[&format!("src/db/a.rs:2: `{word}`")],
        );
    }
    for name in UNFINISHED_CODE {
        breaks("tests/a.rs", name, &[&format!("tests/a.rs:1: `{name}`")]);
        breaks("tests/a.rs", &format!("\"{name}\""), &[]);
    }
}

#[test]
fn cited_sections_exist() {
    let cite =
        |section: &str| format!("//! The layout: `docs/format.md`,\n//! section \"{section}\".\n");
    breaks("src/db/a.rs", &cite("Journal"), &[]);
    let expected = "src/db/a.rs:1: cites section \"Table\", which docs/format.md lacks";
    breaks("src/db/a.rs", &cite("Table"), &[expected]);
}

#[test]
fn pages_point_at_what_exists() {
    breaks("docs/a.md", "See `src/lib.rs`, `src/`, or `fn f`.", &[]);
    breaks(
        "docs/a.md",
        "\n`src/none.rs`",
        &["docs/a.md:2: there is no `src/none.rs`"],
    );
    breaks(
        "docs/a.md",
        "`src/lib.rs::a_test`",
        &["docs/a.md:1: there is no `src/lib.rs::a_test`"],
    );
    let mut sources = [
        Source::new("tests/crash.rs", "#[test]\nfn it_recovers() {}\n"),
        Source::new(
            "docs/a.md",
            "`tests/crash.rs::it_recovers` `tests/crash.rs::it`",
        ),
    ];
    assert_eq!(
        check_all(&mut sources),
        ["docs/a.md:1: there is no `tests/crash.rs::it`"]
    );
}

#[test]
fn code_is_told_from_text() {
    let text = "a'x' 'l '\\'' \"s\\\"{\" r#\"q\"{\"# br\"{\" /* /* { */ */ b // {\nc '{' é";
    let (code, comments) = split(text);
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        squeeze(&code),
        "a\" \" 'l \" \" \" \" \" \" b\" \" b c \" \" é"
    );
    assert_eq!(squeeze(&comments), "/* /* { */ */ // {");
    assert_eq!(code.lines().count(), 2);
}
