//! A manager that Tandem instructed makes the bond and takes the standby in: only the VF is Tandem's.

use alloc::string::String;
use alloc::vec::Vec;

use super::*;
use crate::machine::Machine;
use crate::model::action::ActionKind;
use crate::model::input::{Input, Outcome};
use crate::model::output::Output;
use crate::model::policy::{AddressingPolicy, Ownership};
use crate::model::types::{ActionId, Time};

const NOW: Time = Time(5_000_000);

/// What the machine does first with these links, reading left out. The standby has an address of its own unless it is
/// a port.
fn done(links: Vec<Link>) -> Vec<ActionKind> {
    let policy = Policy {
        bonds: Vec::from([BondPolicy {
            ownership: Ownership::Adopt,
            addressing: AddressingPolicy::None,
            manager_takes_standby: true,
            ..bond_policy()
        }]),
        ..policy()
    };
    let is_port = links
        .iter()
        .any(|link| link.ifindex == STANDBY && link.controller.is_some());
    let holder = if is_port { BOND } else { STANDBY };
    let mut machine = Machine::new(NOW);
    machine.handle(NOW, Input::Policy(policy));
    machine.handle(NOW, Input::Links(links));
    let addresses = addressing(holder, &[[192, 0, 2, 1]]);
    machine.handle(NOW, Input::Addressings(Vec::from([addresses])));
    // What was read above was asked for by these.
    for action in [ActionId(1), ActionId(2)] {
        let outcome = Outcome::Accepted;
        machine.handle(NOW, Input::Done { action, outcome });
    }
    let outputs = core::iter::from_fn(|| machine.next_output());
    let actions = outputs.filter_map(|output| match output {
        Output::Act(action) => Some(action.kind),
        Output::Reply { .. } | Output::Notify(_) => None,
    });
    actions
        .filter(|kind| !matches!(kind, ActionKind::Observe { .. }))
        .collect()
}

fn standby_of_its_own() -> Link {
    Link {
        admin_up: true,
        carrier: true,
        ..nic(STANDBY, "eth0", STANDBY_MAC)
    }
}

#[test]
fn nothing_is_touched_before_the_manager_has_taken_the_standby_in() {
    let vf = || nic(VF, "enp2s0", VF_MAC);
    assert_eq!(done(Vec::from([standby_of_its_own(), vf()])), []);
    // The bond is there, and the manager still sets its options: with a port in it the kernel would refuse them.
    assert_eq!(
        done(Vec::from([standby_of_its_own(), vf(), bond(None)])),
        []
    );
}

#[test]
fn the_vf_is_taken_in_beside_the_managers_standby() {
    let standby = port(nic(STANDBY, "eth0", STANDBY_MAC), true);
    let links = Vec::from([standby, nic(VF, "enp2s0", VF_MAC), bond(Some(STANDBY))]);
    let taken = |kind: &ActionKind| matches!(kind, ActionKind::Enslave { port, .. } if *port == VF);
    let done = done(links);
    assert!(done.iter().any(taken), "{done:?}");
}

/// What is said while the bond is not there.
fn said(undecided: bool) -> String {
    let policy = Policy {
        bonds: Vec::from([BondPolicy {
            ownership: Ownership::Adopt,
            addressing: AddressingPolicy::None,
            manager_takes_standby: true,
            undecided,
            ..bond_policy()
        }]),
        ..policy()
    };
    let mut machine = Machine::new(NOW);
    machine.handle(NOW, Input::Policy(policy));
    machine.handle(NOW, Input::Links(Vec::from([standby_of_its_own()])));
    machine.status().bonds[0].reason.clone()
}

#[test]
fn a_bond_of_which_nobody_knows_yet_who_makes_it_is_not_said_to_be_a_managers() {
    assert_eq!(said(false), "another manager has not made the bond yet");
    let text = "it is not known yet who makes and configures the bond";
    assert_eq!(said(true), text);
}
