//! The fake kernel as the core sees it, and as the contract suite drives it.

use anyhow::{Result, bail};
use tandem_core::action::ActionKind;
use tandem_core::input::Outcome;
use tandem_core::link::{Addressing, BondFacts, Link, LinkKind, Occupant, PortFacts};
use tandem_core::{IfName, Ifindex, Mac, PciAddress};

use super::{Device, FakeKernel, Kind, NicSpec};
use crate::sim::Kernel;

/// Longer than any driver's carrier delay and any link monitor's interval here, in ms.
const WAIT_MS: u64 = 3_000;

impl FakeKernel {
    /// A dump of all links.
    pub fn dump_links(&self) -> Vec<Link> {
        let devices = self.devices.iter();
        devices
            .map(|(index, device)| self.describe(*index, device))
            .collect()
    }

    /// A dump of one link.
    pub fn dump_link(&self, link: Ifindex) -> Option<Link> {
        let device = self.devices.get(&link)?;
        Some(self.describe(link, device))
    }

    /// A dump of addresses and routes of all links that have any.
    pub fn dump_addressings(&self) -> Vec<Addressing> {
        let all = self
            .devices
            .keys()
            .filter_map(|link| self.dump_addressing(*link));
        all.filter(|one| !one.addresses.is_empty() || !one.routes.is_empty())
            .collect()
    }

    /// A dump of addresses and routes of one link.
    pub fn dump_addressing(&self, link: Ifindex) -> Option<Addressing> {
        let device = self.devices.get(&link)?;
        Some(Addressing {
            ifindex: link,
            addresses: device.addresses.clone(),
            routes: device.routes.clone(),
            expiries: Vec::new(),
        })
    }

    fn describe(&self, ifindex: Ifindex, device: &Device) -> Link {
        let nic_device = match &device.kind {
            Kind::Nic(nic) => Some(nic),
            Kind::Bond(_) | Kind::Software => None,
        };
        let nic = nic_device.map(|nic| &nic.spec);
        let facts = match &device.kind {
            Kind::Bond(bond) => Some(BondFacts {
                mode: bond.mode,
                active: bond.active,
                primary: bond.primary,
                fail_over_mac: bond.fail_over_mac,
                primary_reselect: bond.primary_reselect,
                miimon_ms: bond.miimon_ms,
                all_ports_active: bond.all_ports_active,
                peer_notifications: bond.peer_notifications,
            }),
            Kind::Nic(_) | Kind::Software => None,
        };
        let active = device.controller.and_then(|bond| self.bond(bond)?.active);
        Link {
            ifindex,
            name: device.name.clone(),
            kind: match &device.kind {
                Kind::Nic(_) => LinkKind::Physical,
                Kind::Bond(_) => LinkKind::Bond,
                Kind::Software => LinkKind::Software,
            },
            mac: Some(device.mac),
            permanent_mac: nic_device.map(|nic| nic.permanent_mac),
            pci: nic.map(|spec| spec.pci),
            pci_parent: nic.map(|spec| spec.pci_parent),
            driver: nic.map(|spec| spec.driver.clone()),
            mtu: device.mtu,
            max_mtu: nic.map_or(0, |spec| spec.max_mtu),
            admin_up: device.admin_up,
            carrier: device.has_carrier(),
            controller: device.controller,
            occupant: nic_device.and_then(|nic| nic.occupant.clone()),
            bond: facts,
            port: device.port.as_ref().map(|port| PortFacts {
                active: active == Some(ifindex),
                mii_up: port.mii_up,
                link_failures: port.link_failures,
                permanent_mac: Some(port.mac_before),
            }),
        }
    }
}

/// A standby as the examples and suites use it.
pub fn standby_nic(mac: Mac) -> NicSpec {
    NicSpec {
        name: name("eth0"),
        mac,
        pci: pci(1),
        pci_parent: pci_port(1),
        driver: "virtio_net".into(),
        max_mtu: 65_535,
        refuses_mac: false,
        is_busy: false,
        is_cut_off: false,
        carrier_delay_ms: 0,
        rewrites_mac: false,
    }
}

