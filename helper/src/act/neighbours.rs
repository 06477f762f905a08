//! Whom a bond can ask: its gateways, and neighbours that are known to answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tandem_core::types::{Ifindex, Mac};

use super::announce::{AnnouncedDevice, devices_of};
use super::error::ActError;
use crate::netlink::neighbour::{self, Neighbour};
use crate::netlink::request::Requests;
use crate::netlink::{address, route};
use crate::packet::frames::{BROADCAST, VlanTag, arp_request, neighbour_solicitation};

/// Neighbours that are asked at most: one answer is enough.
const MAX_ASKED: usize = 8;
/// Devices whose neighbours are asked at most: the bond, and what lies on it.
const MAX_DEVICES: usize = 8;
/// What the kernel knows to have passed so lately counts as an answer.
const FRESH: Duration = Duration::from_millis(200);

/// A neighbour, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) ip: IpAddr,
    /// Its MAC, where it is known.
    mac: Option<Mac>,
    /// The VLANs in which it is, the outermost first.
    pub(super) tags: Vec<VlanTag>,
    /// The MAC and address that the guest has there; the address is of the neighbour's family.
    own_mac: Mac,
    own_ip: IpAddr,
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
        self.question_of(self.own_mac, self.own_ip)
    }

    /// The same from a MAC that is nobody's: no neighbour and no switch learns from it where the guest is. By ARP without
    /// an address (a probe, RFC 5227, 1.1). Who is solicited without one answers to all (RFC 4861, 7.2.4), so there it
    /// comes from the link-local address of that MAC.
    pub(super) fn probe(&self, source: Mac) -> Vec<u8> {
        let address = match self.ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => link_local_of(source).into(),
        };
        self.question_of(source, address)
    }

    fn question_of(&self, source: Mac, address: IpAddr) -> Vec<u8> {
        match (address, self.ip) {
            (IpAddr::V6(own_ip), IpAddr::V6(ip)) => {
                neighbour_solicitation(source, self.mac, &self.tags, own_ip, ip)
            }
            (IpAddr::V4(own_ip), IpAddr::V4(ip)) => {
                let to = self.mac.unwrap_or(BROADCAST);
                arp_request(source, to, &self.tags, own_ip, ip)
            }
            // No neighbour is made so.
            _ => Vec::new(),
        }
    }
}

/// The link-local address that comes of a MAC (RFC 4291, appendix A).
fn link_local_of(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high, low| u16::from_be_bytes([high, low]);
    let (first, second) = (word(a ^ 0x02, b), word(c, 0xff));
    Ipv6Addr::new(0xfe80, 0, 0, 0, first, second, word(0xfe, d), word(e, f))
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
            gateways.extend(of(gateway, known.map(|one| one.mac)));
        }
        let is_other = |one: &&Neighbour| !routes.iter().any(|route| route.gateway == Some(one.ip));
        let neighbours = found.iter().filter(is_other);
        others.extend(neighbours.filter_map(|one| of(one.ip, Some(one.mac))));
    }
    gateways.dedup();
    // ARP is what everybody answers.
    gateways.sort_by_key(|one| one.ip.is_ipv6());
    others.sort_by_key(|one| one.ip.is_ipv6());
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
    mac: Option<Mac>,
) -> Option<Asked> {
    let own = || own.iter().map(|one| one.address);
    let in_its_network = own().find(|one| prefix(one.ip, one.prefix) == prefix(ip, one.prefix));
    // A neighbour by IPv6 may have a prefix of which the guest has no address.
    let link_local = || own().find(|one| ip.is_ipv6() && is_link_local(one.ip));
    Some(Asked {
        ip,
        mac,
        tags: device.tags.clone(),
        own_mac: device.mac,
        own_ip: in_its_network.or_else(link_local)?.ip,
    })
}

/// The first bits of an address.
fn prefix(ip: IpAddr, length: u8) -> IpAddr {
    let cut = |bits: u32| bits.saturating_sub(length.into());
    match ip {
        IpAddr::V4(ip) => {
            let bits = ip.to_bits().checked_shr(cut(32)).unwrap_or(0);
            Ipv4Addr::from_bits(bits).into()
        }
        IpAddr::V6(ip) => {
            let bits = ip.to_bits().checked_shr(cut(128)).unwrap_or(0);
            Ipv6Addr::from_bits(bits).into()
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use tandem_core::link::Address;

    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const NEIGHBOUR: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const STRANGER: Mac = Mac([6, 0, 0, 0, 0, 9]);

    /// How a guest with these addresses asks for one.
    fn asked_for(own: &[(&str, u8)], ip: &str) -> Option<Asked> {
        let device = AnnouncedDevice {
            ifindex: Ifindex(7),
            mac: OWN,
            tags: Vec::new(),
            router: false,
            below: None,
        };
        let own = own.iter().map(|(ip, prefix)| address::Assigned {
            ifindex: Ifindex(7),
            address: Address {
                ip: ip.parse().unwrap(),
                prefix: *prefix,
            },
            usable: true,
            valid_s: None,
        });
        let own: Vec<_> = own.collect();
        asked(&device, &own, ip.parse().unwrap(), Some(NEIGHBOUR))
    }

    fn contains(frame: &[u8], bytes: &[u8]) -> bool {
        frame.windows(bytes.len()).any(|part| part == bytes)
    }

    #[test]
    fn a_neighbour_is_asked_from_the_address_in_its_network() {
        let of = |ip: &str| asked_for(&[("10.0.0.2", 24), ("192.0.2.2", 24)], ip);
        let found = of("192.0.2.1").unwrap();
        assert_eq!(found.own_ip, IpAddr::from([192, 0, 2, 2]));
        assert_eq!(of("198.51.100.1"), None);
        assert_eq!(of("fe80::1"), None);
        // Whoever hears the probe learns neither the guest's MAC nor its address.
        let probe = found.probe(STRANGER);
        assert!(!contains(&probe, &OWN.0));
        assert!(!contains(&probe, &[192, 0, 2, 2]));
    }

    #[test]
    fn a_neighbour_by_ipv6_is_asked_from_the_link_local_address_if_none_is_in_its_network() {
        let own = [
            ("192.0.2.2", 24),
            ("fe80::7", 64),
            ("2001:db8::2", 64),
            ("2001:db8:1::2", 128),
        ];
        let of = |ip: &str| asked_for(&own, ip).map(|one| one.own_ip.to_string());
        assert_eq!(of("2001:db8::1").as_deref(), Some("2001:db8::2"));
        assert_eq!(of("2001:db8:1::1").as_deref(), Some("fe80::7"));
        assert_eq!(of("fe80::1").as_deref(), Some("fe80::7"));
        assert_eq!(asked_for(&own[3..], "2001:db8:1::1"), None);
        let found = asked_for(&own, "2001:db8::1").unwrap();
        let probe = found.probe(STRANGER);
        assert!(!contains(&probe, &OWN.0));
        for (ip, _) in &own[1..] {
            let ip: Ipv6Addr = ip.parse().unwrap();
            assert!(!contains(&probe, &ip.octets()), "{ip}");
        }
        assert!(contains(&probe, &link_local_of(STRANGER).octets()));
        assert_eq!(link_local_of(STRANGER).to_string(), "fe80::400:ff:fe00:9");
    }
}
