use alloc::string::String;
use alloc::vec::Vec;

use super::*;
use crate::machine::{MAX_OPEN_COMMANDS, Machine};
use crate::model::action::{Action, ActionKind};
use crate::model::input::{Command, Hold, Input, Outcome, PreparedVf, Request};
use crate::model::output::{CommandErrorCode, Event, Output};
use crate::model::policy::HostMay;
use crate::model::source::Source;
use crate::model::status::{BondState, Held, ProblemCode, Traffic};
use crate::model::types::{ActionId, CommandId, Time};

const NOW: Time = Time(5_000_000);

fn fetch(machine: &mut Machine) -> Vec<Output> {
    core::iter::from_fn(|| machine.next_output()).collect()
}

fn actions(machine: &mut Machine) -> Vec<Action> {
    let action = |output| match output {
        Output::Act(action) => Some(action),
        Output::Reply { .. } | Output::Notify(_) => None,
    };
    fetch(machine).into_iter().filter_map(action).collect()
}

/// Actions that change something.
fn changes(machine: &mut Machine) -> Vec<ActionKind> {
    let kinds = actions(machine).into_iter().map(|action| action.kind);
    let reads = |kind: &ActionKind| matches!(kind, ActionKind::Observe { .. });
    kinds.filter(|kind| !reads(kind)).collect()
}

fn replies(machine: &mut Machine) -> Vec<(u64, Result<bool, CommandErrorCode>)> {
    let outputs = fetch(machine).into_iter();
    outputs
        .filter_map(|output| match output {
            Output::Reply { command, result } => {
                let result = result
                    .map(|answer| answer.ready)
                    .map_err(|error| error.code);
                Some((command.0, result))
            }
            _ => None,
        })
        .collect()
}

fn started(policy: Policy, links: Vec<Link>) -> Machine {
    let mut machine = Machine::new(NOW);
    machine.handle(NOW, Input::Policy(policy));
    machine.handle(NOW, Input::Links(links));
    machine.handle(NOW, Input::Addressings(Vec::new()));
    for action in [ActionId(1), ActionId(2)] {
        let outcome = Outcome::Accepted;
        machine.handle(NOW, Input::Done { action, outcome });
    }
    machine
}

fn ask(machine: &mut Machine, id: u64, request: Request) {
    let id = CommandId(id);
    machine.handle(
        NOW,
        Input::Command(Command {
            id,
            request,
            by_host: false,
        }),
    );
}

#[test]
fn it_asks_for_what_it_has_to_know() {
    let mut machine = Machine::new(NOW);
    let kinds: Vec<_> = actions(&mut machine)
        .into_iter()
        .map(|one| one.kind)
        .collect();
    let read = |source| ActionKind::Observe { source };
    assert_eq!(kinds, [read(Source::Links), read(Source::Addressing)]);
}

#[test]
fn a_healthy_guest_is_left_as_it_is() {
    let mut machine = started(policy(), healthy());
    assert_eq!(changes(&mut machine), []);
    let bond = &machine.status().bonds[0];
    assert_eq!(
        (bond.state, bond.traffic),
        (BondState::Accelerated, Traffic::Vf)
    );
    assert_eq!(bond.problems, []);
    let day_ms = 86_400_000;
    for hour in 1..24 {
        machine.handle(NOW.plus_ms(hour * day_ms / 24), Input::Tick);
        assert_eq!(changes(&mut machine), []);
    }
}

#[test]
fn a_port_gets_the_bonds_mtu_though_the_bond_cannot_have_the_policys() {
    let mut policy = policy();
    policy.bonds[0].mtu = Some(1450);
    let mut links = healthy();
    for (link, mtu) in links.iter_mut().zip([1280, 1300, 1300]) {
        link.mtu = mtu;
    }
    let mut machine = started(policy, links);
    let later = NOW.plus_ms(2_000);
    let mut tried = Vec::new();
    for now in [NOW, later, later] {
        machine.handle(now, Input::Tick);
        for Action { id, kind } in actions(&mut machine) {
            if let ActionKind::SetMtu { link, mtu } = kind {
                tried.push((link, mtu));
                let outcome = Outcome::Failed {
                    errno: 22,
                    message: "mtu greater than device maximum".into(),
                };
                machine.handle(
                    now,
                    Input::Done {
                        action: id,
                        outcome,
                    },
                );
            }
        }
    }
    assert_eq!(tried, [(BOND, 1450), (BOND, 1450), (STANDBY, 1300)]);
}

