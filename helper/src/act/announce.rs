//! Tells the network where the bond and its upper devices are now.
//!
//! The frames go straight out of the port that carries the traffic, with VLAN tags
//! in them, so that they are right whatever the bond itself thinks at the moment.
//! Like the kernel's own announcements they also cover the upper devices of the
//! bond: VLANs, macvlans, and the bridge it may be a port of.

use std::collections::VecDeque;
use std::net::IpAddr;

use tandem_core::link::Link;
use tandem_core::types::{Ifindex, Mac};

use super::error::ActError;
use super::link::present;
use crate::netlink::address;
use crate::netlink::link::{self, Described};
use crate::netlink::request::Requests;
use crate::packet::frames::{VlanTag, gratuitous_arp, neighbour_advertisement, reverse_arp};
use crate::packet::socket::transmit;

/// Frames that one announcement sends at most; a guest with more addresses
/// announces the first.
const MAX_FRAMES: usize = 4096;

/// Announces the bond through one of its ports.
pub(super) fn announce(
    requests: &mut Requests,
    bond: Ifindex,
    port: Ifindex,
) -> Result<(), ActError> {
    let port_link = port_of(requests, bond, port)?;
    let frames = frames_of(requests, bond)?;
    transmit(port, &frames).map_err(|error| ActError::Send {
        step: format!(
            "send {} announcements through {} (needs CAP_NET_RAW)",
            frames.len(),
            port_link.name
        ),
        error,
    })
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

/// The frames for a device and its upper devices.
pub(super) fn frames_of(
    requests: &mut Requests,
    device: Ifindex,
) -> Result<Vec<Vec<u8>>, ActError> {
    let links = link::dump(requests, Layer::decode).map_err(ActError::at("read the links"))?;
    let mut frames = Vec::new();
    for device in announced_devices(&links, device) {
        frames.extend(frames_of_one(requests, &device)?);
    }
    frames.truncate(MAX_FRAMES);
    Ok(frames)
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
struct AnnouncedDevice {
    ifindex: Ifindex,
    mac: Mac,
    tags: Vec<VlanTag>,
    router: bool,
}

/// The device and its upper devices that are up, each once.
fn announced_devices(links: &[Layer], device: Ifindex) -> Vec<AnnouncedDevice> {
    let mut seen = vec![device];
    let mut queue: VecDeque<(&Layer, Vec<VlanTag>)> = links
        .iter()
        .filter(|layer| layer.described.link.ifindex == device)
        .map(|layer| (layer, Vec::new()))
        .collect();
    let mut announced_devices = Vec::new();
    while let Some((layer, tags)) = queue.pop_front() {
        for upper in links {
            let ifindex = upper.described.link.ifindex;
            if !upper.described.link.admin_up || seen.contains(&ifindex) {
                continue;
            }
            if let Some(tags) = upper.tags_on(layer, &tags) {
                seen.push(ifindex);
                queue.push_back((upper, tags));
            }
        }
        announced_devices.extend(layer.described.link.mac.map(|mac| AnnouncedDevice {
            ifindex: layer.described.link.ifindex,
            mac,
            tags,
            router: layer.router,
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
        router,
    } = *device;
    let addresses = address::dump(requests, Some(ifindex), |payload| {
        address::decode(payload).filter(|assigned| assigned.ifindex == ifindex && assigned.usable)
    })
    .map_err(ActError::at(format!(
        "read the addresses of link {ifindex}"
    )))?;
    let mut frames = Vec::new();
    for assigned in addresses {
        match assigned.address.ip {
            IpAddr::V4(ip) => frames.extend(gratuitous_arp(mac, tags, ip)),
            IpAddr::V6(ip) => frames.push(neighbour_advertisement(mac, tags, ip, router)),
        }
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
                    ifindex: Ifindex(ifindex),
                    name: format!("link{ifindex}").parse().unwrap(),
                    kind: LinkKind::Software,
                    mac: Some(Mac([2, 0, 0, 0, 0, ifindex.to_le_bytes()[0]])),
                    permanent_mac: None,
                    pci: None,
                    pci_parent: None,
                    driver: None,
                    mtu: 1500,
                    max_mtu: 0,
                    admin_up: true,
                    carrier: true,
                    controller: None,
                    occupant: None,
                    bond: None,
                    port: None,
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
