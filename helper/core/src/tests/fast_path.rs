mod armed;
mod late;

use alloc::vec::Vec;
use core::time::Duration;

use super::*;
use crate::machine::Machine;
use crate::model::action::{Action, ActionKind};
use crate::model::fast_path::{ArmedVf, FastPath, Frames, PortFrames, Reaction};
use crate::model::input::{Command, Input, Outcome, Request};
use crate::model::output::{Event, Output};
use crate::model::removal::{Removal, RemovalStage};
use crate::model::status::{BondState, Gap, ProblemCode, SwitchoverCause, Traffic};
use crate::model::types::{CommandId, Time};

const NOW: Time = Time(5_000_000);

/// A guest whose kernel does what it is asked at once.
struct Guest {
    machine: Machine,
    links: Vec<Link>,
    now: Time,
    did: Vec<ActionKind>,
    told: Vec<Event>,
    /// What the counters show when they are read.
    frames: Vec<PortFrames>,
    /// The programs can't be attached.
    refuses: bool,
}

impl Guest {
    fn new(supported: bool) -> Self {
        let mut guest = Self {
            machine: Machine::new(NOW),
            links: healthy(),
            now: NOW,
            did: Vec::new(),
            told: Vec::new(),
            frames: Vec::new(),
            refuses: false,
        };
        guest.machine.handle(NOW, Input::Policy(policy()));
        guest
            .machine
            .handle(NOW, Input::FastPathSupported(supported));
        guest.machine.handle(NOW, Input::Links(healthy()));
        let addresses = Vec::from([addressing(BOND, &[[192, 0, 2, 1]])]);
        guest.machine.handle(NOW, Input::Addressings(addresses));
        guest.obey();
        guest
    }

    fn obey(&mut self) {
        while let Some(output) = self.machine.next_output() {
            self.now = Time(self.now.0 + 1_000);
            let Action { id, kind } = match output {
                Output::Act(action) => action,
                Output::Reply { .. } => continue,
                Output::Notify(event) => {
                    self.told.push(event);
                    continue;
                }
            };
            let mut outcome = Outcome::Accepted;
            match &kind {
                ActionKind::Observe { .. } => continue,
                ActionKind::SetPrimary { port, .. } => self.activate(*port),
                ActionKind::SetBondOptions { options, .. } => {
                    let facts = self.links[2].bond.as_mut().unwrap();
                    facts.all_ports_active = options.all_ports_active.unwrap();
                }
                ActionKind::SetFastPath { .. } if self.refuses => {
                    outcome = Outcome::Failed {
                        errno: 1,
                        message: "no".into(),
                    };
                }
                ActionKind::SetFastPath { bond, fast_path } => {
                    let (bond, fast_path) = (*bond, fast_path.clone());
                    self.feed(Input::FastPathSet { bond, fast_path });
                }
                ActionKind::ReadFrames { bond, .. } => {
                    let ports = self.frames.clone();
                    self.feed(Input::FramesCounted { bond: *bond, ports });
                }
                ActionKind::Announce { .. } => {}
                ActionKind::Release { .. } => {
                    self.links[1].controller = None;
                    self.links[1].port = None;
                }
                other => {
                    outcome = Outcome::TimedOut;
                    assert_eq!(None, Some(other), "not expected in these tests");
                }
            }
            self.did.push(kind);
            let links = self.links.clone();
            self.feed(Input::Links(links));
            self.feed(Input::Done {
                action: id,
                outcome,
            });
        }
    }

    fn feed(&mut self, input: Input) {
        self.machine.handle(self.now, input);
    }

    fn activate(&mut self, port: Ifindex) {
        let facts = self.links[2].bond.as_mut().unwrap();
        (facts.active, facts.primary) = (Some(port), Some(port));
        for link in &mut self.links[..2] {
            if let Some(facts) = &mut link.port {
                facts.active = link.ifindex == port;
            }
        }
    }

    /// Lets time go by, deadline for deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now.plus_ms(time.as_millis() as u64);
        while let Some(deadline) = self.machine.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(deadline);
            self.feed(Input::Tick);
            self.obey();
        }
        self.now = self.now.max(end);
    }

    fn prepare(&mut self) {
        let request = Request::PrepareUnplug {
            bond: None,
            vf: None,
        };
        let id = CommandId(1);
        self.feed(Input::Command(Command {
            id,
            request,
            by_host: false,
        }));
        self.obey();
    }

    /// Positions of actions in the order in which they were done.
    fn order(&self, wanted: &dyn Fn(&ActionKind) -> bool) -> Option<usize> {
        self.did.iter().position(wanted)
    }
}

