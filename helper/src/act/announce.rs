//! Tells the network where the bond and its upper devices are now.
//!
//! The frames go straight out of the port that carries the traffic, with VLAN tags
//! in them, so that they are right whatever the bond itself thinks at the moment.
//! Like the kernel's own announcements they also cover the upper devices of the
//! bond: VLANs, macvlans, and the bridge it may be a port of. Besides, they cover the stations that the network finds
//! through the bond and that no list of links shows: those that such a bridge has learnt behind its other ports, and the
//! MACs of macvlans in other network namespaces.

use std::collections::VecDeque;
use std::net::IpAddr;

use tandem_core::link::{FailOverMac, Link};
use tandem_core::types::{Ifindex, Mac};

use super::error::ActError;
use super::link::present;
use crate::netlink::address;
use crate::netlink::link::{self, Described};
use crate::netlink::request::Requests;
use crate::netlink::stations::{self, Station};
use crate::packet::frames::{
    ETHERTYPE_VLAN, VlanTag, gratuitous_arp, neighbour_advertisement, reverse_arp,
};
use crate::packet::socket::transmit;

/// Frames that one announcement sends at most; a guest with more addresses
/// announces the first.
const MAX_FRAMES: usize = 4096;
/// Stations behind the bond that it tells of besides.
const MAX_STATIONS: usize = 1024;

/// The loopback device has the first index of each network namespace (`loopback_net_init`, drivers/net/loopback.c, 6.12).
const LOOPBACK: Ifindex = Ifindex(1);

/// Announces the bond through one of its ports.
pub(super) fn announce(
    requests: &mut Requests,
    bond: Ifindex,
    port: Ifindex,
) -> Result<(), ActError> {
    let port_link = port_of(requests, bond, port)?;
    let frames = all_frames_of(requests, bond)?;
    transmit(port, &frames).map_err(|error| ActError::Send {
        step: format!(
            "send {} announcements through {} (needs CAP_NET_RAW)",
            frames.len(),
            port_link.name
        ),
        error,
    })
}

/// An announcement that only has to be sent: the one that is due after a switchover may be some ms late, and nothing
/// depends on this one.
pub(super) struct Prepared {
    port: Ifindex,
    frames: Vec<Vec<u8>>,
}

impl Prepared {
    /// Of the bond through one of its ports, or nothing if that can't be told.
    pub(super) fn new(requests: &mut Requests, bond: Ifindex, port: Ifindex) -> Option<Self> {
        let frames = all_frames_of(requests, bond);
        let told = frames.inspect_err(|error| tracing::debug!(%error, "announced later"));
        told.ok().map(|frames| Self { port, frames })
    }

    pub(super) fn send(self) {
        if let Err(error) = transmit(self.port, &self.frames) {
            tracing::debug!(%error, "announced later");
        }
    }
}

/// The link, if it is a port of the bond: the bond's MAC on a link that is not its
/// own would lead its traffic astray.
pub(super) fn port_of(
    requests: &mut Requests,
    bond: Ifindex,
    port: Ifindex,
) -> Result<Link, ActError> {
    let link = present(requests, port)?;
    if link.controller == Some(bond) {
        return Ok(link);
    }
    Err(ActError::Refused {
        errno: libc::EINVAL,
        message: format!("{} is no port of link {bond}", link.name),
    })
}

/// A device and its upper devices that are up, each once, with the tags that their frames have.
pub(super) fn devices_of(
    requests: &mut Requests,
    device: Ifindex,
) -> Result<Vec<AnnouncedDevice>, ActError> {
    let links = link::dump(requests, Layer::decode).map_err(ActError::at("read the links"))?;
    Ok(announced_devices(&links, device))
}

/// The frames for a device and its upper devices. They stay right for as long as these do.
pub(super) fn frames_of(
    requests: &mut Requests,
    device: Ifindex,
) -> Result<Vec<Vec<u8>>, ActError> {
    let devices = devices_of(requests, device)?;
    frames_of_devices(requests, device, &devices)
}

