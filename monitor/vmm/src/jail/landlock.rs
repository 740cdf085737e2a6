//! Landlock (landlock(7)): no file may be opened, and no signal or abstract socket leads out.
//!
//! The rule set has no rules, so every right that it handles is denied. What was opened before
//! keeps its rights. The three calls are made here, as the `landlock` crate exists for rules.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

/// Asks for the version instead of making a rule set.
const CREATE_RULESET_VERSION: libc::c_uint = 1;

/// The rights that a rule set handles, by version (`struct landlock_ruleset_attr`).
#[repr(C)]
#[derive(Debug, PartialEq, Eq)]
struct RulesetAttributes {
    access_fs: u64,
    access_net: u64,
    scoped: u64,
}

impl RulesetAttributes {
    /// Returns all rights that a kernel of this version knows.
    const fn all(version: u32) -> Self {
        let access_fs = match version {
            0 | 1 => 13,
            // Moving to another directory.
            2 => 14,
            // Truncating.
            3 | 4 => 15,
            // Control calls of devices.
            _ => 16,
        };
        Self {
            access_fs: (1 << access_fs) - 1,
            // Binding and connecting TCP sockets.
            access_net: if version >= 4 { 3 } else { 0 },
            // Abstract sockets and signals.
            scoped: if version >= 6 { 3 } else { 0 },
        }
    }

    /// Returns how much of the structure a kernel of this version reads.
    const fn bytes(version: u32) -> usize {
        match version {
            0..=3 => 8,
            4 | 5 => 16,
            _ => 24,
        }
    }
}

/// Denies everything. Needs `no_new_privs`.
pub(super) fn restrict() -> Result<(), Errno> {
    let nothing = ptr::null::<RulesetAttributes>();
    // SAFETY: with this flag the call reads nothing.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, CREATE_RULESET_VERSION) };
    let version = u32::try_from(version).map_err(|_| last_error())?;
    let attributes = RulesetAttributes::all(version);
    let bytes = RulesetAttributes::bytes(version);
    // SAFETY: the structure has at least so many bytes.
    let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, bytes, 0) };
    let ruleset = i32::try_from(ruleset).ok().filter(|ruleset| *ruleset >= 0).ok_or_else(last_error)?;
    // SAFETY: the kernel has just returned it, and nothing else knows it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset) };
    // SAFETY: the call takes a descriptor and flags.
    let restricted = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    if restricted == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::RulesetAttributes;

    #[test]
    fn each_version_handles_what_it_knows() {
        let of = |version| {
            let RulesetAttributes { access_fs, access_net, scoped } = RulesetAttributes::all(version);
            (access_fs, access_net, scoped, RulesetAttributes::bytes(version))
        };
        assert_eq!(of(1), (0x1fff, 0, 0, 8));
        assert_eq!(of(3), (0x7fff, 0, 0, 8));
        assert_eq!(of(5), (0xffff, 3, 0, 16));
        assert_eq!(of(7), (0xffff, 3, 3, 24));
    }
}
