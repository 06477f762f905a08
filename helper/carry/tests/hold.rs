//! How long a source holds for a guest that does not stop: the guest runs all the while and hears nothing.

use tandem_carry::{Frame, Limits, MIN_FRAME_BYTES, Message, Source, VERSIONS, source};

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

fn actions(source: &mut Source) -> Vec<source::Action> {
    std::iter::from_fn(|| source.next_action()).collect()
}

/// A source that holds since 0 ms, with one frame.
fn holding() -> Source {
    let mut source = Source::new(LIMITS, &[]).with_forwarding(true);
    let hello = Message::Hello { versions: VERSIONS };
    source.handle(0, source::Input::Message(hello));
    source.handle(0, source::Input::HoldWanted);
    assert_eq!(actions(&mut source), [source::Action::Hold]);
    let frame = Frame::new(&[0; MIN_FRAME_BYTES]).expect("a frame's length");
    source.handle(1, source::Input::Frame(frame));
    source
}

#[test]
fn the_time_that_it_holds_begins_with_the_hold_and_not_with_the_order_to_stop() {
    let mut source = holding();
    source.handle(LIMITS.drain_ms, source::Input::Tick);
    assert_eq!(actions(&mut source), [source::Action::StopGuest]);
    assert_eq!(source.next_deadline(), Some(LIMITS.hold_ms));
    source.handle(LIMITS.hold_ms - 1, source::Input::Tick);
    assert_eq!(actions(&mut source), []);
    source.handle(LIMITS.hold_ms, source::Input::Tick);
    assert_eq!(actions(&mut source), [source::Action::AskGuest]);
    // Nobody answers.
    source.handle(2 * LIMITS.hold_ms, source::Input::Tick);
    assert_eq!(actions(&mut source)[0], source::Action::Pass);
}

#[test]
fn what_was_given_back_to_a_guest_that_stood_still_is_held_again() {
    let mut source = holding();
    for ms in [LIMITS.drain_ms, LIMITS.hold_ms, 2 * LIMITS.hold_ms] {
        source.handle(ms, source::Input::Tick);
    }
    assert!(matches!(
        actions(&mut source).last(),
        Some(source::Action::Inject(_))
    ));
    source.handle(90, source::Input::Passing);
    assert_eq!(actions(&mut source), [], "it may have stopped");
    source.handle(100, source::Input::GuestStopped);
    let wanted = [source::Action::Hold, source::Action::Sweep];
    assert_eq!(actions(&mut source), wanted);
    // And where it has not, it lets go.
    let mut source = holding();
    for ms in [LIMITS.drain_ms, LIMITS.hold_ms, 2 * LIMITS.hold_ms] {
        source.handle(ms, source::Input::Tick);
    }
    actions(&mut source);
    source.handle(90, source::Input::Passing);
    source.handle(100, source::Input::StopRefused);
    assert_eq!(actions(&mut source), [source::Action::Detach]);
}

/// A source that has handed over, and closes as the network is quiet.
fn closing() -> Source {
    let mut source = holding();
    for (ms, input) in [
        (2, source::Input::Drained),
        (3, source::Input::GuestStopped),
        (3, source::Input::Swept),
        (10, source::Input::MigrationCompleted),
        (10, source::Input::Message(Message::Resumed)),
        (11, source::Input::Message(Message::SyncRequest)),
    ] {
        source.handle(ms, input);
        actions(&mut source);
        while source.next_message().is_some() {}
    }
    source.handle(13, source::Input::Tick);
    assert_eq!(actions(&mut source), [source::Action::ReadDry]);
    source.handle(13, source::Input::Dry);
    source.handle(10 + LIMITS.quiet_ms, source::Input::Tick);
    assert_eq!(actions(&mut source), [source::Action::Detach]);
    source
}

#[test]
fn a_frame_to_a_group_that_comes_while_it_closes_is_the_networks_and_not_lost() {
    let mut source = closing();
    let mut bytes = [0; MIN_FRAME_BYTES];
    let to = tandem_carry::HEADER_BYTES;
    bytes[to..to + 6].fill(0xff);
    let group = Frame::new(&bytes).expect("a frame's length");
    source.handle(75, source::Input::Frame(group.clone()));
    let counts = source.counts();
    assert_eq!((counts.left_to_the_network, counts.abandoned), (1, 0));
    // One to the guest itself is.
    bytes[to..to + 6].fill(0x02);
    let guest = Frame::new(&bytes).expect("a frame's length");
    source.handle(76, source::Input::Frame(guest));
    let last = Message::Done { last: 1 };
    source.handle(77, source::Input::Message(last));
    source.handle(78, source::Input::Frame(group));
    let counts = source.outcome().expect("it has ended").counts;
    assert_eq!((counts.left_to_the_network, counts.abandoned), (2, 1));
}
