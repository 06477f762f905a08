//! Looks that go on by themselves while frames pass both ways, and those that a changed chain asks for.

use super::*;

#[test]
fn frames_that_pass_both_ways_are_proof_for_ten_seconds_and_the_machine_is_left_alone() {
    let mut guest = Guest::new(watching());
    guest.passes = true;
    guest.run(20_000, 1_000);
    let (looks, asked) = (guest.looks, guest.asked);
    guest.run(60_000, 1_000);
    assert!((5..=6).contains(&(guest.looks - looks)), "{}", guest.looks);
    assert!((5..=6).contains(&(guest.asked - asked)), "{}", guest.asked);
    // Nothing comes in any more: it is asked at once.
    guest.passes = false;
    guest.answer = lost();
    guest.run(1_000, 1_000);
    assert_eq!(guest.traffic(), Traffic::Standby);
    assert_eq!(guest.problems(), [ProblemCode::PathLost]);
}

#[test]
fn looks_that_go_on_end_with_the_reason_for_them() {
    let mut guest = Guest::new(watching());
    guest.passes = true;
    guest.run(20_000, 1_000);
    assert!(guest.going_on.is_some());
    let mut off = watching();
    off.bonds[0].timing.health_ms = 0;
    guest.learn(Input::Policy(off));
    guest.learn(Input::Policy(watching()));
    // What they bring late is nobody's; others begin in the meantime.
    let before = guest.looks;
    let old = guest.going_on.take().unwrap();
    guest.run(1_500, 1_000);
    assert!(guest.looks > before && guest.going_on.is_some());
    guest.end(old.0, Outcome::Accepted);
    assert!(guest.going_on.is_some());
    // One whose end is never heard of is given up.
    guest.going_on = None;
    let before = guest.looks;
    guest.run(22_000, 1_000);
    assert!(guest.looks > before);
}

#[test]
fn a_changed_chain_is_looked_at_at_once_and_by_a_test() {
    let mut guest = Guest::new(watching());
    guest.passes = true;
    guest.run(20_000, 1_000);
    for link in [BOND, STANDBY, VF] {
        let before = guest.looks;
        guest.learn(Input::ChainsChanged { link });
        assert_eq!(guest.anew, 0, "not yet");
        guest.going_on = None;
        guest.answer_actions();
        assert_eq!((guest.looks - before, guest.anew), (1, 1), "{link}");
        guest.anew = 0;
        guest.run(2_000, 1_000);
        assert!(guest.going_on.is_some());
        assert_eq!(guest.anew, 0, "once");
    }
    // Somebody else's, and a VF that carries nothing.
    let looks = guest.looks;
    guest.learn(Input::ChainsChanged { link: Ifindex(99) });
    guest.answer_actions();
    assert_eq!(guest.looks, looks);
}
