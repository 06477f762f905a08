//! Moves addresses and routes from one link to another under open connections.
//!
//! First everything is added to the new link, then it is removed from the old one,
//! so at each moment every address is local and every destination has a route.
//! Additions are made *beside* what exists (never in place of it, which could hit
//! another link's route of the same destination and metric), and what is there
//! already is no error: after a crash in the middle the same action finishes it.

use std::net::Ipv6Addr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Parseable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::RouteMessage;
use tandem_core::types::Ifindex;

use super::error::ActError;
use super::link::present;
use super::local::Listener;
use super::{clone, nexthop};
use crate::netlink::request::{RequestError, Requests};
use crate::netlink::{address, neighbour, route};

/// Addresses and routes of a link that can move, as the kernel describes them.
struct Found {
    addresses: Vec<AddressMessage>,
    /// Sorted: each gateway is reachable by the routes before.
    routes: Vec<RouteMessage>,
    next_hops: Vec<nexthop::NextHop>,
    /// Of those and of groups of them.
    object_routes: Vec<RouteMessage>,
}

/// Moves all there is.
pub(super) fn r#move(requests: &mut Requests, from: Ifindex, to: Ifindex) -> Result<(), ActError> {
    let from_name = present(requests, from)?.name;
    let to_link = present(requests, to)?;
    if from == to {
        return Ok(());
    }
    if !to_link.admin_up {
        return Err(ActError::Refused {
            errno: libc::ENETDOWN,
            message: format!(
                "{} is down, and a link that is down can have no routes",
                to_link.name
            ),
        });
    }
    let found = read(requests, from, from_name.as_str())?;
    copy_neighbours(requests, [from, to], from_name.as_str())?;
    let listener = Listener::open()?;
    let left = add_copies(requests, &found, from, to, to_link.name.as_str())?;
    let immediate: Vec<Ipv6Addr> = found
        .addresses
        .iter()
        .filter_map(clone::immediately_usable)
        .collect();
    listener.wait(requests, to, &immediate)?;
    remove_objects(requests, &left, from_name.as_str())?;
    remove(requests, &found, from, from_name.as_str())
}