#[test]
fn nothing_is_done_before_everything_is_known() {
    let mut machine = Machine::new(NOW);
    machine.handle(NOW, Input::Policy(policy()));
    machine.handle(NOW, Input::Link(nic(STANDBY, "eth0", STANDBY_MAC)));
    assert_eq!(changes(&mut machine), []);
    assert_eq!(machine.status().bonds[0].state, BondState::Waiting);
}

#[test]
fn the_same_status_keeps_its_generation() {
    let mut machine = started(policy(), healthy());
    let generation = machine.status().generation;
    machine.handle(NOW.plus_ms(1), Input::Links(healthy()));
    machine.handle(NOW.plus_ms(2), Input::Tick);
    assert_eq!(machine.status().generation, generation);
    machine.handle(NOW.plus_ms(3), Input::Lost(Source::Links));
    assert_eq!(
        machine.status().generation,
        generation + 1,
        "the loss is counted"
    );
}

#[test]
fn an_action_ends_by_its_own_identity_only() {
    let mut links = healthy();
    links[2].admin_up = false;
    let mut machine = started(policy(), links);
    let up = ActionKind::SetAdminUp {
        link: BOND,
        up: true,
    };
    assert_eq!(changes(&mut machine), [up]);
    for id in [0, 999] {
        let action = ActionId(id);
        let outcome = Outcome::Accepted;
        machine.handle(NOW, Input::Done { action, outcome });
        assert_eq!(changes(&mut machine), []);
    }
}

#[test]
fn an_action_whose_end_is_never_told_is_tried_again() {
    let mut links = healthy();
    links[2].admin_up = false;
    let mut machine = started(policy(), links);
    assert_eq!(changes(&mut machine).len(), 1);
    machine.handle(NOW.plus_ms(29_000), Input::Tick);
    assert_eq!(changes(&mut machine), []);
    machine.handle(NOW.plus_ms(30_000), Input::Tick);
    machine.handle(NOW.plus_ms(31_000), Input::Tick);
    assert_eq!(changes(&mut machine).len(), 1);
}

#[test]
fn a_policy_that_contradicts_itself_changes_nothing() {
    let mut machine = started(policy(), healthy());
    let mut bad = policy();
    bad.bonds[0].vfs.clear();
    machine.handle(NOW, Input::Policy(bad));
    assert_eq!(machine.status().bonds[0].state, BondState::Accelerated);
}

#[test]
fn a_bond_that_leaves_the_policy_is_left_as_it_is() {
    let mut machine = started(policy(), healthy());
    let vf = None;
    ask(&mut machine, 1, Request::PrepareUnplug { bond: None, vf });
    fetch(&mut machine);
    machine.handle(NOW, Input::Policy(Policy::default()));
    let kinds = replies(&mut machine);
    assert_eq!(kinds, [(1, Err(CommandErrorCode::UnknownBond))]);
    assert_eq!(machine.status().bonds, []);
    assert_eq!(changes(&mut machine), []);
}

#[test]
fn commands_name_their_bond_unless_there_is_one() {
    let mut machine = started(Policy::default(), Vec::new());
    ask(&mut machine, 1, Request::Announce { bond: None });
    assert_eq!(
        replies(&mut machine),
        [(1, Err(CommandErrorCode::UnknownBond))]
    );
    let mut two = policy();
    let mut second = bond_policy();
    second.name = name("bond1");
    second.standby = by_mac(Mac([0x52, 0x54, 0, 0, 0, 7]));
    second.vfs = Vec::from([by_mac(Mac([0x52, 0x54, 0, 0, 0, 8]))]);
    two.bonds.push(second);
    let mut machine = started(two, healthy());
    ask(&mut machine, 2, Request::Resume { bond: None });
    let bond = Some(name("bond7"));
    ask(&mut machine, 3, Request::Resume { bond });
    let bond = Some(name("bond0"));
    ask(&mut machine, 4, Request::Resume { bond });
    let expected = [
        (2, Err(CommandErrorCode::BondNotNamed)),
        (3, Err(CommandErrorCode::UnknownBond)),
        (4, Ok(true)),
    ];
    assert_eq!(replies(&mut machine), expected);
}

