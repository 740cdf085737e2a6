//! The run directory: where a supervisor leaves what its clients and its successor need.
//!
//! Below a base directory ([`default_base`]) there is one directory per fleet:
//!
//! * `lock`: held by the fleet's supervisor while it runs; contains its process number
//! * `control.sock`: where clients reach it
//! * `state.json`: the fleet as it is run now
//! * `guests/NAME.sock`, `.json`, `.ended`: a guest's process, found by the next supervisor
//!   ([`GuestFiles`])
//!
//! All directories have mode 0700 and belong to the user. They are opened once, and everything in
//! them is reached through the open directory: nothing that happens to the path later leads
//! elsewhere, and the length of the path does not count against that of a socket's address.

mod fleet_name;
mod folder;
mod guest_files;
mod listing;
mod lock;

use std::env;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::process::geteuid;

pub use self::fleet_name::{BadFleetName, FleetName};
use self::folder::Folder;
pub use self::guest_files::GuestFiles;
pub use self::listing::{FleetEntry, connect, fleets};
use self::lock::{Attempt, Lock};

/// The name of the socket that clients connect to.
const CONTROL_SOCKET: &str = "control.sock";
/// The directory of the guests' files.
const GUESTS: &str = "guests";
/// What a file's name begins with before the file is complete.
const UNFINISHED: &str = ".new-";

/// Why a fleet's run directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirectoryError {
    /// A supervisor of this fleet runs.
    #[error("fleet {fleet} runs already{}", .process.map_or(String::new(), |process| format!(" (process {process})")))]
    RunsAlready {
        /// The fleet.
        fleet: FleetName,
        /// The supervisor's process.
        process: Option<u32>,
    },
    /// The directory is open to other users.
    #[error("the run directory {} {problem}; remove it, or choose another", path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// In which way.
        problem: &'static str,
    },
    /// The directory can't be made or used.
    #[error("the run directory {} can't be used: {source}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The run directory of one fleet, held by its supervisor.
#[derive(Debug)]
pub struct RunDirectory {
    fleet: FleetName,
    path: PathBuf,
    base: Folder,
    folder: Folder,
    guests: Folder,
    _lock: Lock,
}

/// Returns the base directory where none is named: `aerostat` in the user's runtime directory, else
/// `/run/aerostat` where that can be written, else a directory of the user's in `/tmp`.
#[must_use]
pub fn default_base() -> PathBuf {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(runtime) = runtime {
        return runtime.join("aerostat");
    }
    let is_writable = |path: &str| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    let system = "/run/aerostat";
    if is_writable(system) || (!Path::new(system).exists() && is_writable("/run")) {
        return system.into();
    }
    format!("/tmp/aerostat-{}", geteuid().as_raw()).into()
}

impl RunDirectory {
    /// Opens the run directory of `fleet` below `base`, or below [`default_base`]; makes what is
    /// missing. No other process holds it until the value is dropped or the process ends.
    ///
    /// # Errors
    ///
    /// Returns a sentence that says what to do: a supervisor of this fleet runs, or the directory
    /// can't be used.
    pub fn open(base: Option<&Path>, fleet: &FleetName) -> Result<Self, RunDirectoryError> {
        let base_path = base.map_or_else(default_base, Path::to_owned);
        let path = base_path.join(fleet.as_str());
        let base = Folder::open_own(&base_path)?;
        let unusable = |source: io::Error| RunDirectoryError::Unusable { path: path.clone(), source };
        loop {
            let folder = base.open_own_below(fleet.as_str(), &path)?;
            match Lock::take(&folder).map_err(unusable)? {
                Attempt::HeldBy(process) => {
                    return Err(RunDirectoryError::RunsAlready { fleet: fleet.clone(), process });
                }
                // The last supervisor removed the directory meanwhile.
                Attempt::Taken(_) if !base.still_has(fleet.as_str(), &folder) => {}
                Attempt::Gone => {}
                Attempt::Taken(lock) => {
                    let guests = folder.open_own_below(GUESTS, &path.join(GUESTS))?;
                    [&folder, &guests].into_iter().try_for_each(Folder::remove_unfinished).map_err(unusable)?;
                    return Ok(Self { fleet: fleet.clone(), path, base, folder, guests, _lock: lock });
                }
            }
        }
    }

    /// Returns the fleet's name.
    #[must_use]
    pub const fn fleet(&self) -> &FleetName {
        &self.fleet
    }

