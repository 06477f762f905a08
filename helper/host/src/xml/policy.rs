//! From the domain's bonds to the guest's policy.

use tandem_core::Policy;
use tandem_core::policy::{AddressingPolicy, BondPolicy, Origin, PolicyError, PortMatch};

use super::bonds::{BondPlaces, Document};
use super::domain::is_virtio;
use super::error::{Place, XmlError};
use super::types::{Addressing, Bond, BondDevice, Bonds};
use crate::hypervisor::domain::{Nic, NicKind};

/// Linux' driver of every virtio NIC (`drivers/net/virtio_net.c`).
const VIRTIO_DRIVER: &str = "virtio_net";

impl Bonds {
    /// What the guest is told (`tandem-configure`), for a domain that has these devices.
    /// A device that an alias names is described by its MAC; the MAC that a VF has now is
    /// told as well as those that are written. An alias that names no device says nothing.
    ///
    /// # Errors
    /// If a bond is left without standby or VF, or the bonds contradict each other.
    pub fn policy(&self, nics: &[Nic]) -> Result<Policy, PolicyError> {
        self.policy_with(nics, &[])
    }

    /// The same, and the guest is told of VFs that will come too: those of an alias that a `<vf>` names.
    ///
    /// # Errors
    /// As [`Bonds::policy`].
    pub fn policy_with(&self, nics: &[Nic], arriving: &[Nic]) -> Result<Policy, PolicyError> {
        let mut policy = Policy {
            origin: Origin::Host,
            bonds: self.bonds.iter().map(|bond| bond.policy(nics)).collect(),
        };
        for (bond, policy) in self.bonds.iter().zip(&mut policy.bonds) {
            let macs: Vec<_> = policy.vfs.iter().map(|vf| vf.mac).collect();
            let new = bond.named_by_alias(arriving);
            policy.vfs.extend(new.filter(|vf| !macs.contains(&vf.mac)));
            bond.tell_apart(policy, nics);
        }
        policy.validate()?;
        Ok(policy)
    }
}

impl Bond {
    /// The device of the domain that is this bond's VF now, if it has one.
    pub fn vf<'nics>(&self, nics: &'nics [Nic]) -> Option<&'nics Nic> {
        let standby = self.standby_device(nics);
        let others: Vec<&Nic> = nics
            .iter()
            .filter(|nic| standby.is_none_or(|standby| !std::ptr::eq(*nic, standby)))
            .collect();
        self.vfs.iter().find_map(|port| device_of(port, &others))
    }

    /// The device of the domain that is this bond's standby, if it has one.
    pub fn standby_device<'nics>(&self, nics: &'nics [Nic]) -> Option<&'nics Nic> {
        let named = |nic: &&Nic| {
            let alias = Some(&nic.alias);
            self.vfs.iter().any(|vf| vf.alias.as_ref() == alias)
        };
        // A VF may have the standby's MAC; then it is the one that is passed through.
        let (mut ordered, passed): (Vec<&Nic>, Vec<&Nic>) = nics
            .iter()
            .filter(|nic| !named(nic))
            .partition(|nic| nic.kind == NicKind::Interface);
        ordered.extend(passed);
        device_of(&self.standby, &ordered)
    }

    /// The guest of a domain that has `nics` may take that device for its VF: by alias, which the host turns into
    /// a MAC, by a MAC that it is told, or by what it sees.
    pub fn may_mean(&self, nic: &Nic, nics: &[Nic]) -> bool {
        let by_sight =
            |port: &BondDevice| port.guest.mac.is_none() && port.guest != PortMatch::default();
        let is_told = || self.policy(nics).vfs.iter().any(|vf| vf.mac == nic.mac);
        self.names(nic) || self.vfs.iter().any(by_sight) || (nic.mac.is_some() && is_told())
    }

    /// One of its `<vf>` elements has that device's alias or MAC.
    pub fn names(&self, nic: &Nic) -> bool {
        self.vfs.iter().any(|port| {
            let by_alias = port.alias.as_ref().is_some_and(|alias| *alias == nic.alias);
            by_alias || (nic.mac.is_some() && port.guest.mac == nic.mac)
        })
    }

    /// How the guest recognises devices that come with an alias of this bond's VFs.
    fn named_by_alias<'a>(&'a self, nics: &'a [Nic]) -> impl Iterator<Item = PortMatch> + 'a {
        nics.iter().filter_map(|nic| {
            let port = self
                .vfs
                .iter()
                .find(|port| port.alias.as_ref() == Some(&nic.alias) && port.guest.pci.is_none())?;
            Some(PortMatch {
                mac: Some(nic.mac?),
                pci: None,
                driver: port.guest.driver.clone(),
            })
        })
    }

    /// A VF may have the standby's MAC. Where nothing else in the XML tells the two apart, the guest's driver does:
    /// the hypervisor knows that its own NIC is a virtio one.
    fn tell_apart(&self, policy: &mut BondPolicy, nics: &[Nic]) {
        let standby = &mut policy.standby;
        let by_mac_alone = |port: &PortMatch| port.driver.is_none() && port.pci.is_none();
        let is_same = |vf: &PortMatch| vf.mac == standby.mac && by_mac_alone(vf);
        let is_virtio = self
            .standby_device(nics)
            .is_some_and(|nic| nic.kind == NicKind::Interface && is_virtio(&nic.xml));
        if is_virtio && by_mac_alone(standby) && policy.vfs.iter().any(is_same) {
            standby.driver = Some(VIRTIO_DRIVER.to_owned());
        }
    }

    fn policy(&self, nics: &[Nic]) -> BondPolicy {
        let standby = described(&self.standby, self.standby_device(nics));
        let mut vfs: Vec<PortMatch> = Vec::new();
        let all: Vec<&Nic> = nics.iter().collect();
        for port in &self.vfs {
            let device = port.alias.as_ref().and_then(|_| device_of(port, &all));
            let present = device.and_then(|nic| nic.mac).map(|mac| PortMatch {
                mac: Some(mac),
                pci: None,
                driver: port.guest.driver.clone(),
            });
            let written = port.guest != PortMatch::default();
            if written {
                vfs.push(port.guest.clone());
            }
            let by_mac = !written || (port.guest.mac.is_some() && port.guest.pci.is_none());
            // The destination's VF may be written as an entry of its own, and have the alias by now.
            let is_written = |present: &PortMatch| {
                let mut written = self.vfs.iter().map(|port| port.guest.mac);
                written.any(|mac| mac == present.mac)
            };
            if let Some(present) = present.filter(|one| by_mac && !is_written(one)) {
                vfs.push(present);
            }
        }
        BondPolicy {
            name: self.name.clone(),
            standby,
            vfs,
            mac: self.mac,
            ownership: self.ownership,
            addressing: self.addressing.policy(),
            manager_takes_standby: false,
            undecided: false,
            expects_ipv4: false,
            mtu: self.mtu,
            path_check: self.path_check,
            timing: self.timing,
        }
    }
}

