//! What a guest is told about its host's resources ([`Resources`]), and how it asks for more of one
//! ([`Request`]). `docs/requests.md` describes the protocol.
//!
//! The idea is that of US 8,762,999: the host enumerates its resources to each guest and updates
//! the guest when they change; a guest compares each update with what it knows and with its
//! projected workload, and asks before it lacks something.
//!
//! A request names a *level*, not a difference: how much of the resource the guest needs in all. So
//! a request that is carried out twice changes nothing. A guest has at most one request of each
//! kind, and a later one replaces it.

use core::fmt;

use crate::port::{Command, Registers};

/// Components that [`Resources`] has room for.
pub const COMPONENTS: usize = 8;
/// Words of a component.
const COMPONENT_WORDS: usize = 5;
/// Words of an answer.
const ANSWER_WORDS: usize = 2;
/// Words of [`Resources`].
pub const WORDS: usize = 2 + ResourceKind::ALL.len() * ANSWER_WORDS + COMPONENTS * COMPONENT_WORDS;
/// Bytes of [`Resources`].
pub const BYTES: usize = WORDS * size_of::<u64>();
/// Words of a [`FiledRequest`].
const FILED_WORDS: usize = 3;
/// Words of one [`FiledRequest`] of each kind.
pub const ALL_FILED_WORDS: usize = ResourceKind::ALL.len() * FILED_WORDS;

/// A kind of resource. The kinds are open: a monitor denies a request of a kind that it does not
/// share out, and a driver ignores a component of a kind that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceKind {
    /// Memory, in bytes.
    Memory,
    /// Processors.
    Processors,
    /// Space on a disk, in bytes.
    Disk,
}

impl ResourceKind {
    /// Every kind, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Processors, Self::Disk];

    /// Returns the code of the kind; 0 is none.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8 + 1
    }

    /// Returns the kind with this code.
    #[must_use]
    pub fn decode(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Returns the kind as an index into what is kept for each kind.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The number of a state of the host's resources: it changes whenever something changes that a
/// guest should know. What a guest has never been told has generation 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// The number of a request: each request of a guest has a larger one than all before it of its
/// kind, also in later sessions. No request has number 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub u32);

/// How much a guest needs what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It may use it: memory that no other guest needs is enough.
    Low,
    /// It will use it.
    Normal,
    /// A thread waits as soon as it lacks it.
    High,
}

impl Urgency {
    /// Every urgency, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// Returns the code of the urgency.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the urgency with this code.
    #[must_use]
    pub fn decode(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// A guest's request, as REQUEST carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub kind: ResourceKind,
    /// The number of the request.
    pub sequence: Sequence,
    /// How much it is needed.
    pub urgency: Urgency,
    /// How much of the resource the guest needs in all, in the unit of the kind; 0 withdraws the
    /// request before.
    pub amount: u64,
    /// Nanoseconds from now until the guest needs it.
    pub needed_in_ns: u64,
}

impl Request {
    /// Returns the call's registers.
    #[must_use]
    pub fn encode(&self) -> Registers {
        let Self { amount, needed_in_ns, .. } = *self;
        Registers { rax: Command::Request.encode(), rdi: self.name(), rsi: amount, r8: needed_in_ns }
    }

    /// Returns the request in a call's registers, or `None` where kind, number or urgency is not
    /// one.
    #[must_use]
    pub fn decode(registers: &Registers) -> Option<Self> {
        Self::with_name(registers.rdi, registers.rsi, registers.r8)
    }

    /// Returns number, kind and urgency in one word.
    const fn name(&self) -> u64 {
        self.sequence.0 as u64 | (self.kind.code() as u64) << 32 | (self.urgency.code() as u64) << 40
    }

    fn with_name(name: u64, amount: u64, needed_in_ns: u64) -> Option<Self> {
        let [a, b, c, d, kind, urgency, 0, 0] = name.to_le_bytes() else { return None };
        let sequence = Sequence(u32::from_le_bytes([a, b, c, d]));
        let (kind, urgency) = (ResourceKind::decode(kind)?, Urgency::decode(urgency)?);
        (sequence != Sequence(0)).then_some(Self { kind, sequence, urgency, amount, needed_in_ns })
    }
}

/// The latest request of a kind as a VMM process publishes it: with the moment at which the guest
/// needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiledRequest {
    /// What is asked for.
    pub kind: ResourceKind,
    /// The number of the request.
    pub sequence: Sequence,
    /// How much it is needed.
    pub urgency: Urgency,
    /// As in [`Request::amount`].
    pub amount: u64,
    /// When the guest needs it, in nanoseconds of the host's monotonic clock.
    pub needed_at_ns: u64,
}

