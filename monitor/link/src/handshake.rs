//! The first two messages between a VMM process and a supervisor of another time, and perhaps of
//! another build.
//!
//! A supervisor that connects to the socket of a running VMM process says which versions of the
//! protocol it speaks; the process chooses one. From then on the messages are those of that
//! version. **The two messages here never change**: any two builds must be able to find out that
//! they can't work together.
//!
//! The version covers all that the two sides share once a guest runs: the messages of
//! [`message`](crate::message), the layout of the register page, and the doorbell. It does not
//! cover the start, for which both are of one build.

use aerostat_abi::registers;
use serde::{Deserialize, Serialize};

/// The newest version of the protocol that this build speaks.
pub const PROTOCOL: u32 = 3;
/// The oldest one. No earlier version was in a release.
pub const OLDEST_PROTOCOL: u32 = 3;

const _: () = assert!(
    registers::MAGIC == 0x4145_524f_5245_4737,
    "the register page has a new layout: raise PROTOCOL, and OLDEST_PROTOCOL unless both layouts are understood"
);

/// Versions of the protocol in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest one.
    pub oldest: u32,
    /// The newest one.
    pub newest: u32,
}

/// What a supervisor says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The versions that it speaks.
    pub versions: Versions,
    /// Its build, for messages.
    pub build: String,
}

/// What a VMM process answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether the supervisor may go on.
    pub verdict: Verdict,
    /// The versions that the process speaks.
    pub versions: Versions,
    /// Its build, for messages.
    pub build: String,
}

/// Whether a supervisor may take the process over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It may, by this version of the protocol.
    Welcome(u32),
    /// The two have no version in common.
    NoCommonVersion,
    /// A supervisor is there already.
    Supervised,
}

impl Versions {
    /// What this build speaks.
    pub const OURS: Self = Self { oldest: OLDEST_PROTOCOL, newest: PROTOCOL };

    /// Returns the newest version that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Hello, Verdict, Versions};

    const SOME: Versions = Versions { oldest: 2, newest: 4 };

    #[test]
    fn the_newest_common_version_is_chosen() {
        let common = |oldest, newest| SOME.common(Versions { oldest, newest });
        assert_eq!((common(1, 1), common(1, 2), common(1, 3), common(3, 9)), (None, Some(2), Some(3), Some(4)));
        assert_eq!((common(5, 9), common(0, u32::MAX), common(4, 2)), (None, Some(4), None));
    }

    /// Builds of all times understand each other so far. This test never changes.
    #[test]
    fn the_handshake_keeps_its_shape() {
        let hello = r#"{"versions":{"oldest":2,"newest":4},"build":"b"}"#;
        let said = Hello { versions: SOME, build: "b".into() };
        assert_eq!(serde_json::to_string(&said).unwrap(), hello);
        assert_eq!(serde_json::from_str::<Hello>(hello).unwrap(), said);
        for (verdict, text) in [
            (Verdict::Welcome(3), r#"{"Welcome":3}"#),
            (Verdict::NoCommonVersion, r#""NoCommonVersion""#),
            (Verdict::Supervised, r#""Supervised""#),
        ] {
            let answer = format!(r#"{{"verdict":{text},"versions":{{"oldest":2,"newest":4}},"build":"b"}}"#);
            let said = Answer { verdict, versions: SOME, build: "b".into() };
            assert_eq!(serde_json::to_string(&said).unwrap(), answer);
            assert_eq!(serde_json::from_str::<Answer>(&answer).unwrap(), said);
        }
    }
}
