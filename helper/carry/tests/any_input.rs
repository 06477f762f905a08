//! Whatever a half learns, in whatever order: it neither panics, nor keeps more than it may, nor loses count of a frame,
//! and it ends once its stream has and all time limits are over.

use proptest::collection::vec;
use proptest::prelude::*;
use tandem_carry::{
    CarryCause, Destination, Frame, Limits, MIN_FRAME_BYTES, Message, Source, Versions,
    destination, source,
};

const LIMITS: Limits = Limits {
    frames: 8,
    bytes: 8 * MIN_FRAME_BYTES,
    hold_ms: 20,
    drain_ms: 5,
    resume_ms: 50,
    settle_ms: 30,
    straggle_ms: 2,
    quiet_ms: 40,
    forward_ms: 500,
};

/// Later than all of them together.
const END_MS: u64 = 100_000;

fn frames() -> impl Strategy<Value = Frame> {
    // Few different ones, so that there are twins.
    (any::<bool>(), 0_u8..3).prop_map(|(group, last)| {
        let mut bytes = [0; MIN_FRAME_BYTES];
        bytes[10] = u8::from(group);
        bytes[16] = 2 * last;
        bytes[MIN_FRAME_BYTES - 1] = last;
        Frame::new(&bytes).expect("a frame's length")
    })
}

fn messages() -> impl Strategy<Value = Message> {
    prop_oneof![
        3 => (1_u16..3).prop_map(|version| Message::Hello {
            versions: Versions { min: version, max: version }
        }),
        2 => Just(Message::Hold),
        6 => (1_u64..6, frames()).prop_map(|(number, frame)| Message::Frame { number, frame }),
        2 => (1_u64..6, frames()).prop_map(|(number, frame)| Message::Left { number, frame }),
        1 => Just(Message::HandOver),
        2 => any::<bool>().prop_map(|ours| Message::Stopped { ours }),
        1 => Just(Message::Resumed),
        1 => (0_u64..6).prop_map(|number| Message::Ack { number }),
        1 => Just(Message::SyncRequest),
        1 => (0_u64..6).prop_map(|last| Message::Sync { last }),
        1 => (0_u64..6).prop_map(|last| Message::Done { last }),
        1 => Just(Message::Abort { cause: CarryCause::OtherHalf }),
        1 => Just(Message::Abort { cause: CarryCause::NothingGiven }),
    ]
}

fn source_inputs() -> impl Strategy<Value = source::Input> {
    use source::Input;
    prop_oneof![
        4 => messages().prop_map(Input::Message),
        2 => Just(Input::HoldWanted),
        1 => Just(Input::Drained),
        1 => Just(Input::StopRefused),
        2 => Just(Input::GuestStopped),
        1 => Just(Input::MigrationCompleted),
        1 => Just(Input::MigrationFailed),
        1 => Just(Input::GuestRuns),
        9 => frames().prop_map(Input::Frame),
        2 => frames().prop_map(Input::Left),
        1 => Just(Input::Swept),
        1 => Just(Input::Dry),
        1 => Just(Input::Passing),
        1 => Just(Input::DestinationDied),
        1 => Just(Input::StreamEnded),
        2 => Just(Input::Tick),
    ]
}

fn destination_inputs() -> impl Strategy<Value = destination::Input> {
    use destination::Input;
    prop_oneof![
        12 => messages().prop_map(Input::Message),
        1 => Just(Input::GuestPaused),
        1 => Just(Input::SourceDied),
        1 => Just(Input::GuestRuns),
        1 => Just(Input::Announced),
        1 => Just(Input::MigrationFailed),
        6 => (frames(), any::<bool>()).prop_map(|(frame, early)| Input::Native { frame, early }),
        1 => Just(Input::Dry),
        1 => Just(Input::Opened),
        1 => Just(Input::StreamEnded),
        2 => Just(Input::Tick),
    ]
}

/// What both halves have in common.
trait Half {
    type Input;
    fn learn(&mut self, now_ms: u64, input: Self::Input);
    /// Fetches an action and a message.
    fn fetch(&mut self) -> bool;
    /// Frames that came in, and what became of them or is still pending.
    fn balance(&self) -> (u64, u64);
    fn pending(&self) -> usize;
}

impl Half for Source {
    type Input = source::Input;

    fn learn(&mut self, now_ms: u64, input: source::Input) {
        self.handle(now_ms, input);
    }

    fn fetch(&mut self) -> bool {
        self.next_action().is_some() | self.next_message().is_some()
    }

