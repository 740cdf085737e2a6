//! Pages of text for the compressed pool: the guest `bench_memory` and the bench `memory` both
//! include this file, so that guest and host compress the same bytes.

/// English prose with some tables and code.
const SOURCES: [&str; 4] = [
    include_str!("../../../docs/ARCHITECTURE.md"),
    include_str!("../../../docs/balloon-port.md"),
    include_str!("../../../docs/reclaim.md"),
    include_str!("../../../docs/devices.md"),
];
/// Distance of two pages' beginnings in the text; no divisor of its length, so that pages differ
/// for long.
const STRIDE: usize = 1531;

/// Fills `page` with the text from the place that belongs to page `number`, and the number itself.
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

/// What follows place `at` of all sources, to the end of the one that it lies in.
fn from(mut at: usize) -> &'static [u8] {
    for source in SOURCES {
        match source.as_bytes().get(at..) {
            Some(rest) if !rest.is_empty() => return rest,
            _ => at -= source.len(),
        }
    }
    SOURCES[0].as_bytes()
}
