//! Which pages are evicted next: a hand over the pages of each kind, whose turn it is, and what that
//! costs the guest.

pub(crate) mod balance;
pub(crate) mod effort;
pub(super) mod hand;
pub(super) mod thrash;
