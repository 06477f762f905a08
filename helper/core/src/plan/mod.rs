//! What has to be done next, computed anew each time from the facts, the history
//! and the choice.
//!
//! A wish is an action whose preconditions hold now and whose effect is not
//! there yet. Wishes come in order of urgency; the machine carries out the first
//! one that is not waiting after a failure. No wish means that the bond is as
//! it should be.

mod addressing;
mod assemble;
pub(crate) mod effect;
mod path;
mod switch;

use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::model::action::ActionKind;

/// All that should be done about a bond, the most urgent first.
pub(crate) fn wishes(context: &Context<'_>) -> Vec<ActionKind> {
    let view = context.view;
    if !view.world.links_known() {
        return Vec::new();
    }
    let Some(bond) = view.bond() else {
        return assemble::create(context).into_iter().collect();
    };
    let mut wishes = Vec::new();
    wishes.extend(switch::hand_over(context, bond));
    wishes.extend(switch::announce(context, bond));
    wishes.extend(switch::drain(context, bond));
    wishes.extend(assemble::configure(context, bond));
    wishes.extend(switch::pin(context, bond));
    if view.world.addressing_known() {
        wishes.extend(addressing::give_back(context, bond));
        wishes.extend(addressing::onto_bond(context, bond));
        wishes.extend(assemble::take_standby(context, bond));
        wishes.extend(assemble::take_vf(context, bond));
        wishes.extend(addressing::off_ports(context, bond));
    }
    wishes.extend(assemble::open_ports(context));
    wishes.extend(assemble::port_mtus(context, bond));
    wishes.extend(switch::prove(context, bond));
    wishes.extend(path::measure(context, bond));
    wishes.extend(switch::release(context, bond));
    wishes.extend(switch::settle(context, bond));
    wishes.extend(path::watch(context, bond));
    wishes
}

/// What is wanted although something else has to be done first. As long as it is,
/// its past failures count.
pub(crate) fn intents(context: &Context<'_>) -> Vec<ActionKind> {
    let Some(bond) = context.view.bond() else {
        return Vec::new();
    };
    let standby = context.view.standby.as_ref();
    let standby = standby.filter(|port| !port.enslaved && !port.taken);
    let ports = standby.into_iter().chain(context.next_vf(bond));
    ports.map(|port| bond.enslave(port)).collect()
}
