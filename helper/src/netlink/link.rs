//! What an `RTM_NEWLINK` message says of a link, and how to ask for it.
//!
//! Attributes are read one by one: one that a newer kernel writes otherwise, or
//! that is damaged, costs its own field and not the link.
//! Numbers: `include/uapi/linux/{if_link,if_bonding}.h`, 6.12.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use tandem_core::link::{
    BondFacts, BondMode, FailOverMac, Link, LinkKind, Occupant, PortFacts, PrimaryReselect,
};
use tandem_core::types::{Ifindex, Mac};

use super::request::{RequestError, Requests};
use super::{attribute, attributes, text_of, u32_of};

/// Bytes of `struct ifinfomsg`.
pub(crate) const HEADER_BYTES: usize = 16;
const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;

const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
pub(crate) const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
pub(crate) const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_STATS64: u16 = 23;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_MAX_MTU: u16 = 51;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;

pub(crate) const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_ACTIVE_SLAVE: u16 = 2;
const IFLA_BOND_MIIMON: u16 = 3;
const IFLA_BOND_UPDELAY: u16 = 4;
const IFLA_BOND_DOWNDELAY: u16 = 5;
const IFLA_BOND_PRIMARY: u16 = 11;
const IFLA_BOND_PRIMARY_RESELECT: u16 = 12;
const IFLA_BOND_FAIL_OVER_MAC: u16 = 13;
const IFLA_BOND_NUM_PEER_NOTIF: u16 = 16;
const IFLA_BOND_ALL_SLAVES_ACTIVE: u16 = 17;
const IFLA_BOND_PEER_NOTIF_DELAY: u16 = 28;
const BOND_MODE_ACTIVEBACKUP: u8 = 1;

const IFLA_BOND_SLAVE_STATE: u16 = 1;
const IFLA_BOND_SLAVE_MII_STATUS: u16 = 2;
const IFLA_BOND_SLAVE_LINK_FAILURE_COUNT: u16 = 3;
const IFLA_BOND_SLAVE_PERM_HWADDR: u16 = 4;
const BOND_STATE_ACTIVE: u8 = 0;
const BOND_LINK_UP: u8 = 0;

const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const IFLA_INET6_CONF: u16 = 2;
const AF_INET6: u16 = 10;

/// A link as the message describes it; sysfs adds the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    /// All but `pci`, `pci_parent` and `driver`; of occupants only an XDP program.
    pub(crate) link: Link,
    /// Bus and name of the parent device, such as `pci` and `0000:02:00.0`, or
    /// `virtio` and `virtio3`. Kernels from 5.14 tell it.
    pub(crate) parent: Option<(String, String)>,
    /// Kind of a software device, such as `vlan`.
    pub(crate) info_kind: Option<String>,
    /// The link whose upper device this one is (`IFLA_LINK`, of a VXLAN `IFLA_VXLAN_LINK`).
    pub(crate) lower: Option<Ifindex>,
}

