//! The widths gate: prose and comments end at column 100, code at column 120.
//!
//! `rustfmt` formats code and leaves comments, strings and all other files alone. A row of a table
//! may be as long as it must, and so may a line without a space to break it at, such as an address.
//! A line of code with a string may be longer, too, since a message that is split can't be searched
//! for (Linux, Documentation/process/coding-style.rst).

use super::{Finding, SourceFile};

const PROSE: usize = 100;
const CODE: usize = 120;

/// What a line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prose,
    Code,
    TableRow,
}

/// Returns the lines that are too long.
pub(super) fn findings(files: &[SourceFile]) -> Vec<Finding> {
    files.iter().flat_map(findings_of_file).collect()
}

fn findings_of_file(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_fenced = false;
    for (number, line) in file.lines() {
        let text = prose_of(&file.path, line);
        if text.is_some_and(|text| text.trim_start().starts_with("```")) {
            is_fenced = !is_fenced;
        }
        let limit = match kind(text, is_fenced) {
            Kind::Prose => PROSE,
            Kind::Code => CODE,
            Kind::TableRow => continue,
        };
        let width = line.chars().count();
        // A line of assembly can't be continued on the next line.
        let can_be_broken = text.map_or(!line.contains('"') && !file.path.ends_with(".s"), can_be_broken);
        if width > limit && can_be_broken {
            findings.push(file.finding(number, format!("{width} columns, at most {limit}")));
        }
    }
    findings
}

/// Returns the prose of a line: all of it in a document, the text of a comment elsewhere; `None`
/// for a line of code.
fn prose_of<'a>(path: &str, line: &'a str) -> Option<&'a str> {
    let markers: &[&str] = if path.ends_with(".md") {
        return Some(line);
    } else if path.ends_with(".rs") {
        &["///", "//!", "//"]
    } else {
        &["//", "#"]
    };
    markers.iter().find_map(|marker| line.trim_start().strip_prefix(marker))
}

fn kind(text: Option<&str>, is_fenced: bool) -> Kind {
    match text {
        None => Kind::Code,
        Some(_) if is_fenced => Kind::Code,
        Some(text) if text.trim_start().starts_with('|') => Kind::TableRow,
        Some(_) => Kind::Prose,
    }
}

/// Returns whether there is a space between two words; the mark of a list is no word.
fn can_be_broken(text: &str) -> bool {
    let is_mark = |word: &&str| ["*", "-", ">"].contains(word);
    text.split_whitespace().skip_while(is_mark).count() > 1
}

#[cfg(test)]
mod tests {
    use super::super::SourceFile;
    use super::findings;

    /// The numbers of the lines that are too long.
    fn too_long(path: &str, text: &str) -> Vec<usize> {
        let file = SourceFile { path: path.to_owned(), text: text.to_owned() };
        findings(&[file]).into_iter().map(|finding| finding.line).collect()
    }

    /// Words that are `width` columns wide together.
    fn words(width: usize) -> String {
        format!("{}x", "w ".repeat(width / 2)).chars().take(width).collect()
    }

    #[test]
    fn comments_end_at_100_and_code_at_120() {
        for comment in ["    // ", "/// ", "//! "] {
            let fits = format!("{comment}{}", words(100 - comment.len()));
            assert_eq!(too_long("a.rs", &format!("{fits}\n{fits}yy\n")), [2], "{comment}");
        }
        assert_eq!(too_long("a.rs", &format!("{}\n{}\n", words(120), words(121))), [2]);
        assert_eq!(too_long("a.s", &format!("# {}\n{}\n", words(99), words(121))), [1]);
        assert_eq!(too_long("a.toml", &format!("# {}\n{}\n", words(99), words(120))), [1]);
    }

    #[test]
    fn prose_of_documents_ends_at_100_but_not_their_code() {
        let text = format!("{0}\n```\n{1}\n{2}\n```\n{0}\n", words(101), words(120), words(121));
        assert_eq!(too_long("a.md", &text), [1, 4, 6]);
        let documented = format!("/// ```\n/// {}\n/// ```\n/// {}\n", words(116), words(97));
        assert_eq!(too_long("a.rs", &documented), [4]);
    }

    #[test]
    fn code_with_a_string_may_be_longer() {
        assert!(too_long("a.rs", &format!("    panic!(\"{}\");\n", words(121))).is_empty());
        assert_eq!(too_long("a.rs", &format!("    // panic!(\"{}\");\n", words(121))), [1]);
    }

    #[test]
    fn columns_are_characters() {
        assert!(too_long("a.md", &"é ".repeat(50)).is_empty());
    }

    #[test]
    fn tables_and_what_cannot_be_broken_may_be_longer() {
        let address = format!("https://example.org/{}", "x".repeat(100));
        assert!(too_long("a.md", &format!("| {} |\n* {address}\n{address}\n", words(100))).is_empty());
        assert!(too_long("a.rs", &format!("/// | {} |\n/// {address}\n", words(100))).is_empty());
        assert_eq!(too_long("a.md", &format!("see {address}\n")), [1]);
    }
}
