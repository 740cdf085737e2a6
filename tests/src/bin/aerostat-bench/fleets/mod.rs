//! Measures the supervisor with real guests: how it starts many of them and what it costs while
//! they are idle, and how fast memory gets from one guest to another.

mod grants;
mod many;
mod timed;
mod timeline;

use std::fs;

use aerostat::fleet::Fleet;
use anyhow::{Context, Result};

use crate::row::Row;

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut rows = many::measure()?;
    rows.extend(grants::measure()?);
    Ok(rows)
}

/// Reads a fleet file of this text.
fn fleet(text: &str) -> Result<Fleet> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let path = folder.path().join("fleet.toml");
    fs::write(&path, text)?;
    Ok(Fleet::load(&path)?)
}
