//! Where the image and its parts lie in memory. The symbols are `link.ld`'s.
#![allow(unsafe_code, reason = "declares symbols of the linker script")]

use core::ops::Range;

unsafe extern "C" {
    static image_start: u8;
    static code_end: u8;
    static constants_end: u8;
    static image_end: u8;
}

/// Returns the addresses of the image, `.bss` included. It begins with its code.
pub(crate) fn range() -> Range<u64> {
    address(&raw const image_start)..address(&raw const image_end)
}

/// Returns the addresses of the code.
pub(crate) fn code() -> Range<u64> {
    address(&raw const image_start)..address(&raw const code_end)
}

/// Returns the addresses of the constants, which follow the code; data lies behind them.
pub(crate) fn constants() -> Range<u64> {
    address(&raw const code_end)..address(&raw const constants_end)
}

fn address(symbol: *const u8) -> u64 {
    symbol.expose_provenance() as u64
}
