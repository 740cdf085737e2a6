//! What the supervisor reads from outside, with any bytes, for a fuzzer. Behind the feature
//! `harness`; not part of the `aerostat` command.

use std::path::Path;

use aerostat_abi::units::FrameCount;

pub use crate::control::harness::request as control_request;
pub use crate::host::qemu::harness::session as qmp_session;

use crate::fleet::Fleet;

/// Reads a fleet file of these bytes, in the folder of this package.
///
/// # Panics
/// When a fleet is accepted that its pool can't hold, or an error is not one line.
pub fn fleet_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Fleet::from_text(text, &Path::new(env!("CARGO_MANIFEST_DIR")).join("fleet.toml")) {
        Ok(fleet) => {
            let minima = fleet.guests.iter().map(|guest| guest.limits.min);
            assert!(minima.fold(FrameCount::ZERO, FrameCount::saturating_add) <= fleet.pool);
            assert!(fleet.guests.iter().all(|guest| guest.limits.min <= guest.limits.max));
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};
    use std::fs;

    /// Plays the seeds of a target; returns how many there are.
    fn play(target: &str, input: impl Fn(&[u8])) -> usize {
        let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let seeds = fs::read_dir(folder).unwrap().map(|seed| seed.unwrap().path());
        seeds.map(|seed| input(&fs::read(seed).unwrap())).count()
    }

    #[test]
    fn the_fuzzers_seeds_are_run() {
        assert!(play("fleet_file", super::fleet_file) > 0);
        assert!(play("control_request", super::control_request) > 0);
        assert!(play("qmp_session", super::qmp_session) > 0);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in vec(any::<u8>(), 0..200)) {
            super::control_request(&bytes);
            super::qmp_session(&bytes);
        }

        #[test]
        fn any_text_may_be_a_fleet_file(text in "[a-z=\" \n\\[\\]0-9M]{0,120}") {
            super::fleet_file(text.as_bytes());
        }
    }
}
