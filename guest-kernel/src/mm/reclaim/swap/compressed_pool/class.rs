//! Size classes: how a zspage is divided into objects.

use aerostat_abi::units::FRAME_SIZE;

use super::zspage::{HEADER_BYTES, INDEX_BITS, MAX_FRAMES};

/// How the zspages of a class are divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub(super) frames: usize,
    pub(super) objects: usize,
}

/// The classes, those with the largest objects first.
pub(super) const CLASSES: [Class; 20] = [
    Class { frames: 2, objects: 2 },
    Class { frames: 1, objects: 1 },
    Class { frames: 3, objects: 4 },
    Class { frames: 2, objects: 3 },
    Class { frames: 3, objects: 5 },
    Class { frames: 1, objects: 2 },
    Class { frames: 2, objects: 5 },
    Class { frames: 1, objects: 3 },
    Class { frames: 1, objects: 4 },
    Class { frames: 1, objects: 5 },
    Class { frames: 1, objects: 6 },
    Class { frames: 1, objects: 7 },
    Class { frames: 1, objects: 8 },
    Class { frames: 1, objects: 9 },
    Class { frames: 1, objects: 10 },
    Class { frames: 1, objects: 11 },
    Class { frames: 1, objects: 12 },
    Class { frames: 1, objects: 13 },
    Class { frames: 1, objects: 14 },
    Class { frames: 1, objects: 15 },
];

/// The first classes hold only packed zspages, which have one page in each frame.
const PACKED_CLASSES: u8 = 2;

impl Class {
    /// Returns the size of an object in bytes.
    pub(super) const fn object_bytes(self) -> usize {
        (self.frames * FRAME_SIZE - HEADER_BYTES) / self.objects
    }
}

/// Returns the class with the smallest objects that hold `bytes`.
pub(super) fn class_for(bytes: usize) -> Option<u8> {
    let class = CLASSES.iter().rposition(|class| class.object_bytes() >= bytes)?;
    u8::try_from(class).ok().filter(|class| *class >= PACKED_CLASSES)
}

/// Returns the class of packed zspages with that many pages, fewer than [`MAX_FRAMES`].
pub(super) fn packed_class(pages: usize) -> u8 {
    debug_assert!((1..MAX_FRAMES).contains(&pages), "a zspage with {pages} pages is not packed");
    u8::from(pages == 1)
}

const _: () = {
    let mut class = 0;
    while class < CLASSES.len() {
        let Class { frames, objects } = CLASSES[class];
        assert!(frames <= MAX_FRAMES && objects < 1 << INDEX_BITS);
        assert!(class == 0 || CLASSES[class].object_bytes() < CLASSES[class - 1].object_bytes());
        class += 1;
    }
    assert!(CLASSES[0].frames == 2 && CLASSES[0].objects == 2 && CLASSES[1].frames == 1 && CLASSES[1].objects == 1);
    assert!(PACKED_CLASSES as usize == MAX_FRAMES - 1);
};