/// Besides, those for the stations behind them now: one may be elsewhere in a moment.
pub(super) fn all_frames_of(
    requests: &mut Requests,
    device: Ifindex,
) -> Result<Vec<Vec<u8>>, ActError> {
    let devices = devices_of(requests, device)?;
    let mut frames = frames_of_devices(requests, device, &devices)?;
    frames.extend(frames_of_stations(requests, &devices)?);
    Ok(frames)
}

fn frames_of_devices(
    requests: &mut Requests,
    bond: Ifindex,
    devices: &[AnnouncedDevice],
) -> Result<Vec<Vec<u8>>, ActError> {
    let mut frames = Vec::new();
    for device in devices {
        frames.extend(frames_of_one(requests, device)?);
    }
    frames.extend(frames_of_addresses_beside(requests, bond, devices)?);
    frames.truncate(MAX_FRAMES);
    Ok(frames)
}

/// The frames for addresses of the loopback device and of dummies, which the guest answers for on all its NICs
/// (`arp_ignore`): where the bond's MAC follows its port, neighbours have to learn it for them too.
fn frames_of_addresses_beside(
    requests: &mut Requests,
    bond: Ifindex,
    devices: &[AnnouncedDevice],
) -> Result<Vec<Vec<u8>>, ActError> {
    let links = link::dump(requests, link::decode).map_err(ActError::at("read the links"))?;
    let of_bond = links.iter().find(|one| one.link.ifindex == bond);
    let facts = of_bond.and_then(|one| one.link.bond.as_ref());
    if facts.is_none_or(|facts| facts.fail_over_mac != FailOverMac::Active) {
        return Ok(Vec::new());
    }
    let holds = |one: &&Described| {
        let is_dummy = one.info_kind.as_deref() == Some("dummy");
        one.link.admin_up && (is_dummy || one.link.ifindex == LOOPBACK)
    };
    let holders: Vec<_> = links
        .iter()
        .filter(holds)
        .map(|one| one.link.ifindex)
        .collect();
    let found = address::dump(requests, None, address::decode)
        .map_err(ActError::at("read the addresses beside the bond"))?;
    let mut frames = Vec::new();
    let mac = of_bond.and_then(|one| one.link.mac);
    let as_bond = devices.iter().filter(|device| Some(device.mac) == mac);
    for device in as_bond {
        let beside = found.iter().filter(|one| {
            holders.contains(&one.ifindex) && one.usable && !one.address.is_link_local()
        });
        for assigned in beside {
            frames.extend(device.frames_for(assigned.address.ip));
        }
    }
    Ok(frames)
}

/// The frames for stations behind the devices.
fn frames_of_stations(
    requests: &mut Requests,
    devices: &[AnnouncedDevice],
) -> Result<Vec<Vec<u8>>, ActError> {
    let all = stations::dump(requests).map_err(ActError::at("read the stations of bridges"))?;
    let mut found: Vec<(Mac, Vec<VlanTag>)> = Vec::new();
    // What a device takes in, those below it take in too: the outermost tells the tags.
    for device in devices.iter().rev() {
        let is_behind = |one: &&Station| device.has_behind(one);
        let behind: Vec<_> = all.iter().filter(is_behind).collect();
        let has_vlans = behind.iter().any(|one| one.vlan.is_some());
        let vlans = match device.below.filter(|_| has_vlans) {
            Some(port) => stations::port_vlans(requests, port)
                .map_err(ActError::at(format!("read the VLANs of link {port}")))?,
            None => Vec::new(),
        };
        for station in behind {
            let is_device = devices.iter().any(|one| one.mac == station.mac);
            let Some(tags) = device.tags_of(station, &vlans).filter(|_| !is_device) else {
                continue;
            };
            let is_found = |(mac, other): &(Mac, Vec<VlanTag>)| {
                *mac == station.mac && (station.bridge.is_none() || *other == tags)
            };
            if !found.iter().any(is_found) && found.len() < MAX_STATIONS {
                found.push((station.mac, tags));
            }
        }
    }
    let frames = found.iter().map(|(mac, tags)| reverse_arp(*mac, tags));
    Ok(frames.collect())
}