    /// Returns the directory's path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the control socket, with mode 0600, and listens on it.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn listen(&self) -> io::Result<UnixListener> {
        self.folder.remove(CONTROL_SOCKET)?;
        let socket = self.folder.bind(CONTROL_SOCKET, rustix::net::SocketType::STREAM)?;
        rustix::net::listen(&socket, 128)?;
        Ok(socket.into())
    }

    /// Connects to the fleet's own control socket.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn connect(&self) -> io::Result<UnixStream> {
        self.folder.connect_stream(CONTROL_SOCKET)
    }

    /// Writes a file of the directory. A reader, or a supervisor that is started after this one was
    /// killed, finds the old contents or the new.
    ///
    /// # Errors
    ///
    /// Returns the system's error; then the old contents are there.
    pub fn write_atomically(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.folder.write_atomically(name, bytes)
    }

    /// Reads a file of the directory; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns the system's error; also for a file that is too long to be one of ours.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.folder.read(name)
    }

    /// Returns the files of a guest.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn guest(&self, name: &str) -> io::Result<GuestFiles> {
        Ok(GuestFiles::new(self.guests.try_clone()?, name))
    }

    /// Returns the names of the guests that have files.
    ///
    /// # Errors
    ///
    /// Returns the system's error.
    pub fn guest_names(&self) -> io::Result<Vec<String>> {
        guest_files::names(&self.guests)
    }

    /// Removes the directory unless guests have files in it. For a supervisor at its end.
    pub fn close(self) {
        if self.guest_names().is_ok_and(|names| names.is_empty()) {
            self.base.remove_tree(self.fleet.as_str(), &self.folder, GUESTS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FleetName, RunDirectory, RunDirectoryError, connect, fleets};
    use std::fs::{self, Permissions};
    use std::io::{Read, Write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    /// Returns a base directory whose path is too long for a socket's address.
    fn base() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let base = parent.path().join("b".repeat(120));
        (parent, base)
    }

    fn name(name: &str) -> FleetName {
        FleetName::new(name).unwrap()
    }

    #[test]
    fn directories_are_for_the_user_only() {
        let (_parent, base) = base();
        let run = RunDirectory::open(Some(&base), &name("web")).unwrap();
        let _listener = run.listen().unwrap();
        for (path, mode) in [("", 0o700), ("web", 0o700), ("web/guests", 0o700), ("web/control.sock", 0o600)] {
            assert_eq!(fs::symlink_metadata(base.join(path)).unwrap().mode() & 0o777, mode, "{path}");
        }
    }

    #[test]
    fn a_second_supervisor_is_refused_with_the_first_ones_process() {
        let (_parent, base) = base();
        let run = RunDirectory::open(Some(&base), &name("web")).unwrap();
        let error = RunDirectory::open(Some(&base), &name("web")).unwrap_err().to_string();
        assert_eq!(error, format!("fleet web runs already (process {})", std::process::id()));
        RunDirectory::open(Some(&base), &name("other")).unwrap();
        drop(run);
        RunDirectory::open(Some(&base), &name("web")).unwrap();
    }

    #[test]
    fn what_others_can_reach_or_redirect_is_refused() {
        let (_parent, base) = base();
        drop(RunDirectory::open(Some(&base), &name("web")).unwrap());
        let open = || RunDirectory::open(Some(&base), &name("web"));
        fs::set_permissions(base.join("web"), Permissions::from_mode(0o750)).unwrap();
        let error = open().unwrap_err();
        assert!(error.to_string().contains("can be used by other users"), "{error}");
        fs::rename(base.join("web"), base.join("real")).unwrap();
        fs::set_permissions(base.join("real"), Permissions::from_mode(0o700)).unwrap();
        symlink(base.join("real"), base.join("web")).unwrap();
        assert!(matches!(open(), Err(RunDirectoryError::Unusable { .. })));
    }

    #[test]
    fn clients_find_the_fleets_that_run() {
        let (_parent, base) = base();
        assert!(fleets(Some(&base)).unwrap().is_empty(), "no base, no fleets");
        let web = RunDirectory::open(Some(&base), &name("web")).unwrap();
        let listener = web.listen().unwrap();
        drop(RunDirectory::open(Some(&base), &name("gone")).unwrap());
        fs::create_dir(base.join(".hidden")).unwrap();
        let found = fleets(Some(&base)).unwrap();
        let found: Vec<_> = found.iter().map(|entry| (entry.fleet.as_str(), entry.supervisor)).collect();
        assert_eq!(found, [("gone", None), ("web", Some(std::process::id()))]);

        let mut client = connect(Some(&base), &name("web")).unwrap();
        client.write_all(b"hello").unwrap();
        drop(client);
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(connect(Some(&base), &name("gone")).is_err());
    }

    #[test]
    fn files_are_replaced_as_a_whole() {
        let (_parent, base) = base();
        let run = RunDirectory::open(Some(&base), &name("web")).unwrap();
        assert_eq!(run.read("state.json").unwrap(), None);
        run.write_atomically("state.json", b"a longer text").unwrap();
        run.write_atomically("state.json", b"short").unwrap();
        assert_eq!(run.read("state.json").unwrap().unwrap(), b"short");
        fs::write(base.join("web/.new-7"), "what a killed supervisor left").unwrap();
        drop(run);
        let run = RunDirectory::open(Some(&base), &name("web")).unwrap();
        assert!(!base.join("web/.new-7").exists());
        assert_eq!(run.read("state.json").unwrap().unwrap(), b"short");
    }

    #[test]
    fn a_directory_is_removed_when_no_guest_needs_it() {
        let (_parent, base) = base();
        let run = RunDirectory::open(Some(&base), &name("web")).unwrap();
        run.guest("alpha").unwrap().write_record(b"{}").unwrap();
        run.close();
        let run = RunDirectory::open(Some(&base), &name("web")).unwrap();
        assert_eq!(run.guest_names().unwrap(), ["alpha"]);
        run.guest("alpha").unwrap().remove();
        run.write_atomically("state.json", b"{}").unwrap();
        let _listener = run.listen().unwrap();
        run.close();
        assert!(!base.join("web").exists());
    }
}
