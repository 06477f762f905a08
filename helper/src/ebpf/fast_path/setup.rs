//! What is wanted of the fast path's programs, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::PciAddress;
use tandem_ebpf::{FrameCounts, ROLE_STANDBY, ROLE_VF, ROLE_WATCHED};

use super::attach::Place;
use crate::ebpf::hooks::Program;

/// What of one bond is to be watched and armed: exactly this, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastPathSetup {
    /// Ifindex of the bond.
    pub bond: u32,
    /// Ifindexes of the ports to count on, both directions. While a port is watched
    /// (and for at most [`tandem_ebpf::DUPLICATES_HOLD_NS`] after the last
    /// [`super::FastPaths::apply`], [`super::FastPaths::reset`] or [`super::FastPaths::prolong`]), broadcast
    /// and multicast that it receives is dropped as long as another port of the bond transmits.
    pub watch: Vec<u32>,
    /// Number of the counting period: another one than before starts the counters anew.
    pub period: u64,
    /// The bond's MAC: broadcast and multicast from it that arrives at one of the ports was
    /// sent by the guest itself, and is dropped.
    pub mac: Option<[u8; 6]>,
    /// The VF that it is armed for.
    pub armed_vf: Option<ArmedVfSetup>,
}

/// What is to happen when a VF leaves unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmedVfSetup {
    /// Ifindex of the VF.
    pub vf: u32,
    /// Its PCI address.
    pub device: PciAddress,
    /// PCI address of the port above it, which takes the VF along when it leaves.
    /// Its attention button (native `PCIe` hot-plug) is no reason for it: the
    /// machine has 5 s then.
    pub slot: Option<PciAddress>,
    /// Ifindex of the standby.
    pub standby: u32,
    /// The bond's MAC.
    pub mac: [u8; 6],
    /// Frames that tell the fabric where the bond is now, ready to be sent through
    /// the standby; the most important first.
    pub announcements: Vec<Vec<u8>>,
}

/// What [`super::FastPaths::apply`] brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Ifindexes of the ports that are counted on.
    pub watched: Vec<u32>,
    /// The fast path is armed.
    pub armed: bool,
    /// What could not be attached.
    pub missing: Vec<Missing>,
}

/// A program that is not where it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Ifindex of the port or bond.
    pub ifindex: u32,
    /// The program.
    pub program: Program,
    /// One line for people.
    pub reason: String,
}

/// What a watched port carried since the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTraffic {
    /// Received, without those that count as late.
    pub rx: FrameCounts,
    /// Sent.
    pub tx: FrameCounts,
    /// Received while another port of the bond transmitted.
    pub late: FrameCounts,
    /// Broadcast and multicast frames that were kept away from the stack.
    pub duplicates: u64,
}

/// Each port that matters for the setup, with its `ROLE_*` bits.
pub(super) fn roles(setup: &FastPathSetup) -> BTreeMap<u32, u32> {
    let mut roles = BTreeMap::new();
    let mut add = |port, role| *roles.entry(port).or_insert(0) |= role;
    for port in &setup.watch {
        add(*port, ROLE_WATCHED);
    }
    if let Some(armed_vf) = &setup.armed_vf {
        add(armed_vf.vf, ROLE_VF);
        add(armed_vf.standby, ROLE_STANDBY);
    }
    roles
}

/// Where programs have to be attached for the setup.
pub(super) fn places(setup: &FastPathSetup) -> BTreeSet<Place> {
    let at = |ifindex, program| Place { ifindex, program };
    let mut places: BTreeSet<Place> = setup
        .watch
        .iter()
        .flat_map(|port| {
            [
                at(*port, Program::PortIngress),
                at(*port, Program::PortEgress),
            ]
        })
        .collect();
    if let Some(armed_vf) = &setup.armed_vf {
        places.insert(at(armed_vf.vf, Program::PortIngress));
        places.insert(at(armed_vf.vf, Program::PortEgress));
        places.insert(at(armed_vf.standby, Program::PortIngress));
        // Where announcements of the kernel side leave.
        places.insert(at(armed_vf.standby, Program::PortEgress));
        places.insert(at(setup.bond, Program::BondEgress));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(watch: &[u32], armed_vf: bool) -> FastPathSetup {
        FastPathSetup {
            bond: 9,
            watch: watch.to_vec(),
            period: 1,
            mac: None,
            armed_vf: armed_vf.then(|| ArmedVfSetup {
                vf: 3,
                device: "0000:01:00.0".parse().unwrap(),
                slot: None,
                standby: 2,
                mac: [2, 0, 0, 0, 0, 1],
                announcements: Vec::new(),
            }),
        }
    }

    #[test]
    fn a_port_has_every_role_that_the_plan_gives_it() {
        assert!(roles(&setup(&[], false)).is_empty());
        assert_eq!(
            Vec::from_iter(roles(&setup(&[2, 3], true))),
            [
                (2, ROLE_WATCHED | ROLE_STANDBY),
                (3, ROLE_WATCHED | ROLE_VF)
            ]
        );
        assert_eq!(
            Vec::from_iter(roles(&setup(&[], true))),
            [(2, ROLE_STANDBY), (3, ROLE_VF)]
        );
    }

    #[test]
    fn an_armed_vf_without_watching_needs_five_places() {
        assert!(places(&setup(&[], false)).is_empty());
        assert_eq!(places(&setup(&[2, 3], true)).len(), 5);
        let armed: Vec<_> = places(&setup(&[], true))
            .into_iter()
            .map(|place| (place.ifindex, place.program))
            .collect();
        assert_eq!(
            armed,
            [
                (2, Program::PortIngress),
                (2, Program::PortEgress),
                (3, Program::PortIngress),
                (3, Program::PortEgress),
                (9, Program::BondEgress)
            ]
        );
    }
}