fn armed_vf() -> ArmedVf {
    ArmedVf {
        vf: VF,
        pci: pci(VF, 0),
        slot: Some(pci(VF, 1)),
        standby: STANDBY,
        mac: STANDBY_MAC,
        addresses: Vec::from([[192, 0, 2, 1].into()]),
        upper_devices: 0,
    }
}

fn fast_path(ports: &[Ifindex], period: u64, armed_vf: Option<ArmedVf>) -> ActionKind {
    let fast_path = FastPath {
        ports: ports.to_vec(),
        period,
        mac: Some(STANDBY_MAC),
        armed_vf,
    };
    ActionKind::SetFastPath {
        bond: BOND,
        fast_path,
    }
}

fn frames(count: u64, first_ms: u64, last_ms: u64) -> Frames {
    Frames {
        count,
        first: Some(NOW.plus_ms(first_ms)),
        last: Some(NOW.plus_ms(last_ms)),
    }
}

#[test]
fn without_the_programs_nothing_is_asked_of_them() {
    let mut guest = Guest::new(false);
    guest.prepare();
    guest.pass(Duration::from_secs(5));
    let of_fast_path = |kind: &ActionKind| {
        matches!(
            kind,
            ActionKind::SetFastPath { .. } | ActionKind::ReadFrames { .. }
        )
    };
    assert!(!guest.did.iter().any(of_fast_path), "{:?}", guest.did);
    assert_eq!(guest.machine.status().bonds[0].switchovers[0].gap, None);
}

#[test]
fn programs_that_cannot_be_attached_are_a_problem_and_no_obstacle() {
    let mut guest = Guest::new(true);
    guest.refuses = true;
    guest.prepare();
    guest.pass(Duration::from_secs(5));
    let bond = &guest.machine.status().bonds[0];
    assert_eq!(
        (bond.state, bond.traffic),
        (BondState::Standby, Traffic::Standby)
    );
    let codes: Vec<_> = bond.problems.iter().map(|one| one.code).collect();
    assert_eq!(codes, [ProblemCode::SwitchoverUnmeasured]);
    let release = |kind: &ActionKind| matches!(kind, ActionKind::Release { .. });
    assert!(guest.order(&release).is_some(), "{:?}", guest.did);
}

#[test]
fn a_vf_at_work_is_not_counted_on_and_its_fast_path_is_armed() {
    let guest = Guest::new(true);
    assert_eq!(guest.did, [fast_path(&[STANDBY], 1, Some(armed_vf()))]);
    assert!(guest.machine.status().bonds[0].fast_path_armed);
}

#[test]
fn a_fast_path_is_armed_anew_when_a_vlan_or_macvlan_comes_or_goes() {
    let mut guest = Guest::new(true);
    guest.did.clear();
    let bond = BOND;
    guest.feed(Input::UpperDevices {
        bond,
        fingerprint: 7,
    });
    guest.obey();
    let upper_devices = ArmedVf {
        upper_devices: 7,
        ..armed_vf()
    };
    assert_eq!(guest.did, [fast_path(&[STANDBY], 1, Some(upper_devices))]);
    guest.feed(Input::UpperDevices {
        bond,
        fingerprint: 7,
    });
    guest.obey();
    assert_eq!(guest.did.len(), 1, "the same is no news: {:?}", guest.did);
    guest.feed(Input::UpperDevices {
        bond,
        fingerprint: 0,
    });
    guest.obey();
    assert_eq!(guest.did[1..], [fast_path(&[STANDBY], 1, Some(armed_vf()))]);
}

