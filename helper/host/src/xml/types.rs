//! What `<bonds>` says, and the namespaces of Tandem's elements in the metadata.

use tandem_core::link::{Address, Route};
use tandem_core::policy::{MacPolicy, Ownership, PathCheck, PortMatch, Timing};
use tandem_core::types::IfName;

/// Namespace of `<bonds>`: what the guest shall have.
pub const BONDS_NAMESPACE: &str = "https://github.com/tandem-vf/tandem/xmlns/bonds/1";
/// Namespace of `<progress>`: where an evacuation of the domain stands.
pub const PROGRESS_NAMESPACE: &str = "https://github.com/tandem-vf/tandem/xmlns/progress/1";

/// Beginning of the namespace of `<claim>`, which its writer's token ends: each has an element of its own.
pub const CLAIM_NAMESPACE: &str = "https://github.com/tandem-vf/tandem/xmlns/claim/1/";

/// `<bonds>`: all bonds of one domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bonds {
    /// In the document's order; 1 to [`tandem_core::Policy::MAX_BONDS`].
    pub bonds: Vec<Bond>,
}

/// `<bond>`: one bond, and which of the domain's devices belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bond {
    /// Name of the bond device in the guest.
    pub name: IfName,
    /// Which MAC the bond shows to the network.
    pub mac: MacPolicy,
    /// Who makes the bond device in the guest.
    pub ownership: Ownership,
    /// What a VF has to show, besides its carrier, before it gets the traffic.
    pub path_check: PathCheck,
    /// The paravirtual NIC.
    pub standby: BondDevice,
    /// Any of these is a VF, on this host or another; of several that are present, the first usable gets the traffic.
    pub vfs: Vec<BondDevice>,
    /// MTU of the bond in bytes; without it the standby's.
    pub mtu: Option<u32>,
    /// Where the bond's addresses come from.
    pub addressing: Addressing,
    /// Times and counts.
    pub timing: Timing,
}

/// `<standby>`, `<vf>`: a device of the domain, and how the guest recognises it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BondDevice {
    /// `<alias name='…'/>` of the device; without it, the device is found by its MAC.
    pub alias: Option<String>,
    /// How the guest recognises it; may be empty if the alias names a device with a MAC.
    pub guest: PortMatch,
}

/// Where the bond's addresses come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Addressing {
    /// As the guest's standby would get them without Tandem.
    #[default]
    Auto,
    /// Those that the guest has on its standby, else on its VF, are moved to the bond.
    Inherit,
    /// `<ip>` and `<route>`.
    Static {
        /// At least one.
        addresses: Vec<Address>,
        /// Any number.
        routes: Vec<Route>,
    },
    /// The guest's network manager runs DHCP on the bond: Tandem leaves addresses alone.
    Dhcp,
    /// The guest's network manager configures the bond in its own way.
    None,
}
