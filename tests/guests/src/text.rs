//! Pages of text for the compressed pool. The guest `bench_memory` and the bench `memory` both
//! include this file, so that guest and host compress the same bytes.

/// English prose with some tables and code.
const SOURCES: [&str; 4] = [
    include_str!("../../../docs/ARCHITECTURE.md"),
    include_str!("../../../docs/balloon-port.md"),
    include_str!("../../../docs/reclaim.md"),
    include_str!("../../../docs/devices.md"),
];
/// The distance in the text between the beginnings of two pages. It does not divide the text's
/// length, so that pages repeat late.
const STRIDE: usize = 1531;

/// Fills `page` with its number and the text of page `number`.
pub(crate) fn fill(page: &mut [u8], number: usize) {
    let (head, body) = page.split_at_mut(size_of::<usize>());
    head.copy_from_slice(&number.to_le_bytes());
    let length: usize = SOURCES.iter().map(|source| source.len()).sum();
    let mut at = number * STRIDE % length;
    let mut filled = 0;
    while filled < body.len() {
        let rest = from(at);
        let bytes = rest.len().min(body.len() - filled);
        body[filled..filled + bytes].copy_from_slice(&rest[..bytes]);
        filled += bytes;
        at = (at + bytes) % length;
    }
}

/// Returns the text from place `at` of all sources to the end of the source that it is in.
fn from(mut at: usize) -> &'static [u8] {
    for source in SOURCES {
        match source.as_bytes().get(at..) {
            Some(rest) if !rest.is_empty() => return rest,
            _ => at -= source.len(),
        }
    }
    SOURCES[0].as_bytes()
}
