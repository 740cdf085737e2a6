//! A user of the process's own, without capabilities.
//!
//! Where the supervisor is root, the user's number follows from the process's: no two processes
//! that run have the same, and no file on the host belongs to it. So a process that got out of the
//! rest of its jail could still not signal, trace or limit a neighbour. Where the supervisor is not
//! root, its processes keep its user.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// The number of the user of process 0. systemd's list of numbers has these as unused, above those
/// of containers and below 2^31; process numbers have at most 22 bits.
const FIRST_USER: u32 = 0x7000_0000;
/// The user without rights that every host has, where others are not to be had: the supervisor runs
/// in a user namespace.
const UNPRIVILEGED: u32 = 65_534;

/// Which user a process becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// One of its own.
    OfProcess,
    /// One that it may share with others.
    Unprivileged,
    /// The one that it is.
    Supervisors,
}

/// Becomes the user of the process that its supervisor knows by this number, without capabilities
/// and without a way to get any; returns which user that is.
pub(super) fn drop(process: Pid) -> Result<User, Errno> {
    for capability in CapabilitySet::all().iter() {
        // Only with `CAP_SETPCAP`, and without it `no_new_privs` suffices.
        if remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
    let user = if geteuid().is_root() { leave_root(process)? } else { User::Supervisors };
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    let _ = clear_ambient_capability_set();
    set_no_new_privs(true)?;
    // A change of user sets what `fs.suid_dumpable` says, which may be a core dump for root.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(user)
}

fn leave_root(process: Pid) -> Result<User, Errno> {
    let own = FIRST_USER + process.as_raw_nonzero().get().unsigned_abs();
    match become_user(own) {
        Ok(()) => Ok(User::OfProcess),
        // It has no number in this user namespace.
        Err(Errno::INVAL) => become_user(UNPRIVILEGED).map(|()| User::Unprivileged),
        Err(error) => Err(error),
    }
}

fn become_user(number: u32) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(number), Gid::from_raw(number));
    set_thread_groups(&[])?;
    set_thread_res_gid(Some(group), Some(group), Some(group))?;
    set_thread_res_uid(user, user, user)
}
