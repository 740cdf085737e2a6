//! Fleet files: which guests run together, and how much memory they share. The format in prose is
//! `docs/fleet-file.md`.
//!
//! A value of [`Fleet`] is valid: names are unique and usable as file names, sizes are whole huge
//! frames with min at most max, the minima fit the pool, and every image is a file. An error in a
//! fleet file is reported in one line before any guest is started.

mod machine;
mod problem;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aerostat_abi::units::{FRAME_BYTES, FrameCount};
use aerostat_balloon_driver::RateLimits;
use serde::{Deserialize, Serialize};

use self::machine::MachineName;
pub use self::machine::{Attachment, DetachRule, Machine};
use self::problem::Problem;
use crate::host::disk::{DataDisk, DiskFaults, DiskMode, Disks, HostSwap, SwapDisk};
use crate::host::vmm_guest::GuestConfig;
use crate::malformed::Malformed;
use crate::scheduler::{BadShares, IdleTax, IgnoredTarget, Limits, Shares, Subscription};
use crate::size::Size;
use crate::vmm;

/// Bytes of the longest name. A name is shown as the head of a row and is part of a file name.
const LONGEST_NAME: usize = 32;
/// The name of the event log. The guests' logs are in the same directory.
pub const EVENTS: &str = "events";
/// Bytes of the longest command line.
const LONGEST_COMMAND_LINE: usize = 1024;

/// A fleet as a valid file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// The host memory that all guests share.
    pub pool: FrameCount,
    /// How much more idle memory costs a guest.
    pub idle_tax: IdleTax,
    /// The guests, in the order of the file.
    pub guests: Vec<GuestSpec>,
}

/// One guest of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSpec {
    /// Unique in its fleet; letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// What runs the guest.
    #[serde(default)]
    pub machine: Machine,
    /// The image; a relative path starts at the directory of the fleet file. Empty for a machine
    /// that is attached.
    pub image: PathBuf,
    /// The smallest and the largest size of the guest.
    pub limits: Limits,
    /// Its part of a pool that is too small for all.
    pub subscription: Subscription,
    /// The application's command line.
    pub command_line: String,
    /// The guest's disks. Their files are checked when they are opened.
    pub disks: Disks,
    /// What happens to the guest when it uses memory beyond its size.
    pub overuse: OveruseRule,
    /// What follows when the guest goes on to ignore its target.
    #[serde(default)]
    pub ignored_target: IgnoredTarget,
    /// Whether it is started again when it has ended.
    pub restart: RestartRule,
    /// How fast the host lets the guest's balloon inflate; `None` if only the driver limits it.
    #[serde(with = "rate_limits")]
    pub balloon_rate: Option<RateLimits>,
}

impl GuestSpec {
    /// Returns the guest with other limits, shares and reservation.
    ///
    /// # Errors
    ///
    /// Fails where a fleet file with these values would be refused, in one line.
    pub fn with_limits(&self, limits: Limits, subscription: Subscription) -> Result<Self, String> {
        let checked = || {
            let Limits { min, max } = limits;
            let name = &self.name;
            if max == FrameCount::ZERO {
                return Err(Problem::ZeroMax(name.clone()));
            }
            if min > max {
                return Err(Problem::MinAboveMax { name: name.clone(), min: Size::of(min), max: Size::of(max) });
            }
            check_reservation(name, limits, subscription.reservation)?;
            match self.machine {
                Machine::Attached(_) => Ok(()),
                Machine::Aerostat | Machine::Qemu => check_min(name, limits, &self.disks),
            }
        };
        checked().map_err(|problem| problem.to_string())?;
        Ok(Self { limits, subscription, ..self.clone() })
    }

    /// Returns how to start the guest with its first target in a VMM process of `program`, without
    /// a log.
    #[must_use]
    pub fn config(&self, target: FrameCount, program: PathBuf) -> GuestConfig {
        GuestConfig {
            name: self.name.clone(),
            image: self.image.clone(),
            memory: self.limits.max,
            initial_grant: target,
            command_line: self.command_line.clone(),
            disks: self.disks.clone(),
            host_swap: Some(HostSwap::default()),
            log: None,
            pool: None,
            program,
            succession: None,
        }
    }
}

/// Rates as a fleet file has them.
mod rate_limits {
    use aerostat_balloon_driver::RateLimits;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(limits: &Option<RateLimits>, serializer: S) -> Result<S::Ok, S::Error> {
        limits.map(|limits| limits.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RateLimits>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| RateLimits::parse(&text)).transpose().map_err(D::Error::custom)
    }
}

/// What happens to a guest that touches ballooned memory. The memory is counted and charged to the
/// guest in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OveruseRule {
    /// The supervisor reports it.
    Warn,
    /// The host releases the memory that the guest touched.
    Cap,
    /// The supervisor ends the guest.
    #[default]
    Kill,
}

