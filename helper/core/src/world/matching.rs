//! Which NIC has which role in which bond.

use alloc::vec::Vec;

use crate::model::link::{Link, LinkKind};
use crate::model::policy::{BondPolicy, Policy, PortMatch};
use crate::model::types::{Ifindex, Mac};
use crate::world::identity::Identity;
use crate::world::picture::World;

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
    /// The MAC that the NIC was recognised by: its own, whatever its driver or a bond made of it since.
    pub(crate) mac: Option<Mac>,
}

/// Gives every NIC at most one role: that of the entry which describes it most
/// exactly, so that a host may give VF and standby the same MAC and tell them
/// apart by driver. Among equals the first entry wins, the standby before VFs.
///
/// A NIC stays what it was before a bond took it.
pub(crate) fn assign(world: &World, policy: &Policy) -> Vec<Assignment> {
    world
        .identified_links()
        .filter(|(link, _)| link.kind == LinkKind::Physical)
        .filter_map(|(link, identity)| recognise(link, identity, policy))
        .collect()
}

/// The bond that a policy gives this NIC to, and its role there, as far as its present looks tell.
pub fn role_of<'policy>(
    link: &Link,
    policy: &'policy Policy,
) -> Option<(&'policy BondPolicy, Role)> {
    if link.kind != LinkKind::Physical {
        return None;
    }
    let assignment = recognise(link, &Identity::of(link), policy)?;
    Some((policy.bonds.get(assignment.bond)?, assignment.role))
}

/// A driver that makes the MAC a NIC has in the bond its permanent one makes a VF look like the standby, whose MAC
/// that mostly is, or like another VF that has the standby's. Never the other way round: so what the NIC was besides
/// decides, if that is a VF.
fn recognise(link: &Link, identity: &Identity, policy: &Policy) -> Option<Assignment> {
    let found = best_fit(link, identity.mac(), policy);
    let of_standby =
        |bond: &BondPolicy| bond.standby.mac.is_some() && bond.standby.mac == identity.mac();
    let is_rewritten = identity.has_the_bonds_mac() || policy.bonds.iter().any(of_standby);
    let other = identity.mac_besides().filter(|_| is_rewritten);
    let vf = other.and_then(|mac| best_fit(link, Some(mac), policy));
    vf.filter(|vf| vf.role != Role::Standby).or(found)
}

fn best_fit(link: &Link, mac: Option<Mac>, policy: &Policy) -> Option<Assignment> {
    let mut best: Option<(usize, Assignment)> = None;
    for (bond, entry) in policy.bonds.iter().enumerate() {
        let vfs = entry.vfs.iter().enumerate();
        let entries = core::iter::once((Role::Standby, &entry.standby))
            .chain(vfs.map(|(order, vf)| (Role::Vf(order), vf)));
        for (role, port) in entries.filter(|(_, port)| fits(port, link, mac)) {
            let exactness = port.exactness();
            if best.is_none_or(|(before, _)| exactness > before) {
                let ifindex = link.ifindex;
                best = Some((
                    exactness,
                    Assignment {
                        ifindex,
                        bond,
                        role,
                        mac,
                    },
                ));
            }
        }
    }
    best.map(|(_, assignment)| assignment)
}

fn fits(port: &PortMatch, link: &Link, mac: Option<Mac>) -> bool {
    port.exactness() > 0
        && port.mac.is_none_or(|wanted| mac == Some(wanted))
        && port.pci.is_none_or(|pci| link.pci == Some(pci))
        && port
            .driver
            .as_ref()
            .is_none_or(|driver| link.driver.as_ref() == Some(driver))
}
