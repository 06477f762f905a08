//! One bond as the world shows it, with its NICs sorted into their roles.

use alloc::vec::Vec;

use crate::link::{Addressing, BondFacts, BondMode, Link, LinkKind};
use crate::matching::{Assignment, Role, identity_mac};
use crate::memory::Memory;
use crate::policy::{BondPolicy, MacPolicy};
use crate::status::Traffic;
use crate::types::{Ifindex, Mac};
use crate::world::{Warning, World};

/// What is there of one bond of the policy.
#[derive(Debug)]
pub(crate) struct BondView<'a> {
    pub(crate) policy: &'a BondPolicy,
    pub(crate) world: &'a World,
    pub(crate) device: Device<'a>,
    pub(crate) standby: Option<Port<'a>>,
    /// Further NICs that fit the standby's description.
    pub(crate) other_standbys: Vec<Port<'a>>,
    /// All NICs that fit the VF's description; the chosen one first.
    pub(crate) vfs: Vec<Port<'a>>,
}

/// What carries the bond's name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Device<'a> {
    /// Nothing.
    Missing,
    /// Something that is no bond.
    Taken(&'a Link),
    /// A bond of another mode.
    OtherMode(&'a Link),
    /// An active-backup bond.
    Present(Bond<'a>),
}

/// The bond device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bond<'a> {
    pub(crate) link: &'a Link,
    pub(crate) facts: &'a BondFacts,
    pub(crate) addressing: Option<&'a Addressing>,
    /// Ports of any kind.
    pub(crate) ports: usize,
}

impl Bond<'_> {
    pub(crate) fn ifindex(&self) -> Ifindex {
        self.link.ifindex
    }
}

/// A NIC with a role in the bond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Port<'a> {
    pub(crate) link: &'a Link,
    /// Place of its entry in the policy's list of VFs; 0 for a standby.
    pub(crate) order: usize,
    /// It is a port of this bond.
    pub(crate) enslaved: bool,
    /// Another device has it as a port.
    pub(crate) taken: bool,
    /// It carries the bond's traffic.
    pub(crate) active: bool,
    /// The bond can send through it.
    pub(crate) usable: bool,
    pub(crate) addressing: Option<&'a Addressing>,
    pub(crate) warning: Option<&'a Warning>,
}

impl Port<'_> {
    pub(crate) fn ifindex(&self) -> Ifindex {
        self.link.ifindex
    }

    pub(crate) fn mac(&self) -> Option<Mac> {
        identity_mac(self.link)
    }

    /// Its driver takes this MTU in bytes, as far as is known.
    pub(crate) fn takes_mtu(&self, mtu: u32) -> bool {
        self.link.max_mtu == 0 || self.link.max_mtu >= mtu
    }

    /// It has addresses or routes that belong on the bond.
    pub(crate) fn has_addressing(&self) -> bool {
        self.addressing
            .is_some_and(|found| !found.routes.is_empty() || has_addresses(found))
    }

    /// It has addresses that belong on the bond.
    pub(crate) fn has_addresses(&self) -> bool {
        self.addressing.is_some_and(has_addresses)
    }
}

/// There are addresses other than IPv6 link-local ones.
pub(crate) fn has_addresses(addressing: &Addressing) -> bool {
    addressing
        .addresses
        .iter()
        .any(|address| !address.is_link_local())
}

impl<'a> BondView<'a> {
    /// Looks at the bond that is number `index` of the policy.
    pub(crate) fn new(
        world: &'a World,
        policy: &'a BondPolicy,
        index: usize,
        assignments: &[Assignment],
        memory: &Memory,
    ) -> Self {
        let device = device(world, policy);
        let mut standbys = Vec::new();
        let mut vfs = Vec::new();
        for assignment in assignments.iter().filter(|one| one.bond == index) {
            let Some(link) = world.link(assignment.ifindex) else {
                continue;
            };
            match assignment.role {
                Role::Standby => standbys.push(port(world, &device, link, 0)),
                Role::Vf(order) => vfs.push(port(world, &device, link, order)),
            }
        }
        let bond = match &device {
            Device::Present(bond) => Some(bond.ifindex()),
            Device::Missing | Device::Taken(_) | Device::OtherMode(_) => None,
        };
        standbys.sort_by_key(|port| (!port.enslaved, port.taken, port.ifindex()));
        vfs.sort_by_key(|port| {
            (
                memory.is_held_out(bond, port),
                port.order,
                !port.enslaved,
                port.ifindex(),
            )
        });
        let mut standbys = standbys.into_iter();
        Self {
            policy,
            world,
            device,
            standby: standbys.next(),
            other_standbys: standbys.collect(),
            vfs,
        }
    }

