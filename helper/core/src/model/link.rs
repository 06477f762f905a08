//! What was observed of the kernel's network interfaces.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::types::{IfName, Ifindex, Mac, PciAddress, Time};

/// One network interface, as the kernel last described it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Link {
    /// Index within the namespace.
    pub ifindex: Ifindex,
    /// Present name; udev may change it at any time.
    pub name: IfName,
    /// What kind of device it is.
    pub kind: LinkKind,
    /// Present hardware address.
    pub mac: Option<Mac>,
    /// Address the device was born with (`IFLA_PERM_ADDRESS`); absent for most software devices.
    pub permanent_mac: Option<Mac>,
    /// PCI function behind the device, for virtio the transport's.
    pub pci: Option<PciAddress>,
    /// PCI bridge or root port directly above that function.
    pub pci_parent: Option<PciAddress>,
    /// Kernel driver bound to the device, such as `igbvf` or `virtio_net`.
    pub driver: Option<String>,
    /// Present MTU in bytes.
    pub mtu: u32,
    /// Largest MTU in bytes that the driver takes; 0 if unknown.
    pub max_mtu: u32,
    /// `IFF_UP`.
    pub admin_up: bool,
    /// `IFF_LOWER_UP`: the driver sees a carrier. Only meaningful while `admin_up`.
    pub carrier: bool,
    /// Master device (bond, bridge), if it is a port.
    pub controller: Option<Ifindex>,
    /// What else has its frames, so that it must not become a port; one of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occupant: Option<Occupant>,
    /// Facts of a bond; present exactly if `kind` is [`LinkKind::Bond`].
    pub bond: Option<BondFacts>,
    /// Facts of a bond's port; present while its controller is a bond.
    pub port: Option<PortFacts>,
}

impl Link {
    /// A link of which nothing else is known, with Ethernet's usual MTU; down.
    #[must_use]
    pub fn named(ifindex: Ifindex, name: IfName, kind: LinkKind) -> Self {
        Self {
            ifindex,
            name,
            kind,
            mac: None,
            permanent_mac: None,
            pci: None,
            pci_parent: None,
            driver: None,
            mtu: 1500,
            max_mtu: 0,
            admin_up: false,
            carrier: false,
            controller: None,
            occupant: None,
            bond: None,
            port: None,
        }
    }

    /// As a bond's port, frames can leave and arrive by it: it is up, has a carrier, and the bond says so too.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.admin_up && self.carrier && self.port.as_ref().is_some_and(|port| port.mii_up)
    }
}

/// What has a NIC's frames besides the NIC itself. A port's frames are its bond's, and another port may carry them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Occupant {
    /// A device that lies on the NIC: a VLAN, macvlan, ipvlan, VXLAN or tunnel.
    Device {
        /// Its name.
        name: IfName,
        /// Its kind, as the kernel names it (`IFLA_INFO_KIND`).
        kind: String,
    },
    /// An XDP program of the NIC's own. A bond's is on its ports too.
    Xdp,
}

/// What stands behind an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// A driver's own device: no `IFLA_INFO_KIND`. Only these can be a VF or a standby.
    Physical,
    /// A bond.
    Bond,
    /// Upper devices and all that is software: VLAN, macvlan, bridge, veth, tunnel, loopback.
    Software,
}

/// Bonding mode; all but active-backup are only told apart from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BondMode {
    /// Mode 1.
    ActiveBackup,
    /// Every other mode.
    Other,
}

/// The kernel's `fail_over_mac`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FailOverMac {
    /// 0: all ports carry the bond's MAC.
    None,
    /// 1: the bond carries the active port's MAC.
    Active,
    /// 2: the active port carries the bond's MAC.
    Follow,
}

/// When the kernel itself goes back to the primary (`primary_reselect`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PrimaryReselect {
    /// 0: whenever the primary is up.
    Always,
    /// 1: when it is faster.
    Better,
    /// 2: only when the active port fails.
    Failure,
}

