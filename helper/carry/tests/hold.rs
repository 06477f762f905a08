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