impl Addressing {
    /// Tandem has no DHCP client: the guest's network manager has.
    fn policy(&self) -> AddressingPolicy {
        match self {
            Self::Auto => AddressingPolicy::Auto,
            Self::Inherit => AddressingPolicy::Inherit,
            Self::Static { addresses, routes } => AddressingPolicy::Static {
                addresses: addresses.clone(),
                routes: routes.clone(),
            },
            Self::Dhcp | Self::None => AddressingPolicy::None,
        }
    }
}

impl Document {
    /// As [`Bonds::policy`], with the place of what is wrong.
    ///
    /// # Errors
    /// If a bond is left without standby or VF, or the bonds contradict each other.
    pub fn policy(&self, nics: &[Nic]) -> Result<Policy, XmlError> {
        self.bonds
            .policy(nics)
            .map_err(|error| self.located(&error))
    }

    /// What can be told without the domain: each alias stands for a NIC of its own.
    pub(super) fn validate(&self) -> Result<(), XmlError> {
        let mut bonds = self.bonds.clone();
        for bond in &mut bonds.bonds {
            for port in std::iter::once(&mut bond.standby).chain(&mut bond.vfs) {
                if port.guest == PortMatch::default() {
                    port.guest.driver = port.alias.take();
                }
            }
        }
        bonds.policy(&[]).map_err(|error| self.located(&error))?;
        Ok(())
    }

    fn located(&self, error: &PolicyError) -> XmlError {
        let none = BondPlaces::<Place>::default();
        let places = self.places.get(error.index).unwrap_or(&none);
        let or_bond = |place: Option<Place>| place.unwrap_or(places.bond);
        let (element, place) = match error.key {
            "standby" => ("<standby>", places.standby),
            "vfs" => ("<vf>", or_bond(places.vfs.first().copied())),
            "mtu" => ("<mtu>", or_bond(places.mtu)),
            "addressing.static.addresses" => ("<ip>", or_bond(places.ips.first().copied())),
            "addressing.static.routes" => ("<route>", or_bond(places.routes.first().copied())),
            key if key.starts_with("timing.") => ("<timing>", or_bond(places.timing)),
            _ => ("<bond>", places.bond),
        };
        XmlError {
            place,
            element: element.to_owned(),
            problem: error.to_string(),
        }
    }
}

/// The device that a port means: by alias if it has one, else by MAC.
fn device_of<'nics>(port: &BondDevice, nics: &[&'nics Nic]) -> Option<&'nics Nic> {
    let fits = |nic: &&Nic| match (&port.alias, port.guest.mac) {
        (Some(alias), _) => nic.alias == *alias,
        (None, Some(mac)) => nic.mac == Some(mac),
        (None, None) => false,
    };
    nics.iter().copied().find(fits)
}

/// A standby stays what is written; without anything written it is its device's MAC.
fn described(port: &BondDevice, device: Option<&Nic>) -> PortMatch {
    if port.guest == PortMatch::default() {
        PortMatch {
            mac: device.and_then(|nic| nic.mac),
            ..PortMatch::default()
        }
    } else {
        port.guest.clone()
    }
}
