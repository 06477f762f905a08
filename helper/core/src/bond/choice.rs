//! The one choice: who should carry a bond's traffic. It is made once a turn, from the bond's facts and
//! history, and handed to plan and report.

use crate::bond::memory::Memory;
use crate::bond::view::{BondView, Port};
use crate::model::status::{SwitchoverCause, Traffic};
use crate::model::types::{Ifindex, Time};
use crate::world::Warning;

#[derive(Debug)]
pub(crate) struct Choice<'v> {
    /// The VF that the bond has or takes in next.
    pub(crate) vf: Option<&'v Port<'v>>,
    /// The one that would be next.
    pub(crate) other_vf: Option<&'v Port<'v>>,
    /// The best usable port; `None` while none is usable.
    pub(crate) goal: Option<Goal>,
    /// The VF whose path is to be checked, and the port that its frames have to reach.
    pub(crate) to_check: Option<(&'v Port<'v>, &'v Port<'v>)>,
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
        let mut vfs = memory.ranked_vfs(view).into_iter();
        let vf = vfs.next();
        // The VF had its carrier for long enough, or an operator does not want to wait for that.
        let has_held = vf.is_some_and(|vf| {
            memory.commands.failing_back() || memory.vfs.carrier_has_held(view.policy, vf, now)
        });
        let is_proved = vf.is_some_and(|vf| memory.vfs.path_is_checked(view.policy, vf));
        let best = best(view, memory, vf, has_held && is_proved);
        let stays = |port: &&Port<'_>| port.enslaved && port.usable && !memory.is_leaving(port);
        let waits = |vf: &&Port<'_>| {
            !vf.active && !memory.operator_hold && view.active().is_some() && has_held && !is_proved
        };
        let to_check = vf.filter(stays).filter(waits);
        Self {
            vf,
            other_vf: vfs.next(),
            goal: best.map(|port| goal(view, memory, port)),
            to_check: to_check.zip(view.standby.as_ref().filter(stays)),
        }
    }
}

/// The best usable port. The chosen VF takes over from a usable standby only once it `is_ready`.
fn best<'v>(
    view: &'v BondView<'_>,
    memory: &Memory,
    chosen: Option<&'v Port<'v>>,
    is_ready: bool,
) -> Option<&'v Port<'v>> {
    let stays = |port: &&Port<'_>| port.usable && !memory.is_leaving(port);
    let standby = view.standby.as_ref().filter(stays);
    let allowed = |vf: &&Port<'_>| stays(vf) && !memory.operator_hold;
    let chosen = chosen.filter(|vf| vf.active || standby.is_none() || is_ready);
    let present = view.vfs.iter().find(|vf| vf.active && allowed(vf));
    let any_vf = view.vfs.iter().find(stays);
    let leaving = view.nics().find(|port| port.usable);
    chosen
        .filter(allowed)
        .or(present)
        .or(standby)
        .or(any_vf)
        .or(leaving)
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
            || leaving.is_some_and(Warning::is_close),
    }
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
    if to == Traffic::Vf && !failed {
        return SwitchoverCause::Arrival;
    }
    match (port, memory.vfs.gone(from)) {
        (Some(port), _) if memory.is_prepared(port) => SwitchoverCause::Planned,
        (Some(port), _) if port.warning.is_some() => SwitchoverCause::Warned,
        // A device that goes is closed first.
        (Some(port), _) if !port.enslaved || !port.link.admin_up => SwitchoverCause::Abrupt,
        (Some(_), _) if failed => SwitchoverCause::Carrier,
        (Some(_), _) => SwitchoverCause::Operator,
        (None, Some(gone)) if gone.warned_by.is_some() => SwitchoverCause::Warned,
        // The policy no longer knows it.
        (None, _) if view.world.link(from).is_some() => SwitchoverCause::Operator,
        (None, _) => SwitchoverCause::Abrupt,
    }
}