/// A VF as the examples and suites use it.
pub fn vf_nic(mac: Mac) -> NicSpec {
    NicSpec {
        name: name("enp2s0"),
        mac,
        pci: pci(2),
        pci_parent: pci_port(2),
        driver: "igbvf".into(),
        max_mtu: 9_216,
        refuses_mac: false,
        is_busy: false,
        is_cut_off: false,
        carrier_delay_ms: 40,
        rewrites_mac: false,
    }
}

/// An interface name that is known to be valid.
///
/// # Panics
///
/// If it is not.
pub fn name(text: &str) -> IfName {
    match text.parse() {
        Ok(name) => name,
        Err(error) => panic!("{error}"),
    }
}

/// The function in the slot of that number.
pub fn pci(slot: u8) -> PciAddress {
    PciAddress {
        domain: 0,
        bus: slot,
        device: 0,
        function: 0,
    }
}

/// The port above it.
pub fn pci_port(slot: u8) -> PciAddress {
    PciAddress {
        domain: 0,
        bus: 0,
        device: slot,
        function: 0,
    }
}

impl Kernel for FakeKernel {
    fn act(&mut self, action: &ActionKind) -> Result<Outcome> {
        Ok(self.perform(action))
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        Ok(self.dump_links())
    }

    fn addressings(&mut self) -> Result<Vec<Addressing>> {
        Ok(self.dump_addressings())
    }

    fn standby(&mut self) -> Result<Ifindex> {
        Ok(match self.index_of(&name("eth0")) {
            Some(standby) => standby,
            None => self.plug(standby_nic(Mac([0x52, 0x54, 0, 0, 0, 1]))),
        })
    }

    fn plug_vf(&mut self, mac: Mac) -> Result<Ifindex> {
        Ok(self.plug(vf_nic(mac)))
    }

    fn plug_igbvf(&mut self, mac: Mac, pinned: bool) -> Result<Ifindex> {
        Ok(self.plug(NicSpec {
            refuses_mac: pinned,
            rewrites_mac: true,
            ..vf_nic(mac)
        }))
    }

    fn unplug_vf(&mut self, vf: Ifindex) -> Result<()> {
        self.unplug(vf);
        Ok(())
    }

    fn set_cable(&mut self, nic: Ifindex, plugged: bool) -> Result<()> {
        Self::set_cable(self, nic, plugged);
        Ok(())
    }

    fn rename(&mut self, link: Ifindex, name: &IfName) -> Result<()> {
        Self::rename(self, link, name);
        Ok(())
    }

    fn occupy(&mut self, nic: Ifindex, kind: Option<&str>) -> Result<()> {
        let occupant = kind.map(|kind| Occupant::Device {
            name: name("occupant0"),
            kind: kind.into(),
        });
        self.set_occupant(nic, occupant);
        Ok(())
    }

    fn set_active(&mut self, bond: Ifindex, port: Ifindex) -> Result<bool> {
        Self::set_active(self, bond, port);
        Ok(self.bond(bond).and_then(|bond| bond.active) == Some(port))
    }

    fn delete_bond(&mut self, bond: Ifindex) -> Result<()> {
        Self::delete_bond(self, bond);
        Ok(())
    }

    fn wait(&mut self, condition: &dyn Fn(&[Link]) -> bool) -> Result<()> {
        let until = self.now.plus_ms(WAIT_MS);
        while !condition(&self.dump_links()) {
            let next = self.next_timer().filter(|at| *at <= until);
            let Some(next) = next else {
                bail!("not within {WAIT_MS} ms; links: {:#?}", self.dump_links());
            };
            self.advance(next);
        }
        Ok(())
    }
}
