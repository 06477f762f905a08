//! A fake kernel: network interfaces with the bonding driver's real rules, as
//! far as they matter to decisions. Times are simulated.
//!
//! Every rule was read in `drivers/net/bonding` of Linux 6.12 or measured on
//! Debian's 6.1, 6.12 and 7.3, and is examined by the contract suite, which a real
//! kernel passes as well, and by walks that both take side by side.

mod acts;
mod addresses;
mod bonding;
mod dump;
mod errno;
mod paths;
mod timers;

use std::collections::BTreeMap;

use tandem_core::link::{Address, BondMode, FailOverMac, Occupant, PrimaryReselect, Route};
use tandem_core::{IfName, Ifindex, Mac, PciAddress, Time};

pub use dump::{name, pci, pci_port, standby_nic, vf_nic};
pub use errno::Refusal;
pub use paths::{Flow, NEIGHBOUR, Path};

/// A NIC to be plugged in.
#[derive(Debug, Clone)]
pub struct NicSpec {
    /// Name that its driver gives it.
    pub name: IfName,
    /// Permanent MAC.
    pub mac: Mac,
    /// PCI function.
    pub pci: PciAddress,
    /// Port above it.
    pub pci_parent: PciAddress,
    /// Driver.
    pub driver: String,
    /// Largest MTU in bytes.
    pub max_mtu: u32,
    /// Its PF forbids a change of its MAC.
    pub refuses_mac: bool,
    /// Something that no dump shows, such as a macvlan in another network namespace, keeps it out of bonds.
    pub is_busy: bool,
    /// None of its frames passes the network behind its cable, until [`FakeKernel::set_path`] says otherwise.
    pub is_cut_off: bool,
    /// From opening to carrier, in ms.
    pub carrier_delay_ms: u64,
    /// At each reset its driver makes its present MAC the permanent one (`igbvf_reset`,
    /// `drivers/net/ethernet/intel/igbvf/netdev.c`, 6.12).
    pub rewrites_mac: bool,
}

/// The fake kernel.
#[derive(Debug)]
pub struct FakeKernel {
    devices: BTreeMap<Ifindex, Device>,
    next_index: u32,
    now: Time,
    random_macs: u32,
    /// The bonding driver can be loaded.
    pub has_bonding: bool,
    /// Announcements sent: when, for which bond, through which port.
    pub announcements: Vec<(Time, Ifindex, Ifindex)>,
    /// What flows through the ports that carry traffic.
    pub flow: Flow,
    /// Interfaces that an action changed or tried to.
    pub touched: Vec<Ifindex>,
}

#[derive(Debug, Clone)]
struct Device {
    name: IfName,
    kind: Kind,
    mac: Mac,
    mtu: u32,
    admin_up: bool,
    controller: Option<Ifindex>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    /// Present while it is a port of a bond.
    port: Option<PortDevice>,
}

#[derive(Debug, Clone)]
enum Kind {
    Nic(NicDevice),
    Bond(BondDevice),
    Software,
}

#[derive(Debug, Clone)]
struct NicDevice {
    spec: NicSpec,
    permanent_mac: Mac,
    /// The cable is in and the other side is up.
    cable: bool,
    /// When the carrier follows the cable; only while open.
    carrier_at: Option<Time>,
    carrier: bool,
    path: Path,
    /// It was changed since it was plugged in.
    path_changed: bool,
    /// Millionths of a frame that it has sent.
    sent_millionths: u64,
    /// What lies on it, and since when it does while no bond has the NIC.
    occupant: Option<Occupant>,
    occupied_at: Time,
}

#[derive(Debug, Clone)]
struct BondDevice {
    mode: BondMode,
    ports: Vec<Ifindex>,
    active: Option<Ifindex>,
    /// Since when that port is the active one.
    active_since: Time,
    primary: Option<Ifindex>,
    /// Kept after the port of that name is gone.
    primary_name: String,
    force_primary: bool,
    fail_over_mac: FailOverMac,
    primary_reselect: PrimaryReselect,
    miimon_ms: u32,
    all_ports_active: bool,
    peer_notifications: u8,
    /// Nobody chose the MAC: the first port lends its own.
    mac_is_random: bool,
}

#[derive(Debug, Clone)]
struct PortDevice {
    mii_up: bool,
    /// When the link monitor notices that the link changed.
    mii_at: Option<Time>,
    link_failures: u32,
    mac_before: Mac,
    mtu_before: u32,
}

