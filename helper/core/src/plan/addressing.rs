//! Bringing addresses and routes to where they belong: onto the bond.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::action::ActionKind;
use crate::link::{Address, Addressing, Route};
use crate::plan::Context;
use crate::plan::assemble::enslave;
use crate::policy::AddressingPolicy;
use crate::view::{Bond, Port, has_addresses};

/// Failures to take the standby in after which it gets its addresses back.
const FAILURES_BEFORE_GIVING_BACK: u32 = 2;

/// Gives the bond its addresses. The bond has to be up, or the kernel refuses routes.
pub(super) fn onto_bond(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    if !bond.link.admin_up {
        return None;
    }
    match &context.view.policy.addressing {
        AddressingPolicy::Inherit => inherit(context, bond),
        AddressingPolicy::Static { addresses, routes } => add_missing(bond, addresses, routes),
        AddressingPolicy::None => None,
    }
}

/// Moves what is on the standby, before and after it became a port. Done first, an
/// address always has a route: becoming a port takes the link down, and with it
/// its IPv4 routes and IPv6 addresses go.
fn inherit(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let standby = context.view.standby.as_ref();
    if standby.is_some_and(|standby| stays_outside(context, bond, standby)) {
        return None;
    }
    let source = standby
        .filter(|port| !port.taken && port.has_addressing())
        .or_else(|| vf_with_the_only_addresses(context, bond))?;
    Some(ActionKind::MoveAddressing {
        from: source.ifindex(),
        to: bond.ifindex(),
    })
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
    let carried = standby.link.admin_up && bond.addressing.is_some_and(has_addresses);
    let moved = carried.then(|| ActionKind::MoveAddressing {
        from: bond.ifindex(),
        to: link,
    });
    opened.into_iter().chain(moved).collect()
}

/// The bond is empty because it cannot take the standby in, which is to be tried
/// again later only.
pub(super) fn stays_outside(context: &Context<'_>, bond: &Bond<'_>, standby: &Port<'_>) -> bool {
    let Context { view, memory, now } = context;
    let enslave = enslave(bond, standby);
    let attempts = &memory.attempts;
    view.policy.addressing == AddressingPolicy::Inherit
        && bond.ports == 0
        && !standby.taken
        && attempts.failures(&enslave) >= FAILURES_BEFORE_GIVING_BACK
        && attempts.next_at(&enslave) > *now
}

/// A VF that came to all the addresses there are before there was a bond.
fn vf_with_the_only_addresses<'a>(context: &Context<'a>, bond: &Bond<'_>) -> Option<&'a Port<'a>> {
    let bare = !bond.addressing.is_some_and(has_addresses);
    let vf = context.view.vf().filter(|_| bare)?;
    let wanted = vf.has_addresses() && (vf.enslaved || may_take(context, bond, vf));
    wanted.then_some(vf)
}

fn add_missing(bond: &Bond<'_>, addresses: &[Address], routes: &[Route]) -> Option<ActionKind> {
    let nothing = Addressing {
        ifindex: bond.ifindex(),
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    let present = bond.addressing.unwrap_or(&nothing);
    let addresses: Vec<Address> = addresses
        .iter()
        .filter(|wanted| !present.addresses.contains(wanted))
        .copied()
        .collect();
    let routes: Vec<Route> = routes
        .iter()
        .filter(|wanted| !present.routes.iter().any(|found| is_route(found, wanted)))
        .copied()
        .collect();
    (!addresses.is_empty() || !routes.is_empty()).then_some(ActionKind::AddAddressing {
        link: bond.ifindex(),
        addresses,
        routes,
    })
}

/// The route found is the one wanted, if the wanted one leaves the metric to the kernel.
pub(crate) fn is_route(found: &Route, wanted: &Route) -> bool {
    network(&found.destination) == network(&wanted.destination)
        && found.gateway == wanted.gateway
        && wanted
            .metric
            .is_none_or(|metric| found.metric.unwrap_or(0) == metric)
}

/// The destination without the bits behind its prefix, as the kernel stores it.
fn network(address: &Address) -> (IpAddr, u8) {
    let prefix = u32::from(address.prefix);
    let ip = match address.ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix));
            IpAddr::V4((ip.to_bits() & mask.unwrap_or(0)).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(prefix));
            IpAddr::V6((ip.to_bits() & mask.unwrap_or(0)).into())
        }
    };
    (ip, address.prefix)
}

/// Clears ports of what would draw traffic past the bond: an address that stays
/// on a port keeps its connected route (measured on 6.1 and 6.12).
pub(super) fn off_ports(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let view = context.view;
    let standby = view.standby.as_ref().filter(|port| {
        let inherited = view.policy.addressing == AddressingPolicy::Inherit;
        !inherited && (port.enslaved || !port.taken)
    });
    let vfs = view
        .vfs
        .iter()
        .filter(|vf| vf.enslaved || may_take(context, bond, vf));
    standby
        .into_iter()
        .chain(vfs)
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

/// This VF is the one that the bond takes in next.
pub(super) fn may_take(context: &Context<'_>, bond: &Bond<'_>, vf: &Port<'_>) -> bool {
    let Context { view, memory, now } = context;
    let chosen = view.vf().is_some_and(|one| one.ifindex() == vf.ifindex());
    chosen
        && vf.takes_mtu(bond.link.mtu)
        && !vf.enslaved
        && !vf.taken
        && !memory.is_leaving(vf)
        && memory.vfs.may_join(vf, *now)
        && context.standby_is_served(bond)
}
