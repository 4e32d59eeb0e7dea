//! The house rules that a compiler does not check: which module may name which, how long things
//! are, and which names belong to one file alone. There is no list of exceptions.

#![expect(
    clippy::print_stdout,
    reason = "a test may say how much it has checked"
)]

mod layers;
mod rules;
mod source;

use std::path::{Path, PathBuf};
use std::{fs, io};

use layers::{check_arrows, root_names};
use rules::{check_citations, check_finished, check_homes, check_pointers, check_sizes};
use source::{Source, mark_test_files};

/// Reads the source files and pages of a folder, those of its folders included.
fn read_folder(root: &Path, folder: &Path, out: &mut Vec<Source>) -> io::Result<()> {
    let entries: io::Result<Vec<_>> = fs::read_dir(folder)?.collect();
    let mut paths: Vec<PathBuf> = entries?.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        let ends = |end: &str| path.extension().is_some_and(|extension| extension == end);
        let built = path.ends_with("target") || path.ends_with("corpus");
        if path.is_dir() && !built {
            read_folder(root, &path, out)?;
        } else if !path.is_dir() {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
            // Of other files only the names count: pages may point at them.
            let is_read = ends("rs") || ends("md");
            let text = if is_read {
                fs::read_to_string(&path)?
            } else {
                String::new()
            };
            out.push(Source::new(&name.replace('\\', "/"), &text));
        }
    }
    Ok(())
}

fn check_all(sources: &mut [Source]) -> Vec<String> {
    mark_test_files(sources);
    let find = |path: &str| sources.iter().find(|source| source.path == path);
    let root = find("src/lib.rs")
        .map(|lib| root_names(&lib.code))
        .unwrap_or_default();
    let format = find("docs/format.md")
        .map(|file| file.text.clone())
        .unwrap_or_default();
    let mut out = Vec::new();
    for source in &*sources {
        check_arrows(source, &root, &mut out);
        check_sizes(source, &mut out);
        check_homes(source, &mut out);
        check_finished(source, &mut out);
        check_citations(source, &format, &mut out);
        check_pointers(source, sources, &mut out);
    }
    out
}

#[test]
fn the_tree_is_tidy() {
    let root = std::env::var_os("TIDY_ROOT")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let mut sources = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "fuzz", "docs"] {
        if root.join(folder).is_dir() {
            read_folder(&root, &root.join(folder), &mut sources).unwrap();
        }
    }
    for page in ["README.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap_or_default();
        sources.push(Source::new(page, &text));
    }
    let complaints = check_all(&mut sources);
    println!(
        "tidy: {} files checked, {} complaints",
        sources.len(),
        complaints.len()
    );
    assert!(
        sources.len() > 20,
        "the tree was not found under {}",
        root.display()
    );
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Every check, each on text that breaks it.
#[cfg(test)]
mod tests;