/// Whether a guest is started again when it has ended by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartRule {
    /// It is not.
    #[default]
    Never,
    /// It is, unless it ended with success.
    OnFailure,
    /// It is.
    Always,
}

impl fmt::Display for RestartRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::OnFailure => "on-failure",
            Self::Always => "always",
        })
    }
}

/// Why a fleet file can't be used: one line that begins with the file's name.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct FleetError {
    file: PathBuf,
    problem: Problem,
}

/// The file as it is written, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetFile {
    pool: Size,
    idle_tax: Option<u8>,
    overuse: Option<OveruseRule>,
    ignored_target: Option<IgnoredTarget>,
    machine: Option<MachineName>,
    #[serde(default, rename = "guest")]
    guests: Vec<GuestTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestTable {
    name: String,
    machine: Option<MachineName>,
    attach: Option<Attachment>,
    image: Option<PathBuf>,
    min: Size,
    max: Size,
    shares: Option<SharesText>,
    reservation: Option<Size>,
    #[serde(default)]
    command_line: String,
    disk: Option<PathBuf>,
    disk_mode: Option<DiskMode>,
    swap: Option<Size>,
    overuse: Option<OveruseRule>,
    ignored_target: Option<IgnoredTarget>,
    restart: Option<RestartRule>,
    balloon_rate: Option<String>,
}

/// What the fleet says of all its guests.
#[derive(Clone, Copy)]
struct Defaults<'a> {
    directory: &'a Path,
    overuse: OveruseRule,
    ignored_target: IgnoredTarget,
    machine: MachineName,
}

/// Shares as they are written: a level in quotes, or a number with or without.
#[derive(Deserialize)]
#[serde(untagged, expecting = "invalid shares, expected \"low\", \"normal\", \"high\" or a number")]
enum SharesText {
    Number(u64),
    Text(String),
}

impl SharesText {
    fn parse(self) -> Result<Shares, BadShares> {
        match self {
            Self::Number(number) => number.to_string().parse(),
            Self::Text(text) => text.parse(),
        }
    }
}

impl Fleet {
    /// Reads and checks the fleet file at `path`.
    ///
    /// # Errors
    ///
    /// [`FleetError`] for the first thing that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, FleetError> {
        let unreadable = |error| FleetError { file: path.into(), problem: Problem::Unreadable(error) };
        Self::from_text(&fs::read_to_string(path).map_err(unreadable)?, path)
    }

    /// Checks the text of the fleet file at `path`, which is not read.
    ///
    /// # Errors
    ///
    /// The same as for [`Self::load`].
    pub fn from_text(text: &str, path: &Path) -> Result<Self, FleetError> {
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(text, directory).map_err(|problem| FleetError { file: path.into(), problem })
    }

    fn parse(text: &str, directory: &Path) -> Result<Self, Problem> {
        let file: FleetFile = toml::from_str(text).map_err(|error| Problem::Malformed(Malformed::new(text, &error)))?;
        let pool = whole("pool".into(), file.pool)?;
        let idle_tax = file.idle_tax.map(IdleTax::new).transpose().map_err(Problem::BadTax)?.unwrap_or_default();
        if pool == FrameCount::ZERO {
            return Err(Problem::EmptyPool);
        }
        if file.guests.is_empty() {
            return Err(Problem::NoGuests);
        }
        let mut names = HashMap::new();
        let mut guests = Vec::with_capacity(file.guests.len());
        let defaults = Defaults {
            directory,
            overuse: file.overuse.unwrap_or_default(),
            ignored_target: file.ignored_target.unwrap_or_default(),
            machine: file.machine.unwrap_or(MachineName::Aerostat),
        };
        for table in file.guests {
            let guest = table.check(defaults)?;
            // Some file systems do not distinguish upper and lower case.
            match names.insert(guest.name.to_ascii_lowercase(), guest.name.clone()) {
                Some(other) if other == guest.name => return Err(Problem::DuplicateName(other)),
                Some(other) => return Err(Problem::SimilarNames(other, guest.name)),
                None => {}
            }
            guests.push(guest);
        }
        let sum = |count: fn(&GuestSpec) -> FrameCount| {
            guests.iter().map(count).fold(FrameCount::ZERO, FrameCount::saturating_add)
        };
        let minima = sum(|guest| guest.limits.min);
        if minima > pool {
            return Err(Problem::MinimaExceedPool { minima, pool });
        }
        let reserved = sum(|guest| guest.limits.min.max(guest.subscription.reservation));
        if reserved > pool {
            return Err(Problem::ReservationsExceedPool { reserved, pool });
        }
        check_sockets(&guests)?;
        // Last: an error in the file is more likely than a missing image, and is reported first.
        guests.iter().try_for_each(check_image_file)?;
        Ok(Self { pool, idle_tax, guests })
    }
}