#[test]
fn a_planned_switchover_is_counted_from_before_the_switch_until_the_old_port_is_quiet() {
    let mut guest = Guest::new(true);
    guest.did.clear();
    guest.frames = Vec::from([
        PortFrames {
            port: VF,
            received: frames(397, 0, 3),
            sent: frames(400, 0, 4),
            late: frames(3, 5, 12),
        },
        PortFrames {
            port: STANDBY,
            received: frames(9, 14, 200),
            sent: frames(9, 7, 200),
            late: Frames::default(),
        },
    ]);
    guest.prepare();
    let at = guest.machine.status().bonds[0].switchovers[0].at;
    guest.pass(Duration::from_secs(5));
    let both = fast_path(&[STANDBY, VF], 1, Some(armed_vf()));
    let counted = guest.order(&|kind| *kind == both).unwrap();
    let switched = guest.order(&|kind| matches!(kind, ActionKind::SetPrimary { .. }));
    let read = guest.order(&|kind| matches!(kind, ActionKind::ReadFrames { .. }));
    let released = guest.order(&|kind| matches!(kind, ActionKind::Release { .. }));
    assert!(Some(counted) < switched && switched < read && read < released);
    let gap = Gap {
        receive_us: Some(2_000),
        transmit_us: Some(3_000),
        late_frames: 3,
        drain_us: Some(NOW.plus_ms(12).since_us(at.min(NOW.plus_ms(5)))),
    };
    let bond = &guest.machine.status().bonds[0];
    assert_eq!(bond.switchovers[0].gap, Some(gap));
    assert!(!bond.fast_path_armed);
    let told = guest.told.iter().any(
        |event| matches!(event, Event::SwitchoverMeasured { switchover, .. } if switchover.gap == Some(gap)),
    );
    assert!(told, "{:?}", guest.told);
    let last = guest
        .did
        .iter()
        .rfind(|kind| matches!(kind, ActionKind::SetFastPath { .. }));
    assert_eq!(
        last,
        Some(&fast_path(&[], 2, None)),
        "nothing stays attached"
    );
}

#[test]
fn a_port_to_which_frames_still_come_is_not_released_before_its_time() {
    let mut guest = Guest::new(true);
    guest.prepare();
    let at = guest.machine.status().bonds[0].switchovers[0].at;
    for _ in 0..40 {
        let last_ms = guest.now.since_ms(NOW);
        guest.frames = Vec::from([VF, STANDBY].map(|port| PortFrames {
            port,
            received: frames(1, 0, 1),
            sent: frames(1, 0, last_ms),
            late: frames(1, 0, last_ms),
        }));
        guest.pass(Duration::from_millis(40));
    }
    let release = |kind: &ActionKind| matches!(kind, ActionKind::Release { .. });
    assert_eq!(guest.order(&release), None);
    assert!(guest.now.since_ms(at) > 1_500);
    guest.pass(Duration::from_secs(1));
    assert!(guest.order(&release).is_some(), "the wait has a bound");
}

#[test]
fn a_warned_switchover_has_no_time_to_count_first() {
    let mut guest = Guest::new(true);
    guest.did.clear();
    let removal = |stage, at| {
        Input::Removal(Removal {
            stage,
            pci: pci(VF, 0),
            at,
        })
    };
    let warned_at = guest.now;
    guest.feed(removal(RemovalStage::EjectRequested, warned_at));
    guest.feed(Input::Reacted(Reaction {
        bond: BOND,
        announced_us: Some(300),
        requested_us: Some(450),
    }));
    guest.obey();
    let switchover = ActionKind::SetPrimary {
        bond: BOND,
        port: STANDBY,
    };
    assert_eq!(guest.did[0], switchover);
    let counted = fast_path(&[STANDBY, VF], 1, None);
    let counted = guest.order(&|kind| *kind == counted);
    let drained = guest.order(&|kind| matches!(kind, ActionKind::SetBondOptions { .. }));
    assert!(
        drained.is_some() && drained < counted,
        "the fast path delivers late frames until the bond does: {:?}",
        guest.did
    );
    // The link is unregistered, and closed once the driver has stopped.
    guest.feed(removal(RemovalStage::DriverStopping, warned_at.plus_ms(4)));
    guest.feed(removal(
        RemovalStage::DriverStopping,
        warned_at.plus_ms(400),
    ));
    guest.frames = Vec::from([PortFrames {
        port: STANDBY,
        received: frames(9, 14, 200),
        sent: Frames::default(),
        late: Frames::default(),
    }]);
    let first = guest.frames[0].received.first.unwrap();
    guest.pass(Duration::from_secs(5));
    let switchover = &guest.machine.status().bonds[0].switchovers[0];
    assert_eq!(switchover.cause, SwitchoverCause::Warned);
    assert_eq!(switchover.reaction_us, Some(450));
    assert_eq!(switchover.lead_us, Some(4_000));
    let gap = switchover.gap.unwrap();
    let expected = Some(first.since_us(warned_at));
    assert_eq!(
        gap.receive_us, expected,
        "from the warning on the VF has nothing"
    );
    assert_eq!(gap.transmit_us, None, "nothing was sent");
}

