//! What the administrator, or the host in his place, wants.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::model::link::{Address, FailOverMac, Route};
use crate::model::types::{IfName, Mac, PciAddress};

/// All bonds that Tandem takes care of. Here, in a bond and in its times a key that a newer host knows is
/// passed over; whoever reads them can tell which. One that says which NIC, address or route is meant is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Policy {
    /// Where it came from.
    #[serde(default)]
    pub origin: Origin,
    /// At most [`Policy::MAX_BONDS`].
    #[serde(default)]
    pub bonds: Vec<BondPolicy>,
}

/// Who wrote a policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Nobody: there is no bond yet.
    #[default]
    None,
    /// The guest's configuration files.
    File,
    /// The host, over the channel.
    Host,
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// What the host may do to the guest. It may always ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HostMay {
    /// Only ask: for the status, and for events.
    None,
    /// Give commands too: prepare an unplug, resume, announce, fail over and back.
    Commands,
    /// Define the bonds too, where the guest's own files define none.
    #[default]
    Bonds,
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}

impl HostMay {
    /// The host's commands are carried out.
    pub fn allows_commands(self) -> bool {
        matches!(self, Self::Commands | Self::Bonds)
    }

    /// The host's bonds are used where the guest's own files define none.
    pub fn allows_bonds(self) -> bool {
        self == Self::Bonds
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One bond: which NICs belong to it and how it behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct BondPolicy {
    /// Name of the bond device.
    pub name: IfName,
    /// The paravirtual NIC that is always there.
    pub standby: PortMatch,
    /// Any of these is the VF; at most [`Policy::MAX_VFS`]. Of several that are present, the first that is usable
    /// gets the traffic, the others are its backups.
    pub vfs: Vec<PortMatch>,
    /// Which MAC the bond shows to the network.
    #[serde(default)]
    pub mac: MacPolicy,
    /// Who made the bond device.
    #[serde(default)]
    pub ownership: Ownership,
    /// Where the bond's addresses come from. The default is not written: a guest of an older version,
    /// which does not know it, then uses its own.
    #[serde(default, skip_serializing_if = "AddressingPolicy::is_default")]
    pub addressing: AddressingPolicy,
    /// The manager that makes an adopted bond takes the standby in as well, as Tandem has instructed it: of the
    /// two NICs only the VF is Tandem's. Never configured: the service sets it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub manager_takes_standby: bool,
    /// Who makes it is not known yet, so nobody does. Never configured: the service sets it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub undecided: bool,
    /// What configures the bond gives it an IPv4 address or asks for one, and relies on no other: it is told if none
    /// comes. Never configured: the service sets it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub expects_ipv4: bool,
    /// MTU of the bond in bytes; without it the standby's.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// What a VF has to show, besides its carrier, before it gets the traffic. The default is not written, as a guest
    /// of an older version does not know it.
    #[serde(default, skip_serializing_if = "PathCheck::is_default")]
    pub path_check: PathCheck,
    /// Times and counts.
    #[serde(default)]
    pub timing: Timing,
}

impl BondPolicy {
    /// A bond of these NICs that has the default of everything else.
    pub fn new(name: IfName, standby: PortMatch, vfs: Vec<PortMatch>) -> Self {
        Self {
            name,
            standby,
            vfs,
            mac: MacPolicy::default(),
            ownership: Ownership::default(),
            addressing: AddressingPolicy::default(),
            manager_takes_standby: false,
            undecided: false,
            expects_ipv4: false,
            mtu: None,
            path_check: PathCheck::default(),
            timing: Timing::default(),
        }
    }

    /// Tandem makes it, and whoever would have configured its standby configures it.
    pub fn is_configured_as_standby(&self) -> bool {
        self.addressing == AddressingPolicy::Auto && self.ownership == Ownership::Create
    }
}

/// How a NIC is matched. All fields that are given must match, and one must be given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PortMatch {
    /// Permanent MAC, or the present one where the device has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// PCI address in the guest, such as `0000:07:00.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciAddress>,
    /// Name of its kernel driver, such as `iavf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

impl PortMatch {
    /// Number of fields that are given.
    pub(crate) fn exactness(&self) -> usize {
        usize::from(self.mac.is_some())
            + usize::from(self.pci.is_some())
            + usize::from(self.driver.is_some())
    }
}

/// The MAC that the network sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MacPolicy {
    /// The standby's, on the bond and on both ports (`fail_over_mac=none`).
    #[default]
    Standby,
    /// The active port's own (`fail_over_mac=active`), for VFs that may not change theirs.
    Follow,
}

impl MacPolicy {
    /// The kernel's option that makes a bond do so.
    pub(crate) fn fail_over_mac(self) -> FailOverMac {
        match self {
            Self::Standby => FailOverMac::None,
            Self::Follow => FailOverMac::Active,
        }
    }
}

/// What a VF has to show, besides its carrier, before it gets the traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PathCheck {
    /// That its frames pass in both directions, where that can be shown: if a gateway or neighbour answers through the
    /// standby, one has to answer through the VF. Where nobody answers, the VF gets the traffic all the same.
    #[default]
    Auto,
    /// Nothing: a stable carrier is enough.
    None,
    /// A broadcast frame that it sends must reach the standby through the network:
    /// a VF has a carrier even if its VLAN or its PF's uplink is wrong.
    Standby,
}

