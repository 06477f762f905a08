//! What has to be remembered of a bond because the world doesn't show it:
//! timers, promises to the host, and history. Never what a dump can tell.

pub(crate) mod attempts;
mod measure;
pub(crate) mod traffic;
pub(crate) mod vfs;

use alloc::string::String;
use alloc::vec::Vec;

use crate::action::{ActionId, ActionKind};
use crate::commands::Commands;
use crate::input::{Hold, PreparedVf};
use crate::policy::BondPolicy;
use crate::status::{Event, Held};
use crate::types::{Ifindex, Time};
use crate::view::{Bond, BondView, Port};
use crate::world::Warning;
use attempts::Attempts;
use traffic::TrafficMemory;
use vfs::VfMemory;

/// How long a bond may take from its first port to its first traffic before it
/// counts as down, in ms.
const ASSEMBLY_GRACE_MS: u64 = 2_000;

/// How long a port's MTU has to differ from its bond's before it is set, in ms: whoever changes the
/// bond's changes its ports' first, and that is seen one by one.
const MTU_GRACE_MS: u64 = 1_000;

/// Memory of one bond.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) attempts: Attempts,
    pub(crate) traffic: TrafficMemory,
    pub(crate) vfs: VfMemory,
    pub(crate) commands: Commands,
    /// An operator moved the traffic to the standby.
    pub(crate) operator_hold: bool,
    /// The VF that the host is about to unplug.
    pub(crate) prepared: Option<PreparedVf>,
    /// Tandem had the bond deliver the frames of all ports.
    pub(crate) draining: bool,
    /// When the bond got its first port while nothing carried traffic yet.
    assembled_at: Option<Time>,
    /// Since when the MTU of a port is another than the bond's.
    mtus_differ_since: Option<Time>,
}

/// The action that the executor is busy with.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) id: ActionId,
    pub(crate) kind: ActionKind,
    pub(crate) issued_at: Time,
    /// What it does, in words.
    pub(crate) text: String,
}

impl Memory {
    /// Memory of a bond that starts with a promise from before a restart.
    pub(crate) fn recalling(hold: &Hold) -> Self {
        Self {
            operator_hold: hold.operator,
            prepared: hold.prepared,
            draining: hold.draining,
            ..Self::default()
        }
    }

    /// Learns from the world. Returns what subscribers want to know of it.
    pub(crate) fn update(&mut self, view: &BondView<'_>, now: Time) -> Vec<Event> {
        self.expire_prepared(view, now);
        let mut events = self.vfs.update(view, &mut self.traffic, now);
        self.note_assembly(view, now);
        self.note_mtus(view, now);
        self.note_traffic(view, now, &mut events);
        events
    }

    /// The hold ends when the VF is gone, so that its successor is taken, or when
    /// the host did not come back in time.
    fn expire_prepared(&mut self, view: &BondView<'_>, now: Time) {
        let Some(prepared) = self.prepared else {
            return;
        };
        let present = view.vfs.iter().any(|vf| vf.ifindex() == prepared.ifindex);
        let late = prepared_until(view.policy, &prepared).is_some_and(|end| now >= end);
        let known = view.world.links_known();
        if (known && !present) || (late && !self.commands.preparing()) {
            self.prepared = None;
        }
    }

    fn note_assembly(&mut self, view: &BondView<'_>, now: Time) {
        match view.bond() {
            Some(bond) if bond.facts.active.is_none() && bond.ports > 0 => {
                if self.traffic.never_carried() {
                    self.assembled_at.get_or_insert(now);
                }
            }
            _ => self.assembled_at = None,
        }
    }

    fn note_mtus(&mut self, view: &BondView<'_>, now: Time) {
        let differ = view.bond().is_some_and(|bond| {
            let mut ports = view.standby.iter().chain(view.vf());
            ports.any(|port| port.enslaved && port.link.mtu != bond.link.mtu)
        });
        self.mtus_differ_since = self.mtus_differ_since.or(Some(now)).filter(|_| differ);
    }

    /// When a port that has another MTU than the bond is to get the bond's.
    pub(crate) fn mtus_due_at(&self) -> Option<Time> {
        self.mtus_differ_since
            .map(|since| since.plus_ms(MTU_GRACE_MS))
    }

    /// The end of the time in which a new bond may be without traffic.
    pub(crate) fn assembly_grace_until(&self) -> Option<Time> {
        self.assembled_at.map(|at| at.plus_ms(ASSEMBLY_GRACE_MS))
    }

    /// This VF is not to be used now, whatever its carrier.
    pub(crate) fn is_held_out(&self, bond: Option<Ifindex>, port: &Port<'_>) -> bool {
        let silent = port.enslaved && !port.usable;
        self.is_leaving(port) || self.is_refused(bond, port) || silent
    }

