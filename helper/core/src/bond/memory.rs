//! What has to be remembered of a bond because the world doesn't show it:
//! timers, promises to the host, and history. Never what a dump can tell.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bond::commands::Commands;
use crate::bond::history::attempts::Attempts;
use crate::bond::history::network::NetworkMemory;
use crate::bond::history::path::PathMemory;
use crate::bond::history::traffic::TrafficMemory;
use crate::bond::history::vfs::VfMemory;
use crate::bond::view::{BondView, Port};
use crate::model::action::ActionKind;
use crate::model::input::{Hold, KnownVf, PreparedVf};
use crate::model::policy::{BondPolicy, Policy};
use crate::model::types::{ActionId, Ifindex, Time};

/// How long a bond may take from its first port to its first traffic before it
/// counts as down, in ms.
const ASSEMBLY_GRACE_MS: u64 = 2_000;

/// How long a port's MTU has to differ from its bond's before it is set, in ms: whoever changes the
/// bond's changes its ports' first, and that is seen one by one.
const MTU_GRACE_MS: u64 = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) in_flight: Option<Executing>,
    pub(crate) attempts: Attempts,
    pub(crate) traffic: TrafficMemory,
    pub(crate) vfs: VfMemory,
    pub(crate) path: PathMemory,
    pub(crate) network: NetworkMemory,
    pub(crate) commands: Commands,
    /// An operator moved the traffic to the standby.
    pub(crate) operator_hold: bool,
    /// The VFs that the host is about to unplug.
    pub(crate) prepared: Vec<PreparedVf>,
    /// VFs whose permanent MAC is no longer their own.
    pub(crate) rewritten: Vec<KnownVf>,
    /// NICs outside that the kernel would make ports of the bond, as it said when it was asked last.
    pub(crate) found_free: BTreeSet<Ifindex>,
    /// Tandem had the bond deliver the frames of all ports.
    pub(crate) draining: bool,
    /// When the bond got its first port while nothing carried traffic yet.
    pub(crate) assembled_at: Option<Time>,
    /// Since when the MTU of a port is another than the bond's.
    pub(crate) mtus_differ_since: Option<Time>,
}

/// The action that the executor is busy with.
#[derive(Debug)]
pub(crate) struct Executing {
    pub(crate) id: ActionId,
    pub(crate) kind: ActionKind,
    pub(crate) issued_at: Time,
    /// What it does, in words.
    pub(crate) text: String,
}

