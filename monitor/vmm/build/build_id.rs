//! Computes the build id: a hash of all sources that a VMM process and its supervisor have to agree
//! on. Both executables contain it, and the VMM process refuses a supervisor with another one.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Folders with the sources, from this package's.
const SOURCES: [&str; 3] = ["src", "../link/src", "../../abi/src"];

pub(super) fn compute() -> io::Result<()> {
    let mut files = Vec::new();
    for folder in SOURCES {
        println!("cargo::rerun-if-changed={folder}");
        list(Path::new(folder), &mut files)?;
    }
    files.sort();
    let mut hash = Fnv::new();
    hash.add(env::var("CARGO_PKG_VERSION").unwrap_or_default().as_bytes());
    for file in files {
        hash.add(file.as_os_str().as_encoded_bytes());
        hash.add(&fs::read(file)?);
    }
    println!("cargo::rustc-env=AEROSTAT_BUILD_ID={:016x}", hash.0);
    Ok(())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// The FNV-1a hash: the standard library's may change with the compiler.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
