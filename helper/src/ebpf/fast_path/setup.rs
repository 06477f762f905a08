//! What is wanted of the fast path's programs, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::Ifindex;
use tandem_core::fast_path::{Blocked, FastPath};
use tandem_ebpf::{FrameCounts, ROLE_STANDBY, ROLE_VF, ROLE_WATCHED};

use super::attach::Place;
use crate::ebpf::hooks::Program;

/// What [`super::FastPaths::apply`] brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Ifindexes of the ports that are counted on.
    pub watched: Vec<u32>,
    /// The fast path is armed.
    pub armed: bool,
    /// What could not be attached.
    pub missing: Vec<Missing>,
    /// Where the armed fast path would not run all the same.
    pub blocked: Option<Blocked>,
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
pub struct PortCounts {
    /// Received, without those that count as late.
    pub rx: FrameCounts,
    /// Sent.
    pub tx: FrameCounts,
    /// Received while another port of the bond transmitted.
    pub late: FrameCounts,
    /// Broadcast and multicast frames that were kept away from the stack.
    pub duplicates: u64,
}

/// Each port that matters for the fast path, with its `ROLE_*` bits.
pub(super) fn roles(fast_path: &FastPath) -> BTreeMap<u32, u32> {
    let mut roles = BTreeMap::new();
    let mut add = |port, role| *roles.entry(port).or_insert(0) |= role;
    for port in &fast_path.ports {
        add(port.0, ROLE_WATCHED);
    }
    if let Some(armed_vf) = &fast_path.armed_vf {
        add(armed_vf.vf.0, ROLE_VF);
        add(armed_vf.standby.0, ROLE_STANDBY);
    }
    roles
}

/// Where programs have to be attached for a bond's fast path.
pub(super) fn places(bond: Ifindex, fast_path: &FastPath) -> BTreeSet<Place> {
    let at = |link: Ifindex, program| Place {
        ifindex: link.0,
        program,
    };
    let mut places: BTreeSet<Place> = fast_path
        .ports
        .iter()
        .flat_map(|port| {
            [
                at(*port, Program::PortIngress),
                at(*port, Program::PortEgress),
            ]
        })
        .collect();
    if let Some(armed_vf) = &fast_path.armed_vf {
        places.insert(at(armed_vf.vf, Program::PortIngress));
        places.insert(at(armed_vf.vf, Program::PortEgress));
        places.insert(at(armed_vf.standby, Program::PortIngress));
        // Where announcements of the kernel side leave.
        places.insert(at(armed_vf.standby, Program::PortEgress));
        places.insert(at(bond, Program::BondEgress));
    }
    places
}

#[cfg(test)]
mod tests {
    use tandem_core::Mac;
    use tandem_core::fast_path::ArmedVf;

    use super::*;

    const BOND: Ifindex = Ifindex(9);

    fn setup(ports: &[u32], armed_vf: bool) -> FastPath {
        FastPath {
            ports: ports.iter().copied().map(Ifindex).collect(),
            armed_vf: armed_vf.then(|| ArmedVf {
                vf: Ifindex(3),
                pci: "0000:01:00.0".parse().unwrap(),
                slot: None,
                standby: Ifindex(2),
                mac: Mac([2, 0, 0, 0, 0, 1]),
                addresses: Vec::new(),
                upper_devices: 0,
            }),
            ..FastPath::default()
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
        assert!(places(BOND, &setup(&[], false)).is_empty());
        assert_eq!(places(BOND, &setup(&[2, 3], true)).len(), 5);
        let armed: Vec<_> = places(BOND, &setup(&[], true))
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
