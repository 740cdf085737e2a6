//! The start of a device, up to its features (virtio 1.2, 3.1.1): each step is a status bit of its
//! own, so that a device can tell where a driver is.

use core::fmt;

use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::patience::Patience;
use crate::time::Instant;

/// How long a device may take to reset itself.
const RESET_PATIENCE_NS: u64 = 1_000_000_000;
/// The feature without which a device speaks only the legacy interface.
const FEATURE_VERSION_1: u64 = 1 << 32;

/// Why a driver and its device do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NegotiationError {
    /// The device does not finish its reset.
    NoReset,
    /// The device speaks only the legacy interface.
    Legacy,
    /// The device refused the features that it had offered.
    Refused,
}

impl fmt::Display for NegotiationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoReset => "it does not finish a reset",
            Self::Legacy => {
                "it knows only the legacy interface (under QEMU, pass -global virtio-mmio.force-legacy=false)"
            }
            Self::Refused => "it does not agree to the features that it offers",
        })
    }
}

/// Resets a device and agrees on features with it: those of `wanted` that it offers, which are
/// returned. Without [`FEATURE_VERSION_1`] nothing is agreed on.
///
/// # Errors
/// [`NegotiationError`]; the device then has the status `FAILED`, unless it does not reset itself.
pub(in super::super) fn negotiate(transport: &mut impl Transport, wanted: u64) -> Result<u64, NegotiationError> {
    reset(transport)?;
    let mut status = DeviceStatus::empty();
    for step in [DeviceStatus::ACKNOWLEDGE, DeviceStatus::DRIVER] {
        status |= step;
        transport.set_status(status);
    }
    let features = agree(transport, wanted, status | DeviceStatus::FEATURES_OK);
    if features.is_err() {
        transport.set_status(status | DeviceStatus::FAILED);
    }
    features
}

/// Tells the device that its driver is ready.
pub(in super::super) fn finish(transport: &mut impl Transport) {
    let ready = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK;
    transport.set_status(ready);
}

/// Resets a device: it touches no memory any more.
///
/// # Errors
/// [`NegotiationError::NoReset`].
pub(in super::super) fn reset(transport: &mut impl Transport) -> Result<(), NegotiationError> {
    transport.set_status(DeviceStatus::empty());
    let mut patience = Patience::new(RESET_PATIENCE_NS);
    while transport.get_status() != DeviceStatus::empty() {
        patience.charge(Instant::now()).ok_or(NegotiationError::NoReset)?;
        core::hint::spin_loop();
    }
    Ok(())
}

fn agree(transport: &mut impl Transport, wanted: u64, agreed: DeviceStatus) -> Result<u64, NegotiationError> {
    let offered = transport.read_device_features();
    if offered & FEATURE_VERSION_1 == 0 {
        return Err(NegotiationError::Legacy);
    }
    let features = offered & (wanted | FEATURE_VERSION_1);
    transport.write_driver_features(features);
    transport.set_status(agreed);
    if transport.get_status().contains(DeviceStatus::FEATURES_OK) {
        Ok(features)
    } else {
        Err(NegotiationError::Refused)
    }
}

#[cfg(test)]
mod tests {
    use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
    use virtio_drivers::{Error, PhysAddr};
    use zerocopy::{FromBytes, Immutable, IntoBytes};

    use super::{FEATURE_VERSION_1, NegotiationError, finish, negotiate};

    /// A device that notes each status it is given.
    struct FakeDevice {
        offered: u64,
        accepted: u64,
        statuses: Vec<u32>,
        status: DeviceStatus,
        /// Bits of the status that the device does not let go or does not take.
        stuck: DeviceStatus,
        refused: DeviceStatus,
    }

    impl FakeDevice {
        fn new(offered: u64) -> Self {
            let none = DeviceStatus::empty();
            Self { offered, accepted: 0, statuses: Vec::new(), status: none, stuck: none, refused: none }
        }
    }

    impl Transport for FakeDevice {
        fn read_device_features(&mut self) -> u64 {
            self.offered
        }

        fn write_driver_features(&mut self, features: u64) {
            self.accepted = features;
        }

        fn get_status(&self) -> DeviceStatus {
            (self.status | self.stuck) & !self.refused
        }

        fn set_status(&mut self, status: DeviceStatus) {
            self.statuses.push(status.bits());
            self.status = status;
        }

        fn device_type(&self) -> DeviceType {
            DeviceType::Block
        }

        fn max_queue_size(&mut self, _: u16) -> u32 {
            unreachable!("there is no queue yet")
        }

        fn notify(&mut self, _: u16) {
            unreachable!("there is no queue yet")
        }

        fn set_guest_page_size(&mut self, _: u32) {}

        fn requires_legacy_layout(&self) -> bool {
            false
        }

        fn queue_set(&mut self, _: u16, _: u32, _: PhysAddr, _: PhysAddr, _: PhysAddr) {}

        fn queue_unset(&mut self, _: u16) {}

        fn queue_used(&mut self, _: u16) -> bool {
            false
        }

        fn ack_interrupt(&mut self) -> InterruptStatus {
            InterruptStatus::empty()
        }

        fn read_config_generation(&self) -> u32 {
            0
        }

        fn read_config_space<T: FromBytes + IntoBytes>(&self, _: usize) -> Result<T, Error> {
            Err(Error::ConfigSpaceMissing)
        }

        fn write_config_space<T: IntoBytes + Immutable>(&mut self, _: usize, _: T) -> Result<(), Error> {
            Err(Error::ConfigSpaceMissing)
        }
    }

    #[test]
    fn each_step_sets_one_status_bit() {
        let mut device = FakeDevice::new(FEATURE_VERSION_1 | 0b111);
        assert_eq!(negotiate(&mut device, 0b1010), Ok(FEATURE_VERSION_1 | 0b10));
        finish(&mut device);
        assert_eq!(device.accepted, FEATURE_VERSION_1 | 0b10);
        assert_eq!(device.statuses, [0, 1, 1 | 2, 1 | 2 | 8, 1 | 2 | 8 | 4]);
    }

    #[test]
    fn a_device_that_does_not_agree_is_given_up() {
        let mut legacy = FakeDevice::new(0b111);
        assert_eq!(negotiate(&mut legacy, 0b111), Err(NegotiationError::Legacy));
        assert_eq!(legacy.statuses, [0, 1, 3, 128 | 3]);
        let mut refusing = FakeDevice::new(FEATURE_VERSION_1);
        refusing.refused = DeviceStatus::FEATURES_OK;
        assert_eq!(negotiate(&mut refusing, 0), Err(NegotiationError::Refused));
        assert_eq!(refusing.statuses, [0, 1, 3, 11, 128 | 3]);
    }

    #[test]
    fn a_device_that_does_not_reset_itself_is_not_waited_for_for_ever() {
        let mut device = FakeDevice::new(FEATURE_VERSION_1);
        device.stuck = DeviceStatus::DRIVER;
        assert_eq!(negotiate(&mut device, 0), Err(NegotiationError::NoReset));
        assert_eq!(device.statuses, [0]);
    }
}
