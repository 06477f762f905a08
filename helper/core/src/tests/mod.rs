//! Unit and property tests, with what they share.

mod any_input;
mod attempts;
mod fast_path;
mod in_use;
mod machine;
mod made_by_a_manager;
mod matching;
mod network;
mod path;
mod two_vfs;
mod validate;
mod world;

use alloc::vec::Vec;

use crate::model::link::{
    Addressing, BondFacts, BondMode, FailOverMac, Link, LinkKind, Occupant, PortFacts,
    PrimaryReselect,
};
use crate::model::policy::{BondPolicy, Origin, PathCheck, Policy, PortMatch, Timing};
use crate::model::types::{IfName, Ifindex, Mac};

pub(crate) const STANDBY: Ifindex = Ifindex(2);
pub(crate) const VF: Ifindex = Ifindex(3);
pub(crate) const BOND: Ifindex = Ifindex(4);
pub(crate) const STANDBY_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
pub(crate) const VF_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(crate) fn by_mac(mac: Mac) -> PortMatch {
    PortMatch {
        mac: Some(mac),
        ..PortMatch::default()
    }
}

pub(crate) fn bond_policy() -> BondPolicy {
    BondPolicy {
        name: name("bond0"),
        standby: by_mac(STANDBY_MAC),
        vfs: Vec::from([by_mac(VF_MAC)]),
        mac: Default::default(),
        ownership: Default::default(),
        addressing: Default::default(),
        manager_takes_standby: false,
        undecided: false,
        expects_ipv4: false,
        mtu: None,
        path_check: PathCheck::None,
        // The suite `path` has it watched.
        timing: Timing {
            health_ms: 0,
            ..Timing::default()
        },
    }
}

pub(crate) fn policy() -> Policy {
    Policy {
        origin: Origin::File,
        bonds: Vec::from([bond_policy()]),
    }
}

/// A NIC that is down and in no bond.
pub(crate) fn nic(ifindex: Ifindex, text: &str, mac: Mac) -> Link {
    Link {
        mac: Some(mac),
        permanent_mac: Some(mac),
        pci: Some(pci(ifindex, 0)),
        pci_parent: Some(pci(ifindex, 1)),
        max_mtu: 9000,
        ..Link::named(ifindex, name(text), LinkKind::Physical)
    }
}

pub(crate) fn pci(ifindex: Ifindex, function: u8) -> crate::PciAddress {
    crate::PciAddress {
        domain: 0,
        bus: u8::try_from(ifindex.0).unwrap(),
        device: 0,
        function,
    }
}

/// A NIC that is a usable port of the bond.
pub(crate) fn port(link: Link, active: bool) -> Link {
    Link {
        admin_up: true,
        carrier: true,
        controller: Some(BOND),
        mac: Some(STANDBY_MAC),
        port: Some(PortFacts {
            active,
            mii_up: true,
            link_failures: 0,
            permanent_mac: link.permanent_mac,
        }),
        ..link
    }
}

/// The bond as Tandem makes it, with that active port.
pub(crate) fn bond(active: Option<Ifindex>) -> Link {
    let timing = Timing::default();
    Link {
        kind: LinkKind::Bond,
        mac: Some(STANDBY_MAC),
        permanent_mac: None,
        pci: None,
        pci_parent: None,
        max_mtu: 0,
        admin_up: true,
        carrier: active.is_some(),
        bond: Some(BondFacts {
            mode: BondMode::ActiveBackup,
            active,
            primary: active,
            fail_over_mac: FailOverMac::None,
            primary_reselect: PrimaryReselect::Failure,
            miimon_ms: timing.miimon_ms,
            all_ports_active: false,
            peer_notifications: timing.announcements,
        }),
        ..nic(BOND, "bond0", STANDBY_MAC)
    }
}

/// A healthy guest: both ports in the bond, the VF active.
pub(crate) fn healthy() -> Vec<Link> {
    Vec::from([
        port(nic(STANDBY, "eth0", STANDBY_MAC), false),
        port(nic(VF, "enp2s0", VF_MAC), true),
        bond(Some(VF)),
    ])
}

pub(crate) fn addressing(ifindex: Ifindex, ips: &[[u8; 4]]) -> Addressing {
    let address = |ip: &[u8; 4]| crate::model::link::Address {
        ip: (*ip).into(),
        prefix: 24,
    };
    Addressing {
        ifindex,
        addresses: ips.iter().map(address).collect(),
        routes: Vec::new(),
        expiries: Vec::new(),
    }
}