    fn balance(&self) -> (u64, u64) {
        let c = self.counts();
        let became =
            c.carried + c.given_back + c.forwarded + c.own + c.left_to_the_network + c.over_limit;
        (c.held, became + c.abandoned + self.pending() as u64)
    }

    fn pending(&self) -> usize {
        Self::pending(self)
    }
}

impl Half for Destination {
    type Input = destination::Input;

    fn learn(&mut self, now_ms: u64, input: destination::Input) {
        self.handle(now_ms, input);
    }

    fn fetch(&mut self) -> bool {
        self.next_action().is_some() | self.next_message().is_some()
    }

    fn balance(&self) -> (u64, u64) {
        let c = self.counts();
        let became = c.injected + c.twins + c.late_groups + c.left_to_the_source + c.over_limit;
        (
            c.carried + c.native,
            became + c.abandoned + self.pending() as u64,
        )
    }

    fn pending(&self) -> usize {
        Self::pending(self)
    }
}

/// Gives a half everything; fetches after each input or never.
fn run<H: Half>(half: &mut H, inputs: Vec<(u64, H::Input)>, fetches: bool) {
    let mut now_ms = 0;
    for (ms, input) in inputs {
        now_ms += ms;
        half.learn(now_ms, input);
        while fetches && half.fetch() {}
        let (came, known) = half.balance();
        assert_eq!(came, known);
        assert!(half.pending() <= 3 * LIMITS.frames);
    }
}

/// So many more turns are enough for anything.
const TURNS: usize = 1_000;

proptest! {
    #[test]
    fn a_source_survives_anything_and_ends(
        inputs in vec((0_u64..30, source_inputs()), 0..80), fetches in any::<bool>(),
        forwards in any::<bool>(),
    ) {
        // Some frames are the guest's own.
        let mut half = Source::new(LIMITS, &[[0; 6]]).with_forwarding(forwards);
        run(&mut half, inputs, fetches);
        half.handle(END_MS, source::Input::StreamEnded);
        half.handle(2 * END_MS, source::Input::Tick);
        half.handle(3 * END_MS, source::Input::Tick);
        prop_assert!((0..TURNS).any(|_| !half.fetch()), "it never has enough");
        prop_assert!(half.outcome().is_some(), "{half:?}");
        prop_assert_eq!(half.next_deadline(), None);
    }

    #[test]
    fn a_destination_survives_anything_and_ends(
        inputs in vec((0_u64..30, destination_inputs()), 0..80), fetches in any::<bool>(),
    ) {
        let mut half = Destination::new(LIMITS);
        run(&mut half, inputs, fetches);
        half.handle(END_MS, destination::Input::StreamEnded);
        half.handle(2 * END_MS, destination::Input::Tick);
        prop_assert!((0..TURNS).any(|_| !half.fetch()), "it never has enough");
        prop_assert!(half.outcome().is_some(), "{half:?}");
        prop_assert_eq!(half.next_deadline(), None);
    }
}

#[test]
fn the_bounds_are_those_that_are_told() {
    let bytes = [0; MIN_FRAME_BYTES];
    let frame = Frame::new(&bytes).unwrap();
    let mut half = Source::new(LIMITS, &[]);
    let versions = tandem_carry::VERSIONS;
    half.handle(0, source::Input::Message(Message::Hello { versions }));
    assert!(half.can_hold());
    half.handle(0, source::Input::HoldWanted);
    half.handle(0, source::Input::GuestStopped);
    for _ in 0..LIMITS.frames + 3 {
        half.handle(1, source::Input::Frame(frame.clone()));
    }
    assert_eq!(half.pending(), LIMITS.frames);
    assert_eq!(half.counts().over_limit, 3);
    assert_eq!(half.counts().most_bytes, LIMITS.bytes);
}

#[test]
fn halves_without_a_common_version_leave_the_taps_alone() {
    let versions = Versions { min: 7, max: 9 };
    let mut half = Source::new(LIMITS, &[]);
    half.handle(0, source::Input::Message(Message::Hello { versions }));
    assert!(!half.can_hold());
    let outcome = half.outcome().expect("it has ended");
    assert_eq!(outcome.cause, Some(CarryCause::NoCommonVersion));
    assert_eq!(half.next_action(), Some(source::Action::Detach));

    let mut half = Destination::new(LIMITS);
    half.handle(0, destination::Input::Message(Message::Hello { versions }));
    assert_eq!(half.next_action(), Some(destination::Action::Open));
}
