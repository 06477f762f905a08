//! Copies of addresses and routes for another link: the kernel's own description,
//! with another index and without what the kernel fills in by itself.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteProtocol,
    RouteType,
};
use tandem_core::types::Ifindex;

/// Clock ticks a second in what the kernel tells (`USER_HZ`).
const TICKS_PER_SECOND: i32 = 100;
/// Nobody knows yet, or it is known not to be, whether the address is free.
const UNPROVEN: AddressFlags = AddressFlags::Tentative.union(AddressFlags::Dadfailed);

/// The link's own address in a message.
pub(super) fn own_ip(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => return Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    address
}

/// True for addresses that can move. IPv6 link-local ones belong to their link, unless somebody set them by hand: the
/// kernel marks its own (`IFAPROT_KERNEL_LL`, `addrconf_add_linklocal`, net/ipv6/addrconf.c, 6.1).
pub(super) fn address_moves(message: &AddressMessage) -> bool {
    match own_ip(message) {
        Some(IpAddr::V4(_)) => true,
        Some(IpAddr::V6(ip)) => !ip.is_unicast_link_local() || !is_the_kernels(message),
        None => false,
    }
}

fn is_the_kernels(message: &AddressMessage) -> bool {
    let is_it = |attribute: &AddressAttribute| {
        *attribute == AddressAttribute::Protocol(AddressProtocol::LinkLocal)
    };
    message.attributes.iter().any(is_it)
}

/// The address, if it is IPv6 and its copy is used without being asked for first.
pub(super) fn immediately_usable(message: &AddressMessage) -> Option<Ipv6Addr> {
    match own_ip(message) {
        Some(IpAddr::V6(ip)) if !address_flags(message).intersects(UNPROVEN) => Some(ip),
        _ => None,
    }
}

/// The address for another link, with its lifetimes, metric, peer and broadcast.
pub(super) fn address_for(message: &AddressMessage, to: Ifindex) -> AddressMessage {
    let present = address_flags(message);
    let mut flags = present
        & (AddressFlags::Noprefixroute
            | AddressFlags::Managetempaddr
            | AddressFlags::Homeaddress
            | AddressFlags::Mcautojoin);
    // Whoever owned the address a moment ago need not ask whether it is free; the
    // second that asking takes would be an outage.
    if immediately_usable(message).is_some() {
        flags |= AddressFlags::Nodad;
    }
    let mut copy = message.clone();
    copy.header.index = to.0;
    copy.header.flags = AddressHeaderFlags::from_bits_retain(flags.bits().to_le_bytes()[0]);
    copy.attributes
        .retain(|attribute| !matches!(attribute, AddressAttribute::Label(_)));
    let mut told = false;
    for attribute in &mut copy.attributes {
        match attribute {
            AddressAttribute::Flags(value) => {
                *value = flags;
                told = true;
            }
            AddressAttribute::CacheInfo(info) => {
                info.cstamp = 0;
                info.tstamp = 0;
            }
            _ => {}
        }
    }
    if !told {
        copy.attributes.push(AddressAttribute::Flags(flags));
    }
    copy
}

/// The message that removes an address: only what identifies it.
pub(super) fn address_removal(message: &AddressMessage) -> AddressMessage {
    let mut removal = message.clone();
    removal.header.flags = AddressHeaderFlags::empty();
    removal.attributes.retain(|attribute| {
        matches!(
            attribute,
            AddressAttribute::Local(_) | AddressAttribute::Address(_)
        )
    });
    removal
}

fn address_flags(message: &AddressMessage) -> AddressFlags {
    let told = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
    told.unwrap_or_else(|| AddressFlags::from_bits_retain(u32::from(message.header.flags.bits())))
}

/// True for routes that move with the addresses: those somebody configured or
/// learnt, and the kernel's own to networks that are not link-local. (The kernel
/// makes the latter anew for an address, but not for one that asked for none,
/// and `NetworkManager` then makes them in the kernel's name.)
pub(super) fn route_moves(message: &RouteMessage) -> bool {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned)
        || header.protocol == RouteProtocol::IcmpRedirect
        || expires_in_s(message).is_some_and(|seconds| seconds <= 0)
    {
        return false;
    }
    if header.protocol != RouteProtocol::Kernel {
        return true;
    }
    let link_local = match destination(message) {
        Some(RouteAddress::Inet6(ip)) => ip.is_unicast_link_local() || ip.is_multicast(),
        _ => false,
    };
    header.kind == RouteType::Unicast && !link_local
}

