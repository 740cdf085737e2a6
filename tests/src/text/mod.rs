//! Text for the application `index`: packs it into an archive for the disk, and indexes it on the
//! host to compare.

mod pack;
mod reference;

pub use pack::{Packed, pack};
pub use reference::{Reference, verify};
