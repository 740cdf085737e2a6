//! What only one processor architecture needs. There is one: x86-64.

pub(crate) mod x86_64;