/// Decodes the payload of `RTM_NEWLINK`. `None` for other families' views of a link
/// (a bridge's of its ports) and for what names no link.
pub(crate) fn decode(payload: &[u8]) -> Option<Described> {
    let header = payload.first_chunk::<HEADER_BYTES>()?;
    let [family, _, t0, t1, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
    if i32::from(family) != libc::AF_UNSPEC {
        return None;
    }
    let ifindex = Ifindex(u32::from_ne_bytes([i0, i1, i2, i3]));
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    let ethernet = u16::from_ne_bytes([t0, t1]) == ARPHRD_ETHER;

    let mut name = None;
    let mut mac = None;
    let mut permanent_mac = None;
    let mut mtu = 0;
    let mut max_mtu = 0;
    let mut controller = None;
    let mut lower = None;
    let mut lower_is_elsewhere = false;
    let mut has_xdp = false;
    let mut bus = None;
    let mut device = None;
    let mut info = Info::default();
    for (kind, value) in attributes(&payload[HEADER_BYTES..]) {
        match kind {
            IFLA_IFNAME => name = text_of(value).and_then(|text| text.parse().ok()),
            IFLA_ADDRESS => mac = mac_of(value),
            IFLA_PERM_ADDRESS => permanent_mac = mac_of(value),
            IFLA_MTU => mtu = u32_of(value).unwrap_or(0),
            IFLA_MAX_MTU => max_mtu = u32_of(value).unwrap_or(0),
            IFLA_MASTER => controller = ifindex_of(value),
            IFLA_LINK => lower = ifindex_of(value),
            IFLA_LINK_NETNSID => lower_is_elsewhere = true,
            IFLA_XDP => {
                let attached = attribute(value, IFLA_XDP_ATTACHED);
                has_xdp = attached.is_some_and(|attached| attached != [0]);
            }
            IFLA_LINKINFO => info = Info::decode(value),
            IFLA_PARENT_DEV_BUS_NAME => bus = text_of(value).map(str::to_owned),
            IFLA_PARENT_DEV_NAME => device = text_of(value).map(str::to_owned),
            _ => {}
        }
    }
    let kind = match info.kind {
        None if ethernet => LinkKind::Physical,
        Some("bond") => LinkKind::Bond,
        _ => LinkKind::Software,
    };
    Some(Described {
        link: Link {
            ifindex,
            name: name?,
            kind,
            mac,
            permanent_mac,
            pci: None,
            pci_parent: None,
            driver: None,
            mtu,
            max_mtu,
            admin_up: flags & IFF_UP != 0,
            carrier: flags & IFF_LOWER_UP != 0,
            controller,
            occupant: has_xdp.then_some(Occupant::Xdp),
            bond: (kind == LinkKind::Bond).then(|| bond_facts(info.data)),
            port: (info.port_kind == Some("bond")).then(|| port_facts(info.port_data)),
        },
        parent: bus.zip(device),
        info_kind: info.kind.map(str::to_owned),
        lower: lower
            .or_else(|| vxlan_lower(&info))
            .filter(|_| !lower_is_elsewhere),
    })
}

/// A VXLAN names its lower device among its own attributes only.
fn vxlan_lower(info: &Info<'_>) -> Option<Ifindex> {
    let lower = (info.kind == Some("vxlan")).then(|| attribute(info.data, IFLA_VXLAN_LINK))??;
    ifindex_of(lower)
}

/// Reads all links of the namespace; `None` from `decode` leaves one out.
pub(crate) fn dump<T>(
    requests: &mut Requests,
    decode: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Vec<T>, RequestError> {
    requests.dump(&question(0), decode)
}

/// Reads one link, without what sysfs knows; `None` if it is gone.
pub(crate) fn get(
    requests: &mut Requests,
    ifindex: Ifindex,
) -> Result<Option<Described>, RequestError> {
    requests.get(&question(ifindex.0), decode)
}

/// Reads a bond's delays; `None` if it is gone.
pub(crate) fn get_delays(
    requests: &mut Requests,
    bond: Ifindex,
) -> Result<Option<BondDelays>, RequestError> {
    requests.get(&question(bond.0), bond_delays)
}

/// Reads how many frames a link has sent, by its driver's count; `None` if it is gone.
pub(crate) fn get_sent(
    requests: &mut Requests,
    ifindex: Ifindex,
) -> Result<Option<u64>, RequestError> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex.0;
    requests.get(&RouteNetlinkMessage::GetLink(message), |payload| {
        // `struct rtnl_link_stats64`: frames received, then frames sent.
        let statistics = attribute(payload.get(HEADER_BYTES..)?, IFLA_STATS64)?;
        let (_, rest) = statistics.split_first_chunk::<8>()?;
        rest.first_chunk().copied().map(u64::from_ne_bytes)
    })
}

/// Without statistics, which are most of a link's message and cost the driver work.
fn question(ifindex: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let no_statistics = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    message.attributes.push(no_statistics);
    RouteNetlinkMessage::GetLink(message)
}

/// A bond's delays in ms; 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BondDelays {
    pub(crate) up_ms: u32,
    pub(crate) down_ms: u32,
    pub(crate) peer_notification_ms: u32,
}

/// Takes a bond's delays from the payload of `RTM_NEWLINK`.
pub(crate) fn bond_delays(payload: &[u8]) -> Option<BondDelays> {
    let info = Info::decode(attribute(payload.get(HEADER_BYTES..)?, IFLA_LINKINFO)?);
    let mut delays = BondDelays::default();
    for (kind, value) in attributes(info.data) {
        let ms = u32_of(value).unwrap_or(0);
        match kind {
            IFLA_BOND_UPDELAY => delays.up_ms = ms,
            IFLA_BOND_DOWNDELAY => delays.down_ms = ms,
            IFLA_BOND_PEER_NOTIF_DELAY => delays.peer_notification_ms = ms,
            _ => {}
        }
    }
    Some(delays)
}

