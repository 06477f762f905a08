//! NICs on which something lies are left alone.

use alloc::vec::Vec;

use super::*;
use crate::machine::Machine;
use crate::model::action::{Action, ActionKind};
use crate::model::input::{Input, Outcome};
use crate::model::output::Output;
use crate::model::source::Source;
use crate::model::status::{BondState, Held, ProblemCode, Traffic};
use crate::model::types::{ActionId, Time};

const NOW: Time = Time(5_000_000);
const BUSY: i32 = 16;

fn vlan() -> Option<Occupant> {
    Some(Occupant::Device {
        name: name("v100"),
        kind: "vlan".into(),
    })
}

/// The standby as it carries the guest's traffic without a bond.
fn standby(occupant: Option<Occupant>) -> Link {
    Link {
        admin_up: true,
        carrier: true,
        occupant,
        ..nic(STANDBY, "eth0", STANDBY_MAC)
    }
}

fn empty_bond() -> Link {
    bond(None)
}

fn started(policy: Policy, links: Vec<Link>) -> Machine {
    let mut machine = Machine::new(NOW);
    machine.handle(NOW, Input::Policy(policy));
    machine.handle(NOW, Input::Links(links));
    let addresses = addressing(STANDBY, &[[192, 0, 2, 1]]);
    machine.handle(NOW, Input::Addressings(Vec::from([addresses])));
    for action in [ActionId(1), ActionId(2)] {
        let outcome = Outcome::Accepted;
        machine.handle(NOW, Input::Done { action, outcome });
    }
    machine
}

fn changes(machine: &mut Machine) -> Vec<Action> {
    let outputs = core::iter::from_fn(|| machine.next_output());
    let actions = outputs.filter_map(|output| match output {
        Output::Act(action) => Some(action),
        Output::Reply { .. } | Output::Notify(_) => None,
    });
    let reads = |action: &Action| matches!(action.kind, ActionKind::Observe { .. });
    actions.filter(|action| !reads(action)).collect()
}

fn kinds(machine: &mut Machine) -> Vec<ActionKind> {
    let actions = changes(machine).into_iter();
    actions.map(|action| action.kind).collect()
}

fn problems(machine: &Machine) -> Vec<ProblemCode> {
    let problems = machine.status().bonds[0].problems.iter();
    problems.map(|problem| problem.code).collect()
}

#[test]
fn a_standby_below_a_vlan_is_left_alone_and_the_status_says_who_carries_the_traffic() {
    for with_vf in [false, true] {
        let mut links = Vec::from([standby(vlan())]);
        links.extend(with_vf.then(|| nic(VF, "enp2s0", VF_MAC)));
        let mut machine = started(policy(), links);
        assert_eq!(kinds(&mut machine), [], "with a VF: {with_vf}");
        let bond = &machine.status().bonds[0];
        assert_eq!(
            (bond.state, bond.traffic),
            (BondState::Blocked, Traffic::None)
        );
        assert!(
            bond.reason.contains("carries its traffic itself"),
            "{}",
            bond.reason
        );
        assert_eq!(bond.standby.as_ref().unwrap().held, Some(Held::InUse));
        assert_eq!(problems(&machine), [ProblemCode::NicInUse]);
        // As soon as it is free.
        machine.handle(NOW, Input::Link(standby(None)));
        let kinds = kinds(&mut machine);
        assert!(
            matches!(kinds[..], [ActionKind::CreateBond { .. }]),
            "{kinds:?}"
        );
        assert_eq!(problems(&machine), []);
    }
}

#[test]
fn a_bond_that_is_there_already_takes_nothing_from_it() {
    for occupant in [vlan(), Some(Occupant::Xdp)] {
        let mut machine = started(policy(), Vec::from([standby(occupant), empty_bond()]));
        assert_eq!(kinds(&mut machine), []);
        let bond = &machine.status().bonds[0];
        assert_eq!(bond.state, BondState::Blocked, "not down: {}", bond.reason);
        assert_eq!(problems(&machine), [ProblemCode::NicInUse]);
    }
}

