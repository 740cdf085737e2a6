//! Fleet files: which guests run together, and how much memory they share. The format in prose is
//! `docs/fleet-file.md`.
//!
//! A value of [`Fleet`] is valid: names are unique and usable as file names, sizes are whole huge
//! frames with min at most max, the minima fit the pool, and every image is a file. An error in a
//! fleet file is reported in one line before any guest is started.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aerostat_abi::units::{FRAME_BYTES, FrameCount};
use aerostat_balloon_driver::{BadRate, RateLimits};
use serde::{Deserialize, Serialize};

use crate::host::disk::{DataDisk, DiskFaults, DiskMode, Disks, SwapDisk};
use crate::host::vmm_guest::GuestConfig;
use crate::malformed::Malformed;
use crate::scheduler::{BadShares, BadTax, IdleTax, Limits, Shares, Subscription};
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
    /// The image; a relative path starts at the directory of the fleet file.
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
            check_min(name, limits, &self.disks)
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
            log: None,
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

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("can't read the fleet file: {0}")]
    Unreadable(io::Error),
    #[error(transparent)]
    Malformed(Malformed),
    #[error("there is no [[guest]]; name at least one")]
    NoGuests,
    #[error("a guest has an empty name; give every guest a name")]
    EmptyName,
    #[error(
        "the name {0:?} can't be used; take at most {LONGEST_NAME} letters, digits, '-', '_' and '.', a letter or digit first"
    )]
    BadName(String),
    #[error("the name {0:?} belongs to the list of events in the log directory; choose another")]
    ReservedName(String),
    #[error("the names {0:?} and {1:?} differ only in upper and lower case; give every guest a name of its own")]
    SimilarNames(String, String),
    #[error("two guests are named {0:?}; give every guest a name of its own")]
    DuplicateName(String),
    #[error(
        "{what} is {size}, not a multiple of 2M; guest memory is dealt in blocks of 2 MiB, take {below} or {above}"
    )]
    NotWhole { what: String, size: Size, below: String, above: String },
    #[error("pool is 0; say how much host memory the guests share")]
    EmptyPool,
    #[error("guest {0:?}: max is 0; say how large the guest may become")]
    ZeroMax(String),
    #[error("guest {name:?}: min {min} is above max {max}; lower min or raise max")]
    MinAboveMax { name: String, min: Size, max: Size },
    #[error("guest {name:?}: min {min} is too little for a kernel to run on a machine of {max}; take at least {}M", .least.mib())]
    MinTooSmall { name: String, min: Size, max: Size, least: FrameCount },
    #[error("guest {name:?}: min {min} is too little for the metadata of a swap disk of {swap}; take at least {}M, or less swap", .least.mib())]
    MinTooSmallForSwap { name: String, min: Size, swap: Size, least: FrameCount },
    #[error("the minima of the guests add up to {minima} and the pool has {pool}; raise pool or lower some min")]
    MinimaExceedPool { minima: FrameCount, pool: FrameCount },
    #[error(
        "the minima and reservations of the guests add up to {reserved} and the pool has {pool}; raise pool or lower some reservation"
    )]
    ReservationsExceedPool { reserved: FrameCount, pool: FrameCount },
    #[error("guest {name:?}: reservation {reservation} is above max {max}; lower reservation or raise max")]
    ReservationAboveMax { name: String, reservation: FrameCount, max: FrameCount },
    #[error("guest {name:?}: {why}")]
    BadShares { name: String, why: BadShares },
    #[error("{0}")]
    BadTax(BadTax),
    #[error("guest {name:?}: the command line has {length} bytes; take at most {LONGEST_COMMAND_LINE}")]
    LongCommandLine { name: String, length: usize },
    #[error("guest {0:?}: the command line has a control character; take printable text")]
    ControlCharacter(String),
    #[error("guest {0:?}: disk_mode says how a disk is used and there is no disk; add disk or remove disk_mode")]
    ModeWithoutDisk(String),
    #[error("guest {0:?}: swap is 0; say how large the swap disk is, or leave swap out")]
    ZeroSwap(String),
    #[error("guest {name:?}: swap is {size}, not a multiple of 4K; a page of memory has 4 KiB")]
    PartialSwap { name: String, size: Size },
    #[error("guest {name:?}: {why}")]
    BadRate { name: String, why: BadRate },
    #[error("guest {name:?}: the image {} {why}; build it or correct the path", image.display())]
    BadImage { name: String, image: PathBuf, why: String },
}

