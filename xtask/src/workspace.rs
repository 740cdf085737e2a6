//! The workspace's packages and their targets, as cargo knows them.
//!
//! No verb keeps a list of packages or of test files, as such a list misses what is added later.
//! `check` and `test` ask this module instead.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::cargo::{cargo, shown};

/// The line in the head of a test file whose tests boot no guest.
const NEEDS_NO_MACHINE: &str = "//! Needs no machine.";

/// The output of `cargo metadata`.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    packages: Vec<Package>,
    workspace_default_members: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `None` for an ordinary dependency.
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    /// Whether a plain `cargo test` runs it.
    test: bool,
    src_path: PathBuf,
}

/// A test file that a plain `cargo test` leaves out.
#[derive(Debug)]
pub(crate) struct TestFile {
    pub(crate) package: String,
    pub(crate) name: String,
    /// Whether its tests boot guests.
    pub(crate) needs_machine: bool,
}

impl Workspace {
    /// Asks cargo for the workspace.
    pub(crate) fn load() -> Result<Self> {
        let mut command = cargo(["metadata", "--no-deps", "--format-version", "1"]);
        let answer = command.output().with_context(|| format!("starting {}", shown(&command)))?;
        ensure!(answer.status.success(), "`{}` failed:\n{}", shown(&command), String::from_utf8_lossy(&answer.stderr));
        serde_json::from_slice(&answer.stdout).with_context(|| format!("reading what `{}` says", shown(&command)))
    }

    /// Returns the packages that are linked into images: `images` and all that they depend on in
    /// this workspace.
    pub(crate) fn bare_metal(&self, images: &[String]) -> Vec<String> {
        let mut found = BTreeSet::new();
        let mut next: Vec<&str> = images.iter().map(String::as_str).collect();
        while let Some(name) = next.pop() {
            let Some(package) = self.packages.iter().find(|package| package.name == name) else { continue };
            if found.insert(name.to_owned()) {
                let built = package.dependencies.iter().filter(|dependency| dependency.kind.is_none());
                next.extend(built.map(|dependency| dependency.name.as_str()));
            }
        }
        found.into_iter().collect()
    }

    /// Returns the packages that are built for the host: the default members, and those that are
    /// linked into no image.
    pub(crate) fn host(&self, images: &[String]) -> Vec<String> {
        let bare_metal = self.bare_metal(images);
        let packages = self.packages.iter();
        let on_host = packages.filter(|package| self.is_default(package) || !bare_metal.contains(&package.name));
        on_host.map(|package| package.name.clone()).collect()
    }

    /// Returns the test files that a plain `cargo test` leaves out, as they need images that `cargo
    /// xtask test` builds: all files of a package that is no default member, and those for which
    /// the manifest says `test = false`.
    pub(crate) fn left_out_tests(&self) -> Result<Vec<TestFile>> {
        let mut files = Vec::new();
        for package in &self.packages {
            let is_default = self.is_default(package);
            for target in &package.targets {
                if target.kind == ["test"] && !(is_default && target.test) {
                    files.push(TestFile {
                        package: package.name.clone(),
                        name: target.name.clone(),
                        needs_machine: target.needs_machine()?,
                    });
                }
            }
        }
        Ok(files)
    }

    /// Returns the packages whose unit tests a plain `cargo test` leaves out together with their
    /// test files.
    pub(crate) fn left_out_packages(&self) -> Vec<String> {
        let has_tests = |package: &&Package| package.targets.iter().any(|target| target.kind == ["test"]);
        let left_out = self.packages.iter().filter(|package| !self.is_default(package)).filter(has_tests);
        left_out.map(|package| package.name.clone()).collect()
    }

    fn is_default(&self, package: &Package) -> bool {
        self.workspace_default_members.contains(&package.id)
    }
}

impl Target {
    fn needs_machine(&self) -> Result<bool> {
        let path = self.src_path.display();
        let text = fs::read_to_string(&self.src_path).with_context(|| format!("reading the test file {path}"))?;
        Ok(!text.lines().take_while(|line| line.starts_with("//!")).any(|line| line == NEEDS_NO_MACHINE))
    }
}

#[cfg(test)]
mod tests {
    use super::Workspace;

    fn this_workspace() -> Workspace {
        Workspace::load().expect("cargo knows this workspace")
    }

    #[test]
    fn packages_of_an_image_include_its_dependencies_but_not_those_of_tests() {
        let found = this_workspace().bare_metal(&["memwalk".to_owned()]);
        for name in ["memwalk", "working-set", "aerostat-guest", "aerostat-reclaim-policy", "aerostat-abi"] {
            assert!(found.iter().any(|found| found == name), "{name} is missing: {found:?}");
        }
        assert!(!found.iter().any(|found| found == "aerostat"), "{found:?}");
    }

    #[test]
    fn packages_for_the_host_include_the_default_members_but_no_applications() {
        let found = this_workspace().host(&["memwalk".to_owned()]);
        for name in ["aerostat", "aerostat-abi", "aerostat-guest", "aerostat-tests", "xtask"] {
            assert!(found.iter().any(|found| found == name), "{name} is missing: {found:?}");
        }
        assert!(!found.iter().any(|found| found == "working-set" || found == "memwalk"), "{found:?}");
    }

    /// What runs beside an untrusted guest does not contain the supervisor or its libraries.
    #[test]
    fn the_vmm_process_depends_on_little() {
        let workspace = this_workspace();
        for name in ["aerostat-vmm", "aerostat-link"] {
            let package = workspace.packages.iter().find(|package| package.name == name).expect("it is there");
            let built = package.dependencies.iter().filter(|dependency| dependency.kind.is_none());
            for dependency in built {
                let is_allowed = !["aerostat", "anyhow", "clap", "tempfile", "toml"].contains(&&*dependency.name);
                assert!(is_allowed, "{name} depends on {}", dependency.name);
            }
        }
    }

    /// These are all files in `tests/tests`, and the monitor's file with `test = false`.
    #[test]
    fn test_files_that_cargo_leaves_out_are_found() {
        let files = this_workspace().left_out_tests().expect("test files can be read");
        let folder = crate::cargo::root().join("tests/tests");
        let in_folder = std::fs::read_dir(folder).expect("the folder is there").filter(|entry| {
            entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "rs"))
        });
        assert_eq!(files.iter().filter(|file| file.package == "aerostat-tests").count(), in_folder.count());
        let names: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.needs_machine)).collect();
        assert!(names.contains(&("vmm", true)) && names.contains(&("bad_input", false)), "{names:?}");
        assert!(!names.iter().any(|(name, _)| ["up", "offers", "disk_figures"].contains(name)), "{names:?}");
    }
}