impl Default for FakeKernel {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeKernel {
    /// A kernel without any NIC.
    pub fn new() -> Self {
        Self {
            devices: BTreeMap::new(),
            next_index: 2,
            now: Time(0),
            random_macs: 0,
            has_bonding: true,
            announcements: Vec::new(),
            flow: Flow::IDLE,
            touched: Vec::new(),
        }
    }

    /// Plugs a NIC in: down, cable in.
    pub fn plug(&mut self, spec: NicSpec) -> Ifindex {
        let device = Device {
            name: self.free_name(&spec.name),
            mac: spec.mac,
            mtu: 1500,
            admin_up: false,
            controller: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            port: None,
            kind: Kind::Nic(NicDevice {
                permanent_mac: spec.mac,
                path: Path {
                    out: !spec.is_cut_off,
                    back: !spec.is_cut_off,
                    ..Path::WHOLE
                },
                path_changed: false,
                sent_millionths: 0,
                spec,
                cable: true,
                carrier_at: None,
                carrier: false,
                occupant: None,
                occupied_at: Time(0),
            }),
        };
        self.add(device)
    }

    /// Adds an interface that is neither NIC nor bond.
    pub fn add_software(&mut self, name: &IfName, mac: Mac) -> Ifindex {
        let device = Device {
            name: self.free_name(name),
            mac,
            mtu: 1500,
            admin_up: true,
            controller: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            port: None,
            kind: Kind::Software,
        };
        self.add(device)
    }

    /// Takes a NIC away.
    pub fn unplug(&mut self, nic: Ifindex) {
        for step in Self::UNPLUG_STEPS {
            step(self, nic);
        }
    }

    /// What happens when a NIC goes, each step visible to observers: it is closed,
    /// it leaves its bond, it is gone (`unregister_netdevice_many_notify`, `net/core/dev.c`, 6.12).
    pub const UNPLUG_STEPS: [fn(&mut Self, Ifindex); 3] =
        [Self::close, Self::release_from_controller, |kernel, nic| {
            kernel.devices.remove(&nic);
        }];

    /// Removes a bond and frees its ports.
    pub fn delete_bond(&mut self, bond: Ifindex) {
        let ports = self.bond(bond).map(|bond| bond.ports.clone());
        for port in ports.unwrap_or_default() {
            self.release_from_controller(port);
        }
        self.devices.remove(&bond);
    }

    /// Plugs a cable in or out.
    pub fn set_cable(&mut self, nic: Ifindex, cable: bool) {
        let now = self.now;
        let Some(device) = self.devices.get_mut(&nic) else {
            return;
        };
        let open = device.admin_up;
        if let Kind::Nic(nic_device) = &mut device.kind {
            nic_device.cable = cable;
            if !open {
                return;
            }
            if cable {
                let delay_ms = nic_device.spec.carrier_delay_ms;
                nic_device.carrier_at = Some(now.plus_ms(delay_ms));
            } else {
                nic_device.carrier_at = None;
                self.set_carrier(nic, false);
            }
        }
        self.run_timers();
    }

    /// Opens or closes an interface, as any manager may.
    pub fn set_admin_up(&mut self, link: Ifindex, up: bool) {
        if up {
            self.open(link);
        } else {
            self.close(link);
        }
        self.run_timers();
    }

    /// Renames an interface; a bond forgets a primary that is renamed away.
    pub fn rename(&mut self, link: Ifindex, name: &IfName) {
        if self.index_of(name) == Some(link) {
            return;
        }
        let name = self.free_name(name);
        let Some(device) = self.devices.get_mut(&link) else {
            return;
        };
        device.name.clone_from(&name);
        let bond = device.port.as_ref().and(device.controller);
        if let Some(bond) = bond {
            self.port_renamed(bond, link, name.as_str());
        }
    }

    /// The index of the interface of that name.
    pub fn index_of(&self, name: &IfName) -> Option<Ifindex> {
        let found = self.devices.iter().find(|(_, one)| one.name == *name);
        found.map(|(index, _)| *index)
    }

    /// Something is put on top of a NIC, or is taken away.
    pub fn set_occupant(&mut self, nic: Ifindex, occupant: Option<Occupant>) {
        let now = self.now;
        if let Some(Kind::Nic(nic)) = self.devices.get_mut(&nic).map(|one| &mut one.kind) {
            nic.occupant = occupant;
            nic.occupied_at = now;
        }
    }

