//! The facts of one bond: what the world shows of it, with its NICs sorted into their roles. Nothing in here
//! depends on history.

use alloc::vec::Vec;

use crate::model::action::{ActionKind, PathProof};
use crate::model::link::{Addressing, BondFacts, BondMode, Link, LinkKind, Occupant};
use crate::model::policy::{BondPolicy, MacPolicy};
use crate::model::status::Traffic;
use crate::model::types::{Ifindex, Mac};
use crate::world::matching::{Assignment, Role};
use crate::world::{Warning, World};

/// What is there of one bond of the policy.
#[derive(Debug)]
pub(crate) struct BondView<'a> {
    pub(crate) policy: &'a BondPolicy,
    pub(crate) world: &'a World,
    pub(crate) device: Device<'a>,
    pub(crate) standby: Option<Port<'a>>,
    /// Another NIC that fits the standby's description.
    pub(crate) other_standby: Option<Port<'a>>,
    /// All NICs that fit the VF's description, in the policy's order.
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

    /// Makes a NIC a port of the bond.
    pub(crate) fn enslave(&self, port: &Port<'_>) -> ActionKind {
        ActionKind::Enslave {
            port: port.ifindex(),
            bond: self.ifindex(),
        }
    }

    /// Asks whether the kernel would make a NIC a port of the bond.
    pub(crate) fn check_free(&self, port: &Port<'_>) -> ActionKind {
        ActionKind::CheckFree {
            port: port.ifindex(),
            bond: self.ifindex(),
        }
    }

    /// Has a VF show that its frames pass through the network, while the standby carries the traffic.
    pub(crate) fn check_path(
        &self,
        vf: &Port<'_>,
        standby: &Port<'_>,
        proof: PathProof,
    ) -> ActionKind {
        ActionKind::CheckPath {
            bond: self.ifindex(),
            from: vf.ifindex(),
            to: standby.ifindex(),
            proof,
        }
    }

    pub(crate) fn has_addresses(&self) -> bool {
        self.addressing.is_some_and(Addressing::has_addresses)
    }
}

/// A NIC with a role in the bond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Port<'a> {
    pub(crate) link: &'a Link,
    /// Its own MAC, by which it was recognised.
    pub(crate) mac: Option<Mac>,
    /// The place of the entry of the policy's list that it fits, for a VF.
    pub(crate) entry: usize,
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

    /// It is no port, and something else has its frames as far as a dump shows: the bond must not have it.
    pub(crate) fn is_occupied(&self) -> bool {
        !self.enslaved && (self.taken || self.link.occupant.is_some())
    }

    /// Its driver takes this MTU in bytes, as far as is known.
    pub(crate) fn takes_mtu(&self, mtu: u32) -> bool {
        self.link.max_mtu == 0 || self.link.max_mtu >= mtu
    }

    /// It has addresses or routes that belong on the bond.
    pub(crate) fn has_addressing(&self) -> bool {
        self.addressing
            .is_some_and(|found| !found.routes.is_empty() || found.has_addresses())
    }

    /// It has addresses that belong on the bond.
    pub(crate) fn has_addresses(&self) -> bool {
        self.addressing.is_some_and(Addressing::has_addresses)
    }
}

impl<'a> BondView<'a> {
    /// Looks at the bond that is number `index` of the policy.
    pub(crate) fn new(
        world: &'a World,
        policy: &'a BondPolicy,
        index: usize,
        assignments: &[Assignment],
    ) -> Self {
        let device = device(world, policy);
        let mut standbys = Vec::new();
        let mut vfs = Vec::new();
        for assignment in assignments.iter().filter(|one| one.bond == index) {
            let Some(link) = world.link(assignment.ifindex) else {
                continue;
            };
            let port = port(world, device.bond(), link, assignment.mac);
            match assignment.role {
                Role::Standby => standbys.push(port),
                Role::Vf(entry) => vfs.push(Port { entry, ..port }),
            }
        }
        standbys.sort_by_key(|port| (!port.enslaved, port.is_occupied(), port.ifindex()));
        vfs.sort_by_key(|port| (port.entry, !port.enslaved, port.ifindex()));
        let mut standbys = standbys.into_iter();
        Self {
            policy,
            world,
            device,
            standby: standbys.next(),
            other_standby: standbys.next(),
            vfs,
        }
    }

    /// The bond device, if it is there and of the right mode.
    pub(crate) fn bond(&self) -> Option<&Bond<'a>> {
        self.device.bond()
    }

    /// The standby and all VFs.
    pub(crate) fn nics(&self) -> impl Iterator<Item = &Port<'a>> {
        self.standby.iter().chain(&self.vfs)
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

    /// An XDP program keeps a NIC out of the bond: of one that a BPF link held the kernel tells nobody that it is gone
    /// (`bpf_xdp_link_release` of net/core/dev.c, 6.12).
    pub(crate) fn may_be_freed_untold(&self) -> bool {
        let by_xdp = |port: &Port<'_>| {
            !port.enslaved && !port.taken && port.link.occupant == Some(Occupant::Xdp)
        };
        self.nics().any(by_xdp)
    }

    /// A NIC of this bond by its index.
    pub(crate) fn port(&self, ifindex: Ifindex) -> Option<&Port<'a>> {
        self.nics().find(|port| port.ifindex() == ifindex)
    }

    /// The MAC that the bond should show, where the policy fixes one and it is known.
    pub(crate) fn wanted_mac(&self) -> Option<Mac> {
        match self.policy.mac {
            MacPolicy::Standby => {
                let present = self.standby.as_ref().and_then(|port| port.mac);
                present.or(self.policy.standby.mac)
            }
            MacPolicy::Follow => None,
        }
    }
    /// The bond would start with a MAC by chance.
    pub(crate) fn lacks_mac(&self) -> bool {
        self.policy.mac == MacPolicy::Standby && self.wanted_mac().is_none()
    }
}

impl<'a> Device<'a> {
    fn bond(&self) -> Option<&Bond<'a>> {
        match self {
            Self::Present(bond) => Some(bond),
            Self::Missing | Self::Taken(_) | Self::OtherMode(_) => None,
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

fn port<'a>(
    world: &'a World,
    bond: Option<&Bond<'a>>,
    link: &'a Link,
    mac: Option<Mac>,
) -> Port<'a> {
    let enslaved = link.controller.is_some() && link.controller == bond.map(Bond::ifindex);
    Port {
        link,
        mac,
        entry: 0,
        enslaved,
        taken: link.controller.is_some() && !enslaved,
        active: enslaved && bond.and_then(|bond| bond.facts.active) == Some(link.ifindex),
        usable: enslaved && link.is_linked(),
        addressing: world.addressing(link.ifindex),
        warning: world.warning(link.ifindex),
    }
}
