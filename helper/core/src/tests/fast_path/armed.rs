//! A VF gets the traffic once its fast path is armed, or cannot be.

use alloc::string::String;

use super::*;
use crate::model::fast_path::{Blocked, Way};
use crate::model::link::FailOverMac;
use crate::model::policy::MacPolicy;
use crate::model::source::{Source, SourceHealth};
use crate::model::status::{BondStatus, Held};

/// Longer than the VF has to hold its carrier, and than all that follows takes.
const HELD: Duration = Duration::from_secs(5);

/// The standby carries the traffic, and the VF has just got its carrier.
fn guest(mac: MacPolicy, before: &[Input]) -> Guest {
    let mut guest = Guest {
        machine: Machine::new(NOW),
        links: healthy(),
        now: NOW,
        did: Vec::new(),
        told: Vec::new(),
        frames: Vec::new(),
        refuses: false,
    };
    guest.activate(STANDBY);
    let facts = guest.links[2].bond.as_mut().unwrap();
    facts.fail_over_mac = mac.fail_over_mac();
    let mut policy = policy();
    policy.bonds[0].mac = mac;
    guest.feed(Input::Policy(policy));
    for input in before {
        guest.feed(input.clone());
    }
    let links = guest.links.clone();
    guest.feed(Input::Links(links));
    let addresses = Vec::from([addressing(BOND, &[[192, 0, 2, 1]])]);
    guest.feed(Input::Addressings(addresses));
    guest.obey();
    guest
}

fn bond(guest: &Guest) -> &BondStatus {
    &guest.machine.status().bonds[0]
}

/// The one problem, in words, if it is that the VF is not armed.
fn not_armed(guest: &Guest) -> &str {
    match &bond(guest).problems[..] {
        [problem] if problem.code == ProblemCode::NotArmed => &problem.message,
        others => panic!("{others:?}"),
    }
}

#[test]
fn it_is_armed_before_it_gets_the_traffic() {
    let mut guest = guest(MacPolicy::Standby, &[Input::FastPathSupported(true)]);
    guest.pass(HELD);
    let arms = |kind: &ActionKind| {
        matches!(kind, ActionKind::SetFastPath { fast_path, .. }
            if fast_path.armed_vf.as_ref() == Some(&armed_vf()))
    };
    let moves = |kind: &ActionKind| matches!(kind, ActionKind::SetPrimary { port: VF, .. });
    let (armed, moved) = (guest.order(&arms), guest.order(&moves));
    assert!(armed.is_some() && armed < moved, "{:?}", guest.did);
    let bond = bond(&guest);
    assert_eq!((bond.traffic, &bond.problems[..]), (Traffic::Vf, &[][..]));
    assert!(bond.fast_path_armed);
}

#[test]
fn it_waits_while_the_programs_are_loaded_and_no_longer() {
    let mut guest = guest(MacPolicy::Standby, &[Input::FastPathsLoading]);
    guest.pass(Duration::from_secs(20));
    let waits = |bond: &BondStatus| {
        let held = bond.vf.as_ref().and_then(|vf| vf.held);
        (bond.traffic, held) == (Traffic::Standby, Some(Held::Unarmed))
    };
    assert!(waits(bond(&guest)), "{:?}", bond(&guest));
    assert_eq!(bond(&guest).problems, []);
    guest.feed(Input::FastPathSupported(true));
    guest.obey();
    assert_eq!(bond(&guest).traffic, Traffic::Vf);
    assert!(bond(&guest).fast_path_armed);
}

#[test]
fn it_waits_for_no_longer_than_a_bound() {
    let mut guest = guest(MacPolicy::Standby, &[Input::FastPathsLoading]);
    guest.pass(Duration::from_secs(31));
    assert_eq!(bond(&guest).traffic, Traffic::Vf);
    assert!(not_armed(&guest).contains("still being loaded"));
    guest.feed(Input::FastPathSupported(true));
    guest.obey();
    assert!(bond(&guest).fast_path_armed);
    assert_eq!(bond(&guest).problems, []);
}