impl FiledRequest {
    /// Returns the request that was made at `now_ns`.
    #[must_use]
    pub const fn new(request: &Request, now_ns: u64) -> Self {
        let Request { kind, sequence, urgency, amount, needed_in_ns } = *request;
        Self { kind, sequence, urgency, amount, needed_at_ns: now_ns.saturating_add(needed_in_ns) }
    }

    /// Writes the request into its kind's place.
    pub fn encode_into(&self, words: &mut [u64; ALL_FILED_WORDS]) {
        let Self { kind, sequence, urgency, amount, needed_at_ns } = *self;
        let name = Request { kind, sequence, urgency, amount, needed_in_ns: 0 }.name();
        let at = kind.index() * FILED_WORDS;
        words[at..at + FILED_WORDS].copy_from_slice(&[name, amount, needed_at_ns]);
    }

    /// Returns the requests in their kinds' places; a place with another kind's request is empty.
    pub fn decode_all(words: &[u64; ALL_FILED_WORDS]) -> impl Iterator<Item = Self> {
        let places = ResourceKind::ALL.into_iter().zip(words.as_chunks::<FILED_WORDS>().0);
        places.filter_map(|(kind, &[name, amount, needed_at_ns])| {
            let request = Request::with_name(name, amount, 0).filter(|request| request.kind == kind)?;
            let Request { sequence, urgency, .. } = request;
            Some(Self { kind, sequence, urgency, amount, needed_at_ns })
        })
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was heard. What it asks for is not needed yet, or has to become free first.
    Queued,
    /// The guest may have all of it now. The host keeps it for the guest until it is used or
    /// withdrawn, or some time after it was needed.
    Granted,
    /// The guest may have a part of it now, and has its fair share with that.
    PartlyGranted,
    /// Denied: the guest has its fair share of a pool that is all in demand.
    AtFairShare,
    /// Denied: it is more than the guest can ever have.
    BeyondMax,
    /// Denied: this host does not share out the kind.
    NotShared,
    /// Denied: the guest asks too often.
    TooMany,
    /// Denied: it did not become free until some time after it was needed.
    Late,
    /// It was granted, and the guest uses it.
    Used,
    /// It was granted, and the guest did not use it in time. The host keeps it no longer.
    Expired,
    /// The guest withdrew it.
    Withdrawn,
}

impl Outcome {
    /// Every outcome, in the order of their codes.
    pub const ALL: [Self; 11] = [
        Self::Queued,
        Self::Granted,
        Self::PartlyGranted,
        Self::AtFairShare,
        Self::BeyondMax,
        Self::NotShared,
        Self::TooMany,
        Self::Late,
        Self::Used,
        Self::Expired,
        Self::Withdrawn,
    ];

    /// Returns the code of the outcome; 0 is none.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8 + 1
    }

    /// Returns the outcome with this code.
    #[must_use]
    pub fn decode(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.code() == code)
    }

    /// Returns whether the request is denied.
    #[must_use]
    pub const fn is_denial(self) -> bool {
        matches!(self, Self::AtFairShare | Self::BeyondMax | Self::NotShared | Self::TooMany | Self::Late)
    }

    /// Returns whether the host has forgotten the request.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Granted | Self::PartlyGranted | Self::AtFairShare)
    }
}

impl fmt::Display for Outcome {
    /// Writes what a guest "asked for and ...".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "is queued for it",
            Self::Granted => "is granted it",
            Self::PartlyGranted => "is granted a part of it",
            Self::AtFairShare => "is denied it: it has its fair share of a pool that is all in demand",
            Self::BeyondMax => "is denied it: it is more than the guest's max",
            Self::NotShared => "is denied it: this host does not share it out by request",
            Self::TooMany => "is denied it: it asks too often",
            Self::Late => "is denied it: it did not become free in time",
            Self::Used => "uses it",
            Self::Expired => "did not use it",
            Self::Withdrawn => "withdrew it",
        })
    }
}

