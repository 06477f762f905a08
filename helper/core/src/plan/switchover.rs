//! Moving the traffic, before and after.

use alloc::vec::Vec;

use crate::action::{ActionKind, BondOptions};
use crate::goal::{goal, to_check};
use crate::plan::{Context, fast_path};
use crate::policy::Ownership;
use crate::types::Ifindex;
use crate::view::Bond;

/// Moves the traffic to the port that should carry it. A switchover for which there
/// is time first has the bond deliver frames that arrive late on the old port, and
/// has them counted.
pub(super) fn switch_over(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let Some(goal) = goal(context.view, context.memory, context.now) else {
        return Vec::new();
    };
    if bond.facts.active == Some(goal.port) {
        return Vec::new();
    }
    let mut actions = Vec::new();
    if !goal.urgent {
        if !bond.facts.all_ports_active {
            actions.push(all_ports_active(bond, true));
        }
        actions.extend(fast_path::set(context, bond));
    }
    actions.push(set_primary(bond, goal.port));
    actions
}

/// Makes the port that carries the traffic the primary too. The kernel remembers
/// a primary by name even after it vanished and moves the traffic at once to a newcomer
/// of that name (`bond_enslave`, `drivers/net/bonding/bond_main.c`, 6.12).
pub(super) fn pin(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let goal = goal(context.view, context.memory, context.now)?;
    let carries = bond.facts.active == Some(goal.port);
    (carries && bond.facts.primary != Some(goal.port)).then(|| set_primary(bond, goal.port))
}

/// Checks the path of the VF. The frames carry the bond's MAC: until the port
/// that carries the traffic sends again, the network may send to the VF, so what
/// arrives there is delivered too.
pub(super) fn check_path(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let Some((path_check, due)) = path_check(context, bond) else {
        return Vec::new();
    };
    let accept = (due && !bond.facts.all_ports_active).then(|| all_ports_active(bond, true));
    accept.into_iter().chain([path_check]).collect()
}

/// The path check that is wanted, and whether it need not wait after a failure.
fn path_check(context: &Context<'_>, bond: &Bond<'_>) -> Option<(ActionKind, bool)> {
    let Context { view, memory, now } = context;
    let (vf, standby) = to_check(view, memory, *now)?;
    let path_check = ActionKind::CheckPath {
        bond: bond.ifindex(),
        from: vf.ifindex(),
        to: standby.ifindex(),
    };
    let due = memory.attempts.next_at(&path_check) <= *now;
    Some((path_check, due))
}

/// Tells the network where the bond is.
pub(super) fn announce(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let due = context.memory.traffic.announce_due(context.now);
    let port = bond.facts.active.filter(|_| due)?;
    let bond = bond.ifindex();
    Some(ActionKind::Announce { bond, port })
}

/// After a switchover for which there was no time to prepare: has the bond deliver
/// what still arrives on the old port, but nothing twice. A fast path that runs does both until
/// the programs have their next order.
pub(super) fn drain(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let left = context.memory.traffic.just_left(context.now);
    let old = left.and_then(|left| context.view.port(left));
    let Some(old) = old.filter(|old| old.usable && !old.active && old.enslaved) else {
        return Vec::new();
    };
    let fast_path = fast_path::set(context, bond).into_iter();
    let accept = (!bond.facts.all_ports_active).then(|| all_ports_active(bond, true));
    if fast_path::is_redirected(context, bond, old) {
        accept.into_iter().chain(fast_path).collect()
    } else {
        fast_path.chain(accept).collect()
    }
}

/// Lets go of a VF that the host is about to unplug, once another port is seen to
/// carry the traffic and late frames had their time. Never takes the last usable port.
pub(super) fn release(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let Context { view, memory, now } = context;
    let vf = view.vfs.iter().find(|vf| memory.is_prepared(vf))?;
    let other = bond.facts.active.and_then(|active| view.port(active))?;
    // Bond and port are reported one after the other; both have to agree.
    let idle = !vf.active && vf.link.port.as_ref().is_some_and(|port| !port.active);
    let safe = other.usable && memory.traffic.is_settled(*now);
    (vf.enslaved && idle && safe).then(|| ActionKind::Release {
        port: vf.ifindex(),
        bond: bond.ifindex(),
    })
}

/// Stops to deliver frames of both ports once the switchover has settled: broadcasts
/// would arrive twice. In an adopted bond only if Tandem asked for them.
pub(super) fn settle(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let ours = match context.view.policy.ownership {
        Ownership::Create => true,
        Ownership::Adopt => context.memory.draining,
    };
    let checking = path_check(context, bond).is_some_and(|(_, due)| due);
    let settled = context.memory.traffic.is_settled(context.now) && !checking;
    (ours && settled && bond.facts.all_ports_active).then(|| all_ports_active(bond, false))
}

/// The VF would join as a backup: the primary is a port that is usable now.
/// Another VF or a foreign port may hold that place as well as the standby.
pub(super) fn joins_as_backup(context: &Context<'_>, bond: &Bond<'_>) -> bool {
    let usable = goal(context.view, context.memory, context.now);
    usable.is_none_or(|goal| bond.facts.primary == Some(goal.port))
}

fn set_primary(bond: &Bond<'_>, port: Ifindex) -> ActionKind {
    let bond = bond.ifindex();
    ActionKind::SetPrimary { bond, port }
}

fn all_ports_active(bond: &Bond<'_>, on: bool) -> ActionKind {
    ActionKind::SetBondOptions {
        bond: bond.ifindex(),
        options: BondOptions {
            all_ports_active: Some(on),
            ..BondOptions::default()
        },
    }
}
