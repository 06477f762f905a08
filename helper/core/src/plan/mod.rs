//! What has to be done next, computed anew each time from the facts, the history
//! and the choice.
//!
//! An action is planned if its preconditions hold now and its effect is not
//! there yet. Actions come in order of urgency; the machine carries out the first
//! one that is not waiting after a failure. No action means that the bond is as
//! it should be.

mod addressing;
mod assemble;
pub(crate) mod effect;
mod fast_path;
mod switchover;

use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::model::action::ActionKind;

/// All that should be done about a bond, the most urgent first.
pub(crate) fn actions(context: &Context<'_>) -> Vec<ActionKind> {
    let view = context.view;
    if !view.world.links_known() {
        return Vec::new();
    }
    let Some(bond) = view.bond() else {
        return assemble::create(context).into_iter().collect();
    };
    let mut actions = Vec::new();
    actions.extend(switchover::switch_over(context, bond));
    actions.extend(switchover::try_out(context, bond));
    actions.extend(switchover::announce(context, bond));
    actions.extend(switchover::drain(context, bond));
    actions.extend(assemble::configure(context, bond));
    actions.extend(switchover::pin(context, bond));
    if view.world.addressing_known() {
        actions.extend(assemble::check_free(context, bond));
        actions.extend(addressing::give_back(context, bond));
        actions.extend(addressing::onto_bond(context, bond));
        actions.extend(assemble::take_standby(context, bond));
        actions.extend(assemble::take_vfs(context, bond));
        actions.extend(addressing::off_ports(context, bond));
    }
    actions.extend(assemble::open_ports(context));
    actions.extend(assemble::port_mtus(context, bond));
    actions.extend(switchover::check_path(context, bond));
    actions.extend(fast_path::measure(context, bond));
    actions.extend(switchover::release(context, bond));
    actions.extend(switchover::settle(context, bond));
    actions.extend(fast_path::set(context, bond));
    actions
}

/// What is wanted although something else has to be done first. As long as it is,
/// its past failures count.
pub(crate) fn intents(context: &Context<'_>) -> Vec<ActionKind> {
    let Some(bond) = context.view.bond() else {
        return Vec::new();
    };
    let standby = context.view.standby.as_ref();
    let is_ours = !context.view.policy.manager_takes_standby;
    let standby = standby.filter(|port| is_ours && !port.enslaved && !port.is_occupied());
    let ports = standby.into_iter().chain(context.next_vfs(bond));
    ports.map(|port| bond.enslave(port)).collect()
}