/// Takes a VLAN's protocol and number from the payload of `RTM_NEWLINK`.
pub(crate) fn vlan(payload: &[u8]) -> Option<(u16, u16)> {
    let info = Info::decode(attribute(payload.get(HEADER_BYTES..)?, IFLA_LINKINFO)?);
    let protocol = attribute(info.data, IFLA_VLAN_PROTOCOL)?.try_into().ok()?;
    let id = attribute(info.data, IFLA_VLAN_ID)?.try_into().ok()?;
    Some((u16::from_be_bytes(protocol), u16::from_ne_bytes(id)))
}

/// True if the guest forwards IPv6 packets that arrive on the link.
pub(crate) fn forwards_ipv6(payload: &[u8]) -> bool {
    let configuration = payload
        .get(HEADER_BYTES..)
        .and_then(|attributes| attribute(attributes, IFLA_AF_SPEC))
        .and_then(|families| attribute(families, AF_INET6))
        .and_then(|family| attribute(family, IFLA_INET6_CONF));
    // `DEVCONF_FORWARDING` is the first entry.
    configuration
        .and_then(|entries| entries.get(..4))
        .and_then(u32_of)
        .is_some_and(|forwarding| forwarding != 0)
}

/// The parts of `IFLA_LINKINFO`.
#[derive(Default)]
struct Info<'a> {
    kind: Option<&'a str>,
    data: &'a [u8],
    port_kind: Option<&'a str>,
    port_data: &'a [u8],
}

impl<'a> Info<'a> {
    fn decode(value: &'a [u8]) -> Self {
        let mut info = Self::default();
        for (kind, value) in attributes(value) {
            match kind {
                IFLA_INFO_KIND => info.kind = text_of(value),
                IFLA_INFO_DATA => info.data = value,
                IFLA_INFO_SLAVE_KIND => info.port_kind = text_of(value),
                IFLA_INFO_SLAVE_DATA => info.port_data = value,
                _ => {}
            }
        }
        info
    }
}

fn bond_facts(data: &[u8]) -> BondFacts {
    let mut facts = BondFacts {
        mode: BondMode::Other,
        active: None,
        primary: None,
        fail_over_mac: FailOverMac::None,
        primary_reselect: PrimaryReselect::Always,
        miimon_ms: 0,
        all_ports_active: false,
        peer_notifications: 0,
    };
    for (kind, value) in attributes(data) {
        let byte = value.first().copied();
        match kind {
            IFLA_BOND_MODE if byte == Some(BOND_MODE_ACTIVEBACKUP) => {
                facts.mode = BondMode::ActiveBackup;
            }
            IFLA_BOND_ACTIVE_SLAVE => facts.active = ifindex_of(value),
            IFLA_BOND_MIIMON => facts.miimon_ms = u32_of(value).unwrap_or(0),
            IFLA_BOND_PRIMARY => facts.primary = ifindex_of(value),
            IFLA_BOND_PRIMARY_RESELECT => {
                facts.primary_reselect = match byte {
                    Some(1) => PrimaryReselect::Better,
                    Some(2) => PrimaryReselect::Failure,
                    _ => PrimaryReselect::Always,
                }
            }
            IFLA_BOND_FAIL_OVER_MAC => {
                facts.fail_over_mac = match byte {
                    Some(1) => FailOverMac::Active,
                    Some(2) => FailOverMac::Follow,
                    _ => FailOverMac::None,
                }
            }
            IFLA_BOND_NUM_PEER_NOTIF => facts.peer_notifications = byte.unwrap_or(0),
            IFLA_BOND_ALL_SLAVES_ACTIVE => {
                facts.all_ports_active = byte.is_some_and(|byte| byte != 0);
            }
            _ => {}
        }
    }
    facts
}

fn port_facts(data: &[u8]) -> PortFacts {
    let mut facts = PortFacts {
        active: false,
        mii_up: false,
        link_failures: 0,
        permanent_mac: None,
    };
    for (kind, value) in attributes(data) {
        match kind {
            IFLA_BOND_SLAVE_STATE => facts.active = value == [BOND_STATE_ACTIVE],
            IFLA_BOND_SLAVE_MII_STATUS => facts.mii_up = value == [BOND_LINK_UP],
            IFLA_BOND_SLAVE_LINK_FAILURE_COUNT => {
                facts.link_failures = u32_of(value).unwrap_or(0);
            }
            IFLA_BOND_SLAVE_PERM_HWADDR => facts.permanent_mac = mac_of(value),
            _ => {}
        }
    }
    facts
}

pub(crate) fn mac_of(value: &[u8]) -> Option<Mac> {
    Mac::from_bytes(value).filter(|&mac| mac != Mac::ZERO)
}

fn ifindex_of(value: &[u8]) -> Option<Ifindex> {
    u32_of(value).filter(|&index| index != 0).map(Ifindex)
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
