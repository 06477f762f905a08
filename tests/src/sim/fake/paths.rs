//! The network behind the NICs: which frames pass, how many flow, and who answers.

use std::net::Ipv4Addr;

use tandem_core::path::{CountedBy, PathAnswer, PortTraffic};
use tandem_core::{Ifindex, Time};

use super::{FakeKernel, Kind};

/// The neighbour that answers.
pub const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Which frames of a NIC pass the network behind its cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Those that it sends.
    pub out: bool,
    /// Those that are sent to it.
    pub back: bool,
    /// The network learns from frames with the bond's MAC that the bond is there; else it leads to the other NIC for ever.
    pub learnt: bool,
    /// Its host lets it send with no MAC but the bond's.
    pub guarded: bool,
}

impl Path {
    /// A path that works.
    pub const WHOLE: Self = Self {
        out: true,
        back: true,
        learnt: true,
        guarded: false,
    };

    /// Frames pass in both directions.
    pub fn is_whole(self) -> bool {
        self.out && self.back && self.learnt
    }
}

/// What flows through the ports that carry traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Frames that each bond sends, a second.
    pub sent_per_s: u64,
    /// There is a neighbour that answers whoever asks.
    pub has_neighbour: bool,
}

impl Flow {
    /// Nobody sends anything, and a neighbour would answer.
    pub const IDLE: Self = Self {
        sent_per_s: 0,
        has_neighbour: true,
    };
}

impl FakeKernel {
    /// Which frames of a NIC pass from now on.
    pub fn set_path(&mut self, nic: Ifindex, path: Path) {
        if let Some(Kind::Nic(nic)) = self.devices.get_mut(&nic).map(|one| &mut one.kind) {
            nic.path_changed |= nic.path != path;
            nic.path = path;
        }
    }

    /// The path of this NIC has been dead ever since it was plugged in.
    pub fn was_always_cut_off(&self, nic: Ifindex) -> bool {
        match self.devices.get(&nic).map(|one| &one.kind) {
            Some(Kind::Nic(nic)) => nic.spec.is_cut_off && !nic.path_changed,
            _ => false,
        }
    }

    /// Which frames of a NIC pass.
    pub fn path(&self, nic: Ifindex) -> Option<Path> {
        match &self.devices.get(&nic)?.kind {
            Kind::Nic(nic) => Some(nic.path),
            Kind::Bond(_) | Kind::Software => None,
        }
    }

    /// A frame that one of these NICs sends arrives at the other.
    pub fn frames_pass(&self, from: Ifindex, to: Ifindex) -> bool {
        let out = self.path_of_open(from).is_some_and(|path| path.out);
        out && self.path_of_open(to).is_some_and(|path| path.back)
    }

    /// Whoever is asked through this NIC can answer.
    pub fn reaches_others(&self, nic: Ifindex) -> bool {
        self.path_of_open(nic).is_some_and(Path::is_whole)
    }

    fn path_of_open(&self, nic: Ifindex) -> Option<Path> {
        let (_, cable) = self.nic(nic)?;
        let open = self.dump_link(nic)?.admin_up;
        self.path(nic).filter(|_| cable && open)
    }

    /// What can be seen of a VF before it gets the traffic from the port that answers go to meanwhile.
    pub(super) fn shows_no_fault(&self, vf: Ifindex, standby: Ifindex) -> bool {
        let Some(path) = self.path_of_open(vf) else {
            return false;
        };
        let nobody_answers = !self.flow.has_neighbour || !self.reaches_others(standby);
        let answers_somebody_else = path.out && path.back && !path.guarded;
        // What it asks as the bond is answered somewhere.
        nobody_answers || answers_somebody_else || path.guarded && path.out
    }

    /// What comes of asking through one port and then another; on trial both are looked at.
    pub fn ask(&self, port: Ifindex, other: Ifindex, trial: bool) -> PathAnswer {
        let neighbour = NEIGHBOUR.into();
        let astray = trial
            && self
                .path_of_open(port)
                .is_some_and(|path| path.out && !path.learnt)
            && self.path_of_open(other).is_some_and(|path| path.back);
        if !self.flow.has_neighbour {
            PathAnswer::NobodyKnown
        } else if astray {
            PathAnswer::Astray { neighbour }
        } else if self.reaches_others(port) || self.is_heard_by_backup(other, port) {
            PathAnswer::Answered
        } else if self.reaches_others(other) {
            PathAnswer::Lost { neighbour }
        } else {
            PathAnswer::Silent
        }
    }

    /// A backup hears what the port that carries the traffic sends, which at least shows that it is not deaf.
    fn is_heard_by_backup(&self, active: Ifindex, port: Ifindex) -> bool {
        let link = self.dump_link(active);
        let is_active = link
            .and_then(|link| link.port)
            .is_some_and(|port| port.active);
        is_active && self.frames_pass(active, port)
    }

    /// How many frames a port has sent, as its driver counts.
    pub fn traffic(&self, port: Ifindex) -> Option<PortTraffic> {
        let Kind::Nic(nic) = &self.devices.get(&port)?.kind else {
            return None;
        };
        Some(PortTraffic {
            port,
            sent: nic.sent_millionths / 1_000_000,
            counted_by: CountedBy::Driver,
            passed_at: None,
        })
    }

    /// Counts what flows until then.
    pub(super) fn count_frames(&mut self, until: Time) {
        let us = until.since_us(self.now);
        let sent = us * self.flow.sent_per_s;
        let active: Vec<_> = self
            .devices
            .values()
            .filter_map(|device| match &device.kind {
                Kind::Bond(bond) => bond.active,
                Kind::Nic(_) | Kind::Software => None,
            })
            .collect();
        for port in active {
            if let Some(Kind::Nic(nic)) = self.devices.get_mut(&port).map(|one| &mut one.kind) {
                nic.sent_millionths += sent;
            }
        }
    }
}
