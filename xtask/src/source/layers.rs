//! The layers of the guest kernel: no module uses one that is above it.
//!
//! [`LAYERS`] is the one list. The scanner finds every path in the code that begins with `crate::`,
//! or with as many `super::` as lead to the crate's root, and compares the first module on it with
//! the module that the file belongs to. Comments, documentation and string literals are left out.
//! Tests are held to the list like all other code.
//!
//! Paths are text here, so two things go unnoticed: a name that a lower module re-exports, and a
//! symbol that is resolved by the linker. The kernel has one of the latter, `kernel_main`, which
//! the boot code calls.

use std::collections::BTreeSet;

use super::{Finding, SourceFile};

/// Where the kernel's modules are.
const FOLDER: &str = "guest-kernel/src";
/// The document that shows them.
const DOCUMENT: &str = "docs/ARCHITECTURE.md";

/// The modules of the kernel's root, from the bottom to the top. A module may use itself and those
/// before it.
const LAYERS: [&str; 18] = [
    "config",
    "layout",
    "command_line",
    "arch",
    "sync",
    "time",
    "patience",
    "progress",
    "logger",
    "report",
    "mm",
    "thread",
    "drivers",
    "requests",
    "balloon",
    "background",
    "app",
    "start",
];

/// Files of the root that are above all layers: they only say what there is.
const ABOVE_ALL: [&str; 2] = ["lib", "host_bench"];

/// Returns what breaks the order of the guest kernel's layers, and whether the document shows
/// another order.
pub(super) fn findings(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = check(FOLDER, &LAYERS, files);
    let document = files.iter().find(|file| file.path == DOCUMENT);
    findings.extend(document.and_then(|document| check_document(document, FOLDER, &LAYERS)));
    findings
}

/// Compares the layers with the lines that follow the name of their folder in a document, each of
/// which begins with two spaces and the name of a layer.
fn check_document(document: &SourceFile, folder: &str, layers: &[&str]) -> Option<Finding> {
    let lines = || document.lines().skip_while(|(_, text)| text.trim_end_matches('/') != folder);
    let shown = lines().skip(1).map_while(|(_, text)| text.strip_prefix("  "));
    // A longer description goes on in lines that are indented further.
    let shown: Vec<&str> = shown.filter(|text| !text.starts_with(' ')).filter_map(name_of).collect();
    let line = lines().next().map_or(1, |(line, _)| line);
    let what = format!("the layers are {layers:?}, and not {shown:?}");
    (shown != layers).then(|| document.finding(line, what))
}

/// Returns the module that a line of a folder's listing names.
fn name_of(line: &str) -> Option<&str> {
    line.split([' ', '/', '.']).next()
}

/// Returns every use of a module by one that is not above it, and every difference between `layers`
/// and the modules that there are. Files that are not below `folder`, or are not in Rust, are left
/// out.
fn check(folder: &str, layers: &[&str], files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.starts_with(folder) && file.path.ends_with(".rs")) {
        let module = module_of(folder, &file.path);
        let Some(&layer) = module.first().filter(|name| !ABOVE_ALL.contains(name)) else { continue };
        let mut find = |line, what| findings.push(Finding { path: file.path.clone(), line, what });
        let Some(height) = layers.iter().position(|name| *name == layer) else {
            if seen.insert(layer) {
                find(1, format!("`{layer}` is not in the list of layers"));
            }
            continue;
        };
        seen.insert(layer);
        for (line, used) in uses(&tokens(&file.text), module.len()) {
            match layers.iter().position(|name| *name == used) {
                Some(other) if other <= height => {}
                Some(_) => find(line, format!("`{layer}` uses `{used}`, which is above it")),
                None => find(line, format!("`{layer}` uses `{used}`, which is not in the list of layers")),
            }
        }
    }
    let gone = layers.iter().filter(|layer| !seen.contains(**layer));
    findings.extend(gone.map(|layer| Finding {
        path: folder.to_owned(),
        line: 1,
        what: format!("the list of layers names `{layer}`, which is not there"),
    }));
    findings
}

/// Returns the path of the module in a file, without `crate`.
fn module_of<'a>(folder: &str, path: &'a str) -> Vec<&'a str> {
    let inside = path.strip_prefix(folder).unwrap_or(path).trim_start_matches('/');
    let mut module: Vec<&str> = inside.strip_suffix(".rs").unwrap_or(inside).split('/').collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    module
}

/// A part of the code, with the line that it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token<'a> {
    line: usize,
    kind: Kind<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// A name, a keyword or a number.
    Word(&'a str),
    /// `::`.
    Separator,
    /// Any other character.
    Sign(char),
}

