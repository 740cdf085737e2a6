//! What is evicted next.
//!
//! A [`Hand`](hand::Hand) visits the pages of one kind in the order of their addresses and asks the
//! policy about each. The [`Scanner`] has a hand for each kind of page, decides whose turn it is
//! ([`balance`]), and keeps the record of evictions and refaults from which follows whether the
//! guest is thrashing ([`thrash`]). [`efforts`] accounts for what scanning cost and brought.

pub(crate) mod balance;
pub(crate) mod efforts;
pub(super) mod hand;
mod scanner;
pub(super) mod thrash;

pub(super) use scanner::Scanner;
