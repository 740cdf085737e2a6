//! A view of this host in which `/dev/kvm` is missing, or there and not for us: a mount namespace
//! with another `/dev`.

use std::process::{Command, Stdio};

/// What is wrong with `/dev/kvm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmFlaw {
    /// There is no such file.
    Missing,
    /// It may not be opened.
    NotPermitted,
}

/// Ways into a mount namespace of one's own: as root of a user namespace, which most hosts allow
/// everybody, or as root.
const NAMESPACES: [&[&str]; 2] = [&["unshare", "--user", "--map-root-user", "--mount"], &["unshare", "--mount"]];
/// Becomes the program and arguments behind it, in the namespace; root of a namespace may open
/// everything unless it lets go of its rights.
const MISSING: &str = r#"mount -t tmpfs none /dev && exec "$0" "$@""#;
const NOT_PERMITTED: &str = r#"mount -t tmpfs none /dev && : > /dev/kvm && chmod 0 /dev/kvm &&
exec setpriv --inh-caps=-all --bounding-set=-all "$0" "$@""#;

/// A command that becomes the one that its last arguments name, on a host that has this flaw;
/// `None` where the test machine does not allow that.
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
