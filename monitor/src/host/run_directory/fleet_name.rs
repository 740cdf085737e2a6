//! The name of a fleet: a part of its run directory's path.

use std::fmt;
use std::path::Path;

/// Bytes of the longest name.
const LONGEST: usize = 64;

/// A name that is safe as a file name: letters, digits, `-`, `_` and `.`, a letter or digit first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FleetName(String);

/// A text that can't name a fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} can't name a fleet; take at most {LONGEST} letters, digits, '-', '_' and '.', a letter or digit first")]
pub struct BadFleetName(String);

impl FleetName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// Returns a sentence that says what a name may be.
    pub fn new(name: impl Into<String>) -> Result<Self, BadFleetName> {
        let name = name.into();
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let begins_well = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        if begins_well && name.bytes().all(is_fit) && name.len() <= LONGEST {
            Ok(Self(name))
        } else {
            Err(BadFleetName(name))
        }
    }

    /// Returns the name of the fleet in the file at `path`: the stem of the file's name.
    ///
    /// # Errors
    ///
    /// Returns an error where the stem is not a fleet's name.
    pub fn of_file(path: &Path) -> Result<Self, BadFleetName> {
        Self::new(path.file_stem().unwrap_or_default().to_string_lossy())
    }

    /// Returns the name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::FleetName;

    #[test]
    fn names_are_file_names() {
        assert_eq!(FleetName::of_file("fleets/my-web.2.toml".as_ref()).unwrap().as_str(), "my-web.2");
        for bad in ["", ".", "..", "../x", "a/b", "-a", "a b", "\u{e4}", &"x".repeat(65)] {
            assert!(FleetName::new(bad).is_err(), "{bad:?}");
        }
        assert!(FleetName::of_file("/".as_ref()).is_err());
    }
}
