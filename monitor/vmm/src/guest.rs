//! A guest's parts, assembled in the order that its start needs.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;

use aerostat_abi::registers::BootStage;
use aerostat_abi::units::FrameCount;
use aerostat_link::SharedPage;
use aerostat_link::clock::monotonic_ns;
use aerostat_link::message::{Start, StartDescriptors};
use rustix::event::{EventfdFlags, eventfd};

use super::balloon::Balloon;
use super::boot;
use super::console::{self, Console};
use super::console_log::ConsoleLog;
use super::cpu;
use super::device_tree::Description;
use super::frame_map::FrameMap;
use super::host_files::HostFiles;
use super::inspection::Inspection;
use super::jail::{self, Thread};
use super::layout::MemoryLayout;
use super::machine::{KvmError, Machine};
use super::memory::GuestMemory;
use super::paging::{Paging, PagingControl, Userfault};
use super::problems::Problems;
use super::process::ProcessError;
use super::process_host::ProcessHost;
use super::reclamation::Reclamation;
use super::resident::ResidentMeter;
use super::sampler::Sampler;
use super::shared_registers::SharedRegisters;
use super::supervisor_link::SupervisorLink;
use super::target_watch::TargetWatch;
use super::throttle::Throttle;
use super::vcpu::{Devices, Ignored};
use super::vcpu_thread::FirstState;
use super::virtio::{Bus, Device, Disk};

/// The stack of the thread that loads the image.
const LOADER_STACK_BYTES: usize = 64 << 10;

/// A guest that is ready to run: what the vCPU's thread takes, and what the main thread keeps.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) link: Arc<SupervisorLink>,
    /// Total memory.
    pub(super) total: FrameCount,
    pub(super) machine: Machine,
    /// What the vCPU begins with.
    pub(super) first: FirstState,
    pub(super) devices: Devices<ProcessHost>,
    pub(super) target: TargetWatch<ProcessHost>,
    pub(super) reclamation: Reclamation<ProcessHost>,
    pub(super) paging: PagingControl,
    pub(super) sampler: Sampler,
}

impl Guest {
    /// Assembles the guest that `start` describes, in the process's jail.
    pub(super) fn assemble(
        link: &Arc<SupervisorLink>,
        start: &Start,
        (descriptors, files): (StartDescriptors, HostFiles),
        registers: SharedPage,
    ) -> Result<Self, ProcessError> {
        let registers = Arc::new(SharedRegisters::new(registers));
        let layout = MemoryLayout::new(FrameCount(start.memory_frames))?;
        let initial = FrameCount(start.initial_frames);
        let memory = Arc::new(GuestMemory::new(layout).map_err(ProcessError::Memory)?);
        let meter = Arc::new(ResidentMeter::new(files.memory)?);
        let file = File::from(descriptors.image);
        // The longest steps of a start wait for the kernel, and half of them for nothing else.
        let (created, loaded) = thread::scope(|scope| {
            let loading = thread::Builder::new().name("loader".to_owned()).stack_size(LOADER_STACK_BYTES);
            let loading = loading.spawn_scoped(scope, || {
                jail::confine(Thread::Loader)?;
                boot::load(&memory, &file, initial)
            })?;
            // SAFETY: the vCPU's thread runs the processor, and has the devices meanwhile, which
            // keep the memory mapped.
            let created = unsafe { Machine::new(&files.kvm, &memory) };
            registers.page().mark_boot(BootStage::Machine, monotonic_ns());
            let loaded = loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, io::Error>((created, loaded))
        })?;
        let ((machine, slots), image) = (created?, loaded?);
        let slots = Arc::new(slots);
        let features = cpu::decode(&start.features).ok_or(KvmError::Lacks("take so many features of a processor"))?;

        let description = Description {
            memory: &layout,
            command_line: &start.command_line,
            tsc_hz: machine.tsc_hz(),
            virtio_devices: start.disks.len(),
        };
        boot::describe(&memory, &image, &description)?;
        let disks = start.disks.iter().zip(descriptors.disks).zip(files.cached_disks).map(|((disk, file), cached)| {
            let disk: Arc<dyn Device> = Arc::new(Disk::new(disk.with_file(file), cached, memory.transfers().clone())?);
            Ok(disk)
        });
        let virtio = Bus::new(disks.collect::<io::Result<_>>()?, &memory, |wires| {
            machine.connect_device(wires).map_err(ProcessError::from)
        })?;
        registers.page().mark_boot(BootStage::Loaded, monotonic_ns());

        let interrupt = machine.balloon_interrupt();
        let work_left = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let paging =
            host_paging(link, start, (descriptors.host_swap, files.userfault), (&memory, &registers, &work_left));
        let host = ProcessHost::new(
            Arc::clone(link),
            interrupt.clone(),
            Arc::clone(&slots),
            (Arc::clone(&meter), Arc::clone(&registers)),
            (virtio.workers(), Arc::clone(&work_left)),
        );
        let frames = FrameMap::new(layout, initial, image.info.frames());
        let mut balloon = Balloon::new(Arc::clone(&memory), Arc::clone(&registers), host, frames);
        if let Some(paging) = &paging {
            balloon.set_paging(Arc::clone(paging));
        }
        let balloon = Arc::new(Mutex::new(balloon));
        let previous = descriptors.previous_log.map(File::from);
        let log = descriptors.log.map(|log| ConsoleLog::new(log.into(), previous));
        let console = Console::new(log, machine.serial_ring(*console::PORTS.start()));
        let console = Arc::new(Mutex::new(console));
        Ok(Self {
            link: Arc::clone(link),
            total: layout.total(),
            machine,
            first: FirstState { features, entry: image.info.entry },
            target: TargetWatch::new(
                descriptors.doorbell,
                (interrupt, slots),
                Arc::clone(&balloon),
                Arc::clone(&registers),
            ),
            paging: PagingControl::new(
                paging.clone(),
                Arc::clone(&balloon),
                (Arc::clone(&meter), Arc::clone(&registers)),
                Arc::clone(link),
            ),
            reclamation: Reclamation::new(Arc::clone(&balloon), work_left),
            sampler: Sampler::new(Arc::clone(&console), Arc::clone(&balloon), meter, Arc::clone(&registers)),
            devices: Devices {
                console,
                balloon,
                virtio,
                registers,
                throttle: Throttle::new(),
                ignored: Ignored::default(),
                inspection: Arc::new(Inspection::new(image.thread_table)),
                memory,
                paging,
            },
        })
    }
}

/// Prepares host paging, where the guest has a host swap file and the host can page. Without it the
/// guest runs, and the supervisor is told why.
fn host_paging(
    link: &Arc<SupervisorLink>,
    start: &Start,
    (file, userfault): (Option<OwnedFd>, Option<io::Result<Userfault>>),
    (memory, registers, work_left): (&Arc<GuestMemory>, &Arc<SharedRegisters>, &Arc<OwnedFd>),
) -> Option<Arc<Paging>> {
    let (host_swap, file, userfault) = (start.host_swap.as_ref()?, file?, userfault?);
    let new = |userfault| {
        let host_swap = (host_swap, file, userfault);
        Paging::new(Arc::clone(memory), Arc::clone(registers), host_swap, Arc::clone(work_left))
    };
    match userfault.and_then(new) {
        Ok(paging) => Some(Arc::new(paging)),
        Err(error) => {
            let mut problems = Problems::new(Arc::clone(link));
            problems.report(format_args!(
                "the host can't page this guest: {error}; it takes Linux 6.8, and a supervisor that is root or may use /dev/userfaultfd"
            ));
            None
        }
    }
}
