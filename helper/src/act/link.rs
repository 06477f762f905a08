//! Links: up and down, MTU, in and out of a bond.
//!
//! By `RTM_NEWLINK` throughout: `RTM_SETLINK` ignores what belongs to a kind of
//! device and says success.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use rtnetlink::LinkUnspec;
use tandem_core::link::LinkKind;
use tandem_core::types::{Ifindex, Mac};

use super::ActError;
use crate::observe::netlink::link::Described;
use crate::observe::netlink::request::Requests;
use crate::observe::reader::one_link;

/// Reads a link that has to be there.
pub(super) fn present(requests: &mut Requests, link: Ifindex) -> Result<Described, ActError> {
    one_link(requests, link)
        .map_err(ActError::at(format!("read link {link}")))?
        .ok_or(ActError::Gone)
}

/// Sends a change of an existing link.
pub(super) fn change(
    requests: &mut Requests,
    message: LinkMessage,
    step: impl Into<String>,
) -> Result<(), ActError> {
    requests
        .change(&RouteNetlinkMessage::NewLink(message), 0)
        .map_err(ActError::at(step))
}

pub(super) fn set_admin_up(
    requests: &mut Requests,
    link: Ifindex,
    up: bool,
) -> Result<(), ActError> {
    let name = present(requests, link)?.link.name;
    let message = LinkUnspec::new_with_index(link.0);
    if up {
        change(requests, message.up().build(), format!("open {name}"))
    } else {
        change(requests, message.down().build(), format!("close {name}"))
    }
}

pub(super) fn set_mtu(requests: &mut Requests, link: Ifindex, mtu: u32) -> Result<(), ActError> {
    let name = present(requests, link)?.link.name;
    let message = LinkUnspec::new_with_index(link.0).mtu(mtu).build();
    change(requests, message, format!("set the MTU of {name} to {mtu}"))
}

pub(super) fn set_mac(requests: &mut Requests, link: Ifindex, mac: Mac) -> Result<(), ActError> {
    let name = present(requests, link)?.link.name;
    let message = LinkUnspec::new_with_index(link.0)
        .address(mac.0.to_vec())
        .build();
    change(requests, message, format!("set the MAC of {name} to {mac}"))
}

/// Two requests: kernels differ in whether one message's flags or its master come
/// first, and a port that is up is refused (EPERM).
pub(super) fn enslave(
    requests: &mut Requests,
    port: Ifindex,
    bond: Ifindex,
) -> Result<(), ActError> {
    let port_link = present(requests, port)?.link;
    let bond_link = present(requests, bond)?.link;
    let (port_name, bond_name) = (&port_link.name, &bond_link.name);
    if bond_link.kind != LinkKind::Bond {
        return Err(ActError::Refused {
            errno: libc::EINVAL,
            message: format!("{bond_name} is no bond"),
        });
    }
    match port_link.controller {
        Some(controller) if controller == bond => return Ok(()),
        // The kernel would take it out of there without a word.
        Some(controller) => {
            return Err(ActError::Refused {
                errno: libc::EBUSY,
                message: format!(
                    "{port_name} is a port of link {controller}; take it out of there first"
                ),
            });
        }
        None => {}
    }
    if port_link.admin_up {
        let message = LinkUnspec::new_with_index(port.0).down().build();
        change(requests, message, format!("close {port_name}"))?;
    }
    let message = LinkUnspec::new_with_index(port.0)
        .controller(bond.0)
        .build();
    change(
        requests,
        message,
        format!("make {port_name} a port of {bond_name}"),
    )
}

/// The bond closes the port as it lets it go (`__bond_release_one`,
/// `drivers/net/bonding/bond_main.c`, 6.12).
pub(super) fn release(
    requests: &mut Requests,
    port: Ifindex,
    bond: Ifindex,
) -> Result<(), ActError> {
    let link = present(requests, port)?.link;
    if link.controller != Some(bond) {
        return Ok(());
    }
    let message = LinkUnspec::new_with_index(port.0).nocontroller().build();
    change(
        requests,
        message,
        format!("take {} out of its bond", link.name),
    )
}