/// A link, with what matters for announcements.
#[derive(Debug, Clone)]
struct Layer {
    described: Described,
    vlan: Option<VlanTag>,
    router: bool,
}

impl Layer {
    fn decode(payload: &[u8]) -> Option<Self> {
        Some(Self {
            described: link::decode(payload)?,
            vlan: link::vlan(payload).map(|(protocol, id)| VlanTag { protocol, id }),
            router: link::forwards_ipv6(payload),
        })
    }

    /// How the link lies on `lower`: the tags that its frames get there, or `None`
    /// if it does not, or in a way that its frames can't be told of.
    fn tags_on(&self, lower: &Self, tags: &[VlanTag]) -> Option<Vec<VlanTag>> {
        let on_top = self.described.lower == Some(lower.described.link.ifindex);
        let contains = lower.described.link.controller == Some(self.described.link.ifindex);
        match self.described.info_kind.as_deref()? {
            "vlan" if on_top => Some(tags.iter().copied().chain([self.vlan?]).collect()),
            "macvlan" | "macvtap" | "ipvlan" | "ipvtap" if on_top => Some(tags.to_owned()),
            "bridge" if contains => Some(tags.to_owned()),
            _ => None,
        }
    }
}

/// A device whose MAC has to be announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnnouncedDevice {
    pub(super) ifindex: Ifindex,
    pub(super) mac: Mac,
    pub(super) tags: Vec<VlanTag>,
    pub(super) router: bool,
    /// Its port towards the bond, if it is a bridge.
    pub(super) below: Option<Ifindex>,
}

impl AnnouncedDevice {
    /// What tells the network that an address is here; nothing for one that no network knows.
    fn frames_for(&self, ip: IpAddr) -> Vec<Vec<u8>> {
        let (mac, tags) = (self.mac, &self.tags[..]);
        match ip {
            IpAddr::V4(ip) if !ip.is_loopback() => gratuitous_arp(mac, tags, ip).into(),
            IpAddr::V6(ip) if !ip.is_loopback() => {
                vec![neighbour_advertisement(mac, tags, ip, self.router)]
            }
            _ => Vec::new(),
        }
    }

    /// The station's frames come to the network through this device.
    fn has_behind(&self, station: &Station) -> bool {
        match station.bridge {
            None => station.device == self.ifindex,
            Some(bridge) => bridge == self.ifindex && Some(station.device) != self.below,
        }
    }

    /// The tags of the station's frames; `None` if they do not get out. `vlans` are those of the bridge's port.
    fn tags_of(&self, station: &Station, vlans: &[(u16, bool)]) -> Option<Vec<VlanTag>> {
        let mut tags = self.tags.clone();
        if let Some(id) = station.vlan.filter(|_| station.bridge.is_some()) {
            let (_, is_untagged) = vlans.iter().find(|(vlan, _)| *vlan == id)?;
            let protocol = ETHERTYPE_VLAN;
            tags.extend((!is_untagged).then_some(VlanTag { protocol, id }));
        }
        Some(tags)
    }
}

