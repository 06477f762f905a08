//! Two VFs in one bond: one carries the traffic, the other is its backup before the standby.

use alloc::string::String;
use alloc::vec::Vec;

use super::*;
use crate::machine::Machine;
use crate::model::action::{ActionKind, Asking};
use crate::model::input::{Command, Hold, Input, Outcome, Request};
use crate::model::output::{CommandErrorCode, Output};
use crate::model::policy::PathCheck;
use crate::model::removal::{Removal, RemovalStage};
use crate::model::status::{Held, Traffic};
use crate::model::types::{ActionId, CommandId, Time};

const START: Time = Time(5_000_000);
/// Longer than any VF has to hold its carrier.
const SETTLED: Time = Time(60_000_000);
const SECOND: Ifindex = Ifindex(6);
const SECOND_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 3]);

fn two_vf_policy(path_check: PathCheck) -> Policy {
    let mut policy = policy();
    policy.bonds[0].vfs.push(by_mac(SECOND_MAC));
    policy.bonds[0].path_check = path_check;
    policy
}

/// Both VFs in the bond, and that port active.
fn links(active: Ifindex) -> Vec<Link> {
    let ports = [
        (STANDBY, "eth0", STANDBY_MAC),
        (VF, "vf1", VF_MAC),
        (SECOND, "vf2", SECOND_MAC),
    ];
    let ports = ports.map(|(index, text, mac)| port(nic(index, text, mac), index == active));
    ports.into_iter().chain([bond(Some(active))]).collect()
}

fn settled(path_check: PathCheck, links: Vec<Link>) -> Machine {
    let mut machine = Machine::new(START);
    machine.handle(START, Input::Policy(two_vf_policy(path_check)));
    machine.handle(START, Input::Links(links));
    machine.handle(START, Input::Addressings(Vec::new()));
    for action in [ActionId(1), ActionId(2)] {
        let outcome = Outcome::Accepted;
        machine.handle(START, Input::Done { action, outcome });
    }
    outputs(&mut machine);
    machine.handle(SETTLED, Input::Tick);
    machine
}

fn outputs(machine: &mut Machine) -> Vec<Output> {
    core::iter::from_fn(|| machine.next_output()).collect()
}

fn changes(machine: &mut Machine) -> Vec<ActionKind> {
    let kinds = outputs(machine)
        .into_iter()
        .filter_map(|output| match output {
            Output::Act(action) => Some(action.kind),
            Output::Reply { .. } | Output::Notify(_) => None,
        });
    let reads = |kind: &ActionKind| matches!(kind, ActionKind::Observe { .. });
    kinds.filter(|kind| !reads(kind)).collect()
}

fn ask(machine: &mut Machine, id: u64, vf: Option<Mac>) {
    let id = CommandId(id);
    let request = Request::PrepareUnplug { bond: None, vf };
    let by_host = true;
    let command = Command {
        id,
        request,
        by_host,
    };
    machine.handle(SETTLED, Input::Command(command));
}

/// The port that the traffic is on its way to.
fn goal(machine: &Machine) -> String {
    let bond = &machine.status().bonds[0];
    bond.reason.clone()
}

/// The VF and its backups, and why each is not in use.
fn held(machine: &Machine) -> Vec<(Ifindex, Option<Held>)> {
    let bond = &machine.status().bonds[0];
    let vfs = bond.vf.iter().chain(&bond.backup_vfs);
    vfs.map(|vf| (vf.ifindex, vf.held)).collect()
}

#[test]
fn the_one_at_work_is_named_and_the_other_is_its_backup_without_a_problem() {
    for (active, other) in [(VF, SECOND), (SECOND, VF)] {
        let mut machine = settled(PathCheck::None, links(active));
        let bond = &machine.status().bonds[0];
        assert_eq!((bond.traffic, &bond.problems[..]), (Traffic::Vf, &[][..]));
        let shown = [(active, None), (other, Some(Held::Backup))];
        assert_eq!(held(&machine), shown);
        assert_eq!(
            changes(&mut machine),
            [],
            "the policy's first does not take it away"
        );
    }
}