#[test]
fn an_operator_does_not_wait() {
    let mut guest = guest(MacPolicy::Standby, &[Input::FastPathsLoading]);
    guest.pass(HELD);
    let request = Request::Failback { bond: None };
    guest.feed(Input::Command(Command {
        id: CommandId(1),
        request,
        by_host: false,
    }));
    guest.obey();
    assert_eq!(bond(&guest).traffic, Traffic::Vf);
}

#[test]
fn where_it_cannot_be_armed_it_carries_all_the_same_and_that_is_said() {
    let reason = String::from("the kernel has no type information");
    let missing = [
        Input::SourceHealth {
            source: Source::Ebpf,
            health: SourceHealth::Missing {
                reason: reason.clone(),
            },
            parts: Vec::new(),
        },
        Input::FastPathsLoading,
        Input::FastPathSupported(false),
    ];
    let mut without = guest(MacPolicy::Standby, &missing);
    without.pass(HELD);
    assert_eq!(bond(&without).traffic, Traffic::Vf);
    assert!(not_armed(&without).contains(&reason));

    let mut follows = guest(MacPolicy::Follow, &[Input::FastPathSupported(true)]);
    assert_eq!(MacPolicy::Follow.fail_over_mac(), FailOverMac::Active);
    follows.pass(HELD);
    assert_eq!(bond(&follows).traffic, Traffic::Vf);
    assert!(not_armed(&follows).contains("MAC"));
}

#[test]
fn programs_that_refuse_do_not_keep_the_traffic_away() {
    let mut guest = guest(MacPolicy::Standby, &[Input::FastPathSupported(true)]);
    guest.refuses = true;
    guest.pass(HELD);
    let codes: Vec<_> = bond(&guest).problems.iter().map(|one| one.code).collect();
    assert_eq!(codes, [ProblemCode::SwitchoverUnmeasured]);
    assert_eq!(bond(&guest).traffic, Traffic::Vf);
    assert!(!bond(&guest).fast_path_armed);
}

#[test]
fn what_would_not_run_is_not_called_armed() {
    let mut guest = guest(MacPolicy::Standby, &[Input::FastPathSupported(true)]);
    guest.pass(HELD);
    assert!(bond(&guest).fast_path_armed);
    let tested = |link, way, programs: &[u32]| Input::FastPathTested {
        bond: BOND,
        blocked: Some(Blocked {
            link,
            way,
            programs: programs.to_vec(),
        }),
        passed_over: false,
    };
    let known = bond(&guest).clone();
    guest.feed(tested(BOND, Way::Out, &[41, 42]));
    assert!(!bond(&guest).fast_path_armed);
    let message = not_armed(&guest);
    assert!(
        message.contains("leave bond0") && message.contains("(41, 42)"),
        "{message}"
    );
    guest.feed(tested(STANDBY, Way::In, &[]));
    let message = not_armed(&guest);
    assert!(
        message.contains("receives") && !message.contains('('),
        "{message}"
    );
    guest.obey();
    assert_eq!(bond(&guest).traffic, Traffic::Vf, "it carries all the same");
    guest.feed(Input::FastPathTested {
        bond: BOND,
        blocked: None,
        passed_over: false,
    });
    assert_eq!(bond(&guest), &known);
}

#[test]
fn filters_that_the_fast_path_goes_around_are_told_as_long_as_it_is_armed() {
    let mut guest = guest(MacPolicy::Standby, &[Input::FastPathSupported(true)]);
    guest.pass(HELD);
    let tested = |passed_over| Input::FastPathTested {
        bond: BOND,
        blocked: None,
        passed_over,
    };
    guest.feed(tested(true));
    let told = bond(&guest);
    assert!(told.fast_path_armed, "it would run");
    let codes: Vec<_> = told.problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, [ProblemCode::FiltersPassedOver]);
    assert!(told.problems[0].message.contains("bond0 has filters"));
    guest.feed(tested(false));
    assert_eq!(bond(&guest).problems, []);
}
