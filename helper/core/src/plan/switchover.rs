//! Moving the traffic, before and after.

use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::bond::view::Bond;
use crate::model::action::{ActionKind, BondOptions};
use crate::model::policy::Ownership;
use crate::model::types::Ifindex;
use crate::plan::fast_path;

/// Moves the traffic to the port that should carry it. A switchover for which there
/// is time first has the bond deliver frames that arrive late on the old port, and
/// has them counted.
pub(super) fn switch_over(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let Some(goal) = context.choice.goal else {
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

/// Has the bond deliver what arrives at its other ports while the one that has just got the traffic is on trial, however it
/// got it: the network may still lead to one of them.
pub(super) fn try_out(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let due = context.memory.path.is_on_trial() && !bond.facts.all_ports_active;
    due.then(|| all_ports_active(bond, true))
}

/// Makes the port that carries the traffic the primary too. The kernel remembers
/// a primary by name even after it vanished and moves the traffic at once to a newcomer
/// of that name (`bond_enslave`, `drivers/net/bonding/bond_main.c`, 6.12).
pub(super) fn pin(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let goal = context.choice.goal?;
    let carries = bond.facts.active == Some(goal.port);
    (carries && bond.facts.primary != Some(goal.port)).then(|| set_primary(bond, goal.port))
}

/// Checks the paths of VFs. The frames carry the bond's MAC: until the port
/// that carries the traffic sends again, the network may send to the VF, so what
/// arrives there is delivered too.
pub(super) fn check_path(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let mut path_checks = path_checks(context, bond);
    let any_due = path_checks.iter().any(|kind| is_due(context, kind));
    let accept = (any_due && !bond.facts.all_ports_active).then(|| all_ports_active(bond, true));
    path_checks.splice(..0, accept);
    path_checks
}

/// The path checks that are wanted, one for each VF. All are, as long as they are needed: each has its own past.
fn path_checks(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let ports = context.choice.to_check.iter();
    ports
        .map(|(vf, standby)| {
            bond.check_path(
                vf,
                standby,
                context.memory.vfs.proof(context.view.policy, vf),
            )
        })
        .collect()
}

/// It need not wait after a failure.
fn is_due(context: &Context<'_>, path_check: &ActionKind) -> bool {
    context.memory.attempts.next_at(path_check) <= context.now
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
    let Context {
        view, memory, now, ..
    } = context;
    let mut prepared = view.vfs.iter().filter(|vf| memory.is_prepared(vf));
    let vf = prepared.find(|vf| vf.enslaved)?;
    let other = bond.facts.active.and_then(|active| view.port(active))?;
    // Bond and port are reported one after the other; both have to agree.
    let idle = !vf.active && vf.link.port.as_ref().is_some_and(|port| !port.active);
    let safe = other.usable && memory.traffic.is_settled(*now);
    (idle && safe).then(|| ActionKind::Release {
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
    let mut path_checks = path_checks(context, bond).into_iter();
    let checking = path_checks.any(|kind| is_due(context, &kind));
    let trying_out = context.memory.path.is_on_trial();
    let settled = context.memory.traffic.is_settled(context.now) && !checking && !trying_out;
    (ours && settled && bond.facts.all_ports_active).then(|| all_ports_active(bond, false))
}

/// The VF would join as a backup: the primary is a port that is usable now.
/// Another VF or a foreign port may hold that place as well as the standby.
pub(super) fn joins_as_backup(context: &Context<'_>, bond: &Bond<'_>) -> bool {
    let goal = context.choice.goal;
    goal.is_none_or(|goal| bond.facts.primary == Some(goal.port))
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
