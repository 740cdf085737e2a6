//! What the guest is told of its host, and what it asks for.

use aerostat_abi::port::{Command, Features, Hello, Registers, Status};
use aerostat_abi::requests::{
    Component, FiledRequest, Generation, Request, ResourceKind, Resources, Sequence, Urgency, WORDS,
};

use super::{Heard, PAGE, TOTAL, device, hello, status};
use crate::balloon::Balloon;

const MEMORY: Component = Component { kind: ResourceKind::Memory, total: 9, free: 8, assigned: 7, most: 9 };

/// Creates a device whose guest has negotiated requests.
fn asking() -> Balloon<Heard> {
    let mut device = device(TOTAL);
    let reply = device.call(Hello { features: Features::REQUESTS, ..hello(0x40) }.encode(), 1);
    assert_eq!(Status::decode(reply.rax), Some(Status::Ok));
    device
}

fn resources(generation: u64) -> Resources {
    let mut resources = Resources::new(Generation(generation));
    resources.push(MEMORY);
    resources
}

fn request(sequence: u32) -> Request {
    Request {
        kind: ResourceKind::Memory,
        sequence: Sequence(sequence),
        urgency: Urgency::Normal,
        amount: 5,
        needed_in_ns: 100,
    }
}

fn ask(device: &mut Balloon<Heard>, request: Request) -> Option<Status> {
    Status::decode(device.call(request.encode(), 1000).rax)
}

fn told(device: &Balloon<Heard>) -> Resources {
    let mut words = [0; WORDS];
    device.memory.read_words(PAGE, &mut words).unwrap();
    Resources::decode(&words)
}

#[test]
fn every_reply_has_the_generation_and_a_call_reads_the_rest() {
    let mut device = asking();
    let generation = |device: &mut Balloon<Heard>| {
        device.call(Registers { rax: Command::GetTarget.encode(), ..Registers::default() }, 1).r8
    };
    assert_eq!((generation(&mut device), device.has_to_be_told()), (0, false));
    device.registers.page().set_resources(&resources(3));
    device.acknowledge();
    assert!(device.has_to_be_told());
    assert_eq!(generation(&mut device), 3);
    assert!(device.has_to_be_told(), "the number alone is not what it stands for");
    assert_eq!(status(&mut device, Command::Resources, PAGE.0, 0), Some(Status::Ok));
    assert_eq!((told(&device), device.has_to_be_told()), (resources(3), false));
    let list = device.call(Registers { rax: Command::List.encode(), rdi: PAGE.0, ..Registers::default() }, 1);
    assert_eq!(list.r8, 0, "LIST has a result of its own there");
}

#[test]
fn a_guest_that_did_not_negotiate_it_sees_nothing_of_it() {
    let mut device = device(TOTAL);
    device.call(hello(0x40).encode(), 1);
    device.registers.page().set_resources(&resources(3));
    device.acknowledge();
    let reply = device.call(Registers { rax: Command::GetTarget.encode(), ..Registers::default() }, 1);
    assert_eq!((reply.r8, device.has_to_be_told()), (0, false));
    assert_eq!(status(&mut device, Command::Resources, PAGE.0, 0), Some(Status::UnknownCommand));
    assert_eq!(ask(&mut device, request(1)), Some(Status::UnknownCommand));
}

#[test]
fn resources_are_written_to_the_guests_memory_only() {
    let mut device = asking();
    for address in [PAGE.0 + 4, PAGE.0 + 4096 - 8, 1 << 40, u64::MAX, 15 << 28] {
        assert_eq!(status(&mut device, Command::Resources, address, 0), Some(Status::BadPage), "{address:#x}");
    }
}

#[test]
fn the_latest_request_replaces_those_before() {
    let mut device = asking();
    assert_eq!(ask(&mut device, request(4)), Some(Status::Ok));
    let other = Request { kind: ResourceKind::Processors, ..request(1) };
    assert_eq!(ask(&mut device, other), Some(Status::Ok), "each kind has numbers of its own");
    let larger = Request { amount: 6, ..request(5) };
    assert_eq!(ask(&mut device, larger), Some(Status::Ok));
    let filed: Vec<_> = FiledRequest::decode_all(&device.registers.page().requests().unwrap()).collect();
    assert_eq!(filed, [FiledRequest::new(&larger, 1000), FiledRequest::new(&other, 1000)]);
    assert_eq!((filed[0].needed_at_ns, device.host.requests), (1100, 3));
}

#[test]
fn replays_and_nonsense_change_nothing() {
    let mut device = asking();
    assert_eq!(ask(&mut device, request(4)), Some(Status::Ok));
    for sequence in [4, 3, 0] {
        let replay = Request { amount: 999, ..request(sequence) };
        assert_eq!(ask(&mut device, replay), Some(Status::BadArgument));
    }
    // A new session is no new beginning.
    assert_eq!(status(&mut device, Command::Reset, 0, 0), Some(Status::Ok));
    device.call(Hello { features: Features::REQUESTS, ..hello(0x40) }.encode(), 1);
    assert_eq!(ask(&mut device, request(4)), Some(Status::BadArgument));
    assert_eq!(status(&mut device, Command::Request, 7 << 32 | 9, 5), Some(Status::BadArgument), "no such kind");
    let filed: Vec<_> = FiledRequest::decode_all(&device.registers.page().requests().unwrap()).collect();
    assert_eq!((filed, device.host.requests), (vec![FiledRequest::new(&request(4), 1000)], 1));
}