/// The device and its upper devices that are up, each once.
fn announced_devices(links: &[Layer], device: Ifindex) -> Vec<AnnouncedDevice> {
    let mut seen = vec![device];
    let mut queue: VecDeque<(&Layer, Vec<VlanTag>, Option<Ifindex>)> = links
        .iter()
        .filter(|layer| layer.described.link.ifindex == device)
        .map(|layer| (layer, Vec::new(), None))
        .collect();
    let mut announced_devices = Vec::new();
    while let Some((layer, tags, below)) = queue.pop_front() {
        for upper in links {
            let ifindex = upper.described.link.ifindex;
            if !upper.described.link.admin_up || seen.contains(&ifindex) {
                continue;
            }
            if let Some(tags) = upper.tags_on(layer, &tags) {
                seen.push(ifindex);
                let is_bridge = upper.described.info_kind.as_deref() == Some("bridge");
                let below = is_bridge.then_some(layer.described.link.ifindex);
                queue.push_back((upper, tags, below));
            }
        }
        announced_devices.extend(layer.described.link.mac.map(|mac| AnnouncedDevice {
            ifindex: layer.described.link.ifindex,
            mac,
            tags,
            router: layer.router,
            below,
        }));
    }
    announced_devices
}

fn frames_of_one(
    requests: &mut Requests,
    device: &AnnouncedDevice,
) -> Result<Vec<Vec<u8>>, ActError> {
    let AnnouncedDevice {
        ifindex,
        mac,
        ref tags,
        ..
    } = *device;
    let addresses = address::dump(requests, Some(ifindex), |payload| {
        address::decode(payload).filter(|assigned| assigned.ifindex == ifindex && assigned.usable)
    })
    .map_err(ActError::at(format!(
        "read the addresses of link {ifindex}"
    )))?;
    let mut frames = Vec::new();
    for assigned in addresses {
        frames.extend(device.frames_for(assigned.address.ip));
    }
    if frames.is_empty() {
        frames.push(reverse_arp(mac, tags));
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use tandem_core::link::{Link, LinkKind};

    use super::*;

    fn layer(ifindex: u32, kind: &str, lower: Option<u32>) -> Layer {
        Layer {
            described: Described {
                link: Link {
                    mac: Some(Mac([2, 0, 0, 0, 0, ifindex.to_le_bytes()[0]])),
                    admin_up: true,
                    carrier: true,
                    ..Link::named(
                        Ifindex(ifindex),
                        format!("link{ifindex}").parse().unwrap(),
                        LinkKind::Software,
                    )
                },
                parent: None,
                info_kind: Some(kind.to_owned()),
                lower: lower.map(Ifindex),
            },
            vlan: (kind == "vlan").then(|| tag(ifindex)),
            router: false,
        }
    }

    fn tag(ifindex: u32) -> VlanTag {
        VlanTag {
            protocol: 0x8100,
            id: u16::try_from(ifindex).unwrap() * 100,
        }
    }

    fn found(links: &[Layer]) -> Vec<(u32, Vec<VlanTag>)> {
        announced_devices(links, Ifindex(1))
            .into_iter()
            .map(|device| (device.ifindex.0, device.tags))
            .collect()
    }

    #[test]
    fn tags_add_up_from_the_bond_outwards() {
        let mut bridge = layer(6, "bridge", None);
        let mut port = layer(5, "vlan", Some(2));
        port.described.link.controller = Some(Ifindex(6));
        let mut closed = layer(7, "vlan", Some(1));
        closed.described.link.admin_up = false;
        let links = [
            layer(8, "vlan", Some(9)),
            layer(4, "macvlan", Some(3)),
            layer(3, "vlan", Some(2)),
            layer(2, "vlan", Some(1)),
            layer(1, "bond", None),
            port,
            bridge.clone(),
            closed,
            layer(9, "veth", Some(1)),
        ];
        assert_eq!(
            found(&links),
            [
                (1, vec![]),
                (2, vec![tag(2)]),
                (3, vec![tag(2), tag(3)]),
                (5, vec![tag(2), tag(5)]),
                (4, vec![tag(2), tag(3)]),
                (6, vec![tag(2), tag(5)]),
            ]
        );
        // A bond that is nowhere has nothing to announce, and a ring has an end.
        assert_eq!(found(&links[..4]), []);
        bridge.described.link.ifindex = Ifindex(1);
        bridge.described.link.controller = Some(Ifindex(1));
        assert_eq!(found(&[bridge]), [(1, vec![])]);
    }
}