impl Memory {
    /// Takes up a promise from before a restart.
    pub(crate) fn recall(&mut self, hold: &Hold) {
        self.operator_hold = hold.operator;
        let others = hold.also_prepared.iter().copied();
        self.prepared = hold.prepared.into_iter().chain(others).collect();
        self.prepared.truncate(Policy::MAX_VFS);
        self.draining = hold.draining;
        self.rewritten.clone_from(&hold.rewritten);
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

    /// The VFs in the order in which they get the traffic: the policy's, those that are held out last. One that has
    /// it, or had it last, goes before others: coming back is no reason to move the traffic.
    pub(crate) fn ranked_vfs<'v, 'a>(&self, view: &'v BondView<'a>) -> Vec<&'v Port<'a>> {
        let mut vfs: Vec<_> = view.vfs.iter().collect();
        let had_it = |vf: &Port<'_>| self.vfs.carried_last() == Some(vf.ifindex());
        vfs.sort_by_key(|vf| (self.is_held_out(view, vf), !vf.active, !had_it(vf)));
        vfs
    }

    /// This VF is not to be used now, whatever its carrier.
    fn is_held_out(&self, view: &BondView<'_>, vf: &Port<'_>) -> bool {
        let silent = vf.enslaved && !vf.usable;
        let too_small = view.bond().is_some_and(|bond| !vf.takes_mtu(bond.link.mtu));
        let unfit = vf.is_occupied() || too_small || self.is_refused(view, vf);
        // What kept it out once says nothing of one that is in.
        self.is_leaving(vf) || !vf.enslaved && unfit || silent
    }

    /// The bond could not take this NIC in when it was last tried, or would not have got it.
    pub(crate) fn is_refused(&self, view: &BondView<'_>, port: &Port<'_>) -> bool {
        let failed = |kind: &ActionKind| self.attempts.failure(kind).is_some();
        view.bond()
            .is_some_and(|bond| failed(&bond.enslave(port)) || failed(&bond.check_free(port)))
    }

    /// Nothing else has the frames of this NIC, as far as can be known without touching it. One that is down
    /// has none.
    pub(crate) fn is_found_free(&self, port: &Port<'_>) -> bool {
        !port.is_occupied() && (!port.link.admin_up || self.found_free.contains(&port.ifindex()))
    }

    /// The NIC stays outside as it is: something else has its frames.
    pub(crate) fn is_left_alone(&self, view: &BondView<'_>, port: &Port<'_>) -> bool {
        let asked = view.bond().map(|bond| bond.check_free(port));
        port.is_occupied()
            || !port.enslaved && asked.is_some_and(|kind| self.attempts.failure(&kind).is_some())
    }

    /// What was found free counts until the bond has it or it is gone.
    pub(crate) fn forget_found(&mut self, view: &BondView<'_>) {
        let waits = |port: &Port<'_>| !port.enslaved && port.link.admin_up;
        self.found_free
            .retain(|nic| view.port(*nic).is_some_and(waits));
    }

    /// An action failed: what was found free may no longer be so.
    pub(crate) fn doubt_free(&mut self, kind: &ActionKind) {
        if let ActionKind::CheckFree { port, .. } | ActionKind::Enslave { port, .. } = kind {
            self.found_free.remove(port);
        }
    }

    /// This port is about to leave.
    pub(crate) fn is_leaving(&self, port: &Port<'_>) -> bool {
        self.is_prepared(port) || port.warning.is_some()
    }

    /// The host is about to unplug this VF.
    pub(crate) fn is_prepared(&self, port: &Port<'_>) -> bool {
        self.holds(port.ifindex())
    }

    /// A VF of this index is held for its unplug.
    pub(crate) fn holds(&self, vf: Ifindex) -> bool {
        self.prepared.iter().any(|held| held.ifindex == vf)
    }

    /// Moments at which a timer of this memory runs out, past ones included.
    pub(crate) fn deadlines(&self, view: &BondView<'_>) -> Vec<Time> {
        let mut all = Vec::new();
        let held = self.prepared.iter();
        all.extend(held.filter_map(|held| prepared_until(view.policy, held)));
        for port in view.nics() {
            all.extend(port.warning.map(|warning| warning.expires_at(view.policy)));
            all.extend(self.vfs.deadlines(view.policy, port));
        }
        all.extend(self.traffic.deadlines());
        all.extend(self.assembly_grace_until());
        all.extend(self.mtus_due_at());
        all.extend(self.commands.deadline());
        all.extend(view.world.fast_paths_due_at());
        all
    }

    /// The executor was given an action.
    pub(crate) fn start(&mut self, id: ActionId, kind: ActionKind, text: String, now: Time) {
        if let ActionKind::SetPrimary { port, .. } = kind {
            self.traffic.requested(port);
        }
        self.in_flight = Some(Executing {
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
            ActionKind::CheckFree { port, .. } => {
                self.found_free.insert(*port);
            }
            ActionKind::CheckPath { from, .. } => self.vfs.note_path_checked(*from),
            ActionKind::SetBondOptions { options, .. } => {
                self.draining = options.all_ports_active.unwrap_or(self.draining);
            }
            _ => {}
        }
    }
}

/// When a VF that was prepared for its unplug is no longer held.
pub(crate) fn prepared_until(policy: &BondPolicy, held: &PreparedVf) -> Option<Time> {
    let limit_ms = policy.timing.prepared_timeout_ms;
    (limit_ms > 0).then(|| held.since.plus_ms(limit_ms))
}
