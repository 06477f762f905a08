//! Whatever arrives, in whatever order: no panic, bounded answers, promises kept.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::machine::{MAX_OPEN_COMMANDS, Machine};
use crate::model::action::{Action, ActionKind};
use crate::model::fast_path::{ArmedVf, Blocked, FastPath, Frames, PortFrames, Reaction, Way};
use crate::model::input::{Command, Input, Outcome, Request};
use crate::model::output::Output;
use crate::model::path::{CountedBy, PathAnswer, PortTraffic};
use crate::model::policy::HostMay;
use crate::model::removal::{Removal, RemovalStage};
use crate::model::source::{Source, SourceHealth};
use crate::model::status::BondStatus;
use crate::model::types::{ActionId, CommandId, Time};

fn index() -> impl Strategy<Value = Ifindex> {
    (1u32..8).prop_map(Ifindex)
}

fn mac() -> impl Strategy<Value = Mac> {
    let other = Mac([0x52, 0x54, 0, 0, 0, 9]);
    select(Vec::from([STANDBY_MAC, VF_MAC, other, Mac::ZERO]))
}

fn link_name() -> impl Strategy<Value = IfName> {
    select(Vec::from(["eth0", "enp2s0", "bond0", "bond1", "ens5"])).prop_map(name)
}

prop_compose! {
    fn bond_facts()(
        mode in select(Vec::from([BondMode::ActiveBackup, BondMode::ActiveBackup, BondMode::Other])),
        active in proptest::option::of(index()),
        primary in proptest::option::of(index()),
        fail_over_mac in select(Vec::from([FailOverMac::None, FailOverMac::Active, FailOverMac::Follow])),
        primary_reselect in select(Vec::from([PrimaryReselect::Always, PrimaryReselect::Failure])),
        all_ports_active: bool,
    ) -> BondFacts {
        BondFacts {
            mode,
            active,
            primary,
            fail_over_mac,
            primary_reselect,
            miimon_ms: 100,
            all_ports_active,
            peer_notifications: 3,
        }
    }
}

prop_compose! {
    fn port_facts()(active: bool, mii_up: bool, permanent_mac in proptest::option::of(mac())) -> PortFacts {
        PortFacts { active, mii_up, link_failures: 0, permanent_mac }
    }
}

fn occupant() -> impl Strategy<Value = Occupant> {
    let device = Occupant::Device {
        name: name("ens5"),
        kind: "vlan".into(),
    };
    select(Vec::from([device, Occupant::Xdp]))
}

prop_compose! {
    fn link()(
        ifindex in index(),
        name in link_name(),
        kind in select(Vec::from([LinkKind::Physical, LinkKind::Physical, LinkKind::Bond, LinkKind::Software])),
        mac_now in proptest::option::of(mac()),
        permanent_mac in proptest::option::of(mac()),
        mtu in select(Vec::from([0, 1500, 9000])),
        max_mtu in select(Vec::from([0, 1500, 9000])),
        (admin_up, carrier) in any::<(bool, bool)>(),
        controller in proptest::option::of(index()),
        occupant in proptest::option::weighted(0.2, occupant()),
        bond in proptest::option::of(bond_facts()),
        port in proptest::option::of(port_facts()),
    ) -> Link {
        Link {
            ifindex,
            name,
            kind,
            mac: mac_now,
            permanent_mac,
            pci: Some(pci(ifindex, 0)),
            pci_parent: Some(pci(ifindex, 1)),
            driver: None,
            mtu,
            max_mtu,
            admin_up,
            carrier,
            controller,
            occupant,
            bond,
            port,
        }
    }
}

fn any_addressing() -> impl Strategy<Value = Addressing> {
    (index(), any::<bool>()).prop_map(|(index, some)| {
        let ips: &[[u8; 4]] = if some { &[[192, 0, 2, 1]] } else { &[] };
        addressing(index, ips)
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Accepted),
        1 => Just(Outcome::Gone),
        1 => Just(Outcome::TimedOut),
        2 => (0i32..120, ".{0,300}").prop_map(|(errno, message)| Outcome::Failed { errno, message }),
    ]
}

fn removal() -> impl Strategy<Value = Removal> {
    let stages = Vec::from([
        RemovalStage::ButtonPressed,
        RemovalStage::ButtonCancelled,
        RemovalStage::EjectRequested,
        RemovalStage::RemovalStarted,
        RemovalStage::DriverStopping,
    ]);
    (select(stages), index(), 0u8..2, 0u64..100_000_000).prop_map(|(stage, index, function, at)| {
        Removal {
            stage,
            pci: pci(index, function),
            at: Time(at),
        }
    })
}