/// The answer to a guest's latest request of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request.
    pub sequence: Sequence,
    /// What became of it.
    pub outcome: Outcome,
    /// What the guest may have in all, in the unit of the kind.
    pub granted: u64,
}

/// A component of the host, in the unit of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// What it is.
    pub kind: ResourceKind,
    /// All that guests may share.
    pub total: u64,
    /// The part that no guest holds. Other guests may take it at any time.
    pub free: u64,
    /// What is assigned to this guest.
    pub assigned: u64,
    /// The most that this guest can have.
    pub most: u64,
}

/// The host's resources as one guest is told of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The number of this state. `free` and `assigned` may change under the same number.
    pub generation: Generation,
    components: [Option<Component>; COMPONENTS],
    answers: [Option<Answer>; ResourceKind::ALL.len()],
}

impl Resources {
    /// Returns resources of this generation, without components or answers.
    #[must_use]
    pub const fn new(generation: Generation) -> Self {
        Self { generation, components: [None; COMPONENTS], answers: [None; ResourceKind::ALL.len()] }
    }

    /// Adds a component; what does not fit is left out.
    pub fn push(&mut self, component: Component) {
        if let Some(place) = self.components.iter_mut().find(|place| place.is_none()) {
            *place = Some(component);
        }
    }

    /// Sets the answer to the latest request of a kind.
    pub fn set_answer(&mut self, kind: ResourceKind, answer: Option<Answer>) {
        self.answers[kind.index()] = answer;
    }

    /// Returns the components.
    pub fn components(&self) -> impl Iterator<Item = Component> {
        self.components.into_iter().flatten()
    }

    /// Returns the first component of a kind.
    #[must_use]
    pub fn component(&self, kind: ResourceKind) -> Option<Component> {
        self.components().find(|component| component.kind == kind)
    }

    /// Returns the answer to the latest request of a kind.
    #[must_use]
    pub fn answer(&self, kind: ResourceKind) -> Option<Answer> {
        self.answers[kind.index()]
    }

    /// Returns whether `other` says something that a guest should know: anything but other
    /// generations, free parts and assignments, which a guest learns with its target.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        let lasting = |resources: &Self| {
            let part = |component: Component| Component { free: 0, assigned: 0, ..component };
            let components = resources.components.map(|component| component.map(part));
            Self { generation: Generation(0), components, answers: resources.answers }
        };
        lasting(self) != lasting(other)
    }

    /// Returns the record's words.
    #[must_use]
    pub fn encode(&self) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        let (head, rest) = words.split_at_mut(2);
        let (answers, components) = rest.split_at_mut(ResourceKind::ALL.len() * ANSWER_WORDS);
        head.copy_from_slice(&[self.generation.0, self.components().count() as u64]);
        for (words, answer) in answers.as_chunks_mut().0.iter_mut().zip(self.answers) {
            *words = answer.map_or([0; ANSWER_WORDS], |Answer { sequence, outcome, granted }| {
                [u64::from(sequence.0) | u64::from(outcome.code()) << 32, granted]
            });
        }
        for (words, component) in components.as_chunks_mut().0.iter_mut().zip(self.components()) {
            let Component { kind, total, free, assigned, most } = component;
            *words = [kind.code().into(), total, free, assigned, most];
        }
        words
    }

    /// Returns the resources in the record's words. Components and answers with unknown codes are
    /// left out.
    #[must_use]
    pub fn decode(words: &[u64; WORDS]) -> Self {
        let (head, rest) = words.split_at(2);
        let (answers, components) = rest.split_at(ResourceKind::ALL.len() * ANSWER_WORDS);
        let mut resources = Self::new(Generation(head[0]));
        for (kind, &[name, granted]) in ResourceKind::ALL.into_iter().zip(answers.as_chunks::<ANSWER_WORDS>().0) {
            let [a, b, c, d, code, ..] = name.to_le_bytes();
            let sequence = Sequence(u32::from_le_bytes([a, b, c, d]));
            resources.set_answer(kind, Outcome::decode(code).map(|outcome| Answer { sequence, outcome, granted }));
        }
        for &[code, total, free, assigned, most] in components.as_chunks::<COMPONENT_WORDS>().0 {
            if let Some(kind) = u8::try_from(code).ok().and_then(ResourceKind::decode) {
                resources.push(Component { kind, total, free, assigned, most });
            }
        }
        resources
    }
}