#[test]
fn a_prepare_that_names_a_vf_leaves_the_traffic_to_the_other_one() {
    let mut machine = settled(PathCheck::None, links(VF));
    ask(&mut machine, 1, Some(VF_MAC));
    assert!(
        goal(&machine).contains("moves to vf2"),
        "{}",
        goal(&machine)
    );
}

#[test]
fn a_prepare_that_names_none_moves_the_traffic_to_the_standby() {
    let mut machine = settled(PathCheck::None, links(VF));
    ask(&mut machine, 1, None);
    assert!(
        goal(&machine).contains("moves to eth0"),
        "{}",
        goal(&machine)
    );
    let hold = machine.holds().remove(0);
    let also: Vec<_> = hold.also_prepared.iter().map(|vf| vf.ifindex).collect();
    assert_eq!(
        (hold.prepared.unwrap().ifindex, &also[..]),
        (VF, &[SECOND][..])
    );
}

#[test]
fn a_second_prepare_leaves_the_first_one_valid() {
    let mut machine = settled(PathCheck::None, links(VF));
    ask(&mut machine, 1, Some(VF_MAC));
    outputs(&mut machine);
    ask(&mut machine, 2, Some(SECOND_MAC));
    assert!(
        goal(&machine).contains("moves to eth0"),
        "{}",
        goal(&machine)
    );
    let replies = outputs(&mut machine);
    let replies = replies
        .iter()
        .filter(|one| matches!(one, Output::Reply { .. }));
    assert_eq!(replies.count(), 0, "both go on");
    // Both promises outlive the service.
    let holds = machine.holds();
    let mut next = Machine::new(SETTLED);
    next.handle(SETTLED, Input::Recall(holds.clone()));
    next.handle(SETTLED, Input::Policy(two_vf_policy(PathCheck::None)));
    next.handle(SETTLED, Input::Links(links(STANDBY)));
    assert_eq!(next.holds(), holds);
}

#[test]
fn a_hold_of_an_older_service_names_one_vf() {
    let text = r#"{"bond":"bond0","operator":false,"prepared":null,"draining":false}"#;
    let hold: Hold = serde_json::from_str(text).unwrap();
    assert_eq!(hold.also_prepared, []);
}

#[test]
fn without_a_standby_the_other_vf_is_enough_for_a_named_one_only() {
    let without: Vec<_> = links(VF).into_iter().skip(1).collect();
    for (vf, refused) in [(Some(VF_MAC), false), (None, true)] {
        let mut machine = settled(PathCheck::None, without.clone());
        outputs(&mut machine);
        ask(&mut machine, 1, vf);
        let errors: Vec<_> = outputs(&mut machine)
            .into_iter()
            .filter_map(|output| match output {
                Output::Reply { result, .. } => result.err().map(|error| error.code),
                _ => None,
            })
            .collect();
        let expected = refused.then_some(CommandErrorCode::StandbyUnusable);
        assert_eq!(errors, Vec::from_iter(expected));
    }
}

#[test]
fn an_unproved_backup_neither_carries_nor_is_called_ready() {
    let mut machine = settled(PathCheck::Standby, links(VF));
    let shown = [(VF, None), (SECOND, Some(Held::Unchecked))];
    assert_eq!(held(&machine), shown);
    assert_eq!(
        changes(&mut machine),
        [],
        "nor is it asked while the other one works"
    );
    ask(&mut machine, 1, Some(VF_MAC));
    assert!(
        goal(&machine).contains("moves to eth0"),
        "{}",
        goal(&machine)
    );
}

