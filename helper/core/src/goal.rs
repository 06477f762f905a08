//! Which port should carry the traffic now.

use crate::input::RemovalStage;
use crate::memory::Memory;
use crate::status::{SwitchoverCause, Traffic};
use crate::types::{Ifindex, Time};
use crate::view::{BondView, Port};
use crate::world::Warning;

/// The port that should carry the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) port: Ifindex,
    /// Why the traffic has to move there, if it has to.
    pub(crate) cause: SwitchoverCause,
    /// There is no time for preparations: the other port is lost, or about to be.
    pub(crate) urgent: bool,
}

/// The best usable port; `None` while none is usable.
pub(crate) fn goal(view: &BondView<'_>, memory: &Memory, now: Time) -> Option<Goal> {
    let port = best(view, memory, now)?;
    let from = memory.traffic.last_port();
    let to = view.traffic_of(Some(port));
    let from_port = from.and_then(|from| view.port(from));
    let cause = match from {
        None => SwitchoverCause::Arrival,
        Some(_) if to == Traffic::Vf && memory.commands.failing_back() => SwitchoverCause::Operator,
        Some(from) => memory.guess_cause(view, from, to),
    };
    let leaving = from_port.and_then(|port| port.warning);
    Some(Goal {
        port,
        cause,
        urgent: view.active().is_none()
            || from_port.is_none_or(|port| !port.usable)
            || leaving.is_some_and(Warning::is_close),
    })
}

fn best(view: &BondView<'_>, memory: &Memory, now: Time) -> Option<Ifindex> {
    let stays = |port: &&Port<'_>| port.usable && !memory.is_leaving(port);
    let standby = view.standby.as_ref().filter(stays);
    let allowed = |vf: &&Port<'_>| stays(vf) && !memory.operator_hold;
    let ready = |vf: &&Port<'_>| {
        let checked = memory.vfs.path_is_checked(view.policy, vf);
        vf.active || standby.is_none() || (checked && has_held(view, memory, vf, now))
    };
    let chosen = view.vf().filter(allowed).filter(ready);
    let present = view.vfs.iter().find(|vf| vf.active && allowed(vf));
    let any_vf = view.vfs.iter().find(stays);
    let leaving = view
        .standby
        .iter()
        .chain(&view.vfs)
        .find(|port| port.usable);
    let best = chosen.or(present).or(standby).or(any_vf).or(leaving);
    best.map(Port::ifindex)
}

/// The VF whose path is to be checked, and the port that its frames have to reach.
pub(crate) fn to_check<'a>(
    view: &'a BondView<'_>,
    memory: &Memory,
    now: Time,
) -> Option<(&'a Port<'a>, &'a Port<'a>)> {
    let stays = |port: &&Port<'_>| port.enslaved && port.usable && !memory.is_leaving(port);
    let standby = view.standby.as_ref().filter(stays)?;
    let vf = view.vf().filter(stays)?;
    let waits = !vf.active && !memory.operator_hold && view.active().is_some();
    let due = has_held(view, memory, vf, now) && !memory.vfs.path_is_checked(view.policy, vf);
    (waits && due).then_some((vf, standby))
}

/// The VF had its carrier for long enough, or an operator does not want to wait for that.
fn has_held(view: &BondView<'_>, memory: &Memory, vf: &Port<'_>, now: Time) -> bool {
    memory.commands.failing_back() || memory.vfs.carrier_has_held(view.policy, vf, now)
}

impl Warning {
    /// The removal has begun; only milliseconds are left.
    fn is_close(&self) -> bool {
        self.last > RemovalStage::ButtonCancelled
    }
}
