//! Where evicted pages are: in the compressed pool, on the swap disk, or nowhere.

pub(crate) mod compressed_pool;
pub(crate) mod disk;
pub(crate) mod entry;
pub(crate) mod slot_map;
#[cfg(test)]
pub(crate) mod slow_disk;
pub(super) mod swap_disk;
