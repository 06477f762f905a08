//! The one choice: who should carry a bond's traffic. It is made once a turn, from the bond's facts and
//! history, and handed to plan and report.

use alloc::vec::Vec;

use crate::bond::memory::Memory;
use crate::bond::view::{BondView, Port};
use crate::model::status::{SwitchoverCause, Traffic};
use crate::model::types::{Ifindex, Time};
use crate::world::Warning;

#[derive(Debug)]
pub(crate) struct Choice<'v> {
    /// The VFs that the bond has or takes in, one for each entry of the policy that one fits, best first: the first
    /// is the VF, the others are its backups.
    pub(crate) vfs: Vec<&'v Port<'v>>,
    /// Another NIC that fits the same entry as one of them.
    pub(crate) surplus: Option<(&'v Port<'v>, &'v Port<'v>)>,
    /// The best usable port; `None` while none is usable.
    pub(crate) goal: Option<Goal>,
    /// The VF that carries the traffic or is about to get it, and the port that is to take over when it leaves.
    pub(crate) to_arm: Option<(&'v Port<'v>, &'v Port<'v>)>,
    /// The VFs whose path is to be checked, and the port that their frames have to reach.
    pub(crate) to_check: Vec<(&'v Port<'v>, &'v Port<'v>)>,
}

/// The port that should carry the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) port: Ifindex,
    /// Why the traffic has to move there, if it has to.
    pub(crate) cause: SwitchoverCause,
    /// There is no time for preparations: the other port is lost, or about to be.
    pub(crate) urgent: bool,
}

impl<'v> Choice<'v> {
    pub(crate) fn new(view: &'v BondView<'_>, memory: &Memory, now: Time) -> Self {
        let ranked = memory.ranked_vfs(view);
        let mut vfs: Vec<&'v Port<'v>> = Vec::new();
        let mut surplus = None;
        for vf in ranked {
            match vfs.iter().find(|chosen| chosen.entry == vf.entry) {
                None => vfs.push(vf),
                Some(chosen) => surplus = surplus.or(Some((*chosen, vf))),
            }
        }
        let candidates = Candidates {
            view,
            memory,
            vfs: &vfs,
            now,
        };
        let goal = candidates.best().map(|port| goal(view, memory, port));
        let to_arm = candidates.to_arm(goal);
        let to_check = candidates.to_check();
        Self {
            surplus,
            goal,
            to_arm,
            to_check,
            vfs,
        }
    }

    /// The VF that the bond has or takes in next.
    pub(crate) fn vf(&self) -> Option<&'v Port<'v>> {
        self.vfs.first().copied()
    }

    /// It and its backups, best first.
    pub(crate) fn vfs(&self) -> impl Iterator<Item = &'v Port<'v>> {
        self.vfs.iter().copied()
    }
}

/// What is chosen from.
struct Candidates<'v, 'c> {
    view: &'v BondView<'v>,
    memory: &'c Memory,
    vfs: &'c [&'v Port<'v>],
    now: Time,
}