impl PathCheck {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Who made the bond device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// Tandem creates it, or takes over an active-backup bond of that name.
    #[default]
    Create,
    /// Another manager makes it and sets its options; Tandem adds ports, moves the traffic and reports.
    Adopt,
}

/// Where the bond's addresses come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AddressingPolicy {
    /// As the standby would get them without Tandem: where a network manager that Tandem can instruct would
    /// configure the standby, it configures the bond instead. What the standby has all the same moves, as
    /// with [`Self::Inherit`].
    #[default]
    Auto,
    /// Those found on the standby are moved to the bond; where it has none, those on the VF.
    Inherit,
    /// These.
    Static {
        /// At most [`Policy::MAX_ADDRESSES`].
        addresses: Vec<Address>,
        /// At most [`Policy::MAX_ADDRESSES`].
        #[serde(default)]
        routes: Vec<Route>,
    },
    /// Another network manager configures the bond.
    None,
}

impl AddressingPolicy {
    /// What is found on the standby moves to the bond.
    pub fn inherits(&self) -> bool {
        matches!(self, Self::Auto | Self::Inherit)
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Times and counts of one bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", default)]
pub struct Timing {
    /// Interval of the kernel's carrier check, in ms.
    pub miimon_ms: u32,
    /// A VF gets the traffic after it has had a carrier for this long, in ms.
    pub hold_ms: u64,
    /// Each loss of carrier doubles the hold time, up to this, in ms.
    pub hold_max_ms: u64,
    /// A VF that carries the traffic and whose path is dead although its carrier is there is left within this time,
    /// in ms; 0: it is not looked after. One that sends less than two frames a second is left within 17 s.
    #[serde(skip_serializing_if = "is_usual_health")]
    #[cfg_attr(feature = "schema", schemars(extend("default" = 2_000)))]
    pub health_ms: u64,
    /// After a switchover both ports receive for this long, in ms; up to 2 s while late frames arrive.
    pub settle_ms: u64,
    /// An announced removal that takes longer counts as cancelled, in ms.
    pub removal_timeout_ms: u64,
    /// A VF that was prepared for its unplug and is still there is used again after this, in ms; 0: never.
    /// A host that prepared and died must not leave the guest off its VF.
    pub prepared_timeout_ms: u64,
    /// Limit for a command of the host, in ms.
    pub command_timeout_ms: u64,
    /// Announcements to the network after a switchover; a fabric may miss one.
    pub announcements: u8,
    /// Time between two announcements, in ms.
    pub announcement_interval_ms: u64,
}

/// It is not written, as a guest of an older version does not know the key.
fn is_usual_health(health_ms: &u64) -> bool {
    *health_ms == Timing::default().health_ms
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            miimon_ms: 100,
            hold_ms: 1_000,
            hold_max_ms: 60_000,
            health_ms: 2_000,
            settle_ms: 250,
            removal_timeout_ms: 15_000,
            prepared_timeout_ms: 120_000,
            command_timeout_ms: 10_000,
            announcements: 3,
            announcement_interval_ms: 100,
        }
    }
}

/// A policy that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bond {bond}: {problem}")]
pub struct PolicyError {
    /// Number of the bond, from 0, in [`Policy::bonds`].
    pub index: usize,
    /// The bond's name.
    pub bond: IfName,
    /// Key at fault, as it is written in the configuration file.
    pub key: &'static str,
    /// What is wrong and what to do.
    pub problem: String,
}

impl Policy {
    /// Largest number of bonds.
    pub const MAX_BONDS: usize = 32;
    /// Largest number of VFs that a bond lists.
    pub const MAX_VFS: usize = 16;
    /// Largest number of static addresses, and of routes, of a bond.
    pub const MAX_ADDRESSES: usize = 256;
}