    /// The bond device, if it is there and of the right mode.
    pub(crate) fn bond(&self) -> Option<&Bond<'a>> {
        match &self.device {
            Device::Present(bond) => Some(bond),
            Device::Missing | Device::Taken(_) | Device::OtherMode(_) => None,
        }
    }

    /// The chosen VF.
    pub(crate) fn vf(&self) -> Option<&Port<'a>> {
        self.vfs.first()
    }

    /// The port that carries the traffic.
    pub(crate) fn active(&self) -> Option<Ifindex> {
        self.bond()?.facts.active
    }

    /// What a port is to this bond.
    pub(crate) fn traffic_of(&self, port: Option<Ifindex>) -> Traffic {
        let Some(port) = port else {
            return Traffic::None;
        };
        if self.standby.as_ref().is_some_and(|s| s.ifindex() == port) {
            Traffic::Standby
        } else if self.vfs.iter().any(|vf| vf.ifindex() == port) {
            Traffic::Vf
        } else {
            Traffic::Other
        }
    }

    /// Who carries the traffic.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic_of(self.active())
    }

    /// The standby is a port that the bond can send through.
    pub(crate) fn standby_usable(&self) -> bool {
        self.standby.as_ref().is_some_and(|port| port.usable)
    }

    /// The standby came after addresses were last read: it may have some that would be lost.
    pub(crate) fn standby_is_unread(&self) -> bool {
        let waiting = self.standby.as_ref().filter(|port| !port.enslaved);
        waiting.is_some_and(|port| !self.world.addressing_is_complete(port.ifindex()))
    }

    /// A NIC of this bond by its index.
    pub(crate) fn port(&self, ifindex: Ifindex) -> Option<&Port<'a>> {
        self.standby
            .iter()
            .chain(&self.vfs)
            .find(|port| port.ifindex() == ifindex)
    }

    /// The MAC that the bond should show, where the policy fixes one and it is known.
    pub(crate) fn wanted_mac(&self) -> Option<Mac> {
        match self.policy.mac {
            MacPolicy::Standby => {
                let present = self.standby.as_ref().and_then(Port::mac);
                present.or(self.policy.standby.mac)
            }
            MacPolicy::Follow => None,
        }
    }
}

fn device<'a>(world: &'a World, policy: &BondPolicy) -> Device<'a> {
    let Some(link) = world.link_named(&policy.name) else {
        return Device::Missing;
    };
    match (&link.bond, link.kind) {
        (Some(facts), LinkKind::Bond) if facts.mode == BondMode::ActiveBackup => {
            Device::Present(Bond {
                link,
                facts,
                addressing: world.addressing(link.ifindex),
                ports: world.ports(link.ifindex).count(),
            })
        }
        (Some(_), LinkKind::Bond) => Device::OtherMode(link),
        _ => Device::Taken(link),
    }
}

fn port<'a>(world: &'a World, device: &Device<'a>, link: &'a Link, order: usize) -> Port<'a> {
    let bond = match device {
        Device::Present(bond) => Some(bond),
        Device::Missing | Device::Taken(_) | Device::OtherMode(_) => None,
    };
    let enslaved = link.controller.is_some() && link.controller == bond.map(Bond::ifindex);
    let linked = link.admin_up && link.carrier && link.port.as_ref().is_some_and(|p| p.mii_up);
    Port {
        link,
        order,
        enslaved,
        taken: link.controller.is_some() && !enslaved,
        active: enslaved && bond.and_then(|bond| bond.facts.active) == Some(link.ifindex),
        usable: enslaved && linked,
        addressing: world.addressing(link.ifindex),
        warning: world.warning(link.ifindex),
    }
}
