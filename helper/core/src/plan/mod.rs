//! What has to be done next, computed anew each time from the world, the policy
//! and what has to be remembered.
//!
//! A wish is an action whose preconditions hold now and whose effect is not
//! there yet. Wishes come in order of urgency; the machine carries out the first
//! one that is not waiting after a failure. No wish means that the bond is as
//! it should be.

mod addressing;
mod assemble;
mod path;
mod switch;

pub(crate) use addressing::is_route;
pub(crate) use assemble::{fail_over_mac, lacks_mac};

use alloc::vec::Vec;

use crate::action::ActionKind;
use crate::memory::Memory;
use crate::policy::{AddressingPolicy, MacPolicy};
use crate::types::Time;
use crate::view::{Bond, View};

/// Everything a plan depends on.
pub(crate) struct Context<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) memory: &'a Memory,
    pub(crate) now: Time,
}

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
    let vf = context.view.vf();
    let vf = vf.filter(|vf| addressing::may_take(context, bond, vf));
    let ports = standby.into_iter().chain(vf);
    ports.map(|port| assemble::enslave(bond, port)).collect()
}

impl Context<'_> {
    /// The standby is in the bond, or is nothing the VF should wait for. A VF with
    /// the standby's MAC must not join while the standby itself is up outside.
    fn standby_is_served(&self, bond: &Bond<'_>) -> bool {
        let policy = self.view.policy;
        self.view.standby.as_ref().is_none_or(|standby| {
            let refused = self.memory.is_refused(Some(bond.ifindex()), standby);
            let aside = if standby.taken {
                policy.mac == MacPolicy::Follow
            } else {
                refused && policy.addressing != AddressingPolicy::Inherit
            };
            standby.enslaved || aside
        })
    }
}
