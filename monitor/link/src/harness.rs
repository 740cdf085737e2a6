//! The decoder of messages with any bytes and any number of descriptors, for a fuzzer. Behind the
//! feature `harness`; not part of a program.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::message::{FromVmm, StartDescriptors, ToVmm};
use crate::{Link, Patience};

/// Descriptors that come with a message at most: more than it may carry.
const MOST_DESCRIPTORS: u8 = 15;

/// Receives a message of these bytes in the direction, and with as many descriptors, as the first
/// byte says.
///
/// # Panics
/// When a message with descriptors is accepted from a VMM process.
pub fn receive(bytes: &[u8]) {
    let Some((&how, message)) = bytes.split_first() else { return };
    let (ours, theirs) = Link::pair().expect("a host has sockets");
    let count = usize::from(how >> 1 & MOST_DESCRIPTORS);
    let file = || memfd_create("passed", MemfdFlags::CLOEXEC).expect("a host has memory files");
    let files: Vec<OwnedFd> = (0..count).map(|_| file()).collect();
    let rights: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(15))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if count > 0 && !control.push(SendAncillaryMessage::ScmRights(&rights)) {
        return;
    }
    let parts = [std::io::IoSlice::new(message)];
    if sendmsg(&theirs, &parts, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_err() {
        return;
    }
    if how & 1 == 0 {
        let received = ours.receive_plain::<FromVmm>(Patience::DoNotWait);
        assert!(received.is_err() || count == 0, "a VMM process may pass no descriptors");
    } else if let Ok((ToVmm::Start(start), descriptors)) = ours.receive::<ToVmm>(Patience::DoNotWait) {
        let had = descriptors.len();
        let sorted = StartDescriptors::from_received(descriptors, &start);
        assert!(sorted.is_none_or(|sorted| sorted.borrowed().len() <= had));
    }
}

#[cfg(test)]
mod tests {
    use super::receive;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};
    use std::fs;

    #[test]
    fn the_fuzzers_seeds_are_run() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/link");
        let seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path()).collect();
        assert!(!seeds.is_empty());
        seeds.iter().for_each(|seed| receive(&fs::read(seed).unwrap()));
    }

    proptest! {
        #[test]
        fn any_message_can_be_received(bytes in vec(any::<u8>(), 0..200)) {
            receive(&bytes);
        }
    }
}
