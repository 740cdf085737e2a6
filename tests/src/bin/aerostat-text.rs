//! `aerostat-text`: packs text for guests that run `index`, and checks their indexes. `cargo xtask
//! run` calls it.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use aerostat_tests::text;
use anyhow::{Context, Result};
use clap::Parser;

/// Packs text for guests that run `index`, and checks their indexes.
#[derive(Debug, Parser)]
#[command(name = "aerostat-text")]
enum Verb {
    /// Pack files and folders into an archive.
    Pack {
        /// The archive
        #[arg(long, value_name = "FILE")]
        into: PathBuf,
        /// Stop before there are more than so many MiB of text
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..1 << 40))]
        limit_mib: Option<u64>,
        /// What to pack
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Compare what a guest logged with the host's own index.
    Verify {
        /// Leave out so many bytes at the beginning of the log: it may have those of earlier runs
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        from: usize,
        /// The archive on the guest's disk
        archive: PathBuf,
        /// The guest's log
        log: PathBuf,
    },
}

fn main() -> ExitCode {
    match perform(&Verb::parse()) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("aerostat-text: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: &Verb) -> Result<String> {
    match verb {
        Verb::Pack { into, limit_mib, paths } => {
            let packed = text::pack(paths, limit_mib.map(|mib| mib << 20), into)?;
            Ok(format!("text packed: {packed}"))
        }
        Verb::Verify { from, archive, log } => {
            let logged = fs::read(log).with_context(|| format!("reading {}", log.display()))?;
            let logged = String::from_utf8_lossy(logged.get(*from..).unwrap_or_default());
            let agreed = text::verify(archive, &logged).context("index not verified")?;
            Ok(format!("index verified: {agreed}"))
        }
    }
}