#[test]
fn each_vf_s_path_check_waits_for_itself() {
    let mut machine = settled(PathCheck::Standby, links(STANDBY));
    let mut checks = Vec::new();
    let mut now = SETTLED;
    let end = SETTLED.plus_ms(60_000);
    while now < end {
        for output in outputs(&mut machine) {
            let Output::Act(action) = output else {
                continue;
            };
            let outcome = match action.kind {
                ActionKind::CheckPath { from, .. } => {
                    checks.push((from, now));
                    let message = "no frame".into();
                    Outcome::Failed {
                        errno: 110,
                        message,
                    }
                }
                ActionKind::SetBondOptions { options, .. } => {
                    let mut bond = bond(Some(STANDBY));
                    let facts = bond.bond.as_mut().unwrap();
                    facts.all_ports_active = options.all_ports_active.unwrap();
                    machine.handle(now, Input::Link(bond));
                    Outcome::Accepted
                }
                _ => Outcome::Accepted,
            };
            let action = action.id;
            machine.handle(now, Input::Done { action, outcome });
        }
        now = machine.next_deadline().unwrap_or(end).min(now.plus_ms(500));
        machine.handle(now, Input::Tick);
    }
    for vf in [VF, SECOND] {
        let times = checks.iter().filter(|(from, _)| *from == vf);
        let times: Vec<_> = times.map(|(_, at)| *at).collect();
        assert!((4..=8).contains(&times.len()), "{vf}: {times:?}");
        let waits: Vec<_> = times
            .windows(2)
            .map(|pair| pair[1].since_ms(pair[0]))
            .collect();
        assert!(waits.is_sorted(), "{vf}: {waits:?}");
    }
}

#[test]
fn the_only_addresses_are_saved_from_whichever_vf_has_them() {
    let mut machine = Machine::new(START);
    let mut policy = two_vf_policy(PathCheck::None);
    policy.bonds[0].standby = by_mac(Mac([0x52, 0x54, 0, 0, 0, 9]));
    machine.handle(START, Input::Policy(policy));
    let mut empty = bond(None);
    empty.mac = Some(Mac([0x52, 0x54, 0, 0, 0, 9]));
    let second = Link {
        admin_up: true,
        carrier: true,
        ..nic(SECOND, "vf2", SECOND_MAC)
    };
    let vf = nic(VF, "vf1", VF_MAC);
    machine.handle(START, Input::Links(Vec::from([vf, second, empty])));
    let addresses = addressing(SECOND, &[[192, 0, 2, 1]]);
    machine.handle(START, Input::Addressings(Vec::from([addresses])));
    // The kernel is asked about the VF that is up; then its addresses are moved, and flushed nowhere.
    let mut seen = Vec::new();
    for _ in 0..8 {
        for output in outputs(&mut machine) {
            let Output::Act(action) = output else {
                continue;
            };
            seen.push(action.kind.clone());
            if let ActionKind::MoveAddressing { .. } = action.kind {
                machine.handle(START, Input::Addressing(addressing(SECOND, &[])));
                let addresses = addressing(BOND, &[[192, 0, 2, 1]]);
                machine.handle(START, Input::Addressing(addresses));
            }
            let (action, outcome) = (action.id, Outcome::Accepted);
            machine.handle(START, Input::Done { action, outcome });
        }
    }
    let (from, to) = (SECOND, BOND);
    assert!(
        seen.contains(&ActionKind::MoveAddressing { from, to }),
        "{seen:?}"
    );
    let flush = ActionKind::FlushAddressing { link: SECOND };
    assert!(!seen.contains(&flush), "{seen:?}");
}

#[test]
fn one_mac_for_both_names_neither() {
    let mut policy = two_vf_policy(PathCheck::None);
    policy.bonds[0].standby.mac = Some(Mac([0x52, 0x54, 0, 0, 0, 9]));
    let slot = |index| PortMatch {
        pci: Some(pci(index, 0)),
        ..PortMatch::default()
    };
    policy.bonds[0].vfs = Vec::from([slot(VF), slot(SECOND)]);
    let mut machine = Machine::new(START);
    machine.handle(START, Input::Policy(policy));
    let vf = |index, text| port(nic(index, text, VF_MAC), index == VF);
    let links = Vec::from([vf(VF, "vf1"), vf(SECOND, "vf2"), bond(Some(VF))]);
    machine.handle(START, Input::Links(links));
    machine.handle(START, Input::Addressings(Vec::new()));
    outputs(&mut machine);
    ask(&mut machine, 1, Some(VF_MAC));
    let error = outputs(&mut machine)
        .into_iter()
        .find_map(|output| match output {
            Output::Reply { result, .. } => result.err(),
            _ => None,
        });
    let error = error.unwrap();
    assert_eq!(error.code, CommandErrorCode::UnknownVf);
    assert!(
        error.message.contains("vf1 at") && error.message.contains("vf2 at"),
        "{error}"
    );
    assert_eq!(machine.holds(), []);
}