/// The file as it is written, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetFile {
    pool: Size,
    idle_tax: Option<u8>,
    overuse: Option<OveruseRule>,
    #[serde(default, rename = "guest")]
    guests: Vec<GuestTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestTable {
    name: String,
    image: PathBuf,
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
    restart: Option<RestartRule>,
    balloon_rate: Option<String>,
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
        for table in file.guests {
            let guest = table.check(directory, file.overuse.unwrap_or_default())?;
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
        // Last: an error in the file is more likely than a missing image, and is reported first.
        guests.iter().try_for_each(check_image_file)?;
        Ok(Self { pool, idle_tax, guests })
    }
}

impl Fleet {
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
            resolve(&mut guest.image);
            guest.disks.data.iter_mut().for_each(|disk| resolve(&mut disk.path));
        }
        self
    }
}

impl GuestTable {
    fn check(self, directory: &Path, overuse_of_fleet: OveruseRule) -> Result<GuestSpec, Problem> {
        let Self { name, image, min, max, shares, reservation, .. } = self;
        let Self { command_line, disk, disk_mode, swap, overuse, restart, balloon_rate, .. } = self;
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
        check_min(&name, limits, &disks)?;
        let overuse = overuse.unwrap_or(overuse_of_fleet);
        let restart = restart.unwrap_or_default();
        let balloon_rate = balloon_rate.map(|text| RateLimits::parse(&text)).transpose();
        let balloon_rate = balloon_rate.map_err(|why| Problem::BadRate { name: name.clone(), why })?;
        let image = directory.join(image);
        Ok(GuestSpec { name, image, limits, subscription, command_line, disks, overuse, restart, balloon_rate })
    }
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
            image: "image".into(),
            limits: Limits { min: FrameCount::from_mib(64), max: FrameCount::from_mib(512) },
            subscription: Subscription::default(),
            command_line: String::new(),
            disks: Disks::default(),
            overuse: OveruseRule::default(),
            restart: RestartRule::default(),
            balloon_rate: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fleet, GuestSpec, IdleTax, OveruseRule, Shares, Subscription};
    use crate::host::disk::{DiskMode, Disks};
    use aerostat_abi::units::FrameCount;
    use proptest::proptest;
    use std::fs;

    const GOOD: &str = r#"
pool = "768M"

[[guest]]
name = "alpha"
image = "image"
min = "64M"
max = "512M"
command_line = "phases=64M:3s repeat"
disk = "data.img"
disk_mode = "read-write"
swap = "512M"