#[test]
fn what_the_host_may_do_is_the_guest_s_decision() {
    let mut machine = started(policy(), healthy());
    let every = || {
        [
            Request::PrepareUnplug {
                bond: None,
                vf: None,
            },
            Request::Resume { bond: None },
            Request::Announce { bond: None },
            Request::Failover { bond: None },
            Request::Failback { bond: None },
        ]
    };
    for (what, refused) in [
        (HostMay::None, true),
        (HostMay::Commands, false),
        (HostMay::Bonds, false),
        (HostMay::Unknown, true),
    ] {
        machine.handle(NOW, Input::HostMay(what));
        assert_eq!(machine.status().host_may, what);
        for request in every() {
            for by_host in [true, false] {
                let (id, request) = (CommandId(7), request.clone());
                let before = (machine.holds(), machine.status().clone());
                let command = Command {
                    id,
                    request,
                    by_host,
                };
                machine.handle(NOW, Input::Command(command));
                let answers = replies(&mut machine);
                let not_allowed = [(7, Err(CommandErrorCode::NotAllowed))];
                assert_eq!(answers == not_allowed, refused && by_host, "{answers:?}");
                if refused && by_host {
                    assert_eq!((machine.holds(), machine.status().clone()), before);
                }
                // Ends what is open, and forgets what was asked.
                machine.handle(NOW, Input::Policy(Policy::default()));
                machine.handle(NOW, Input::Policy(policy()));
                fetch(&mut machine);
            }
        }
    }
}

#[test]
fn open_commands_are_bounded_and_each_is_answered_once() {
    let mut machine = started(policy(), healthy());
    let many = u64::try_from(MAX_OPEN_COMMANDS).unwrap() + 3;
    for id in 1..=many {
        ask(&mut machine, id, Request::Failover { bond: None });
    }
    ask(&mut machine, 1, Request::Failover { bond: None });
    let busy = replies(&mut machine);
    assert_eq!(busy.len(), 3);
    assert!(
        busy.iter()
            .all(|(_, end)| *end == Err(CommandErrorCode::Busy))
    );
    let end = NOW.plus_ms(Timing::default().command_timeout_ms);
    machine.handle(end, Input::Tick);
    let late = replies(&mut machine);
    assert_eq!(late.len(), MAX_OPEN_COMMANDS);
    assert!(
        late.iter()
            .all(|(_, end)| *end == Err(CommandErrorCode::TimedOut))
    );
    machine.handle(end.plus_ms(60_000), Input::Tick);
    assert_eq!(replies(&mut machine), []);
}

#[test]
fn a_failover_that_is_not_done_in_time_leaves_no_hold() {
    let mut machine = started(policy(), healthy());
    ask(&mut machine, 1, Request::Failover { bond: None });
    assert_eq!(machine.holds().len(), 1);
    let end = NOW.plus_ms(Timing::default().command_timeout_ms);
    machine.handle(end, Input::Tick);
    assert_eq!(machine.holds(), []);
}

#[test]
fn holds_are_kept_over_a_restart() {
    let mut links = healthy();
    links[1] = nic(VF, "enp2s0", VF_MAC);
    links[2] = bond(Some(STANDBY));
    let hold = Hold {
        bond: name("bond0"),
        operator: false,
        prepared: Some(PreparedVf {
            ifindex: VF,
            mac: Some(VF_MAC),
            pci: None,
            since: NOW,
        }),
        also_prepared: Vec::new(),
        draining: false,
        rewritten: Vec::new(),
    };
    let mut machine = Machine::new(NOW);
    machine.handle(NOW, Input::Recall(Vec::from([hold.clone()])));
    machine.handle(NOW, Input::Policy(policy()));
    machine.handle(NOW, Input::Links(links));
    machine.handle(NOW, Input::Addressings(Vec::new()));
    assert_eq!(changes(&mut machine), []);
    assert_eq!(machine.holds(), [hold]);
    let vf = machine.status().bonds[0].vf.as_ref().unwrap();
    assert_eq!(vf.held, Some(Held::UnplugPrepared));
}