impl<'v> Candidates<'v, '_> {
    /// It is not about to leave, whether its frames pass or not.
    fn is_kept(&self, port: &Port<'_>) -> bool {
        port.enslaved && port.usable && !self.memory.is_leaving(port)
    }

    fn stays(&self, port: &Port<'_>) -> bool {
        let lost = self.memory.vfs.lost_path(port.ifindex()).is_some();
        self.is_kept(port) && !lost
    }

    fn standby(&self) -> Option<&'v Port<'v>> {
        self.view.standby.as_ref().filter(|port| self.stays(port))
    }

    /// The VF had its carrier for long enough, or an operator does not want to wait for that.
    fn has_held(&self, vf: &Port<'_>) -> bool {
        let Memory { commands, vfs, .. } = self.memory;
        commands.failing_back() || vfs.carrier_has_held(self.view.policy, vf, self.now)
    }

    fn is_proved(&self, vf: &Port<'_>) -> bool {
        let standby_carries = self.standby().is_some_and(|port| port.active);
        let vfs = &self.memory.vfs;
        vfs.path_is_checked(self.view.policy, vf, standby_carries)
    }

    /// What acts by itself when the VF is taken can be armed, or is not waited for.
    fn is_armable(&self) -> bool {
        let due = self.view.world.fast_paths_due_at();
        self.memory.commands.failing_back() || due.is_none_or(|due| self.now >= due)
    }

    /// The VF may carry the traffic, and is known to be able to.
    fn is_ready(&self, vf: &Port<'_>) -> bool {
        let held_back = self.memory.operator_hold || !self.is_armable();
        self.is_kept(vf) && !held_back && self.has_held(vf) && self.is_proved(vf)
    }

    /// The best usable port: a VF that carries the traffic keeps it; others take over from a usable standby only
    /// once they are ready.
    fn best(&self) -> Option<&'v Port<'v>> {
        let keeps = |vf: &Port<'_>| vf.active && self.stays(vf) && !self.memory.operator_hold;
        let present = self.view.vfs.iter().find(|vf| keeps(vf));
        let ready = || self.vfs.iter().copied().find(|vf| self.is_ready(vf));
        let any_vf = || self.vfs.iter().copied().find(|vf| self.stays(vf));
        let surplus = || self.view.vfs.iter().find(|vf| self.stays(vf));
        let leaving = || self.view.nics().find(|port| port.usable);
        present
            .or_else(ready)
            .or_else(|| self.standby())
            .or_else(any_vf)
            .or_else(surplus)
            .or_else(leaving)
    }

    /// A VF is armed before it gets the traffic, where there is time for that.
    fn to_arm(&self, goal: Option<Goal>) -> Option<(&'v Port<'v>, &'v Port<'v>)> {
        let vfs = &self.view.vfs;
        let about = goal.filter(|goal| !goal.urgent);
        let about = about.and_then(|goal| vfs.iter().find(|vf| vf.ifindex() == goal.port));
        let vf = about.or_else(|| vfs.iter().find(|vf| vf.active))?;
        let mut others = self
            .vfs
            .iter()
            .copied()
            .filter(|other| other.ifindex() != vf.ifindex());
        let next = others
            .find(|other| self.is_ready(other))
            .or_else(|| self.view.standby.as_ref().filter(|port| port.usable))?;
        Some((vf, next))
    }

    /// Only while the standby carries the traffic: a frame of a VF with the bond's MAC moves it in the network's eyes,
    /// and from there it is led back.
    fn to_check(&self) -> Vec<(&'v Port<'v>, &'v Port<'v>)> {
        let standby = self.standby().filter(|port| port.active);
        let Some(standby) = standby.filter(|_| !self.memory.operator_hold) else {
            return Vec::new();
        };
        let vfs = self.vfs.iter().copied();
        let unproved =
            vfs.filter(|vf| self.is_kept(vf) && self.has_held(vf) && !self.is_proved(vf));
        unproved.map(|vf| (vf, standby)).collect()
    }
}

fn goal(view: &BondView<'_>, memory: &Memory, port: &Port<'_>) -> Goal {
    let port = port.ifindex();
    let from = memory.traffic.last.map(|last| last.port);
    let to = view.traffic_of(Some(port));
    let from_port = from.and_then(|from| view.port(from));
    let cause = match from {
        None => SwitchoverCause::Arrival,
        Some(_) if to == Traffic::Vf && memory.commands.failing_back() => SwitchoverCause::Operator,
        Some(from) => guess_cause(view, memory, from, to),
    };
    let leaving = from_port.and_then(|port| port.warning);
    Goal {
        port,
        cause,
        urgent: view.active().is_none()
            || from_port.is_none_or(|port| !port.usable)
            || from_port.is_some_and(|port| has_lost_its_path(memory, port))
            || leaving.is_some_and(Warning::is_close),
    }
}

fn has_lost_its_path(memory: &Memory, port: &Port<'_>) -> bool {
    memory.vfs.lost_path(port.ifindex()).is_some()
}

/// Why the kernel moved the traffic, or should have.
pub(crate) fn guess_cause(
    view: &BondView<'_>,
    memory: &Memory,
    from: Ifindex,
    to: Traffic,
) -> SwitchoverCause {
    let port = view.port(from);
    let failed = port.is_none_or(|port| !port.usable);
    let leaving = port.is_some_and(|port| memory.is_leaving(port));
    if to == Traffic::Vf && !failed && !leaving {
        return SwitchoverCause::Arrival;
    }
    match (port, memory.vfs.gone(from)) {
        (Some(port), _) if memory.is_prepared(port) => SwitchoverCause::Planned,
        (Some(port), _) if port.warning.is_some() => SwitchoverCause::Warned,
        // A device that goes is closed first.
        (Some(port), _) if !port.enslaved || !port.link.admin_up => SwitchoverCause::Abrupt,
        (Some(_), _) if failed => SwitchoverCause::Carrier,
        (Some(port), _) if has_lost_its_path(memory, port) => SwitchoverCause::PathLost,
        (Some(_), _) => SwitchoverCause::Operator,
        (None, Some(gone)) if gone.warned_by.is_some() => SwitchoverCause::Warned,
        // The policy no longer knows it.
        (None, _) if view.world.link(from).is_some() => SwitchoverCause::Operator,
        (None, _) => SwitchoverCause::Abrupt,
    }
}