    /// Whoever had attached XDP programs to NICs ends.
    pub fn drop_xdp(&mut self) {
        for device in self.devices.values_mut() {
            if let Kind::Nic(nic) = &mut device.kind {
                nic.occupant.take_if(|one| *one == Occupant::Xdp);
            }
        }
    }

    /// Since when something lies on a NIC for all to see; of one that was a port, since it is none any more.
    pub fn occupied_since(&self, nic: Ifindex) -> Option<Time> {
        match &self.devices.get(&nic)?.kind {
            Kind::Nic(nic) => nic.occupant.as_ref().map(|_| nic.occupied_at),
            Kind::Bond(_) | Kind::Software => None,
        }
    }

    /// Since when a bond's active port is the active one.
    pub fn active_since(&self, bond: Ifindex) -> Option<Time> {
        let bond = self.bond(bond)?;
        bond.active.map(|_| bond.active_since)
    }

    /// Something lies on the NIC, whether a dump shows it or not.
    pub fn is_in_use(&self, nic: Ifindex) -> bool {
        let hidden = self.nic(nic).is_some_and(|(spec, _)| spec.is_busy);
        hidden || self.occupied_since(nic).is_some()
    }

    /// Something that no dump shows keeps a NIC out of bonds from now on, or no longer.
    pub fn set_busy(&mut self, nic: Ifindex, busy: bool) {
        if let Some(Kind::Nic(nic)) = self.devices.get_mut(&nic).map(|one| &mut one.kind) {
            nic.spec.is_busy = busy;
        }
    }

    /// What was plugged in, and whether its cable is.
    pub fn nic(&self, link: Ifindex) -> Option<(&NicSpec, bool)> {
        match &self.devices.get(&link)?.kind {
            Kind::Nic(nic) => Some((&nic.spec, nic.cable)),
            Kind::Bond(_) | Kind::Software => None,
        }
    }

    /// This interface exists.
    pub fn exists(&self, link: Ifindex) -> bool {
        self.devices.contains_key(&link)
    }

    fn add(&mut self, device: Device) -> Ifindex {
        let index = Ifindex(self.next_index);
        self.next_index += 1;
        self.devices.insert(index, device);
        index
    }

    /// That name, or one like it that is not taken.
    fn free_name(&self, wanted: &IfName) -> IfName {
        let free = |name: &IfName| self.index_of(name).is_none();
        let base: String = wanted.as_str().chars().take(10).collect();
        let numbered = (0..1000).filter_map(|number| format!("{base}x{number}").parse().ok());
        let mut names = std::iter::once(wanted.clone()).chain(numbered);
        names.find(free).unwrap_or_else(|| wanted.clone())
    }

    fn random_mac(&mut self) -> Mac {
        self.random_macs += 1;
        let [_, b, c, d] = self.random_macs.to_be_bytes();
        Mac([0x02, 0xff, 0xff, b, c, d])
    }

    fn bond(&self, index: Ifindex) -> Option<&BondDevice> {
        match &self.devices.get(&index)?.kind {
            Kind::Bond(bond) => Some(bond),
            Kind::Nic(_) | Kind::Software => None,
        }
    }

    fn bond_mut(&mut self, index: Ifindex) -> Option<&mut BondDevice> {
        match &mut self.devices.get_mut(&index)?.kind {
            Kind::Bond(bond) => Some(bond),
            Kind::Nic(_) | Kind::Software => None,
        }
    }
}

impl Device {
    /// The driver resets the device.
    fn reset(&mut self) {
        if let Kind::Nic(nic) = &mut self.kind
            && nic.spec.rewrites_mac
        {
            nic.permanent_mac = self.mac;
        }
    }

    /// `dev_set_mtu` asks the driver only for another one.
    fn set_mtu(&mut self, mtu: u32) {
        if self.mtu != mtu {
            self.mtu = mtu;
            self.reset();
        }
    }

    fn has_carrier(&self) -> bool {
        match &self.kind {
            Kind::Nic(nic) => self.admin_up && nic.carrier,
            Kind::Bond(bond) => self.admin_up && bond.active.is_some(),
            Kind::Software => self.admin_up,
        }
    }
}
