//! Links: up and down, MTU, in and out of a bond.
//!
//! By `RTM_NEWLINK` throughout: `RTM_SETLINK` ignores what belongs to a kind of
//! device and says success.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use rtnetlink::LinkUnspec;
use tandem_core::link::{Link, LinkKind};
use tandem_core::types::{Ifindex, Mac};

use super::error::ActError;
use crate::ebpf::fast_path::make_room;
use crate::netlink::link;
use crate::netlink::request::{RequestError, Requests};

/// Reads a link that has to be there.
pub(super) fn present(requests: &mut Requests, ifindex: Ifindex) -> Result<Link, ActError> {
    let found =
        link::get(requests, ifindex).map_err(ActError::at(format!("read link {ifindex}")))?;
    found.map(|described| described.link).ok_or(ActError::Gone)
}

/// Sends a change of an existing link.
pub(super) fn change(requests: &mut Requests, message: LinkMessage) -> Result<(), RequestError> {
    requests.change(&RouteNetlinkMessage::NewLink(message), 0)
}

pub(super) fn set_admin_up(
    requests: &mut Requests,
    link: Ifindex,
    up: bool,
) -> Result<(), ActError> {
    present(requests, link)?;
    let message = LinkUnspec::new_with_index(link.0);
    let message = if up { message.up() } else { message.down() };
    Ok(change(requests, message.build())?)
}

pub(super) fn set_mtu(requests: &mut Requests, link: Ifindex, mtu: u32) -> Result<(), ActError> {
    present(requests, link)?;
    let message = LinkUnspec::new_with_index(link.0).mtu(mtu).build();
    Ok(change(requests, message)?)
}

pub(super) fn set_mac(requests: &mut Requests, link: Ifindex, mac: Mac) -> Result<(), ActError> {
    present(requests, link)?;
    let message = LinkUnspec::new_with_index(link.0)
        .address(mac.0.to_vec())
        .build();
    Ok(change(requests, message)?)
}

/// Two requests: kernels differ in whether one message's flags or its master come
/// first, and a port that is up is refused (EPERM).
pub(super) fn enslave(
    requests: &mut Requests,
    port: Ifindex,
    bond: Ifindex,
) -> Result<(), ActError> {
    let Some(port_link) = candidate(requests, port, bond)? else {
        return Ok(());
    };
    if port_link.admin_up {
        ask(requests, port, bond)?;
        let message = LinkUnspec::new_with_index(port.0).down().build();
        change(requests, message).map_err(ActError::at(format!("take {} down", port_link.name)))?;
    }
    make_room(&port_link.name);
    Ok(change(requests, membership(port, bond))?)
}

/// Asks whether the kernel would make a link that is up a port of the bond. Of one that is down it
/// can't be asked: the kernel would do it.
pub(super) fn check_free(
    requests: &mut Requests,
    port: Ifindex,
    bond: Ifindex,
) -> Result<(), ActError> {
    match candidate(requests, port, bond)? {
        Some(port_link) if port_link.admin_up => ask(requests, port, bond),
        _ => Ok(()),
    }
}

/// The kernel refuses a link that is up in any case, but with another error if something has its frames, such as
/// a macvlan, in whatever network namespace: it looks for that first, and has changed nothing by then
/// (`netdev_is_rx_handler_busy` in `bond_enslave`, `drivers/net/bonding/bond_main.c`, 6.1 and 6.12).
fn ask(requests: &mut Requests, port: Ifindex, bond: Ifindex) -> Result<(), ActError> {
    match change(requests, membership(port, bond)) {
        Err(error) if error.errno() == libc::EBUSY => Err(error.into()),
        Err(RequestError::TimedOut) => Err(RequestError::TimedOut.into()),
        // Whatever else it refuses shows when it is meant.
        Ok(()) | Err(_) => Ok(()),
    }
}

fn membership(port: Ifindex, bond: Ifindex) -> LinkMessage {
    LinkUnspec::new_with_index(port.0)
        .controller(bond.0)
        .build()
}

/// A link that may become a port of the bond; `None` if it is one.
fn candidate(
    requests: &mut Requests,
    port: Ifindex,
    bond: Ifindex,
) -> Result<Option<Link>, ActError> {
    let port_link = present(requests, port)?;
    let bond_link = present(requests, bond)?;
    if bond_link.kind != LinkKind::Bond {
        return Err(ActError::Refused {
            errno: libc::EINVAL,
            message: format!("{} is no bond", bond_link.name),
        });
    }
    match port_link.controller {
        Some(controller) if controller == bond => Ok(None),
        // The kernel would take it out of there without a word.
        Some(controller) => Err(ActError::Refused {
            errno: libc::EBUSY,
            message: format!(
                "{} is a port of link {controller}, which has to let it go first",
                port_link.name
            ),
        }),
        None => Ok(Some(port_link)),
    }
}

/// The bond closes the port as it lets it go (`__bond_release_one`,
/// `drivers/net/bonding/bond_main.c`, 6.12). Only while another port is usable, which may have changed since the
/// machine looked.
pub(super) fn release(
    requests: &mut Requests,
    port: Ifindex,
    bond: Ifindex,
) -> Result<(), ActError> {
    if present(requests, port)?.controller != Some(bond) {
        return Ok(());
    }
    let links =
        link::dump(requests, link::decode).map_err(ActError::at("read the bond's ports"))?;
    let mut others = links.iter().map(|described| &described.link);
    let is_usable = |other: &Link| other.controller == Some(bond) && other.is_linked();
    if !others.any(|other| other.ifindex != port && is_usable(other)) {
        return Err(ActError::Refused {
            errno: libc::EBUSY,
            message: "no other port of the bond is usable".to_owned(),
        });
    }
    let message = LinkUnspec::new_with_index(port.0).nocontroller().build();
    Ok(change(requests, message)?)
}
