//! The bond itself: creation, options, and which port carries the traffic.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BondAllPortActive, BondFailOverMac, BondMode, BondPrimaryReselect, LinkAttribute, LinkMessage,
};
use rtnetlink::{LinkBond, LinkMessageBuilder};
use tandem_core::action::BondOptions;
use tandem_core::link::{BondFacts, FailOverMac, Link, LinkKind, PrimaryReselect};
use tandem_core::types::{IfName, Ifindex, Mac};

use super::announce::Prepared;
use super::error::ActError;
use super::link::{change, present};
use crate::ebpf::fast_path::make_room;
use crate::netlink::bond::{bond_at, make_primary};
use crate::netlink::link::{BondDelays, decode, get_delays};
use crate::netlink::request::{RequestError, Requests};

/// Creates an active-backup bond, down, with all options in one message.
pub(super) fn create(
    requests: &mut Requests,
    name: &IfName,
    mac: Option<Mac>,
    options: &BondOptions,
) -> Result<(), ActError> {
    if let Some(link) = by_name(requests, name)? {
        return Err(name_taken(name, &link));
    }
    let complete = |message: LinkMessageBuilder<LinkBond>| {
        let message = with_options(message.mode(BondMode::ActiveBackup), options, None);
        match mac {
            Some(mac) => message.address(mac.0.to_vec()).build(),
            None => message.build(),
        }
    };
    let request = RouteNetlinkMessage::NewLink(complete(LinkBond::new(name.as_str())));
    match requests.change(&request, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => {
            make_room(name);
            Ok(())
        }
        Err(error) if error.errno() == libc::EOPNOTSUPP => Err(ActError::Refused {
            errno: libc::EOPNOTSUPP,
            message: format!("the kernel has no bonding driver: {}", error.reason()),
        }),
        // The first bond loads the driver, and that makes a `bond0` of its own unless
        // its parameter max_bonds is 0 (`bonding_init`, bond_main.c, 6.12).
        Err(error) if error.errno() == libc::EEXIST => {
            let link = by_name(requests, name)?.ok_or(ActError::Gone)?;
            if link.kind != LinkKind::Bond || link.admin_up {
                return Err(name_taken(name, &link));
            }
            change(requests, complete(bond_at(link.ifindex)))?;
            make_room(name);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Changes the options that are given.
pub(super) fn set_options(
    requests: &mut Requests,
    bond: Ifindex,
    options: &BondOptions,
) -> Result<(), ActError> {
    present(requests, bond)?;
    let delays = get_delays(requests, bond)
        .map_err(ActError::at("read the bond's options"))?
        .ok_or(ActError::Gone)?;
    let message = with_options(bond_at(bond), options, Some(&delays)).build();
    Ok(change(requests, message)?)
}

/// Makes a port the primary: that moves the traffic at once, in one step under the
/// kernel's lock, and holds when ports come and go, which setting the active port
/// would not.
///
/// Where the bond delivers the frames of all ports, what tells the network is prepared first, and told with the switchover: a port
/// that is left takes in nothing any more for stations behind a bridge that the bond is in, as the kernel has only the active
/// one take in all (`bond_hw_addr_swap` of `drivers/net/bonding/bond_main.c`, 6.12).
pub(super) fn set_primary(
    requests: &mut Requests,
    bond: Ifindex,
    port: Ifindex,
) -> Result<(), ActError> {
    let bond_link = present(requests, bond)?;
    let port_link = present(requests, port)?;
    // An index that is no port of the bond would clear the primary instead.
    if port_link.controller != Some(bond) {
        return Err(ActError::Refused {
            errno: libc::EINVAL,
            message: format!("{} is no port of {}", port_link.name, bond_link.name),
        });
    }
    let is_told_with_it = |facts: &BondFacts| {
        // A MAC that follows the port is not yet what it will be.
        let stays = facts.fail_over_mac == FailOverMac::None;
        stays && facts.all_ports_active && facts.active != Some(port)
    };
    let announcements = match bond_link.bond.as_ref().is_some_and(is_told_with_it) {
        true => Prepared::new(requests, bond, port),
        false => None,
    };
    change(requests, make_primary(bond, port))?;
    if let Some(announcements) = announcements {
        announcements.send();
    }
    Ok(())
}

fn with_options(
    mut message: LinkMessageBuilder<LinkBond>,
    options: &BondOptions,
    delays: Option<&BondDelays>,
) -> LinkMessageBuilder<LinkBond> {
    let &BondOptions {
        miimon_ms,
        fail_over_mac,
        primary_reselect,
        all_ports_active,
        peer_notifications,
    } = options;
    if let Some(miimon_ms) = miimon_ms {
        message = message.miimon(miimon_ms);
        // The kernel keeps delays in units of miimon: they have to be told again.
        if let Some(delays) = delays.filter(|_| miimon_ms != 0) {
            if delays.up_ms != 0 {
                message = message.updelay(delays.up_ms);
            }
            if delays.down_ms != 0 {
                message = message.downdelay(delays.down_ms);
            }
            if delays.peer_notification_ms != 0 {
                message = message.peer_notif_delay(delays.peer_notification_ms);
            }
        }
    }
    if let Some(primary_reselect) = primary_reselect {
        message = message.primary_reselect(match primary_reselect {
            PrimaryReselect::Always => BondPrimaryReselect::Always,
            PrimaryReselect::Better => BondPrimaryReselect::Better,
            PrimaryReselect::Failure => BondPrimaryReselect::Failure,
        });
    }
    if let Some(fail_over_mac) = fail_over_mac {
        message = message.fail_over_mac(match fail_over_mac {
            FailOverMac::None => BondFailOverMac::None,
            FailOverMac::Active => BondFailOverMac::Active,
            FailOverMac::Follow => BondFailOverMac::Follow,
        });
    }
    if let Some(all) = all_ports_active {
        message = message.all_ports_active(if all {
            BondAllPortActive::Delivered
        } else {
            BondAllPortActive::Dropped
        });
    }
    if let Some(count) = peer_notifications {
        message = message.num_peer_notif(count);
    }
    message
}

fn by_name(requests: &mut Requests, name: &IfName) -> Result<Option<Link>, ActError> {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_string()));
    let found: Result<_, RequestError> =
        requests.get(&RouteNetlinkMessage::GetLink(message), decode);
    let found = found.map_err(ActError::at(format!("look for {name}")))?;
    Ok(found.map(|described| described.link))
}

fn name_taken(name: &IfName, link: &Link) -> ActError {
    let what = match link.kind {
        LinkKind::Physical => "a network card",
        LinkKind::Bond => "a bond",
        LinkKind::Software => "another software device",
    };
    ActError::Refused {
        errno: libc::EEXIST,
        message: format!("{what} has the name {name} already"),
    }
}