impl Fleet {
    /// Returns the fleet with QEMU as the machine of all guests that are started.
    #[must_use]
    pub fn under_qemu(mut self) -> Self {
        for guest in &mut self.guests {
            if guest.machine == Machine::Aerostat {
                guest.machine = Machine::Qemu;
            }
        }
        self
    }

    /// Returns the fleet with absolute paths, without symbolic links: whatever directory a path
    /// starts at, the same file has the same path.
    #[must_use]
    pub fn with_absolute_paths(mut self) -> Self {
        let resolve = |path: &mut PathBuf| {
            // A file that is gone is reported where it is opened.
            if let Ok(resolved) = fs::canonicalize(&*path) {
                *path = resolved;
            }
        };
        for guest in &mut self.guests {
            match &mut guest.machine {
                Machine::Attached(Attachment { qmp, .. }) => resolve(qmp),
                Machine::Aerostat | Machine::Qemu => resolve(&mut guest.image),
            }
            guest.disks.data.iter_mut().for_each(|disk| resolve(&mut disk.path));
        }
        self
    }
}

impl GuestTable {
    fn check(self, defaults: Defaults<'_>) -> Result<GuestSpec, Problem> {
        let machine = self.check_machine(defaults)?;
        let Defaults { directory, .. } = defaults;
        let Self { name, image, min, max, shares, reservation, .. } = self;
        let Self { command_line, disk, disk_mode, swap, overuse, ignored_target, restart, balloon_rate, .. } = self;
        check_name(&name)?;
        if max.bytes() == 0 {
            return Err(Problem::ZeroMax(name));
        }
        if min > max {
            return Err(Problem::MinAboveMax { name, min, max });
        }
        let limits = Limits {
            min: whole(format!("guest {name:?}: min"), min)?,
            max: whole(format!("guest {name:?}: max"), max)?,
        };
        let subscription = check_subscription(&name, limits, shares, reservation)?;
        if command_line.len() > LONGEST_COMMAND_LINE {
            return Err(Problem::LongCommandLine { name, length: command_line.len() });
        }
        if command_line.chars().any(char::is_control) {
            return Err(Problem::ControlCharacter(name));
        }
        let disks = Disks {
            data: check_data_disk(&name, disk.map(|path| directory.join(path)), disk_mode)?,
            swap: swap.map(|size| check_swap(&name, size)).transpose()?,
        };
        if !matches!(machine, Machine::Attached(_)) {
            check_min(&name, limits, &disks)?;
        }
        let overuse = overuse.unwrap_or(defaults.overuse);
        let ignored_target = match machine {
            // What is said of a fleet holds for the machines that it starts.
            Machine::Attached(_) if ignored_target == Some(IgnoredTarget::Kill) => {
                return Err(Problem::KillsAttached(name));
            }
            Machine::Attached(_) => ignored_target.unwrap_or_default(),
            Machine::Aerostat | Machine::Qemu => ignored_target.unwrap_or(defaults.ignored_target),
        };
        let restart = restart.unwrap_or_default();
        let balloon_rate = balloon_rate.map(|text| RateLimits::parse(&text)).transpose();
        let balloon_rate = balloon_rate.map_err(|why| Problem::BadRate { name: name.clone(), why })?;
        let image = image.map(|image| directory.join(image)).unwrap_or_default();
        Ok(GuestSpec {
            name,
            machine,
            image,
            limits,
            subscription,
            command_line,
            disks,
            overuse,
            ignored_target,
            restart,
            balloon_rate,
        })
    }

    /// Checks that the table describes one machine.
    fn check_machine(&self, defaults: Defaults<'_>) -> Result<Machine, Problem> {
        let name = || self.name.clone();
        let Some(Attachment { qmp, on_detach }) = &self.attach else {
            return match self.image {
                Some(_) => Ok(self.machine.unwrap_or(defaults.machine).into()),
                None => Err(Problem::NoImage(name())),
            };
        };
        let keys = [
            ("machine", self.machine.is_some()),
            ("image", self.image.is_some()),
            ("command_line", !self.command_line.is_empty()),
            ("disk", self.disk.is_some()),
            ("disk_mode", self.disk_mode.is_some()),
            ("swap", self.swap.is_some()),
            ("overuse", self.overuse.is_some()),
        ];
        if let Some((key, _)) = keys.into_iter().find(|(_, is_there)| *is_there) {
            return Err(Problem::KeyOfStarted { name: name(), key });
        }
        if qmp.as_os_str().is_empty() {
            return Err(Problem::EmptySocket(name()));
        }
        Ok(Machine::Attached(Attachment { qmp: defaults.directory.join(qmp), on_detach: *on_detach }))
    }
}

