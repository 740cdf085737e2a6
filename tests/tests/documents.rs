//! Compares the documents with the repository: code, links, exit codes and messages.
//!
//! Needs no machine.

use std::fs;
use std::path::{Path, PathBuf};

use aerostat_abi::exit::GuestExit;

/// The beginning of the line before a code block that shows a whole file: `<!-- file: PATH -->`.
const FILE_MARK: &str = "<!-- file: ";

#[test]
fn code_in_the_documents_is_the_code_that_is_built() {
    let mut shown = 0;
    for document in documents() {
        let text = read(&document);
        for (before, rest) in text.match_indices(FILE_MARK).map(|(at, mark)| text.split_at(at + mark.len())) {
            let line = before.lines().count();
            let at = format!("{}:{line}", document.display());
            let (path, rest) = rest.split_once(" -->\n").unwrap_or_else(|| panic!("{at}: the mark has no end"));
            let (_language, rest) = rest.split_once('\n').unwrap_or_else(|| panic!("{at}: no code block follows"));
            let (code, _) = rest.split_once("```\n").unwrap_or_else(|| panic!("{at}: the code block has no end"));
            assert!(code == read(&root().join(path)), "{at}: the code block differs from {path}: copy the file again");
            shown += 1;
        }
    }
    assert!(shown > 0, "no document shows a file");
}

#[test]
fn every_link_in_the_documents_has_a_target() {
    let mut followed = 0;
    for document in documents() {
        let folder = document.parent().expect("a document is in a folder");
        for target in links(&read(&document)).iter().filter(|target| !target.contains("://")) {
            let (path, section) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { document.clone() } else { folder.join(path) };
            assert!(file.exists(), "{}: there is no {target}", document.display());
            let is_there = section.is_empty() || sections(&read(&file)).any(|found| found == section);
            assert!(is_there, "{}: there is no section {target}", document.display());
            followed += 1;
        }
    }
    assert!(followed > 0, "no document has a link");
}

/// A page without a link is not found by a reader.
#[test]
fn every_page_is_linked_from_an_index() {
    for (folder, index) in [("docs", "README.md"), ("docs/decisions", "docs/decisions/README.md")] {
        let index_file = root().join(index);
        let base = index_file.parent().expect("an index is in a folder");
        let linked: Vec<PathBuf> = links(&read(&index_file)).iter().map(|target| base.join(target)).collect();
        for page in files(&root().join(folder)).filter(|page| is_markdown(page) && *page != index_file) {
            assert!(linked.contains(&page), "{index} has no link to {}", page.display());
        }
    }
}

#[test]
fn every_application_is_listed() {
    let text = read(&root().join("docs/applications.md"));
    for folder in files(&root().join("apps")).filter(|path| path.is_dir()) {
        let name = folder.file_name().expect("a folder has a name").to_string_lossy().into_owned();
        assert!(text.contains(&format!("\n| `{name}` | ")), "docs/applications.md does not list {name}");
    }
}

/// Rows whose names are computed are left out.
#[test]
fn every_row_of_a_bench_is_described() {
    let text = read(&root().join("docs/benchmarks.md"));
    let code = sources(&root().join("tests/src/bin/aerostat-bench"));
    let names = code.split("Row::").skip(1).filter_map(|row| row.split_once("(\"")?.1.split('"').next());
    let mut described = 0;
    for name in names.filter(|name| name.contains('_') && !name.contains('{')) {
        assert!(text.contains(&format!("`{name}`")), "docs/benchmarks.md does not describe {name}");
        described += 1;
    }
    assert!(described > 0, "no bench has a row");
}

#[test]
fn every_exit_code_of_a_guest_is_explained() {
    let text = read(&root().join("docs/troubleshooting.md"));
    let exits: Vec<(u32, GuestExit)> = (0..256).filter_map(|code| Some((code, GuestExit::decode(code)?))).collect();
    assert!(!exits.is_empty(), "there is no exit code");
    for (code, exit) in exits {
        let row = format!("| `{code:#04x}` | {exit} | ");
        assert!(text.contains(&row), "docs/troubleshooting.md has no row that begins with {row}");
    }
}

/// A user who searches for a message would not find it if only the code was reworded.
#[test]
fn the_monitor_prints_every_refusal_that_is_explained() {
    let text = read(&root().join("docs/troubleshooting.md"));
    let (_, rest) = text.split_once("\n## Refusals\n").expect("there is a section on refusals");
    let section = rest.split("\n## ").next().unwrap_or_default();
    let sources: String =
        ["src", "link/src", "vmm/src"].map(|folder| sources(&root().join("monitor").join(folder))).concat();
    let mut explained = 0;
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let messages = row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2);
        // The parser of the fleet file has words of its own.
        for part in messages.filter(|message| !message.starts_with("line ")).flat_map(|message| message.split('…')) {
            assert!(sources.contains(part), "docs/troubleshooting.md: the monitor never prints {part:?}");
            explained += 1;
        }
    }
    assert!(explained > 0, "no refusal is explained");
}

/// Returns all source text below a folder.
fn sources(folder: &Path) -> String {
    files(folder).map(|path| if path.is_dir() { sources(&path) } else { read(&path) }).collect()
}

/// Returns the sections of a document as links name them: the headings in lower case, without
/// punctuation, with hyphens for spaces.
fn sections(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|letter| letter.is_alphanumeric() || ['-', '_'].contains(letter)).collect()
    })
}

/// Returns the targets of Markdown's inline links outside of code blocks.
fn links(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// Returns all Markdown files of the repository.
fn documents() -> Vec<PathBuf> {
    let folders = ["", "docs", "docs/decisions", "tests"].map(|folder| root().join(folder));
    folders.iter().flat_map(|folder| files(folder)).filter(|path| is_markdown(path)).collect()
}

/// Returns the paths of a folder's entries.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("a folder can be listed").path())
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in a folder of the repository").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
