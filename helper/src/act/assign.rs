//! Gives a link addresses and routes that the policy names.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tandem_core::link::{Address, Route};
use tandem_core::types::Ifindex;

use super::clone;
use super::error::ActError;
use super::link::present;
use crate::netlink::request::{RequestError, Requests};
use crate::netlink::route::RT_TABLE_MAIN;

/// Adds what is missing; what is there stays as it is.
pub(super) fn add(
    requests: &mut Requests,
    link: Ifindex,
    addresses: &[Address],
    routes: &[Route],
) -> Result<(), ActError> {
    present(requests, link)?;
    for address in addresses {
        let request = RouteNetlinkMessage::NewAddress(address_message(*address, link));
        requests
            .change(&request, NLM_F_CREATE | NLM_F_EXCL)
            .or_else(existing_is_well)
            .map_err(ActError::at(format!(
                "add {}/{}",
                address.ip, address.prefix
            )))?;
    }
    let mut messages: Vec<RouteMessage> = routes
        .iter()
        .map(|route| route_message(route, link))
        .collect();
    clone::sort(&mut messages);
    for message in messages {
        let step = format!("add the route {}", clone::describe(&message));
        requests
            .change(
                &RouteNetlinkMessage::NewRoute(message),
                NLM_F_CREATE | NLM_F_APPEND,
            )
            .or_else(existing_is_well)
            .map_err(ActError::at(step))?;
    }
    Ok(())
}

fn existing_is_well(error: RequestError) -> Result<(), RequestError> {
    if error.errno() == libc::EEXIST {
        Ok(())
    } else {
        Err(error)
    }
}

fn address_message(address: Address, link: Ifindex) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address.ip);
    message.header.prefix_len = address.prefix;
    message.header.index = link.0;
    message.attributes = vec![
        AddressAttribute::Local(address.ip),
        AddressAttribute::Address(address.ip),
    ];
    match address.ip {
        IpAddr::V4(ip) => message
            .attributes
            .extend(broadcast(ip, address.prefix).map(AddressAttribute::Broadcast)),
        // The policy gives the bond the address; there is nobody to ask, and asking
        // would keep the guest off the network for a second.
        IpAddr::V6(_) => message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad)),
    }
    message
}

/// The network's last address; networks of one or two addresses have none.
fn broadcast(ip: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    let hosts = u32::MAX
        .checked_shr(u32::from(prefix))
        .filter(|_| prefix < 31)?;
    Some(Ipv4Addr::from_bits(ip.to_bits() | hosts))
}

fn route_message(route: &Route, link: Ifindex) -> RouteMessage {
    let destination = route.destination;
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(destination.ip);
    message.header.destination_prefix_length = destination.prefix;
    message.header.table = RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    if route.gateway.is_none() && destination.ip.is_ipv4() {
        message.header.scope = RouteScope::Link;
    }
    let attributes = &mut message.attributes;
    if destination.prefix > 0 {
        attributes.push(RouteAttribute::Destination(destination.ip.into()));
    }
    attributes.push(RouteAttribute::Oif(link.0));
    attributes.extend(
        route
            .gateway
            .map(RouteAddress::from)
            .map(RouteAttribute::Gateway),
    );
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

fn family_of(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