fn request() -> impl Strategy<Value = Request> {
    let bond = proptest::option::of(select(Vec::from([name("bond0"), name("bond1")])));
    (bond, proptest::option::of(mac()), 0..5).prop_map(|(bond, vf, which)| match which {
        0 => Request::Failover { bond },
        1 => Request::Failback { bond },
        2 => Request::PrepareUnplug { bond, vf },
        3 => Request::Resume { bond },
        _ => Request::Announce { bond },
    })
}

prop_compose! {
    fn any_fast_path()(ports in proptest::collection::vec(index(), 0..3), vf in index(), armed: bool) -> FastPath {
        let armed_vf = ArmedVf {
            vf,
            pci: pci(vf, 0),
            slot: None,
            standby: STANDBY,
            mac: STANDBY_MAC,
            addresses: Vec::new(),
            upper_devices: 0,
        };
        FastPath { ports, period: 1, mac: None, armed_vf: armed.then_some(armed_vf) }
    }
}

prop_compose! {
    fn port_frames()(
        port in index(),
        stamps in any::<[Option<u64>; 6]>(),
        count: u64,
    ) -> PortFrames {
        let [received, sent, late] = [0, 2, 4].map(|at| Frames {
            count,
            first: stamps[at].map(Time),
            last: stamps[at + 1].map(Time),
        });
        PortFrames { port, received, sent, late }
    }
}

fn source() -> impl Strategy<Value = Source> {
    select(Vec::from([
        Source::Links,
        Source::Addressing,
        Source::Udev,
        Source::Ebpf,
        Source::Channel,
    ]))
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (any::<[bool; 4]>(), 0u64..3).prop_map(|([follow, adopt, none, two], hold)| {
        let mut policy = policy();
        let bond = &mut policy.bonds[0];
        bond.timing.hold_ms = hold * 1_000;
        bond.timing.health_ms = hold * 1_000;
        if follow {
            bond.mac = crate::model::policy::MacPolicy::Follow;
        }
        if adopt {
            bond.ownership = crate::model::policy::Ownership::Adopt;
        }
        if none {
            bond.addressing = crate::model::policy::AddressingPolicy::None;
        }
        if two {
            let mut second = bond_policy();
            second.name = name("bond1");
            second.standby = by_mac(Mac([0x52, 0x54, 0, 0, 0, 9]));
            second.vfs[0].mac = None;
            second.vfs[0].pci = Some(pci(Ifindex(5), 0));
            policy.bonds.push(second);
        }
        policy
    })
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        1 => any_policy().prop_map(Input::Policy),
        1 => any::<bool>().prop_map(|wrong| Input::FilesRefused(wrong.then(|| "a.toml:1:1".into()))),
        1 => any::<bool>().prop_map(|given| Input::NicsGivenBack(given.then(|| "bond0: it crashed".into()))),
        2 => proptest::collection::vec(link(), 0..6).prop_map(Input::Links),
        6 => link().prop_map(Input::Link),
        2 => Just(healthy()).prop_map(Input::Links),
        2 => index().prop_map(|ifindex| Input::LinkGone { ifindex }),
        1 => proptest::collection::vec(any_addressing(), 0..4).prop_map(Input::Addressings),
        2 => any_addressing().prop_map(Input::Addressing),
        1 => any::<bool>().prop_map(Input::WayOut),
        3 => removal().prop_map(Input::Removal),
        1 => source().prop_map(Input::Lost),
        1 => source().prop_map(|source| Input::SourceHealth {
            source,
            health: SourceHealth::Missing { reason: String::from("none") },
            parts: Vec::new(),
        }),
        4 => (0u64..40, request(), any::<bool>()).prop_map(|(id, request, by_host)| {
            let id = CommandId(id);
            Input::Command(Command { id, request, by_host })
        }),
        1 => prop_oneof![Just(HostMay::None), Just(HostMay::Commands), Just(HostMay::Bonds)].prop_map(Input::HostMay),
        1 => any::<bool>().prop_map(Input::FastPathSupported),
        1 => Just(Input::FastPathsLoading),
        1 => (index(), 0u64..3).prop_map(|(bond, fingerprint)| Input::UpperDevices { bond, fingerprint }),
        2 => (index(), any_fast_path()).prop_map(|(bond, fast_path)| Input::FastPathSet { bond, fast_path }),
        1 => (index(), any::<bool>()).prop_map(|(bond, through)| {
            let blocked = Blocked { link: bond, way: Way::In, programs: Vec::from([41]) };
            Input::FastPathTested { bond, blocked: (!through).then_some(blocked), passed_over: through }
        }),
        1 => (index(), proptest::collection::vec(port_frames(), 0..4))
            .prop_map(|(bond, ports)| Input::FramesCounted { bond, ports }),
        1 => (index(), 0u64..9_000_000)
            .prop_map(|(ifindex, at)| Input::CarrierLost { ifindex, at: Time(at) }),
        1 => (index(), any::<u64>()).prop_map(|(port, sent)| {
            let counted_by = CountedBy::Driver;
            Input::PortTraffic(PortTraffic { port, sent, counted_by, passed_at: None })
        }),
        1 => index().prop_map(|link| Input::ChainsChanged { link }),
        1 => (index(), index(), 0usize..5).prop_map(|(bond, port, which)| {
            let neighbour = [192, 0, 2, 1].into();
            let answers = [
                PathAnswer::Answered,
                PathAnswer::Lost { neighbour },
                PathAnswer::Astray { neighbour },
                PathAnswer::Silent,
                PathAnswer::NobodyKnown,
            ];
            Input::PathAsked { bond, port, answer: answers[which] }
        }),
        1 => (index(), proptest::option::of(0u64..9)).prop_map(|(bond, us)| {
            Input::Reacted(Reaction { bond, announced_us: us, requested_us: us })
        }),
        1 => Just(Input::ClockJump { forward_ms: 1 }),
        1 => (0u64..50, outcome()).prop_map(|(id, outcome)| Input::Done {
            action: ActionId(id),
            outcome,
        }),
        4 => Just(Input::Tick),
    ]
}

