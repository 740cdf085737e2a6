//! What the program `aerostat-hostile-vmm` does, and what a supervisor has to make of it.

use std::path::PathBuf;

use aerostat::fleet::{GuestSpec, Machine, OveruseRule, RestartRule};
use aerostat::host::disk::Disks;
use aerostat::host::vmm_guest::GuestConfig;
use aerostat::scheduler::{IgnoredTarget, Limits, Subscription};
use aerostat_abi::units::FrameCount;

use crate::environment::{aerostat_vmm, app_image};

/// What a hostile process does. Its guest has this name.
#[derive(Clone, Copy, Debug)]
pub struct Deed {
    /// What it does.
    pub name: &'static str,
    /// How its guest ends.
    pub end: End,
}

/// How the guest of a hostile process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It fails at once, for a reason with these words.
    Fault(&'static str),
    /// As the process says, and it says that the guest succeeded.
    Success,
    /// It runs until the end of the fleet, and is killed then.
    Killed,
    /// It uses memory beyond its size.
    BeyondSize,
    /// In any way.
    Any,
}

/// All deeds.
pub const DEEDS: &[Deed] = {
    use End::{Any, BeyondSize, Fault, Killed, Success};
    const SENSELESS: End = Fault("makes no sense");
    const FLOOD: End = Fault("its process floods the link");
    &[
        deed("silent", Killed),
        deed("silent_from_the_first_moment", Killed),
        deed("publishes_nothing", Killed),
        deed("ignores_signals", Killed),
        deed("presses", FLOOD),
        deed("reports_use", FLOOD),
        deed("requests", FLOOD),
        deed("tells_where_it_is", FLOOD),
        deed("tells_where_it_is_slowly", FLOOD),
        deed("has_problems", FLOOD),
        deed("ends_without_end", Success),
        deed("ends_twice_and_stays", Success),
        deed("ends_at_length", Success),
        deed("ends_and_passes_descriptors", Success),
        deed("ends_unstarted", Fault("nothing had asked it to")),
        deed("exits_unstarted", Fault("without a word")),
        deed("exits_without_a_word", Fault("without a word")),
        deed("leaves_a_process", Fault("without a word")),
        deed("stands_in_a_take_over", Fault("take-over")),
        deed("takes_over", Fault("take-over")),
        deed("garbles", SENSELESS),
        deed("nests", SENSELESS),
        deed("says_another_type", SENSELESS),
        deed("says_twice_at_once", SENSELESS),
        deed("says_what_only_a_supervisor_says", SENSELESS),
        deed("says_half", SENSELESS),
        deed("says_nothing_at_length", SENSELESS),
        deed("says_nothing", SENSELESS),
        deed("hangs_up", Fault("closed the link and did not end")),
        deed("passes_descriptors", Fault("descriptors")),
        deed("passes_the_link", Fault("descriptors")),
        deed("acknowledges_the_future", Fault("acknowledged a target that was never set")),
        deed("claims_a_size", Fault("reported a size")),
        deed("claims_a_balloon", Fault("reported a balloon")),
        deed("claims_to_use_nothing", BeyondSize),
        deed("demands_everything", Killed),
        deed("scribbles", Any),
        deed("shrinks_the_page", Killed),
        deed("punches_a_hole_into_the_page", Any),
        deed("blocks_the_doorbell", Killed),
        deed("rings_back", Killed),
    ]
};

/// The name of the guest beside them whose process is an honest one.
pub const HONEST: &str = "honest";

const fn deed(name: &'static str, end: End) -> Deed {
    Deed { name, end }
}

/// Returns the honest guest, which runs `memwalk`.
///
/// # Panics
/// Outside `cargo xtask`.
#[must_use]
pub fn honest(command_line: &str) -> GuestSpec {
    GuestSpec { command_line: command_line.to_owned(), ..spec(HONEST, 256) }
}

/// Returns the guest of a hostile process.
///
/// # Panics
/// Outside `cargo xtask`.
#[must_use]
pub fn hostile(deed: &Deed) -> GuestSpec {
    spec(deed.name, 64)
}

fn spec(name: &str, max_mib: u64) -> GuestSpec {
    GuestSpec {
        name: name.to_owned(),
        machine: Machine::Aerostat,
        image: app_image("memwalk"),
        limits: Limits { min: FrameCount::from_mib(16), max: FrameCount::from_mib(max_mib) },
        command_line: String::new(),
        disks: Disks::default(),
        subscription: Subscription::default(),
        overuse: OveruseRule::Kill,
        ignored_target: IgnoredTarget::default(),
        restart: RestartRule::Never,
        balloon_rate: None,
    }
}

/// Returns how to start one of these guests; `hostile_vmm` is the path of `aerostat-hostile-vmm`.
#[must_use]
pub fn config(spec: &GuestSpec, target: FrameCount, hostile_vmm: PathBuf) -> GuestConfig {
    spec.config(target, if spec.name == HONEST { aerostat_vmm() } else { hostile_vmm })
}
