//! A half that nobody tells anything any more: whoever started it is gone, and its hypervisor does not answer.

use tandem_carry::{
    Destination, Frame, Limits, MIN_FRAME_BYTES, Message, Source, VERSIONS, destination, source,
};

const LIMITS: Limits = Limits {
    frames: 10,
    bytes: 1_000,
    hold_ms: 40,
    drain_ms: 15,
    resume_ms: 300,
    settle_ms: 30,
    straggle_ms: 2,
    quiet_ms: 60,
    forward_ms: 1_500,
};
const GUEST: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

fn frame_from(source: [u8; 6]) -> Frame {
    let mut bytes = [0; MIN_FRAME_BYTES];
    let from = tandem_carry::HEADER_BYTES + 6;
    bytes[from..from + 6].copy_from_slice(&source);
    Frame::new(&bytes).expect("a frame's length")
}

fn actions(source: &mut Source) -> Vec<source::Action> {
    std::iter::from_fn(|| source.next_action()).collect()
}

/// With one frame, and a guest that was to be stopped.
fn stopping() -> Source {
    let mut source = Source::new(LIMITS, &[GUEST]).with_forwarding(true);
    let hello = Message::Hello { versions: VERSIONS };
    for (ms, input) in [
        (0, source::Input::Message(hello)),
        (0, source::Input::HoldWanted),
        (1, source::Input::Frame(frame_from([2; 6]))),
        (2, source::Input::Drained),
    ] {
        source.handle(ms, input);
    }
    let wanted = [source::Action::Hold, source::Action::StopGuest];
    assert_eq!(actions(&mut source), wanted);
    source
}

/// It was heard before anybody has told that it stood still, and never again.
#[test]
fn a_guest_that_was_heard_from_elsewhere_while_nobody_answered_gets_its_frames_there() {
    let mut source = stopping();
    source.handle(3, source::Input::StreamEnded);
    source.handle(20, source::Input::Frame(frame_from(GUEST)));
    source.handle(30, source::Input::MigrationCompleted);
    assert_eq!(actions(&mut source), [source::Action::Sweep]);
    source.handle(30, source::Input::Swept);
    source.handle(30 + LIMITS.straggle_ms, source::Input::Tick);
    let wanted = [source::Action::Forward(frame_from([2; 6]))];
    assert_eq!(actions(&mut source), wanted);
}

/// The same after it had held for as long as it may, and has given back.
#[test]
fn what_was_given_back_in_vain_follows_a_guest_that_was_heard_meanwhile() {
    let mut source = stopping();
    source.handle(3, source::Input::StreamEnded);
    for ms in [LIMITS.hold_ms, 2 * LIMITS.hold_ms] {
        source.handle(ms, source::Input::Tick);
    }
    let given = source::Action::Inject(frame_from([2; 6]));
    assert_eq!(actions(&mut source).last(), Some(&given));
    source.handle(90, source::Input::Frame(frame_from(GUEST)));
    actions(&mut source);
    source.handle(100, source::Input::MigrationCompleted);
    let wanted = [source::Action::Hold, source::Action::Sweep];
    assert_eq!(actions(&mut source), wanted);
    source.handle(100, source::Input::Left(frame_from([2; 6])));
    source.handle(101, source::Input::Swept);
    source.handle(102 + LIMITS.straggle_ms, source::Input::Tick);
    let wanted = [source::Action::Forward(frame_from([2; 6]))];
    assert_eq!(actions(&mut source), wanted);
}

/// As ever: its own frames come back to it from a network with a loop.
#[test]
fn a_guest_that_runs_was_not_heard_from_elsewhere() {
    let mut source = stopping();
    source.handle(3, source::Input::Frame(frame_from(GUEST)));
    source.handle(4, source::Input::GuestStopped);
    source.handle(4, source::Input::Swept);
    source.handle(5, source::Input::StreamEnded);
    source.handle(6, source::Input::MigrationCompleted);
    source.handle(6 + LIMITS.quiet_ms, source::Input::Tick);
    assert!(
        !actions(&mut source)
            .iter()
            .any(|action| matches!(action, source::Action::Forward(_)))
    );
}

#[test]
fn a_destination_that_nobody_tells_opens_once_the_guest_sends() {
    let mut destination = Destination::new(LIMITS);
    let (number, frame) = (1, frame_from([2; 6]));
    for message in [
        Message::Hello { versions: VERSIONS },
        Message::Hold,
        Message::Frame { number, frame },
    ] {
        destination.handle(5, destination::Input::Message(message));
    }
    destination.handle(10, destination::Input::StreamEnded);
    destination.handle(20, destination::Input::Announced);
    assert_eq!(destination.next_action(), Some(destination::Action::Hold));
    let opens_ms = 20 + LIMITS.straggle_ms;
    assert_eq!(destination.next_deadline(), Some(opens_ms));
    destination.handle(opens_ms, destination::Input::Tick);
    assert_eq!(
        destination.next_action(),
        Some(destination::Action::ReadDry)
    );
    destination.handle(opens_ms, destination::Input::Dry);
    assert_eq!(destination.next_action(), Some(destination::Action::Open));
}

/// It has arrived all the same, and was cancelled too late: it runs at the source again, and never at both.
#[test]
fn a_guest_whose_migration_failed_is_never_resumed_where_it_went_to() {
    for fails in [false, true] {
        let mut destination = Destination::new(LIMITS);
        let hello = Message::Hello { versions: VERSIONS };
        destination.handle(1, destination::Input::Message(hello));
        if fails {
            destination.handle(2, destination::Input::MigrationFailed);
        }
        // That was under way meanwhile.
        let stopped = Message::Stopped { ours: true };
        destination.handle(3, destination::Input::Message(stopped));
        destination.handle(4, destination::Input::StreamEnded);
        destination.handle(5, destination::Input::GuestPaused);
        let resumes = std::iter::from_fn(|| destination.next_action())
            .any(|action| action == destination::Action::ResumeGuest);
        assert_eq!(resumes, !fails);
    }
}