/// What a bond's dump says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BondFacts {
    /// Mode.
    pub mode: BondMode,
    /// Port that carries the traffic.
    pub active: Option<Ifindex>,
    /// Preferred port.
    pub primary: Option<Ifindex>,
    /// How MACs move at a switchover.
    pub fail_over_mac: FailOverMac,
    /// Who decides the way back.
    pub primary_reselect: PrimaryReselect,
    /// Link monitoring interval in ms; 0 is off.
    pub miimon_ms: u32,
    /// Frames that arrive on backup ports are delivered too.
    pub all_ports_active: bool,
    /// Announcements that the kernel sends at a switchover.
    pub peer_notifications: u8,
}

/// What a dump says of a bond's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PortFacts {
    /// It carries the bond's traffic.
    pub active: bool,
    /// The bond's own link monitor says up.
    pub mii_up: bool,
    /// Times the bond's monitor saw its link fail.
    pub link_failures: u32,
    /// MAC that the port had before the bond took it.
    pub permanent_mac: Option<Mac>,
}

/// An IP address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
}

impl Address {
    /// IPv6 link-local addresses belong to their device; they are never moved.
    pub fn is_link_local(&self) -> bool {
        matches!(self.ip, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
    }

    /// Without the bits behind its prefix, as the kernel stores a route's destination.
    fn network(&self) -> Self {
        let prefix = u32::from(self.prefix);
        let ip = match self.ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix));
                IpAddr::V4((ip.to_bits() & mask.unwrap_or(0)).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128u32.saturating_sub(prefix));
                IpAddr::V6((ip.to_bits() & mask.unwrap_or(0)).into())
            }
        };
        Self { ip, ..*self }
    }
}

/// A route that leaves through an interface; enough to see that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Route {
    /// Destination network; `0.0.0.0/0` or `::/0` is the default route.
    pub destination: Address,
    /// Next hop, if the destination is not on the link.
    pub gateway: Option<IpAddr>,
    /// Priority; lower wins. `None` takes the kernel's default for the family.
    pub metric: Option<u32>,
}

impl Route {
    /// It leads everywhere in IPv4.
    pub(crate) fn is_ipv4_default(&self) -> bool {
        self.destination.prefix == 0 && self.destination.ip.is_ipv4()
    }

    /// It is the one wanted, if that one leaves the metric to the kernel.
    pub(crate) fn is(&self, wanted: &Self) -> bool {
        self.destination.network() == wanted.destination.network()
            && self.gateway == wanted.gateway
            && wanted
                .metric
                .is_none_or(|metric| self.metric.unwrap_or(0) == metric)
    }
}

/// Addresses and routes of one interface; replaces what was known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Addressing {
    /// The interface.
    pub ifindex: Ifindex,
    /// All its addresses.
    pub addresses: Vec<Address>,
    /// Routes through it that somebody configured; those the kernel makes by
    /// itself for addresses, multicast and link-local networks are left out.
    pub routes: Vec<Route>,
    /// When its leased addresses cease to be valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expiries: Vec<Expiry>,
}

/// When a leased address ceases to be valid, unless somebody renews it before. One that a router advertises is
/// not leased: it may be meant to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expiry {
    /// The address.
    pub ip: IpAddr,
    /// The moment.
    pub at: Time,
}

impl Addressing {
    /// There is an IPv4 default route.
    pub(crate) fn has_ipv4_default(&self) -> bool {
        self.routes.iter().any(Route::is_ipv4_default)
    }

    /// There are IPv4 addresses.
    pub(crate) fn has_ipv4(&self) -> bool {
        self.addresses.iter().any(|address| address.ip.is_ipv4())
    }

    /// There are addresses other than IPv6 link-local ones.
    pub(crate) fn has_addresses(&self) -> bool {
        self.addresses
            .iter()
            .any(|address| !address.is_link_local())
    }
}