#[test]
fn the_fast_path_goes_where_the_machine_would() {
    for (path_check, next) in [(PathCheck::None, SECOND), (PathCheck::Standby, STANDBY)] {
        let mut machine = settled(path_check, links(VF));
        machine.handle(SETTLED, Input::FastPathSupported(true));
        let armed = changes(&mut machine)
            .into_iter()
            .find_map(|kind| match kind {
                ActionKind::SetFastPath { fast_path, .. } => fast_path.armed_vf,
                _ => None,
            });
        let armed = armed.unwrap();
        assert_eq!((armed.vf, armed.standby), (VF, next));
        let removal = Removal {
            stage: RemovalStage::EjectRequested,
            pci: pci(VF, 0),
            at: SETTLED,
        };
        machine.handle(SETTLED, Input::Removal(removal));
        let name = match next {
            SECOND => "moves to vf2",
            _ => "moves to eth0",
        };
        assert!(goal(&machine).contains(name), "{}", goal(&machine));
    }
}

#[test]
fn a_backup_is_armed_before_it_takes_over_as_asked() {
    let mut machine = settled(PathCheck::None, links(VF));
    machine.handle(SETTLED, Input::FastPathSupported(true));
    ask(&mut machine, 1, Some(VF_MAC));
    let mut armed = None;
    for _ in 0..8 {
        for kind in carry_out(&mut machine) {
            match kind {
                ActionKind::SetFastPath { fast_path, .. } => armed = fast_path.armed_vf,
                ActionKind::SetPrimary { port, .. } => {
                    let armed = armed.map(|armed| (armed.vf, armed.standby));
                    assert_eq!((port, armed), (SECOND, Some((SECOND, STANDBY))));
                    return;
                }
                _ => {}
            }
        }
    }
    panic!("the traffic was not moved");
}

#[test]
fn a_backup_that_takes_over_at_once_is_on_trial_while_all_ports_deliver() {
    let mut machine = settled(PathCheck::Auto, links(VF));
    outputs(&mut machine);
    // The VF at work is torn away: the kernel has moved the traffic to the other one by then.
    let without: Vec<_> = links(SECOND)
        .into_iter()
        .filter(|link| link.ifindex != VF)
        .collect();
    machine.handle(SETTLED, Input::Links(without));
    let is_trial = |kind: &ActionKind| {
        let wanted = Asking::OnTrial;
        matches!(kind, ActionKind::AskPath { how, port: SECOND, .. } if *how == wanted)
    };
    let delivers = |kind: &ActionKind| {
        let all = Some(true);
        matches!(kind, ActionKind::SetBondOptions { options, .. } if options.all_ports_active == all)
    };
    let mut seen = changes(&mut machine);
    assert!(seen.iter().any(is_trial), "{seen:?}");
    let first = seen.iter().position(|kind| !is_trial(kind));
    let first = first.map(|index| seen.remove(index));
    assert!(first.as_ref().is_some_and(delivers), "{first:?}");
}

/// Does what the machine wants, up to a switchover; gives what that was.
fn carry_out(machine: &mut Machine) -> Vec<ActionKind> {
    let mut kinds = Vec::new();
    for output in outputs(machine) {
        let Output::Act(action) = output else {
            continue;
        };
        match &action.kind {
            ActionKind::SetFastPath { bond, fast_path } => {
                let (bond, fast_path) = (*bond, fast_path.clone());
                machine.handle(SETTLED, Input::FastPathSet { bond, fast_path });
            }
            ActionKind::SetBondOptions { options, .. } => {
                let mut bond = bond(Some(VF));
                let facts = bond.bond.as_mut().unwrap();
                facts.all_ports_active = options.all_ports_active.unwrap();
                machine.handle(SETTLED, Input::Link(bond));
            }
            _ => {}
        }
        kinds.push(action.kind);
        let (action, outcome) = (action.id, Outcome::Accepted);
        machine.handle(SETTLED, Input::Done { action, outcome });
    }
    kinds
}
