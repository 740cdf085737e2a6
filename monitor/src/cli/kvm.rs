//! Whether this host can run guests, asked before anything is started.

use kvm_ioctls::Kvm;
use rustix::io::Errno;

/// What KVM's API has been since 2007; the kernel's documentation says to refuse anything else.
const API_VERSION: i32 = 12;

/// Why guests can't run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KvmError {
    /// There is no device.
    #[error(
        "/dev/kvm is missing: enable virtualization for this machine and load the kvm module; without KVM, \
         `cargo xtask test` runs guests under QEMU"
    )]
    Missing,
    /// The device is there for others.
    #[error(
        "/dev/kvm may not be opened by this user: join the group that owns it (usually `kvm`) and log in again; without \
         KVM, `cargo xtask test` runs guests under QEMU"
    )]
    NotPermitted,
    /// The device does not open for another reason.
    #[error("/dev/kvm can't be opened ({0}); without KVM, `cargo xtask test` runs guests under QEMU")]
    Unusable(Errno),
    /// The device is not the one that this program knows.
    #[error("/dev/kvm speaks API version {0} instead of {API_VERSION}; boot a kernel that is newer than Linux 2.6.20")]
    ForeignVersion(i32),
}

/// Checks that `/dev/kvm` is there, open to this user, and usable.
///
/// # Errors
///
/// [`KvmError`], which says what to do.
pub(super) fn check_kvm() -> Result<(), KvmError> {
    let kvm = Kvm::new().map_err(|error| KvmError::of_errno(Errno::from_raw_os_error(error.errno())))?;
    match kvm.get_api_version() {
        API_VERSION => Ok(()),
        version => Err(KvmError::ForeignVersion(version)),
    }
}

impl KvmError {
    fn of_errno(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => Self::Missing,
            Errno::ACCESS | Errno::PERM => Self::NotPermitted,
            other => Self::Unusable(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KvmError;
    use rustix::io::Errno;

    #[test]
    fn every_answer_says_what_to_do_in_one_line() {
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::BUSY] {
            let text = KvmError::of_errno(errno).to_string();
            assert!(text.contains("cargo xtask test") && !text.contains('\n') && !text.contains("  "), "{text}");
        }
        assert_eq!(KvmError::of_errno(Errno::NODEV), KvmError::Missing);
        assert_eq!(KvmError::of_errno(Errno::PERM), KvmError::NotPermitted);
    }
}
