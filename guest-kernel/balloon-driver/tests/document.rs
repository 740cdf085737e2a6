//! Compares `docs/balloon.md`, which draws a step of the driver, with the drawing in the code.

const DOCUMENT: &str = include_str!("../../../docs/balloon.md");
const CODE: &str = include_str!("../src/lib.rs");

#[test]
fn the_document_draws_a_step_as_the_code_does() {
    let lines = CODE.lines().skip_while(|line| *line != "//! ```text").skip(1);
    let drawing: Vec<_> = lines
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//!").strip_prefix(' ').unwrap_or_default())
        .collect();
    assert!(drawing.len() > 20, "the code has no drawing");
    assert!(DOCUMENT.contains(&drawing.join("\n")), "docs/balloon.md has another drawing than the code");
}