[[guest]]
name = "beta"
image = "image"
min = "64M"
max = "1G"
"#;

    /// Loads a file of this text that lies beside a file named `image`. An error is returned
    /// without the directory's path.
    fn load(text: &str) -> Result<Fleet, String> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("image"), "").unwrap();
        let path = directory.path().join("fleet.toml");
        fs::write(&path, text).unwrap();
        Fleet::load(&path).map_err(|error| error.to_string().replace(&format!("{}/", directory.path().display()), ""))
    }

    #[test]
    fn shares_reservation_and_tax_are_optional() {
        let fleet = load(GOOD).unwrap();
        assert_eq!(fleet.idle_tax, IdleTax::default());
        assert_eq!(fleet.guests[0].subscription, Subscription::default());
        let text = GOOD
            .replacen("swap =", "shares = \"high\"\nreservation = \"128M\"\nswap =", 1)
            .replace("max = \"1G\"", "max = \"1G\"\nshares = 1500")
            .replace("pool =", "idle_tax = 50\npool =");
        let fleet = load(&text).unwrap();
        assert_eq!(fleet.idle_tax.percent(), 50);
        let alpha = Subscription { shares: Shares::HIGH, reservation: FrameCount::from_mib(128) };
        assert_eq!(fleet.guests[0].subscription, alpha);
        assert_eq!(fleet.guests[1].subscription.shares.count(), 1500);
    }

    #[test]
    fn a_good_file_is_a_fleet() {
        let fleet = load(GOOD).unwrap();
        assert_eq!(fleet.pool, FrameCount::from_mib(768));
        let [alpha, beta] = &fleet.guests[..] else { panic!("two guests") };
        assert_eq!((alpha.name.as_str(), beta.name.as_str()), ("alpha", "beta"));
        assert!(alpha.image.is_absolute() && alpha.image.ends_with("image"));
        assert_eq!(alpha.command_line, "phases=64M:3s repeat");
        assert_eq!(beta.limits.max, FrameCount::from_mib(1024));
        assert_eq!(beta.command_line, "");
        let disk = alpha.disks.data.as_ref().unwrap();
        assert!(disk.path.is_absolute() && disk.path.ends_with("data.img") && disk.mode == DiskMode::ReadWrite);
        assert_eq!(alpha.disks.swap.as_ref().unwrap().size, FrameCount::from_mib(512));
        assert_eq!(beta.disks, Disks::default());
        let read_only = load(&GOOD.replace("disk_mode = \"read-write\"", "")).unwrap();
        assert_eq!(read_only.guests[0].disks.data.as_ref().unwrap().mode, DiskMode::ReadOnly);
    }

    #[test]
    fn a_file_has_one_path_wherever_the_path_starts() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        fs::create_dir(place("fleets")).unwrap();
        fs::write(place("image"), "").unwrap();
        fs::write(place("fleets/fleet.toml"), GOOD.replace("image = \"image\"", "image = \"../image\"")).unwrap();
        std::os::unix::fs::symlink(place("fleets"), place("linked")).unwrap();
        let images = ["fleets", "linked"].map(|folder| {
            let fleet = Fleet::load(&place(folder).join("fleet.toml")).unwrap().with_absolute_paths();
            fleet.guests[0].image.clone()
        });
        assert_eq!(images, [fs::canonicalize(place("image")).unwrap(), fs::canonicalize(place("image")).unwrap()]);
    }

    #[test]
    fn a_guest_overrides_the_overuse_policy_of_its_fleet() {
        let rules = |text: &str| load(text).unwrap().guests.iter().map(|guest| guest.overuse).collect::<Vec<_>>();
        assert_eq!(rules(GOOD), [OveruseRule::Kill; 2]);
        let mild = GOOD.replace("pool =", "overuse = \"warn\"\npool =");
        assert_eq!(rules(&mild), [OveruseRule::Warn; 2]);
        let mixed = mild.replace("swap =", "overuse = \"cap\"\nswap =");
        assert_eq!(rules(&mixed), [OveruseRule::Cap, OveruseRule::Warn]);
    }

    #[test]
    fn every_error_is_reported_in_one_line() {
        let mistakes = [
            ("768M", "768", "line 2: \"768\" is not a size"),
            ("\"768M\"", "768", "line 2: invalid type: integer `768`, expected a size in quotes such as \"512M\""),
            (
                "768M",
                "767M",
                "pool is 767M, not a multiple of 2M; guest memory is dealt in blocks of 2 MiB, take 766M or 768M",
            ),
            ("768M", "0M", "pool is 0"),
            ("768M", "96M", "the minima of the guests add up to 128.0 MiB and the pool has 96.0 MiB"),
            ("768M", "99999999999G", "line 2: \"99999999999G\" is too large a size"),
            ("pool =", "pools =", "line 2: unknown field `pools`"),
            ("pool =", "pool", "line 2: "),
            ("beta", "alpha", "two guests are named \"alpha\""),
            ("beta", "Alpha", "the names \"alpha\" and \"Alpha\" differ only in upper and lower case"),
            (
                "beta",
                "events",
                "the name \"events\" belongs to the list of events in the log directory; choose another",
            ),
            (
                "beta",
                "Events",
                "the name \"Events\" belongs to the list of events in the log directory; choose another",
            ),
            ("beta", "", "a guest has an empty name"),
            ("beta", "../beta", "the name \"../beta\" can't be used"),
            ("beta", ".beta", "the name \".beta\" can't be used"),
            ("max = \"512M\"", "max = \"0M\"", "guest \"alpha\": max is 0"),
            ("max = \"512M\"", "max = \"62M\"", "guest \"alpha\": min 64M is above max 62M"),
            ("max = \"512M\"", "max = \"513M\"", "guest \"alpha\": max is 513M, not a multiple of 2M"),
            ("min = \"64M\"", "min = \"2M\"", "guest \"alpha\": min 2M is too little for a kernel"),
            (
                "min = \"64M\"\nmax = \"512M\"",
                "min = \"48M\"\nmax = \"511G\"",
                "guest \"alpha\": min 48M is too little for a kernel to run on a machine of 511G; take at least 50M",
            ),
            ("min = \"64M\"", "min = \"0M\"", "guest \"alpha\": min 0K is too little for a kernel"),
            (
                "swap = \"512M\"",
                "swap = \"64G\"",
                "guest \"alpha\": min 64M is too little for the metadata of a swap disk of 64G; take at least 82M, or less swap",
            ),
            ("min = \"64M\"", "", "line 4: missing field `min`"),
            ("\"image\"", "\"nowhere\"", "guest \"alpha\": the image nowhere does not exist"),
            ("\"image\"", "\".\"", "guest \"alpha\": the image . is not a file"),
            ("repeat", "\\u0000", "guest \"alpha\": the command line has a control character"),
            ("read-write", "write", "line 11: unknown variant `write`, expected `read-only` or `read-write`"),
            ("disk = \"data.img\"", "", "guest \"alpha\": disk_mode says how a disk is used and there is no disk"),
            ("swap = \"512M\"", "swap = \"0M\"", "guest \"alpha\": swap is 0"),
            ("swap = \"512M\"", "swap = \"6K\"", "guest \"alpha\": swap is 6K, not a multiple of 4K"),
            ("swap = \"512M\"", "swap = 512", "line 12: invalid type: integer `512`, expected a size"),
            (
                "pool =",
                "overuse = \"ask\"\npool =",
                "line 2: unknown variant `ask`, expected one of `warn`, `cap`, `kill`",
            ),
            (
                "swap =",
                "balloon_rate = \"9-2\"\nswap =",
                "guest \"alpha\": balloon_rate= is no range of MiB per second",
            ),
            (
                "swap =",
                "restart = \"sometimes\"\nswap =",
                "line 12: unknown variant `sometimes`, expected one of `never`",
            ),
            ("pool =", "idle_tax = 101\npool =", "an idle tax of 101 is no percentage; take 0 to 100"),
            ("swap =", "shares = \"most\"\nswap =", "guest \"alpha\": \"most\" is no number of shares; write low"),
            ("swap =", "shares = 0\nswap =", "guest \"alpha\": \"0\" is no number of shares"),
            ("swap =", "shares = 1.5\nswap =", "line 12: invalid shares, expected \"low\""),
            ("swap =", "reservation = \"3M\"\nswap =", "guest \"alpha\": reservation is 3M, not a multiple of 2M"),
            ("swap =", "reservation = \"1G\"\nswap =", "guest \"alpha\": reservation 1024.0 MiB is above max"),
            (
                "max = \"1G\"",
                "max = \"1G\"\nreservation = \"706M\"",
                "the minima and reservations of the guests add up",
            ),
            ("command_line", "comand_line", "line 9: unknown field `comand_line`"),
        ];
        for (good, bad, expected) in mistakes {
            let message = load(&GOOD.replacen(good, bad, 1)).unwrap_err();
            assert!(message.starts_with(&format!("fleet.toml: {expected}")), "{good} -> {bad}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_fleet_needs_guests_and_a_file() {
        assert!(load("pool = \"64M\"").unwrap_err().contains("there is no [[guest]]"));
        let error = Fleet::load("nowhere.toml".as_ref()).unwrap_err().to_string();
        assert!(error.starts_with("nowhere.toml: can't read the fleet file: No such file"), "{error}");
    }

    #[test]
    fn the_examples_are_valid_except_for_missing_images() {
        let example = |name| {
            let path = format!("{}/../fleets/{name}", env!("CARGO_MANIFEST_DIR"));
            let text = fs::read_to_string(path).unwrap();
            let images = ["memwalk", "balloon"].map(|app| format!("../target/x86_64-unknown-none/release/{app}"));
            load(&images.iter().fold(text, |text, image| text.replace(image, "image"))).unwrap()
        };
        let paced = example("balloon-app.toml").guests;
        assert_eq!(paced.iter().filter(|guest| guest.balloon_rate.is_some()).count(), 1, "one driver has no rate");
        let fleet = example("demo.toml");
        let sum = fleet.guests.iter().map(|guest| guest.limits.max.mib()).sum::<u64>();
        assert_eq!(sum, 2 * fleet.pool.mib(), "overcommitted twice");
        let swaps = |guest: &&GuestSpec| guest.disks.swap.is_some();
        assert_eq!(fleet.guests.iter().filter(swaps).count(), 1, "one guest can give up memory that is in use");
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = Fleet::parse(&text, "".as_ref());
        }
    }
}