/// A switchover because the VF lost its carrier, of which the kernel tells before the switchover is seen, or after.
fn gap_of_lost_carrier(told_before: bool) -> Gap {
    let mut guest = Guest::new(true);
    let lost_at = guest.now;
    let lost = Input::CarrierLost {
        ifindex: VF,
        at: lost_at,
    };
    if told_before {
        guest.feed(lost.clone());
    }
    guest.now = lost_at.plus_ms(2);
    guest.links[1].carrier = false;
    guest.activate(STANDBY);
    let links = guest.links.clone();
    guest.feed(Input::Links(links));
    guest.obey();
    if !told_before {
        guest.feed(lost);
    }
    let lost_ms = lost_at.since_ms(NOW);
    guest.frames = Vec::from([
        PortFrames {
            port: VF,
            received: Frames::default(),
            // What was handed to it without carrier went nowhere.
            sent: frames(9, 0, lost_ms + 2),
            late: Frames::default(),
        },
        PortFrames {
            port: STANDBY,
            received: frames(9, lost_ms + 4, 200),
            sent: frames(9, lost_ms + 3, 200),
            late: Frames::default(),
        },
    ]);
    guest.pass(Duration::from_secs(5));
    let switchover = &guest.machine.status().bonds[0].switchovers[0];
    assert_eq!(switchover.cause, SwitchoverCause::Carrier);
    switchover.gap.unwrap()
}

#[test]
fn a_switchover_after_a_lost_carrier_is_measured_from_that_loss() {
    for told_before in [true, false] {
        let gap = gap_of_lost_carrier(told_before);
        let gaps = (gap.receive_us, gap.transmit_us);
        assert_eq!(
            gaps,
            (Some(4_000), Some(3_000)),
            "told before: {told_before}"
        );
    }
}

/// The gap of a failover by the fast path in which the VF sent its last frame at that time, and the warning's time.
fn gap_of_fast_path(sent_before_ms: Option<u64>) -> (Gap, u64) {
    let mut guest = Guest::new(true);
    let removal = |stage, at| {
        Input::Removal(Removal {
            stage,
            pci: pci(VF, 0),
            at,
        })
    };
    let warned_at = guest.now;
    guest.feed(removal(RemovalStage::EjectRequested, warned_at));
    guest.obey();
    guest.feed(removal(RemovalStage::DriverStopping, warned_at.plus_ms(9)));
    let warned_ms = warned_at.since_ms(NOW);
    let first_ms = warned_ms + 3;
    guest.frames = Vec::from([
        PortFrames {
            port: VF,
            received: frames(2, warned_ms, warned_ms + 2),
            sent: sent_before_ms.map_or_else(Frames::default, |before_ms| {
                frames(7, 0, warned_ms - before_ms)
            }),
            late: Frames::default(),
        },
        PortFrames {
            port: STANDBY,
            received: frames(9, first_ms, 200),
            sent: frames(9, first_ms, 200),
            late: Frames::default(),
        },
    ]);
    guest.pass(Duration::from_secs(5));
    let switchover = &guest.machine.status().bonds[0].switchovers[0];
    let since_warning_us = NOW.plus_ms(first_ms).since_us(warned_at);
    (switchover.gap.unwrap(), since_warning_us)
}

#[test]
fn a_fast_path_is_measured_by_what_the_vf_carried_last() {
    let (gap, since_warning_us) = gap_of_fast_path(Some(1));
    assert_eq!(gap.receive_us, Some(1_000));
    assert_eq!(gap.transmit_us, Some(since_warning_us + 1_000));
}

#[test]
fn a_fast_path_of_a_vf_that_sent_nothing_is_measured_from_its_warning() {
    let (gap, since_warning_us) = gap_of_fast_path(None);
    assert_eq!(gap.transmit_us, Some(since_warning_us));
}