#[test]
fn a_prepared_vf_is_known_again_after_a_restart_whatever_its_driver_made_of_its_mac() {
    let mut links = healthy();
    let other = Mac([0x52, 0x54, 0, 0, 0, 9]);
    links[1] = nic(VF, "enp2s0", other);
    links[2] = bond(Some(STANDBY));
    let prepared = PreparedVf {
        ifindex: VF,
        mac: Some(VF_MAC),
        pci: links[1].pci,
        since: NOW,
    };
    let mut hold = Hold {
        bond: name("bond0"),
        operator: false,
        prepared: Some(prepared),
        also_prepared: Vec::new(),
        draining: false,
        rewritten: Vec::new(),
    };
    let held = [Some(Held::UnplugPrepared), None];
    for held in held {
        let mut machine = Machine::new(NOW);
        machine.handle(NOW, Input::Recall(Vec::from([hold])));
        machine.handle(NOW, Input::Policy(policy()));
        machine.handle(NOW, Input::Links(links.clone()));
        let vf = machine.status().bonds[0].vf.as_ref().unwrap();
        assert_eq!((vf.mac, vf.held), (Some(VF_MAC), held));
        // The next one knows it too, be it prepared or not.
        hold = machine.holds().remove(0);
        hold.prepared = None;
    }
}

#[test]
fn sources_that_lose_much_are_read_ever_more_slowly() {
    let mut machine = started(policy(), healthy());
    fetch(&mut machine);
    let mut readings = 0;
    for ms in 0..2_000 {
        let now = NOW.plus_ms(20_000 + ms);
        machine.handle(now, Input::Lost(Source::Links));
        for action in actions(&mut machine) {
            if let ActionKind::Observe { .. } = action.kind {
                readings += 1;
                let action = action.id;
                let outcome = Outcome::Accepted;
                machine.handle(now, Input::Done { action, outcome });
            }
        }
    }
    assert!((2..=8).contains(&readings), "{readings} readings in 2 s");
}

#[test]
fn what_carried_nobody_s_traffic_is_not_announced_at_start() {
    let mut machine = started(policy(), healthy());
    let announces = |kind: &ActionKind| matches!(kind, ActionKind::Announce { .. });
    assert!(!changes(&mut machine).iter().any(announces));
    machine.handle(NOW, Input::ClockJump { forward_ms: 500 });
    assert!(changes(&mut machine).iter().any(announces));
}

/// What is told of problems beyond a single bond after an input: raised ones, codes of cleared ones.
fn told_in_general(machine: &mut Machine, input: Input) -> Vec<Result<String, ProblemCode>> {
    machine.handle(NOW, input);
    let general = fetch(machine)
        .into_iter()
        .filter_map(|output| match output {
            Output::Notify(Event::GeneralProblemRaised { problem }) => Some(Ok(problem.message)),
            Output::Notify(Event::GeneralProblemCleared { code }) => Some(Err(code)),
            _ => None,
        });
    general.collect()
}

#[test]
fn nics_that_were_given_back_are_a_problem_until_they_are_taken_again() {
    let mut machine = started(policy(), Vec::new());
    fetch(&mut machine);
    let why = "bond0: the service fails: signal";
    let raised = told_in_general(&mut machine, Input::NicsGivenBack(Some(why.into())));
    assert!(
        matches!(&raised[..], [Ok(text)] if text.contains(why)),
        "{raised:?}"
    );
    assert_eq!(
        machine.status().problems[0].code,
        ProblemCode::NicsGivenBack
    );
    let cleared = told_in_general(&mut machine, Input::NicsGivenBack(None));
    assert_eq!(cleared, [Err(ProblemCode::NicsGivenBack)]);
    assert!(machine.status().problems.is_empty());
}

#[test]
fn files_that_are_refused_are_a_problem_until_they_are_good() {
    let mut machine = started(policy(), Vec::new());
    fetch(&mut machine);
    let told = |machine: &mut Machine, why: Option<&str>| {
        told_in_general(machine, Input::FilesRefused(why.map(Into::into)))
    };
    let raised = told(&mut machine, Some("a.toml:3:1: unknown field"));
    assert!(
        matches!(&raised[..], [Ok(text)] if text.contains("a.toml:3:1: unknown field")),
        "{raised:?}"
    );
    assert_eq!(machine.status().problems.len(), 1);
    // A policy of the host changes nothing about the files.
    machine.handle(NOW, Input::Policy(policy()));
    assert_eq!(machine.status().problems.len(), 1);
    assert_eq!(told(&mut machine, Some("a.toml:3:1: unknown field")), []);
    let other = told(&mut machine, Some("a.toml:9:1: another"));
    assert!(
        matches!(&other[..], [Ok(text)] if text.contains(":9:1")),
        "{other:?}"
    );
    let code = ProblemCode::ConfigurationRefused;
    assert_eq!(told(&mut machine, None), [Err(code)]);
    assert!(machine.status().problems.is_empty());
}