/// Returns the modules of the crate's root that the code names, each with its line. The file's
/// module has `depth` names on its path.
fn uses<'a>(tokens: &[Token<'a>], depth: usize) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    let mut braces = 0_usize;
    // The depths of braces at which modules within the file begin.
    let mut modules = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Sign('{') => {
                braces += 1;
                if let [.., Kind::Word("mod"), Kind::Word(_)] = kinds_before(tokens, index)[..] {
                    modules.push(braces);
                }
            }
            Kind::Sign('}') => {
                if modules.last() == Some(&braces) {
                    modules.pop();
                }
                braces = braces.saturating_sub(1);
            }
            Kind::Word("crate") if is_separator(tokens, index + 1) => follow(tokens, index + 2, 0, &mut found),
            Kind::Word("super") if is_separator(tokens, index + 1) && !continues_path(tokens, index) => {
                follow(tokens, index, depth + modules.len(), &mut found);
            }
            _ => {}
        }
    }
    found
}

/// Follows a path or a group of paths from `index` on, which is relative to a module with `depth`
/// names on its path.
fn follow<'a>(tokens: &[Token<'a>], index: usize, depth: usize, found: &mut Vec<(usize, &'a str)>) {
    let Some(token) = tokens.get(index) else { return };
    match token.kind {
        Kind::Word("super") if is_separator(tokens, index + 1) => {
            follow(tokens, index + 2, depth.saturating_sub(1), found);
        }
        Kind::Word("super" | "self") => {}
        Kind::Word(name) if depth == 0 => found.push((token.line, name)),
        Kind::Sign('{') => group(tokens, index).for_each(|member| follow(tokens, member, depth, found)),
        _ => {}
    }
}

/// Returns where the members of the group begin whose brace is at `open`.
fn group(tokens: &[Token<'_>], open: usize) -> impl Iterator<Item = usize> {
    let mut braces = 0_usize;
    let mut begins = Vec::new();
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Sign('{') => braces += 1,
            Kind::Sign('}') => braces -= 1,
            _ => {}
        }
        if braces == 0 {
            break;
        }
        if braces == 1 && matches!(token.kind, Kind::Sign('{' | ',')) {
            begins.push(index + 1);
        }
    }
    begins.into_iter()
}

fn is_separator(tokens: &[Token<'_>], index: usize) -> bool {
    tokens.get(index).is_some_and(|token| token.kind == Kind::Separator)
}

/// Returns whether the word at `index` follows another one on its path; `self` does not count.
fn continues_path(tokens: &[Token<'_>], index: usize) -> bool {
    match kinds_before(tokens, index)[..] {
        [Kind::Word("self"), Kind::Separator] => false,
        [.., Kind::Separator] => true,
        _ => false,
    }
}

/// Returns the kinds of at most two tokens before `index`.
fn kinds_before<'a>(tokens: &[Token<'a>], index: usize) -> Vec<Kind<'a>> {
    tokens[index.saturating_sub(2)..index].iter().map(|token| token.kind).collect()
}

/// Cuts Rust code into tokens, without comments, literals of characters and strings, and lifetimes'
/// quotes.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, kind) = if let Some(length) = skipped(rest) {
            (length, None)
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(rest.len());
            (end, Some(Kind::Word(&rest[..end])))
        } else if rest.starts_with("::") {
            (2, Some(Kind::Separator))
        } else {
            (first.len_utf8(), (!first.is_whitespace()).then_some(Kind::Sign(first)))
        };
        tokens.extend(kind.map(|kind| Token { line, kind }));
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

/// Returns the length of the comment or literal that `text` begins with.
fn skipped(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    if let Some(rest) = text.strip_prefix('\'') {
        return Some(1 + quoted_character(rest).unwrap_or(0));
    }
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| is_string(text, prefix))?;
    let rest = &text[prefix.len()..];
    if !prefix.ends_with('r') {
        return Some(prefix.len() + string(rest));
    }
    let hashes = rest.find('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = rest[hashes + 1..].find(&end).map_or(rest.len(), |at| hashes + 1 + at + end.len());
    Some(prefix.len() + length)
}

/// Returns whether `text` begins with a string literal of this prefix.
fn is_string(text: &str, prefix: &str) -> bool {
    let Some(rest) = text.strip_prefix(prefix) else { return false };
    if prefix.ends_with('r') { rest.trim_start_matches('#').starts_with('"') } else { rest.starts_with('"') }
}

