//! What is the same in every kernel that was put through the same: interfaces by
//! what they are for, and MACs by whose they are, instead of numbers.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use tandem_core::link::{Address, BondMode, FailOverMac, Link, PrimaryReselect};
use tandem_core::{Ifindex, Mac};

use super::{BOND_MAC, Rig, bond_name};

/// What an interface is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Standby,
    Vf,
    Bond,
}

/// All interfaces and what is to be seen of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KernelView {
    pub(super) links: BTreeMap<Role, Seen>,
}

/// What is to be seen of an interface.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    mac: Owner,
    mtu: u32,
    pub(super) admin_up: bool,
    /// Only while open.
    carrier: bool,
    pub(super) controller: Option<Role>,
    bond: Option<SeenBond>,
    port: Option<SeenPort>,
    pub(super) addresses: Vec<Address>,
    /// Destination and gateway.
    routes: Vec<(Address, Option<std::net::IpAddr>)>,
}

/// Whose MAC it is.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Nic(Role),
    /// The one that a bond is given.
    Bond,
    Chance,
}

#[derive(Debug, PartialEq, Eq)]
struct SeenBond {
    mode: BondMode,
    active: Option<Role>,
    primary: Option<Role>,
    fail_over_mac: FailOverMac,
    primary_reselect: PrimaryReselect,
    miimon_ms: u32,
    all_ports_active: bool,
    peer_notifications: u8,
}

#[derive(Debug, PartialEq, Eq)]
struct SeenPort {
    active: bool,
    mii_up: bool,
    link_failures: u32,
    permanent_mac: Option<Owner>,
}

impl KernelView {
    /// Ports that the bond has.
    pub(super) fn ports(&self) -> usize {
        let is_port = |seen: &&Seen| seen.controller.is_some();
        self.links.values().filter(is_port).count()
    }

    /// What is not the same in another, one line each.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let roles: BTreeSet<&Role> = self.links.keys().chain(other.links.keys()).collect();
        let mut differences = Vec::new();
        for role in roles {
            match (self.links.get(role), other.links.get(role)) {
                (Some(one), Some(two)) if one == two => {}
                (Some(one), Some(two)) => {
                    let (one, two) = (format!("{one:#?}"), format!("{two:#?}"));
                    let same = one.lines().count() == two.lines().count();
                    let pairs = one.lines().zip(two.lines());
                    let pairs = pairs.filter(|(one, two)| one != two);
                    if same {
                        differences.extend(pairs.map(|(one, two)| {
                            format!("{role:?}: {} and {}", one.trim(), two.trim())
                        }));
                    } else {
                        differences.push(format!("{role:?}: {one}\nand {two}"));
                    }
                }
                (one, _) => {
                    let number = if one.is_some() { "first" } else { "second" };
                    differences.push(format!("only the {number} has the {role:?}"));
                }
            }
        }
        differences
    }
}

impl Rig<'_> {
    /// The interface's index, if it was there at the last look.
    pub(super) fn index_of(&mut self, role: Role) -> Result<Option<Ifindex>> {
        Ok(match role {
            Role::Standby => Some(self.kernel.standby()?),
            Role::Vf => self.vf,
            Role::Bond => self.bond,
        })
    }

    /// Looks at everything.
    pub(super) fn view(&mut self) -> Result<KernelView> {
        let standby = self.kernel.standby()?;
        let links = self.kernel.links()?;
        let bond = links.iter().find(|link| link.name == bond_name());
        self.bond = bond.map(|bond| bond.ifindex);
        let mut roles = BTreeMap::from([(standby, Role::Standby)]);
        roles.extend(self.vf.map(|vf| (vf, Role::Vf)));
        roles.extend(self.bond.map(|bond| (bond, Role::Bond)));
        let owners: Vec<(Mac, Role)> = links
            .iter()
            .filter_map(|link| Some((link.permanent_mac?, *roles.get(&link.ifindex)?)))
            .collect();
        let mut view = KernelView::default();
        for link in &links {
            if let Some(role) = roles.get(&link.ifindex) {
                view.links.insert(*role, seen(link, &roles, &owners));
            }
        }
        for one in self.kernel.addressings()? {
            let role = roles.get(&one.ifindex);
            let Some(seen) = role.and_then(|role| view.links.get_mut(role)) else {
                continue;
            };
            // Link-local addresses come and go in the kernel's own time.
            let stays = |address: &Address| !address.is_link_local();
            seen.addresses = one.addresses.into_iter().filter(stays).collect();
            seen.addresses.sort_unstable();
            let routes = one.routes.iter();
            seen.routes = routes.map(|one| (one.destination, one.gateway)).collect();
            seen.routes.sort_unstable();
        }
        Ok(view)
    }
}

fn seen(link: &Link, roles: &BTreeMap<Ifindex, Role>, owners: &[(Mac, Role)]) -> Seen {
    let role_of = |index: Option<Ifindex>| roles.get(&index?).copied();
    let owner_of = |mac: Mac| {
        let nic = owners.iter().find(|(own, _)| *own == mac);
        match nic {
            Some((_, role)) => Owner::Nic(*role),
            None if mac == BOND_MAC => Owner::Bond,
            None => Owner::Chance,
        }
    };
    Seen {
        mac: link.mac.map_or(Owner::Chance, owner_of),
        mtu: link.mtu,
        admin_up: link.admin_up,
        carrier: link.admin_up && link.carrier,
        controller: role_of(link.controller),
        bond: link.bond.as_ref().map(|facts| SeenBond {
            mode: facts.mode,
            active: role_of(facts.active),
            primary: role_of(facts.primary),
            fail_over_mac: facts.fail_over_mac,
            primary_reselect: facts.primary_reselect,
            miimon_ms: facts.miimon_ms,
            all_ports_active: facts.all_ports_active,
            peer_notifications: facts.peer_notifications,
        }),
        port: link.port.as_ref().map(|facts| SeenPort {
            active: facts.active,
            mii_up: facts.mii_up,
            link_failures: facts.link_failures,
            permanent_mac: facts.permanent_mac.map(owner_of),
        }),
        addresses: Vec::new(),
        routes: Vec::new(),
    }
}