    /// The bond could not take this NIC in when it was last tried.
    pub(crate) fn is_refused(&self, bond: Option<Ifindex>, port: &Port<'_>) -> bool {
        bond.is_some_and(|bond| {
            let port = port.ifindex();
            let enslave = ActionKind::Enslave { port, bond };
            self.attempts.failure(&enslave).is_some()
        })
    }

    /// The bond could not take this NIC in, or would not be able to.
    fn is_unfit(&self, view: &BondView<'_>, port: &Port<'_>) -> bool {
        let bond = view.bond();
        let too_large = bond.is_some_and(|bond| !port.takes_mtu(bond.link.mtu));
        too_large || self.is_refused(bond.map(Bond::ifindex), port)
    }

    /// This port is about to leave.
    pub(crate) fn is_leaving(&self, port: &Port<'_>) -> bool {
        self.is_prepared(port) || port.warning.is_some()
    }

    /// The host is about to unplug this VF.
    pub(crate) fn is_prepared(&self, port: &Port<'_>) -> bool {
        self.prepared
            .is_some_and(|prepared| prepared.ifindex == port.ifindex())
    }

    /// Why a VF that is present is not in use.
    pub(crate) fn held(&self, view: &BondView<'_>, port: &Port<'_>) -> Option<Held> {
        let chosen = view.vf().is_some_and(|vf| vf.ifindex() == port.ifindex());
        if self.is_prepared(port) {
            Some(Held::UnplugPrepared)
        } else if port.warning.is_some() {
            Some(Held::RemovalExpected)
        } else if !port.enslaved && self.is_unfit(view, port) {
            Some(Held::Refused)
        } else if port.enslaved && !port.usable {
            Some(Held::NoCarrier)
        } else if port.active {
            None
        } else if self.operator_hold {
            Some(Held::Operator)
        } else if !chosen {
            Some(Held::NotChosen)
        } else if port.enslaved && self.fails_path_check(view, port) {
            Some(Held::PathBroken)
        } else if port.enslaved {
            Some(Held::Holding)
        } else {
            None
        }
    }

    /// The VF was to show that its frames pass through the network, and they did not.
    fn fails_path_check(&self, view: &BondView<'_>, vf: &Port<'_>) -> bool {
        let ports = view.bond().zip(view.standby.as_ref());
        ports.is_some_and(|(bond, standby)| {
            let path_check = ActionKind::CheckPath {
                bond: bond.ifindex(),
                from: vf.ifindex(),
                to: standby.ifindex(),
            };
            self.attempts.failure(&path_check).is_some()
        })
    }

    /// Moments at which a timer of this memory runs out, past ones included.
    pub(crate) fn deadlines(&self, view: &BondView<'_>) -> Vec<Time> {
        let mut all = Vec::new();
        if let Some(prepared) = &self.prepared {
            all.extend(prepared_until(view.policy, prepared));
        }
        for port in view.standby.iter().chain(&view.vfs) {
            all.extend(port.warning.map(|warning| expiry(view.policy, warning)));
            all.extend(self.vfs.deadlines(view.policy, port));
        }
        all.extend(self.traffic.deadlines());
        all.extend(self.assembly_grace_until());
        all.extend(self.mtus_due_at());
        all.extend(self.commands.deadline());
        all
    }
}

/// When a removal that was announced and did not happen is forgotten.
pub(crate) fn expiry(policy: &BondPolicy, warning: &Warning) -> Time {
    warning.heard_at.plus_ms(policy.timing.removal_timeout_ms)
}

fn prepared_until(policy: &BondPolicy, prepared: &PreparedVf) -> Option<Time> {
    let limit_ms = policy.timing.prepared_timeout_ms;
    (limit_ms > 0).then(|| prepared.since.plus_ms(limit_ms))
}

impl Memory {
    /// The executor was given an action.
    pub(crate) fn start(&mut self, id: ActionId, kind: ActionKind, text: String, now: Time) {
        if let ActionKind::SetPrimary { port, .. } = kind {
            self.traffic.requested(port);
        }
        self.in_flight = Some(InFlight {
            id,
            kind,
            issued_at: now,
            text,
        });
    }

    /// An action took effect.
    pub(crate) fn succeeded(&mut self, kind: &ActionKind, text: &str, now: Time) {
        self.attempts.succeeded(kind, now);
        self.commands.note_step(text);
        match kind {
            ActionKind::Announce { .. } => self.commands.note_announced(),
            ActionKind::CheckPath { from, .. } => self.vfs.note_path_checked(*from),
            ActionKind::SetBondOptions { options, .. } => {
                self.draining = options.all_ports_active.unwrap_or(self.draining);
            }
            _ => {}
        }
    }
}