/// Returns the length of the string literal that `text` begins with, quotes included.
fn string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, next) in text.char_indices().skip(1) {
        match next {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of what follows the opening quote of a character; `None` for a lifetime.
fn quoted_character(text: &str) -> Option<usize> {
    let mut characters = text.char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        let (_, _) = characters.next()?;
        return Some(characters.find(|(_, next)| *next == '\'')?.0 + 1);
    }
    characters.next().filter(|(_, next)| *next == '\'').map(|(at, _)| at + 1)
}

/// Returns the length of the block comment that `text` begins with; such comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::{SourceFile, check, check_document};

    const LISTED: [&str; 3] = ["low", "middle", "high"];

    /// Returns what is found in a file of the module `middle`, with empty files of the others.
    fn in_middle(path: &str, text: &str) -> Vec<String> {
        let file = |path: &str, text: &str| SourceFile { path: format!("src/{path}"), text: text.to_owned() };
        let files = [file("low.rs", ""), file("high/mod.rs", ""), file("middle/mod.rs", ""), file(path, text)];
        check("src", &LISTED, &files).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn uses_of_lower_modules_and_of_its_own_are_allowed() {
        let text = "use crate::low::Low;\nuse crate::middle::{a, b};\nuse super::part;\nfn f() { crate::low::g() }\n";
        assert_eq!(in_middle("middle/part.rs", text), [""; 0]);
    }

    #[test]
    fn a_use_of_a_higher_module_is_found_with_its_line() {
        assert_eq!(
            in_middle("middle/part.rs", "use crate::low;\n\nuse crate::high::High;\n"),
            ["src/middle/part.rs:3: `middle` uses `high`, which is above it"]
        );
        assert_eq!(in_middle("middle/part.rs", "fn f() { let x = crate::high::g(); }\n").len(), 1, "in an expression");
        assert_eq!(in_middle("middle/part.rs", "m!($crate::high::g);\n").len(), 1, "in a macro");
    }

    #[test]
    fn every_member_of_a_group_counts() {
        let text = "use crate::{\n    low::{self, Low},\n    high::{a, b},\n    middle,\n};\nuse crate::{high, low};\n";
        let places = ["src/middle/part.rs:3", "src/middle/part.rs:6"];
        assert_eq!(
            in_middle("middle/part.rs", text),
            places.map(|place| format!("{place}: `middle` uses `high`, which is above it"))
        );
    }

    #[test]
    fn super_leads_to_the_root_by_way_of_modules_within_the_file() {
        assert_eq!(in_middle("middle/part.rs", "use super::super::high;").len(), 1);
        assert_eq!(in_middle("middle/part.rs", "use super::{super::high, own};").len(), 1);
        assert_eq!(in_middle("middle/part.rs", "use super::high;").len(), 0, "`middle::high`");
        assert_eq!(in_middle("middle/part.rs", "mod inner { use super::super::high; }").len(), 0, "`middle::high`");
        assert_eq!(in_middle("middle/part.rs", "mod inner { use super::super::super::high; }").len(), 1);
        assert_eq!(in_middle("middle/part.rs", "mod inner { fn f() {} } use super::super::high;").len(), 1);
        assert_eq!(in_middle("middle/mod.rs", "fn f() { self::super::high::g() }").len(), 1);
        assert_eq!(in_middle("middle/part.rs", "pub(super) fn f() {} pub(crate) fn g() {}").len(), 0);
    }

    #[test]
    fn tests_are_held_to_the_list() {
        assert_eq!(in_middle("middle/part.rs", "#[cfg(test)]\nmod tests {\n    use crate::high;\n}\n").len(), 1);
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = r###"
            //! [`crate::high`]
            /// See [`crate::high::High`].
            /* crate::high /* crate::high */ crate::high */
            const A: &str = "crate::high \" crate::high";
            const B: &str = r#"crate::high " crate::high"#;
            const C: [char; 3] = ['"', '\'', '\u{22}'];
            fn f<'a>(text: &'a str) -> &'a str { text }
            use crate::high::Found;
        "###;
        assert_eq!(
            in_middle("middle/part.rs", text),
            ["src/middle/part.rs:9: `middle` uses `high`, which is above it"]
        );
    }

    #[test]
    fn the_list_is_complete_and_names_only_what_is_there() {
        assert_eq!(
            in_middle("middle/part.rs", "use crate::unknown;"),
            ["src/middle/part.rs:1: `middle` uses `unknown`, which is not in the list of layers"]
        );
        assert_eq!(
            in_middle("unknown/mod.rs", "use crate::high;"),
            ["src/unknown/mod.rs:1: `unknown` is not in the list of layers"]
        );
        let only_low = [SourceFile { path: "src/low.rs".to_owned(), text: String::new() }];
        let missing: Vec<_> = check("src", &LISTED, &only_low).into_iter().map(|finding| finding.what).collect();
        assert_eq!(missing.len(), 2, "{missing:?}");
    }

    #[test]
    fn the_document_shows_the_list() {
        let document = |listing: &str| {
            let text = format!("# Layers\n\n```\nsrc/\n{listing}other/\n  high/  of another folder\n```\n");
            check_document(&SourceFile { path: "layers.md".to_owned(), text }, "src", &LISTED)
        };
        assert_eq!(document("  low.rs   numbers\n  middle/  all that is\n           between\n  high.rs\n"), None);
        for wrong in ["  middle/\n  low.rs\n  high.rs\n", "  low.rs\n  middle/\n", ""] {
            assert_eq!(document(wrong).map(|finding| finding.line), Some(4), "{wrong}");
        }
    }

    #[test]
    fn the_root_may_name_everything() {
        assert_eq!(in_middle("lib.rs", "pub use crate::high::High; pub use crate::low::Low;"), [""; 0]);
    }
}