/// The number of the object that is the route's next hop, if it has one; the route moves with that.
pub(super) fn next_hop_object(message: &RouteMessage) -> Option<u32> {
    let mut attributes = message.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        RouteAttribute::NhId(id) => Some(*id),
        _ => None,
    })
}

/// The route with a next hop of its own, as the object of its next hop is.
pub(super) fn without_object(message: &RouteMessage) -> RouteMessage {
    let mut copy = message.clone();
    copy.attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::NhId(_)));
    copy
}

/// The route through another link.
pub(super) fn route_for(message: &RouteMessage, from: Ifindex, to: Ifindex) -> RouteMessage {
    let mut copy = of_link(message, from);
    if let Some(seconds) = expires_in_s(message).and_then(|seconds| u32::try_from(seconds).ok()) {
        copy.attributes.push(RouteAttribute::Expires(seconds));
    }
    for attribute in &mut copy.attributes {
        match attribute {
            RouteAttribute::Oif(link) if *link == from.0 => *link = to.0,
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    if hop.interface_index == from.0 {
                        hop.interface_index = to.0;
                    }
                }
            }
            _ => {}
        }
    }
    copy
}

/// The route as a request names it: without the kernel's remarks. Of an IPv6 route
/// with several next hops only those of the link, since each is a route by itself
/// there and the others stay.
pub(super) fn of_link(message: &RouteMessage, link: Ifindex) -> RouteMessage {
    let mut copy = message.clone();
    copy.header.flags &= RouteFlags::Onlink;
    copy.attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::CacheInfo(_)));
    let ipv6 = message.header.address_family == AddressFamily::Inet6;
    for attribute in &mut copy.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            if ipv6 {
                hops.retain(|hop| hop.interface_index == link.0);
            }
            for hop in hops {
                hop.flags &= RouteNextHopFlags::Onlink;
            }
        }
    }
    copy
}

/// Sorts so that each route's gateway is reachable by those before it.
pub(super) fn sort(routes: &mut [RouteMessage]) {
    routes.sort_by_key(|route| (has_gateway(route), Reverse(u8::from(route.header.scope))));
}

/// True if packets go to a gateway.
pub(super) fn has_gateway(message: &RouteMessage) -> bool {
    message.attributes.iter().any(is_gateway)
}

fn is_gateway(attribute: &RouteAttribute) -> bool {
    match attribute {
        RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => true,
        RouteAttribute::MultiPath(hops) => {
            hops.iter().any(|hop| hop.attributes.iter().any(is_gateway))
        }
        _ => false,
    }
}

/// Seconds that the route still has; `None` if it has no end.
fn expires_in_s(message: &RouteMessage) -> Option<i32> {
    let ticks = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::CacheInfo(info) => Some(info.expires.cast_signed()),
            _ => None,
        })?;
    match ticks {
        0 => None,
        1.. => Some((ticks / TICKS_PER_SECOND).max(1)),
        _ => Some(-1),
    }
}

fn destination(message: &RouteMessage) -> Option<&RouteAddress> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => Some(address),
            _ => None,
        })
}

/// A route in words, for error messages.
pub(super) fn describe(message: &RouteMessage) -> String {
    let prefix = message.header.destination_prefix_length;
    let mut text = match destination(message) {
        Some(RouteAddress::Inet(ip)) => format!("{ip}/{prefix}"),
        Some(RouteAddress::Inet6(ip)) => format!("{ip}/{prefix}"),
        _ if message.header.address_family == AddressFamily::Inet6 => {
            format!("{}/{prefix}", Ipv6Addr::UNSPECIFIED)
        }
        _ => format!("0.0.0.0/{prefix}"),
    };
    for attribute in &message.attributes {
        // Writing to a String can't fail.
        let _ = match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => write!(text, " via {ip}"),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => write!(text, " via {ip}"),
            RouteAttribute::Table(table) if *table != 254 => write!(text, " table {table}"),
            _ => Ok(()),
        };
    }
    text
}