/// Executes what the machine wants by simply saying how it ended.
#[derive(Default)]
struct Shell {
    open_actions: BTreeMap<ActionId, ActionKind>,
    open_commands: BTreeMap<u64, u32>,
}

impl Shell {
    fn fetch(&mut self, machine: &mut Machine) -> usize {
        let mut fetched = 0;
        while let Some(output) = machine.next_output() {
            fetched += 1;
            match output {
                Output::Reply { command, .. } => {
                    let asked = self.open_commands.get_mut(&command.0);
                    let left = asked.expect("a reply to a command that is not open");
                    *left -= 1;
                }
                Output::Notify(_) => {}
                Output::Act(Action { id, kind }) => {
                    let before = self.open_actions.insert(id, kind);
                    assert_eq!(before, None, "an identity was used twice");
                }
            }
        }
        fetched
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_the_machine(
        steps in proptest::collection::vec((input(), 0u64..3_000, proptest::option::of(outcome())), 1..60)
    ) {
        let mut now = Time(1_000_000);
        let mut machine = Machine::new(now);
        let mut twin = Machine::new(now);
        let mut shell = Shell::default();
        machine.handle(now, Input::Policy(policy()));
        twin.handle(now, Input::Policy(policy()));
        shell.fetch(&mut machine);
        for (input, pause_ms, outcome) in steps {
            now = now.plus_ms(pause_ms);
            if let Input::Command(command) = &input {
                // One that is open already counts as a repetition.
                let open = shell.open_commands.entry(command.id.0).or_default();
                if *open > 0 {
                    continue;
                }
                *open = 1;
            }
            let done = outcome.and_then(|outcome| {
                let (action, _) = shell.open_actions.pop_first()?;
                Some(Input::Done { action, outcome })
            });
            for input in core::iter::once(input).chain(done) {
                machine.handle(now, input.clone());
                twin.handle(now, input);
                prop_assert!(shell.fetch(&mut machine) <= 256);
                let deadline = machine.next_deadline();
                prop_assert!(deadline.is_none_or(|at| at > now), "{deadline:?} at {now:?}");
                prop_assert_eq!(machine.status(), twin.status(), "not a function of its inputs");
            }
            let status = machine.status();
            for bond in &status.bonds {
                prop_assert!(bond.switchovers.len() <= BondStatus::MAX_SWITCHOVERS);
                prop_assert!(bond.problems.len() <= 64);
            }
            let open: u32 = shell.open_commands.values().sum();
            prop_assert!(open as usize <= MAX_OPEN_COMMANDS);
        }
        // Every command ends, whatever else happens.
        let limit_ms = Timing::default().command_timeout_ms;
        machine.handle(now.plus_ms(limit_ms), Input::Tick);
        shell.fetch(&mut machine);
        prop_assert!(shell.open_commands.values().all(|open| *open == 0));
    }

    #[test]
    fn a_repeated_observation_wants_nothing_new(
        links in proptest::collection::vec(link(), 0..7),
        addressings in proptest::collection::vec(any_addressing(), 0..4),
        again in link(),
    ) {
        let now = Time(1_000_000);
        let mut machine = Machine::new(now);
        machine.handle(now, Input::Policy(policy()));
        machine.handle(now, Input::Addressings(addressings.clone()));
        machine.handle(now, Input::Links(links));
        machine.handle(now, Input::Link(again.clone()));
        let mut shell = Shell::default();
        shell.fetch(&mut machine);
        let status = machine.status().clone();
        machine.handle(now, Input::Link(again));
        machine.handle(now, Input::Addressings(addressings));
        prop_assert_eq!(shell.fetch(&mut machine), 0);
        prop_assert_eq!(machine.status(), &status);
    }
}
