//! Reads what xtask has to know of a fleet file. An invalid file has no guests here: `aerostat up`
//! will report its errors.

use std::fs;
use std::path::Path;

/// Returns the tables of the guests.
pub(crate) fn guests(fleet: &Path) -> Vec<toml::Value> {
    let table = fs::read_to_string(fleet).ok().and_then(|text| text.parse::<toml::Table>().ok()).unwrap_or_default();
    table.get("guest").and_then(toml::Value::as_array).cloned().unwrap_or_default()
}

/// Returns the directory from which a fleet file names other files.
pub(crate) fn directory(fleet: &Path) -> &Path {
    fleet.parent().unwrap_or(Path::new(""))
}
