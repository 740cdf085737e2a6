//! Paths of the command and of images. `cargo xtask test` and `cargo xtask bench` build them and
//! pass the paths in environment variables.

use std::env;
use std::path::PathBuf;

/// Returns the path of the `aerostat` command.
///
/// # Panics
/// Outside `cargo xtask`.
#[must_use]
pub fn aerostat() -> PathBuf {
    variable("AEROSTAT_BIN")
}

/// Returns the path of the program `aerostat-vmm`, which is in the same folder.
///
/// # Panics
/// Outside `cargo xtask`.
#[must_use]
pub fn aerostat_vmm() -> PathBuf {
    aerostat().with_file_name("aerostat-vmm")
}

/// Returns the path of the image of the test guest `name`.
///
/// # Panics
/// Outside `cargo xtask`, and when there is no such image.
#[must_use]
pub fn guest_image(name: &str) -> PathBuf {
    existing(variable("AEROSTAT_GUESTS").join(name))
}

/// Returns the path of the image of the application `name`.
///
/// # Panics
/// Outside `cargo xtask`, and when there is no such image.
#[must_use]
pub fn app_image(name: &str) -> PathBuf {
    existing(variable("AEROSTAT_APPS").join(name))
}

/// Returns the folder with the kernel `vmlinuz` and the initial RAM disk `initrd` of a Linux guest;
/// `None` where `cargo xtask` could not make them.
#[must_use]
pub fn linux_guest() -> Option<PathBuf> {
    env::var_os("AEROSTAT_LINUX").map(PathBuf::from)
}

fn variable(name: &str) -> PathBuf {
    let Some(value) = env::var_os(name) else {
        panic!("{name} is not set: run this through `cargo xtask test` or `cargo xtask bench`");
    };
    value.into()
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.is_file(), "there is no image {}", path.display());
    path
}