#[test]
fn the_kernel_is_asked_before_anything_is_moved() {
    let mut machine = started(policy(), Vec::from([standby(None), empty_bond()]));
    let asked = changes(&mut machine);
    let check_free = ActionKind::CheckFree {
        port: STANDBY,
        bond: BOND,
    };
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].kind, check_free);
    let done = |outcome| Input::Done {
        action: asked[0].id,
        outcome,
    };
    let mut free = started(policy(), Vec::from([standby(None), empty_bond()]));
    changes(&mut free);
    free.handle(NOW, done(Outcome::Accepted));
    let (from, to) = (STANDBY, BOND);
    assert_eq!(kinds(&mut free), [ActionKind::MoveAddressing { from, to }]);

    let message = "Device is in use and cannot be enslaved".into();
    let errno = BUSY;
    machine.handle(NOW, done(Outcome::Failed { errno, message }));
    assert_eq!(kinds(&mut machine), []);
    let bond = &machine.status().bonds[0];
    assert_eq!(bond.state, BondState::Blocked);
    assert!(
        bond.reason.contains("carries its traffic itself"),
        "{}",
        bond.reason
    );
    assert_eq!(problems(&machine), [ProblemCode::NicInUse]);
    let later = NOW.plus_ms(1_000);
    machine.handle(later, Input::Tick);
    assert_eq!(
        kinds(&mut machine),
        [check_free],
        "nothing but the question again"
    );
}

#[test]
fn addresses_that_were_moved_before_something_came_go_back() {
    let mut machine = Machine::new(NOW);
    machine.handle(NOW, Input::Policy(policy()));
    let links = Vec::from([standby(vlan()), empty_bond()]);
    machine.handle(NOW, Input::Links(links));
    let addresses = addressing(BOND, &[[192, 0, 2, 1]]);
    machine.handle(NOW, Input::Addressings(Vec::from([addresses])));
    let (from, to) = (BOND, STANDBY);
    assert_eq!(
        kinds(&mut machine),
        [ActionKind::MoveAddressing { from, to }]
    );
}

#[test]
fn a_vf_below_a_vlan_waits_and_the_standby_carries_the_traffic() {
    let vf = Link {
        occupant: vlan(),
        ..nic(VF, "enp2s0", VF_MAC)
    };
    let port = port(nic(STANDBY, "eth0", STANDBY_MAC), true);
    let mut machine = started(policy(), Vec::from([port, vf, bond(Some(STANDBY))]));
    let kinds = kinds(&mut machine);
    let enslaves = |kind: &ActionKind| {
        matches!(
            kind,
            ActionKind::Enslave { .. } | ActionKind::CheckFree { .. }
        )
    };
    assert!(!kinds.iter().any(enslaves), "{kinds:?}");
    let bond = &machine.status().bonds[0];
    assert_eq!(bond.state, BondState::Standby);
    assert_eq!(bond.vf.as_ref().unwrap().held, Some(Held::InUse));
    assert_eq!(problems(&machine), [ProblemCode::NicInUse]);
}

/// Nobody tells of an XDP program that a BPF link held when it goes, as of all else.
#[test]
fn a_nic_with_an_xdp_program_is_looked_at_now_and_then_and_no_other() {
    let look = ActionKind::Observe {
        source: Source::Links,
    };
    let mut looked_at = Vec::new();
    let mut last = None;
    for occupant in [vlan(), Some(Occupant::Xdp)] {
        let mut machine = started(policy(), Vec::from([standby(occupant)]));
        kinds(&mut machine);
        while let Some(now) = machine
            .next_deadline()
            .filter(|at| *at <= NOW.plus_ms(90_000))
        {
            machine.handle(now, Input::Tick);
            while let Some(output) = machine.next_output() {
                if let Output::Act(Action { id: action, kind }) = output {
                    assert_eq!(kind, look);
                    looked_at.push(now);
                    let outcome = Outcome::Accepted;
                    machine.handle(now, Input::Done { action, outcome });
                }
            }
        }
        last = Some(machine);
    }
    assert_eq!(
        looked_at,
        [30_000, 60_000, 90_000].map(|ms| NOW.plus_ms(ms))
    );
    let mut machine = last.unwrap();
    let now = NOW.plus_ms(90_000);
    machine.handle(now, Input::Links(Vec::from([standby(None)])));
    let kinds = kinds(&mut machine);
    assert!(
        matches!(kinds[..], [ActionKind::CreateBond { .. }]),
        "{kinds:?}"
    );
}

#[test]
fn what_lies_on_a_port_is_told_and_the_bond_s_own_xdp_program_is_not() {
    for (occupant, told) in [(vlan(), true), (Some(Occupant::Xdp), false)] {
        let mut links = healthy();
        links[0].occupant = occupant;
        let machine = started(policy(), links);
        assert_eq!(machine.status().bonds[0].state, BondState::Accelerated);
        assert_eq!(problems(&machine).contains(&ProblemCode::NicInUse), told);
    }
}
