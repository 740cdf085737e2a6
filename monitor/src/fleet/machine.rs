//! What runs a guest, as a fleet file says it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What runs a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// A VMM process of ours, on KVM.
    #[default]
    Aerostat,
    /// A QEMU that is started for the guest.
    Qemu,
    /// A QEMU of another program.
    Attached(Attachment),
}

/// A machine of another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The socket of its QEMU's `-qmp` option.
    pub qmp: PathBuf,
    /// How the machine is left.
    #[serde(default)]
    pub on_detach: DetachRule,
}

/// How the balloon of an attached machine is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DetachRule {
    /// Deflated: the guest gets all memory of its machine back.
    #[default]
    Deflate,
    /// As it is.
    Keep,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aerostat => f.write_str("aerostat"),
            Self::Qemu => f.write_str("qemu"),
            Self::Attached(Attachment { qmp, .. }) => write!(f, "attached {}", qmp.display()),
        }
    }
}

/// A machine that is started, as it is written.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MachineName {
    Aerostat,
    Qemu,
}

impl From<MachineName> for Machine {
    fn from(name: MachineName) -> Self {
        match name {
            MachineName::Aerostat => Self::Aerostat,
            MachineName::Qemu => Self::Qemu,
        }
    }
}