#[cfg(test)]
mod tests {
    use super::{
        ALL_FILED_WORDS, Answer, Component, FiledRequest, Generation, Outcome, Request, ResourceKind, Resources,
        Sequence, Urgency, WORDS,
    };
    use crate::port::Registers;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use std::vec::Vec;

    const REQUEST: Request = Request {
        kind: ResourceKind::Memory,
        sequence: Sequence(7),
        urgency: Urgency::High,
        amount: 5 << 20,
        needed_in_ns: 100,
    };

    fn component(kind: ResourceKind, total: u64) -> Component {
        Component { kind, total, free: 2, assigned: 3, most: 4 }
    }

    fn resources() -> Resources {
        let mut resources = Resources::new(Generation(9));
        resources.push(component(ResourceKind::Memory, 10));
        resources.push(component(ResourceKind::Disk, 20));
        resources.push(component(ResourceKind::Disk, 30));
        let answer = Answer { sequence: Sequence(u32::MAX), outcome: Outcome::Withdrawn, granted: 5 };
        resources.set_answer(ResourceKind::Processors, Some(answer));
        resources
    }

    #[test]
    fn requests_survive_a_round_trip() {
        for (kind, urgency) in ResourceKind::ALL.into_iter().zip(Urgency::ALL) {
            let request = Request { kind, urgency, ..REQUEST };
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
    }

    #[test]
    fn a_request_without_a_number_or_of_no_kind_is_none() {
        for rdi in [0, 1 << 32, 1, 1 | 9 << 32, 1 | 1 << 32 | 3 << 40, 1 | 1 << 32 | 1 << 48] {
            assert_eq!(Request::decode(&Registers { rdi, ..Registers::default() }), None, "{rdi:#x}");
        }
    }

    #[test]
    fn each_kind_has_a_place_of_its_own() {
        let mut words = [0; ALL_FILED_WORDS];
        assert_eq!(FiledRequest::decode_all(&words).count(), 0);
        let mut filed: Vec<_> = [ResourceKind::Memory, ResourceKind::Disk]
            .map(|kind| FiledRequest::new(&Request { kind, ..REQUEST }, 1000))
            .into();
        filed.iter().for_each(|request| request.encode_into(&mut words));
        assert_eq!(FiledRequest::decode_all(&words).collect::<Vec<_>>(), filed);
        filed[0] = FiledRequest { sequence: Sequence(8), ..filed[0] };
        filed[0].encode_into(&mut words);
        assert_eq!(FiledRequest::decode_all(&words).collect::<Vec<_>>(), filed);
        words.rotate_right(3);
        assert_eq!(FiledRequest::decode_all(&words).count(), 0, "a request is believed in its own place only");
    }

    #[test]
    fn resources_survive_a_round_trip() {
        assert_eq!(Resources::decode(&resources().encode()), resources());
        assert_eq!(Resources::decode(&[0; WORDS]), Resources::default());
    }

    #[test]
    fn free_memory_and_the_own_target_are_no_news() {
        let before = resources();
        let mut after = Resources::new(Generation(10));
        before.components().for_each(|component| after.push(Component { free: 9, assigned: 9, ..component }));
        assert!(before.differs(&after), "an answer is missing");
        after.set_answer(ResourceKind::Processors, before.answer(ResourceKind::Processors));
        assert!(!before.differs(&after));
        after.push(component(ResourceKind::Disk, 40));
        assert!(before.differs(&after), "a component came");
    }

    #[test]
    fn codes_of_outcomes_survive_a_round_trip() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::decode(outcome.code()), Some(outcome));
        }
        assert_eq!(Outcome::decode(0), None);
    }

    proptest! {
        #[test]
        fn no_words_panic(words: [u64; WORDS], filed: [u64; ALL_FILED_WORDS]) {
            let resources = Resources::decode(&words);
            prop_assert_eq!(Resources::decode(&resources.encode()), resources);
            prop_assert!(FiledRequest::decode_all(&filed).count() <= ResourceKind::ALL.len());
        }
    }
}
