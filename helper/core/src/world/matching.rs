//! Which NIC has which role in which bond.

use alloc::vec::Vec;

use crate::model::link::{Link, LinkKind};
use crate::model::policy::{BondPolicy, Policy, PortMatch};
use crate::model::types::{Ifindex, Mac};
use crate::world::World;

/// What a NIC is to a bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Its standby.
    Standby,
    /// Its VF, by that entry of the policy's list.
    Vf(usize),
}

/// A NIC that some bond's policy describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) ifindex: Ifindex,
    /// The bond's place in the policy.
    pub(crate) bond: usize,
    pub(crate) role: Role,
}

/// Gives every NIC at most one role: that of the entry which describes it most
/// exactly, so that a host may give VF and standby the same MAC and tell them
/// apart by driver. Among equals the first entry wins, the standby before VFs.
pub(crate) fn assign(world: &World, policy: &Policy) -> Vec<Assignment> {
    world
        .links()
        .filter(|link| link.kind == LinkKind::Physical)
        .filter_map(|link| assign_one(link, policy))
        .collect()
}

/// The bond that a policy gives this NIC to, and its role there.
pub fn role_of<'policy>(
    link: &Link,
    policy: &'policy Policy,
) -> Option<(&'policy BondPolicy, Role)> {
    if link.kind != LinkKind::Physical {
        return None;
    }
    let assignment = assign_one(link, policy)?;
    Some((policy.bonds.get(assignment.bond)?, assignment.role))
}

fn assign_one(link: &Link, policy: &Policy) -> Option<Assignment> {
    let mut best: Option<(usize, Assignment)> = None;
    for (bond, entry) in policy.bonds.iter().enumerate() {
        let vfs = entry.vfs.iter().enumerate();
        let entries = core::iter::once((Role::Standby, &entry.standby))
            .chain(vfs.map(|(order, vf)| (Role::Vf(order), vf)));
        for (role, port) in entries.filter(|(_, port)| fits(port, link)) {
            let exactness = port.exactness();
            if best.is_none_or(|(before, _)| exactness > before) {
                let ifindex = link.ifindex;
                best = Some((
                    exactness,
                    Assignment {
                        ifindex,
                        bond,
                        role,
                    },
                ));
            }
        }
    }
    best.map(|(_, assignment)| assignment)
}

/// The MAC by which a NIC is recognised: the one it was born with, else the one
/// it had before a bond took it, else its present one.
pub(crate) fn identity_mac(link: &Link) -> Option<Mac> {
    let before_bond = link.port.as_ref().and_then(|port| port.permanent_mac);
    [link.permanent_mac, before_bond, link.mac]
        .into_iter()
        .flatten()
        .find(|mac| mac.is_unicast())
}

fn fits(port: &PortMatch, link: &Link) -> bool {
    port.exactness() > 0
        && port.mac.is_none_or(|mac| identity_mac(link) == Some(mac))
        && port.pci.is_none_or(|pci| link.pci == Some(pci))
        && port
            .driver
            .as_ref()
            .is_none_or(|driver| link.driver.as_ref() == Some(driver))
}
