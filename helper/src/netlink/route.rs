//! What `RTM_NEWROUTE` messages say, and how to ask for them.
//!
//! Numbers: `include/uapi/linux/rtnetlink.h`, 6.12.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tandem_core::link::{Address, Route};
use tandem_core::types::Ifindex;

use super::address::ip_of;
use super::request::{RequestError, Requests};
use super::{attribute, attributes, u32_of};

const HEADER_BYTES: usize = 12;
pub(crate) const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u8 = 255;
pub(crate) const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTM_F_CLONED: u32 = 0x200;
const RTA_DST: u16 = 1;
pub(crate) const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
/// Bytes of `struct rtnexthop`.
const NEXT_HOP_BYTES: usize = 8;

/// Routes by these protocols (`RTPROT_*`) are not reported: redirects and the
/// kernel's own come with the addresses, and routing daemons (gated, mrt to ntk,
/// mrouted, babel, ovn, openr, bgp, isis, ospf, rip, eigrp) keep theirs by
/// themselves, by the hundred thousand.
pub(crate) const UNREPORTED_PROTOCOLS: &[u8] = &[
    1, 2, 8, 10, 11, 12, 13, 14, 15, 17, 42, 84, 99, 186, 187, 188, 189, 192,
];

/// Decodes the payload of `RTM_NEWROUTE` into a route that `link` is to be reported
/// with: a unicast route of the main table that somebody configured.
pub(crate) fn decode(payload: &[u8], link: Ifindex) -> Option<Route> {
    let [
        family,
        prefix,
        _,
        _,
        table,
        protocol,
        _,
        kind,
        f0,
        f1,
        f2,
        f3,
    ] = *payload.first_chunk::<HEADER_BYTES>()?;
    let reported = table == RT_TABLE_MAIN
        && kind == RTN_UNICAST
        && u32::from_ne_bytes([f0, f1, f2, f3]) & RTM_F_CLONED == 0
        && !UNREPORTED_PROTOCOLS.contains(&protocol);
    if !reported {
        return None;
    }
    let unspecified = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut destination = unspecified;
    let mut gateway = None;
    let mut metric = None;
    let mut through = None;
    for (kind, value) in attributes(&payload[HEADER_BYTES..]) {
        match kind {
            RTA_DST => destination = ip_of(value)?,
            RTA_PRIORITY => metric = u32_of(value),
            RTA_OIF => through = u32_of(value),
            RTA_GATEWAY => gateway = ip_of(value),
            RTA_VIA => gateway = via_of(value),
            RTA_MULTIPATH => {
                let (_, hop_attributes) = next_hops(value).find(|&(hop, _)| hop == link.0)?;
                through = Some(link.0);
                gateway = gateway_of(hop_attributes);
            }
            _ => {}
        }
    }
    (through == Some(link.0)).then_some(Route {
        destination: Address {
            ip: destination,
            prefix,
        },
        gateway,
        metric,
    })
}

/// The address that a route of the local table makes the guest's own.
pub(crate) fn local_ip(payload: &[u8]) -> Option<IpAddr> {
    let [_, _, _, _, table, _, _, kind, ..] = *payload.first_chunk::<HEADER_BYTES>()?;
    if table != RT_TABLE_LOCAL || kind != RTN_LOCAL {
        return None;
    }
    attribute(&payload[HEADER_BYTES..], RTA_DST).and_then(ip_of)
}

/// The next hops of `RTA_MULTIPATH`: interface and attributes.
fn next_hops(mut value: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, _, _, i0, i1, i2, i3] = *value.first_chunk::<NEXT_HOP_BYTES>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let hop_attributes = value.get(NEXT_HOP_BYTES..length)?;
        value = value.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u32::from_ne_bytes([i0, i1, i2, i3]), hop_attributes))
    })
}

fn gateway_of(hop_attributes: &[u8]) -> Option<IpAddr> {
    attributes(hop_attributes).find_map(|(kind, value)| match kind {
        RTA_GATEWAY => ip_of(value),
        RTA_VIA => via_of(value),
        _ => None,
    })
}

/// `struct rtvia`: a gateway of another family, after two bytes that name it.
fn via_of(value: &[u8]) -> Option<IpAddr> {
    value.get(2..).and_then(ip_of)
}

/// Addresses far away: of a range that nobody may use, which a guest may forbid, and of one that is in use.
/// Nothing is sent to them.
const FAR_AWAY: [Ipv4Addr; 2] = [Ipv4Addr::new(240, 0, 0, 1), Ipv4Addr::new(9, 0, 0, 1)];

/// Errors of a lookup that finds no route, or one that refuses. Any other tells nothing.
const NO_WAY: [i32; 3] = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES];

/// Whether the guest has an IPv4 route to everywhere, by whatever table and interface.
pub(crate) fn way_out(requests: &mut Requests) -> Result<bool, RequestError> {
    for destination in FAR_AWAY {
        if leads_to(requests, destination)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The kernel knows a way to this address (`inet_rtm_getroute`, net/ipv4/route.c, 6.12).
fn leads_to(requests: &mut Requests, destination: Ipv4Addr) -> Result<bool, RequestError> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    let destination = RouteAddress::Inet(destination);
    message
        .attributes
        .push(RouteAttribute::Destination(destination));
    let request = RouteNetlinkMessage::GetRoute(message);
    match requests.get(&request, |_| Some(())) {
        Ok(found) => Ok(found.is_some()),
        Err(error @ RequestError::Refused { .. }) => Ok(!NO_WAY.contains(&error.errno())),
        Err(error) => Err(error),
    }
}

/// Reads the routes of all tables whose device, or one of whose next hops, is
/// `link`; `None` from `decode` leaves one out.
pub(crate) fn dump<T>(
    requests: &mut Requests,
    link: Ifindex,
    decode: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Vec<T>, RequestError> {
    requests.dump_both(decode, |family| {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.attributes.push(RouteAttribute::Oif(link.0));
        RouteNetlinkMessage::GetRoute(message)
    })
}
