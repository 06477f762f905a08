//! Whom a bond can ask: its gateways, and neighbours that are known to answer.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tandem_core::types::{Ifindex, Mac};

use super::announce::{AnnouncedDevice, devices_of};
use super::error::ActError;
use crate::netlink::neighbour::{self, Neighbour};
use crate::netlink::request::Requests;
use crate::netlink::{address, route};
use crate::packet::frames::{VlanTag, arp_request};

/// Neighbours that are asked at most: one answer is enough.
const MAX_ASKED: usize = 8;
/// Devices whose neighbours are asked at most: the bond, and what lies on it.
const MAX_DEVICES: usize = 8;
/// What the kernel knows to have passed so lately counts as an answer.
const FRESH: Duration = Duration::from_millis(200);

/// A neighbour, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) ip: Ipv4Addr,
    /// Its MAC; broadcast where it is not known.
    mac: Mac,
    tags: Vec<VlanTag>,
    /// The MAC and address that the guest has there.
    own_mac: Mac,
    own_ip: Ipv4Addr,
}

impl Asked {
    /// They are on the same network.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.tags == other.tags
    }

    /// The VLANs in which it is, in words that follow its address; nothing where it is in none.
    pub(super) fn in_vlans(&self) -> String {
        let ids: Vec<_> = self.tags.iter().map(|tag| tag.id.to_string()).collect();
        match ids.is_empty() {
            true => String::new(),
            false => format!(" in VLAN {}", ids.join(".")),
        }
    }

    /// The question as the guest itself would put it.
    pub(super) fn question(&self) -> Vec<u8> {
        arp_request(self.own_mac, self.mac, &self.tags, self.own_ip, self.ip)
    }

    /// The same from a MAC that is nobody's, without an address: no neighbour and no switch learns from it where the
    /// guest is (an ARP probe, RFC 5227, 1.1).
    pub(super) fn probe(&self, source: Mac) -> Vec<u8> {
        arp_request(source, self.mac, &self.tags, Ipv4Addr::UNSPECIFIED, self.ip)
    }
}

/// The kernel knows that frames passed in both directions just now. Mostly the bond's own neighbours tell.
pub(super) fn is_confirmed(requests: &mut Requests, bond: Ifindex) -> Result<bool, ActError> {
    let is_fresh = |found: Vec<Neighbour>| found.iter().any(|one| one.confirmed <= FRESH);
    if is_fresh(neighbours_of(requests, bond)?) {
        return Ok(true);
    }
    for device in devices_of(requests, bond)?.iter().take(MAX_DEVICES) {
        if is_fresh(neighbours_of(requests, device.ifindex)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn neighbours_of(requests: &mut Requests, link: Ifindex) -> Result<Vec<Neighbour>, ActError> {
    let step = ActError::at(format!("read the neighbours of link {link}"));
    neighbour::dump(requests, link).map_err(step)
}

/// Whom a bond can ask: the first of each network, gateways before others, and then more.
pub(super) fn to_ask(requests: &mut Requests, bond: Ifindex) -> Result<Vec<Asked>, ActError> {
    let mut gateways = Vec::new();
    let mut others = Vec::new();
    for device in devices_of(requests, bond)?.iter().take(MAX_DEVICES) {
        let step = |what: &str| ActError::at(format!("read the {what} of link {}", device.ifindex));
        let mut found = neighbours_of(requests, device.ifindex)?;
        found.sort_by_key(|one| one.confirmed);
        let routes = route::dump(requests, device.ifindex, |payload| {
            route::decode(payload, device.ifindex)
        });
        let routes = routes.map_err(step("routes"))?;
        let own = address::dump(requests, Some(device.ifindex), address::decode);
        let own = own.map_err(step("addresses"))?;
        let own: Vec<_> = own
            .into_iter()
            .filter(|one| one.ifindex == device.ifindex && one.usable)
            .collect();
        let of = |ip, mac| asked(device, &own, ip, mac);
        for gateway in routes.iter().filter_map(|route| route.gateway) {
            let known = found.iter().find(|one| one.ip == gateway);
            gateways.extend(of(gateway, known.map_or(Mac([0xff; 6]), |one| one.mac)));
        }
        let is_other = |one: &&Neighbour| !routes.iter().any(|route| route.gateway == Some(one.ip));
        let neighbours = found.iter().filter(is_other);
        others.extend(neighbours.filter_map(|one| of(one.ip, one.mac)));
    }
    gateways.dedup();
    gateways.extend(others);
    let mut ranked: Vec<(usize, Asked)> = Vec::new();
    for one in gateways {
        let rank = ranked.iter().filter(|(_, before)| before.is_beside(&one));
        ranked.push((rank.count(), one));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut asked: Vec<_> = ranked.into_iter().map(|(_, one)| one).collect();
    asked.truncate(MAX_ASKED);
    Ok(asked)
}

/// How a neighbour on a device is asked; `None` if the guest has no address in its network.
fn asked(
    device: &AnnouncedDevice,
    own: &[address::Assigned],
    ip: IpAddr,
    mac: Mac,
) -> Option<Asked> {
    let IpAddr::V4(ip) = ip else {
        return None;
    };
    let own_ip = own.iter().find_map(|one| {
        let IpAddr::V4(own_ip) = one.address.ip else {
            return None;
        };
        let outside = 32_u32.saturating_sub(one.address.prefix.into());
        let network = |ip: Ipv4Addr| ip.to_bits().checked_shr(outside).unwrap_or(0);
        (network(own_ip) == network(ip)).then_some(own_ip)
    })?;
    Some(Asked {
        ip,
        mac,
        tags: device.tags.clone(),
        own_mac: device.mac,
        own_ip,
    })
}

#[cfg(test)]
mod tests {
    use tandem_core::link::Address;

    use super::*;

    #[test]
    fn a_neighbour_is_asked_from_the_address_in_its_network() {
        let device = AnnouncedDevice {
            ifindex: Ifindex(7),
            mac: Mac([2, 0, 0, 0, 0, 7]),
            tags: Vec::new(),
            router: false,
            below: None,
        };
        let own = ["10.0.0.2", "192.0.2.2"].map(|ip| address::Assigned {
            ifindex: Ifindex(7),
            address: Address {
                ip: ip.parse().unwrap(),
                prefix: 24,
            },
            usable: true,
            valid_s: None,
        });
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let of = |ip: &str| asked(&device, &own, ip.parse().unwrap(), mac);
        let found = of("192.0.2.1").unwrap();
        assert_eq!(found.own_ip, Ipv4Addr::new(192, 0, 2, 2));
        assert_eq!(of("198.51.100.1"), None);
        // Whoever hears the probe learns neither the guest's MAC nor its address.
        let probe = found.probe(Mac([6, 0, 0, 0, 0, 9]));
        assert!(!probe.windows(6).any(|bytes| bytes == device.mac.0));
        assert!(!probe.windows(4).any(|bytes| bytes == [192, 0, 2, 2]));
    }
}
