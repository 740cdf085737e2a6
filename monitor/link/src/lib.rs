//! What the supervisor and a VMM process share.
//!
//! The supervisor starts a VMM process with one end of a [`Link`] as its standard input. Its first
//! message is `ToVmm::Start`, which carries descriptors: the guest's image, disks and log, a
//! [`SharedPage`] through which targets and facts pass without a message, and the end of a
//! [`Doorbell`]. When the link closes, a VMM process without a lease ends; one with a lease waits
//! for another supervisor, which introduces itself by a [`handshake`].
//!
//! A VMM process is not trusted: its messages are bounded and parsed strictly, they carry no
//! descriptors, and the supervisor never waits for one. What runs beside a hostile guest uses this
//! crate, so it depends on little.

pub mod clock;
pub mod disk;
pub mod doorbell;
pub mod handshake;
#[cfg(any(test, feature = "harness"))]
#[doc(hidden)]
pub mod harness;
mod link;
pub mod message;
mod shared_page;
pub mod token_bucket;

pub use doorbell::Doorbell;
pub use link::{Link, LinkError, Patience};
pub use shared_page::SharedPage;
