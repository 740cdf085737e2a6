//! Runs a command in a mount namespace with another `/dev`, in which `/dev/kvm` is missing or must
//! not be opened.

use std::process::{Command, Stdio};

/// A flaw of `/dev/kvm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmFlaw {
    /// There is no such file.
    Missing,
    /// It may not be opened.
    NotPermitted,
}

/// Commands that enter a new mount namespace: as root of a user namespace, which most hosts allow
/// every user, or as root of the host.
const NAMESPACES: [&[&str]; 2] = [&["unshare", "--user", "--map-root-user", "--mount"], &["unshare", "--mount"]];
/// A script that hides `/dev` in the namespace and executes its arguments.
const MISSING: &str = r#"mount -t tmpfs none /dev && exec "$0" "$@""#;
/// The same with a `/dev/kvm` that must not be opened. Root of a namespace may open every file, so
/// the script drops its capabilities.
const NOT_PERMITTED: &str = r#"mount -t tmpfs none /dev && : > /dev/kvm && chmod 0 /dev/kvm &&
exec setpriv --inh-caps=-all --bounding-set=-all "$0" "$@""#;

/// Returns a command that executes its last arguments on a host that has this flaw; `None` if this
/// machine does not permit that.
#[must_use]
pub fn wrapper(flaw: KvmFlaw) -> Option<Vec<&'static str>> {
    let script = match flaw {
        KvmFlaw::Missing => MISSING,
        KvmFlaw::NotPermitted => NOT_PERMITTED,
    };
    let mut wrappers = NAMESPACES.into_iter().map(|namespace| [namespace, &["sh", "-c", script]].concat());
    wrappers.find(|wrapper| {
        let mut probe = Command::new(wrapper[0]);
        probe.args(&wrapper[1..]).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    })
}
