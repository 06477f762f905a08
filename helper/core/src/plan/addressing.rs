//! Bringing addresses and routes to where they belong: onto the bond.

use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::bond::view::{Bond, Port};
use crate::model::action::ActionKind;
use crate::model::link::{Address, Route};
use crate::model::policy::AddressingPolicy;

/// Failures to take the standby in after which it gets its addresses back.
const FAILURES_BEFORE_GIVING_BACK: u32 = 2;

/// Gives the bond its addresses. The bond has to be up, or the kernel refuses routes.
pub(super) fn onto_bond(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let standby = context.view.standby.as_ref();
    if !bond.link.admin_up || standby.is_some_and(|standby| stays_outside(context, bond, standby)) {
        return None;
    }
    let kept = standby.filter(|standby| keeps_what_it_has(context, bond, standby));
    let kept = kept
        .filter(|port| port.has_addressing())
        .filter(|port| port.enslaved || context.memory.is_found_free(port));
    match &context.view.policy.addressing {
        AddressingPolicy::Auto | AddressingPolicy::Inherit => {
            let source = kept.or_else(|| vf_with_the_only_addresses(context, bond))?;
            Some(move_to(bond, source))
        }
        AddressingPolicy::Static { addresses, routes } => kept
            .map(|standby| move_to(bond, standby))
            .or_else(|| add_missing(bond, addresses, routes)),
        AddressingPolicy::None => kept.map(|standby| move_to(bond, standby)),
    }
}

/// What is on the standby moves, before and after it became a port. Done first, an
/// address always has a route: becoming a port takes the link down, and with it
/// its IPv4 routes and IPv6 addresses go.
fn move_to(bond: &Bond<'_>, source: &Port<'_>) -> ActionKind {
    ActionKind::MoveAddressing {
        from: source.ifindex(),
        to: bond.ifindex(),
    }
}

/// Gives the standby its addresses back where the bond cannot take it in, so that
/// the guest stays connected the way it was. Tried anew when the back-off ends.
pub(super) fn give_back(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let standby = context.view.standby.as_ref();
    let Some(standby) = standby.filter(|standby| stays_outside(context, bond, standby)) else {
        return Vec::new();
    };
    let link = standby.ifindex();
    let opened = (!standby.link.admin_up).then_some(ActionKind::SetAdminUp { link, up: true });
    let carried = standby.link.admin_up && bond.has_addresses();
    let moved = carried.then(|| ActionKind::MoveAddressing {
        from: bond.ifindex(),
        to: link,
    });
    opened.into_iter().chain(moved).collect()
}

/// The bond is empty because it cannot take the standby in, which is to be tried
/// again later only, or must not.
pub(super) fn stays_outside(context: &Context<'_>, bond: &Bond<'_>, standby: &Port<'_>) -> bool {
    let enslave = bond.enslave(standby);
    is_left_outside(context, bond, standby)
        && (context.memory.attempts.next_at(&enslave) > context.now
            || context.memory.is_left_alone(context.view, standby))
}

/// The bond is empty because it could not take the standby in when it was tried, or must not.
fn is_left_outside(context: &Context<'_>, bond: &Bond<'_>, standby: &Port<'_>) -> bool {
    let failures = context.memory.attempts.failures(&bond.enslave(standby));
    bond.ports == 0
        && !standby.taken
        && !context.view.policy.manager_takes_standby
        && (failures >= FAILURES_BEFORE_GIVING_BACK
            || context.memory.is_left_alone(context.view, standby))
}

/// What is on the standby is not to be lost: it is the bond's, or, whatever the policy, all that the guest
/// has while the bond can't be made, perhaps of a manager that got the standby back.
pub(super) fn keeps_what_it_has(
    context: &Context<'_>,
    bond: &Bond<'_>,
    standby: &Port<'_>,
) -> bool {
    context.view.policy.addressing.inherits() || is_left_outside(context, bond, standby)
}

/// A VF that came to all the addresses there are before there was a bond.
fn vf_with_the_only_addresses<'a>(context: &Context<'a>, bond: &Bond<'_>) -> Option<&'a Port<'a>> {
    if bond.has_addresses() {
        return None;
    }
    let ports = context.choice.vfs().filter(|vf| vf.enslaved);
    let next = context.next_vfs(bond);
    let free = next.filter(|vf| context.memory.is_found_free(vf));
    ports.chain(free).find(|vf| vf.has_addresses())
}

fn add_missing(bond: &Bond<'_>, addresses: &[Address], routes: &[Route]) -> Option<ActionKind> {
    let present = bond.addressing;
    let has_address =
        |wanted: &Address| present.is_some_and(|found| found.addresses.contains(wanted));
    let has_route = |wanted: &Route| {
        present.is_some_and(|found| found.routes.iter().any(|route| route.is(wanted)))
    };
    let mut addresses = addresses.to_vec();
    addresses.retain(|wanted| !has_address(wanted));
    let mut routes = routes.to_vec();
    routes.retain(|wanted| !has_route(wanted));
    (!addresses.is_empty() || !routes.is_empty()).then_some(ActionKind::AddAddressing {
        link: bond.ifindex(),
        addresses,
        routes,
    })
}

/// Clears ports of what would draw traffic past the bond: an address that stays
/// on a port keeps its connected route (measured on 6.1 and 6.12).
pub(super) fn off_ports(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let view = context.view;
    let standby = view.standby.as_ref().filter(|port| {
        let is_ours = !view.policy.manager_takes_standby;
        !keeps_what_it_has(context, bond, port)
            && (port.enslaved || is_ours && context.memory.is_found_free(port))
    });
    let vfs = view.vfs.iter().filter(|vf| vf.enslaved);
    let next = context.next_vfs(bond);
    let free_vfs = next.filter(|vf| context.memory.is_found_free(vf));
    standby
        .into_iter()
        .chain(vfs)
        .chain(free_vfs)
        .filter(|port| is_stray(context, bond, port))
        .map(|port| ActionKind::FlushAddressing {
            link: port.ifindex(),
        })
        .collect()
}

/// What this port has may go: the bond has its own already, as far as the kernel takes them.
fn is_stray(context: &Context<'_>, bond: &Bond<'_>, port: &Port<'_>) -> bool {
    let served = match onto_bond(context, bond) {
        None => bond.link.admin_up,
        Some(ActionKind::MoveAddressing { from, .. }) => from != port.ifindex(),
        Some(refused) => context.memory.attempts.failures(&refused) > 0,
    };
    served && port.has_addressing()
}