/// Checks that no machine is attached twice.
fn check_sockets(guests: &[GuestSpec]) -> Result<(), Problem> {
    let mut sockets = HashMap::new();
    for guest in guests {
        if let Machine::Attached(Attachment { qmp, .. }) = &guest.machine
            && let Some(other) = sockets.insert(qmp, &guest.name)
        {
            return Err(Problem::SameSocket(other.clone(), guest.name.clone(), qmp.clone()));
        }
    }
    Ok(())
}

/// Checks that the kernel's metadata fits the size with which the guest starts.
fn check_min(name: &str, limits: Limits, disks: &Disks) -> Result<(), Problem> {
    let Limits { min, max } = limits;
    let swap = disks.swap.as_ref().map_or(FrameCount::ZERO, |swap| swap.size);
    // A max that no machine can have is refused where the machine is checked.
    let too_small = |swap| vmm::smallest_size(max, swap).filter(|&least| min < least);
    let (name, size) = (name.to_owned(), Size::of);
    if let Some(least) = too_small(FrameCount::ZERO) {
        return Err(Problem::MinTooSmall { name, min: size(min), max: size(max), least });
    }
    match too_small(swap) {
        Some(least) => Err(Problem::MinTooSmallForSwap { name, min: size(min), swap: size(swap), least }),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let Some(first) = name.bytes().next() else {
        return Err(Problem::EmptyName);
    };
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !first.is_ascii_alphanumeric() || !name.bytes().all(is_fit) || name.len() > LONGEST_NAME {
        return Err(Problem::BadName(name.into()));
    }
    if name.eq_ignore_ascii_case(EVENTS) {
        return Err(Problem::ReservedName(name.into()));
    }
    Ok(())
}

fn check_subscription(
    name: &str,
    limits: Limits,
    shares: Option<SharesText>,
    reservation: Option<Size>,
) -> Result<Subscription, Problem> {
    let bad_shares = |why| Problem::BadShares { name: name.into(), why };
    let shares = shares.map(SharesText::parse).transpose().map_err(bad_shares)?.unwrap_or(Shares::NORMAL);
    let what = || format!("guest {name:?}: reservation");
    let reservation = reservation.map(|size| whole(what(), size)).transpose()?.unwrap_or_default();
    check_reservation(name, limits, reservation)?;
    Ok(Subscription { shares, reservation })
}

fn check_reservation(name: &str, limits: Limits, reservation: FrameCount) -> Result<(), Problem> {
    let max = limits.max;
    if reservation > max { Err(Problem::ReservationAboveMax { name: name.into(), reservation, max }) } else { Ok(()) }
}

fn check_data_disk(name: &str, path: Option<PathBuf>, mode: Option<DiskMode>) -> Result<Option<DataDisk>, Problem> {
    match (path, mode) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Problem::ModeWithoutDisk(name.into())),
        (Some(path), mode) => {
            Ok(Some(DataDisk { path, mode: mode.unwrap_or_default(), faults: DiskFaults::default() }))
        }
    }
}

fn check_swap(name: &str, size: Size) -> Result<SwapDisk, Problem> {
    if size.bytes() == 0 {
        return Err(Problem::ZeroSwap(name.into()));
    }
    if !size.bytes().is_multiple_of(FRAME_BYTES) {
        return Err(Problem::PartialSwap { name: name.into(), size });
    }
    Ok(SwapDisk { size: FrameCount::from_bytes_floor(size.bytes()), faults: DiskFaults::default() })
}

fn check_image_file(guest: &GuestSpec) -> Result<(), Problem> {
    if matches!(guest.machine, Machine::Attached(_)) {
        return Ok(());
    }
    let bad = |why: String| Problem::BadImage { name: guest.name.clone(), image: guest.image.clone(), why };
    match fs::metadata(&guest.image) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(bad("is not a file".into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(bad("does not exist".into())),
        Err(error) => Err(bad(format!("can't be used ({error})"))),
    }
}

/// Converts a size to frames if it is a whole number of huge frames.
fn whole(what: String, size: Size) -> Result<FrameCount, Problem> {
    size.whole_huge_frames().ok_or_else(|| {
        let below_mib = size.bytes() >> 21 << 1;
        Problem::NotWhole { what, size, below: format!("{below_mib}M"), above: format!("{}M", below_mib + 2) }
    })
}

#[cfg(test)]
impl GuestSpec {
    /// A guest of 64 to 512 MiB.
    pub(crate) fn for_tests(name: &str) -> Self {
        Self {
            name: name.into(),
            machine: Machine::Aerostat,
            image: "image".into(),
            limits: Limits { min: FrameCount::from_mib(64), max: FrameCount::from_mib(512) },
            subscription: Subscription::default(),
            command_line: String::new(),
            disks: Disks::default(),
            overuse: OveruseRule::default(),
            ignored_target: IgnoredTarget::default(),
            restart: RestartRule::default(),
            balloon_rate: None,
        }
    }
}
