//! A VF that has just got the traffic is on trial.

use super::*;

/// A guest whose standby carries the traffic, and whose VF is about to get it.
fn about_to_fail_back() -> Guest {
    let mut policy = watching();
    policy.bonds[0].path_check = PathCheck::Auto;
    let mut guest = Guest::new(policy);
    guest.run(20_000, 1_000);
    guest.answer = lost();
    guest.run(1_700, 1_000);
    assert_eq!(guest.traffic(), Traffic::Standby);
    assert_eq!(guest.trials, 0);
    guest
}

#[test]
fn a_vf_that_gets_the_traffic_is_on_trial_at_once() {
    for (answer, unproved) in [
        (PathAnswer::Answered, None),
        (PathAnswer::Silent, Some(Unproved::NobodyAnswers)),
        (PathAnswer::NobodyKnown, Some(Unproved::NobodyKnown)),
    ] {
        let mut guest = about_to_fail_back();
        guest.answer = answer;
        let before = guest.asked;
        guest.run(3_000, 0);
        assert_eq!((guest.trials, guest.asked - before), (1, 1));
        assert_eq!(guest.traffic(), Traffic::Vf);
        assert_eq!(guest.problems(), []);
        let bond = &guest.machine.status().bonds[0];
        assert_eq!(bond.vf.as_ref().unwrap().unproved, unproved);
    }
}

#[test]
fn a_trial_that_brings_nothing_proves_nothing_and_ends_the_problem() {
    for is_heard_of in [true, false] {
        let mut guest = about_to_fail_back();
        assert_eq!(guest.problems(), [ProblemCode::PathLost]);
        guest.fails = is_heard_of;
        guest.is_lost = !is_heard_of;
        guest.run(20_000, 0);
        assert_eq!((guest.trials, guest.traffic()), (1, Traffic::Vf));
        assert_eq!(guest.problems(), []);
        let bond = &guest.machine.status().bonds[0];
        let unproved = bond.vf.as_ref().unwrap().unproved;
        assert_eq!(unproved, Some(Unproved::NobodyAnswers));
    }
}

#[test]
fn a_trial_that_fails_moves_the_traffic_back_and_the_next_one_waits_longer() {
    let neighbour = NEIGHBOUR;
    for answer in [lost(), PathAnswer::Astray { neighbour }] {
        let mut guest = about_to_fail_back();
        guest.answer = answer;
        let mut tried_at = Vec::new();
        for _ in 0..4_000 {
            let before = guest.trials;
            guest.run(100, 0);
            tried_at.extend((guest.trials > before).then_some(guest.now));
            assert_eq!(guest.traffic(), Traffic::Standby, "back in the same turn");
            assert_eq!(guest.problems(), [ProblemCode::PathLost]);
        }
        let waits = tried_at.windows(2);
        let waits: Vec<_> = waits.map(|two| two[1].since_ms(two[0])).collect();
        let hold_max_ms = Timing::default().hold_max_ms;
        assert!(
            waits.is_sorted() && waits.last() >= Some(&hold_max_ms),
            "{waits:?}"
        );
        assert!(waits.len() >= 7, "{waits:?}");
    }
}

#[test]
fn without_a_path_check_only_a_vf_whose_path_was_lost_is_tried_out() {
    let mut guest = Guest::new(watching());
    guest.run(20_000, 1_000);
    assert_eq!((guest.traffic(), guest.trials), (Traffic::Vf, 0));
    guest.answer = lost();
    guest.run(1_700, 1_000);
    guest.run(3_000, 0);
    assert_eq!((guest.traffic(), guest.trials), (Traffic::Standby, 1));
    guest.answer = PathAnswer::Answered;
    guest.run(10_000, 0);
    assert_eq!((guest.traffic(), guest.trials), (Traffic::Vf, 2));
    assert_eq!(guest.problems(), []);
}

#[test]
fn a_failback_that_somebody_asked_for_ends_with_its_trial() {
    for (answer, is_good) in [(PathAnswer::Answered, true), (lost(), false)] {
        let mut guest = about_to_fail_back();
        guest.answer = answer;
        guest.replies.clear();
        let request = Request::Failback { bond: None };
        guest.learn(Input::Command(Command {
            id: CommandId(1),
            request,
            by_host: false,
        }));
        guest.answer_actions();
        guest.run(10, 0);
        let replies: Vec<_> = guest.replies.iter().map(Result::is_ok).collect();
        assert_eq!((guest.trials, &replies[..]), (1, &[is_good][..]));
        guest.run(1_000, 0);
        assert_eq!(guest.trials, 1, "it is not tried again at once");
    }
}