/// Gives a link the neighbours that somebody wrote down by hand on another one. There they go when the link is closed.
fn copy_neighbours(
    requests: &mut Requests,
    [from, to]: [Ifindex; 2],
    name: &str,
) -> Result<(), ActError> {
    let step = || ActError::at(format!("copy the neighbours of {name}"));
    for neighbour in neighbour::written_down(requests, from).map_err(step())? {
        let payload = neighbour::to_write_down(&neighbour, to);
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        match requests.change_raw(neighbour::RTM_NEWNEIGH, flags, &payload) {
            // One that the link has already is its own.
            Err(error) if error.errno() != libc::EEXIST => return Err(step()(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Removes all that could move.
pub(super) fn flush(requests: &mut Requests, link: Ifindex) -> Result<(), ActError> {
    let name = present(requests, link)?.name;
    let found = read(requests, link, name.as_str())?;
    let all: Vec<_> = found.next_hops.iter().collect();
    remove_objects(requests, &all, name.as_str())?;
    remove(requests, &found, link, name.as_str())
}

fn remove_objects(
    requests: &mut Requests,
    next_hops: &[&nexthop::NextHop],
    name: &str,
) -> Result<(), ActError> {
    for next_hop in next_hops {
        nexthop::remove(requests, next_hop)
            .or_else(absent_is_well)
            .map_err(ActError::at(format!("remove a next hop through {name}")))?;
    }
    Ok(())
}

fn read(requests: &mut Requests, link: Ifindex, name: &str) -> Result<Found, ActError> {
    let mut strange = 0;
    let addresses = address::dump(requests, Some(link), |payload| {
        let message = AddressMessage::parse(payload);
        strange += u32::from(message.is_err());
        let message = message.ok()?;
        (message.header.index == link.0 && clone::address_moves(&message)).then_some(message)
    })
    .map_err(ActError::at(format!("read the addresses of {name}")))?;
    let routes = route::dump(requests, link, |payload| {
        let message = RouteMessage::parse(payload);
        strange += u32::from(message.is_err());
        message.ok().filter(clone::route_moves)
    })
    .map_err(ActError::at(format!("read the routes of {name}")))?;
    if strange > 0 {
        // They stay where they are.
        tracing::warn!(
            link = name,
            strange,
            "addresses or routes of an unknown format"
        );
    }
    let (object_routes, mut routes): (Vec<_>, Vec<_>) = routes
        .into_iter()
        .partition(|route| clone::next_hop_object(route).is_some());
    clone::sort(&mut routes);
    let next_hops = nexthop::of_link(requests, link)
        .map_err(ActError::at(format!("read the next hops of {name}")))?;
    Ok(Found {
        addresses,
        routes,
        next_hops,
        object_routes,
    })
}

/// Gives the next hops that are objects and have to stay: a link without a carrier, such as a bond without ports,
/// can have none. Their routes get next hops of their own.
fn add_copies<'a>(
    requests: &mut Requests,
    found: &'a Found,
    from: Ifindex,
    to: Ifindex,
    to_name: &str,
) -> Result<Vec<&'a nexthop::NextHop>, ActError> {
    for message in &found.addresses {
        let copy = clone::address_for(message, to);
        let request = RouteNetlinkMessage::NewAddress(copy);
        requests
            .change(&request, NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(ActError::at(format!("add {} to {to_name}", shown(message))))?;
    }
    // An object's gateway, too, has to be reachable by a route.
    let (through_gateways, on_link): (Vec<_>, Vec<_>) = found
        .routes
        .iter()
        .partition(|route| clone::has_gateway(route));
    for message in on_link {
        add_route(requests, message, from, to, to_name)?;
    }
    let mut left = Vec::new();
    let mut moved = Vec::new();
    for next_hop in &found.next_hops {
        match nexthop::r#move(requests, next_hop, to) {
            Err(error) if error.errno() == libc::ENETDOWN => left.push(next_hop),
            done => {
                done.map_err(ActError::at(format!("move a next hop to {to_name}")))?;
                moved.push(next_hop.id());
            }
        }
    }
    for route in &found.object_routes {
        // What is not one of these is a group of them.
        if !left.is_empty() && !moved.contains(&clone::next_hop_object(route)) {
            let plain = clone::without_object(route);
            add_route(requests, &plain, from, to, to_name)?;
        }
    }
    for message in through_gateways {
        add_route(requests, message, from, to, to_name)?;
    }
    Ok(left)
}

fn add_route(
    requests: &mut Requests,
    message: &RouteMessage,
    from: Ifindex,
    to: Ifindex,
    to_name: &str,
) -> Result<(), ActError> {
    let copy = clone::route_for(message, from, to);
    let request = RouteNetlinkMessage::NewRoute(copy);
    match requests.change(&request, NLM_F_CREATE | NLM_F_APPEND) {
        Err(error) if error.errno() != libc::EEXIST => Err(ActError::at(format!(
            "add the route {} through {to_name}",
            clone::describe(message)
        ))(error)),
        _ => Ok(()),
    }
}

/// Last come first: gateways' routes before those they need, and addresses at the
/// end, so that whoever sees an address left knows that there is work left.
fn remove(
    requests: &mut Requests,
    found: &Found,
    link: Ifindex,
    name: &str,
) -> Result<(), ActError> {
    for message in found.routes.iter().rev() {
        let request = RouteNetlinkMessage::DelRoute(clone::of_link(message, link));
        requests
            .change(&request, 0)
            .or_else(absent_is_well)
            .map_err(ActError::at(format!(
                "remove the route {} through {name}",
                clone::describe(message)
            )))?;
    }
    // Removing an IPv4 network's first address removes its others with it, unless
    // the link promotes them; in reverse each goes by itself.
    for message in found.addresses.iter().rev() {
        let request = RouteNetlinkMessage::DelAddress(clone::address_removal(message));
        requests
            .change(&request, 0)
            .or_else(absent_is_well)
            .map_err(ActError::at(format!(
                "remove {} from {name}",
                shown(message)
            )))?;
    }
    Ok(())
}

fn absent_is_well(error: RequestError) -> Result<(), RequestError> {
    if error.is_absent() {
        Ok(())
    } else {
        Err(error)
    }
}

fn shown(message: &AddressMessage) -> String {
    match clone::own_ip(message) {
        Some(ip) => format!("{ip}/{}", message.header.prefix_len),
        None => "an address".to_owned(),
    }
}

/// A move that ends where a crash could end it.
#[cfg(test)]
pub(super) fn stop_after_copies(requests: &mut Requests, from: Ifindex, to: Ifindex) {
    let found = read(requests, from, "from").unwrap();
    add_copies(requests, &found, from, to, "to").unwrap();
}
