//! Text for the application `index`: packed into an archive for its disk, and indexed once more on
//! the host, to compare.

mod pack;
mod reference;

pub use pack::{Packed, pack};
pub use reference::{Reference, verify};
