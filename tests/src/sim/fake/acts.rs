//! Carries actions out as the executor does, one system call after the other.

use tandem_core::action::{ActionKind, BondOptions, PathProof};
use tandem_core::input::Outcome;
use tandem_core::link::{BondMode, FailOverMac, PrimaryReselect};
use tandem_core::{IfName, Ifindex, Mac, Time};

use super::errno::OutcomeOf;
use super::{BondDevice, Device, FakeKernel, Kind, Refusal};

impl FakeKernel {
    /// Carries an action out.
    pub fn perform(&mut self, action: &ActionKind) -> Outcome {
        let result = self.try_perform(action);
        self.run_timers();
        OutcomeOf::from(result).0
    }

    fn try_perform(&mut self, action: &ActionKind) -> Result<(), Refusal> {
        match action {
            ActionKind::CreateBond { name, mac, options } => self.create_bond(name, *mac, options),
            ActionKind::SetBondOptions { bond, options } => self.set_options(*bond, options),
            ActionKind::SetAdminUp { link, up } => {
                self.touch(*link)?;
                self.set_admin_up(*link, *up);
                Ok(())
            }
            ActionKind::SetMtu { link, mtu } => self.set_mtu(*link, *mtu),
            ActionKind::SetMac { link, mac } => self.set_mac(*link, *mac),
            ActionKind::Enslave { port, bond } => {
                self.touch(*port)?;
                // The executor asks before it takes anything down.
                match self.controller_of(*port) {
                    _ if !self.exists(*bond) => Err(Refusal::NO_DEVICE),
                    _ if self.bond(*bond).is_none() => Err(Refusal::NOT_A_BOND),
                    Some(controller) if controller == *bond => Ok(()),
                    Some(_) => Err(Refusal::OTHER_BOND),
                    None => self.enslave(*port, *bond),
                }
            }
            ActionKind::CheckFree { port, bond } => match self.controller_of(*port) {
                _ if !self.exists(*port) || !self.exists(*bond) => Err(Refusal::NO_DEVICE),
                _ if self.bond(*bond).is_none() => Err(Refusal::NOT_A_BOND),
                Some(controller) if controller == *bond => Ok(()),
                Some(_) => Err(Refusal::OTHER_BOND),
                None => self.refuse_busy(*port),
            },
            ActionKind::Release { port, bond } => {
                self.touch(*port)?;
                if self.controller_of(*port) == Some(*bond) {
                    // The executor looks before it lets a port go.
                    self.refuse_last_usable(*port, *bond)?;
                    self.release_from_controller(*port);
                }
                Ok(())
            }
            ActionKind::SetPrimary { bond, port } => {
                self.touch(*port)?;
                match self.controller_of(*port) {
                    _ if !self.exists(*bond) => Err(Refusal::NO_DEVICE),
                    Some(controller) if controller == *bond => self.set_primary(*bond, *port),
                    _ => Err(Refusal::NOT_A_PORT),
                }
            }
            ActionKind::MoveAddressing { from, to } => {
                self.touch(*from)?;
                self.move_addressing(*from, *to)
            }
            ActionKind::AddAddressing {
                link,
                addresses,
                routes,
            } => self.add_addressing(*link, addresses, routes),
            ActionKind::FlushAddressing { link } => {
                self.touch(*link)?;
                self.flush_addressing(*link);
                Ok(())
            }
            ActionKind::Announce { bond, port } => {
                self.announcements.push((self.now, *bond, *port));
                Ok(())
            }
            ActionKind::CheckPath {
                from, to, proof, ..
            } => {
                let there = self.exists(*from) && self.exists(*to);
                let is_heard = self.frames_pass(*from, *to);
                let passes = match proof {
                    PathProof::Standby => is_heard,
                    PathProof::Neighbours => {
                        let asked = |port| self.flow.has_neighbour && self.reaches_others(port);
                        let is_shown = asked(*to) && self.shows_no_fault(*from, *to);
                        is_shown || !asked(*to) && (asked(*from) || is_heard)
                    }
                    PathProof::NoFault => self.shows_no_fault(*from, *to),
                };
                if !there {
                    Err(Refusal::NO_DEVICE)
                } else if passes {
                    Ok(())
                } else {
                    Err(Refusal::NO_FRAME)
                }
            }
            // The stage has the fast-path programs.
            ActionKind::SetFastPath { .. }
            | ActionKind::ReadFrames { .. }
            | ActionKind::ReadTraffic { .. }
            | ActionKind::AskPath { .. }
            | ActionKind::Observe { .. } => Ok(()),
        }
    }

    fn controller_of(&self, port: Ifindex) -> Option<Ifindex> {
        self.devices.get(&port)?.controller
    }

    fn refuse_last_usable(&self, port: Ifindex, bond: Ifindex) -> Result<(), Refusal> {
        let is_usable = |device: &Device| {
            let mii_up = device.port.as_ref().is_some_and(|port| port.mii_up);
            device.controller == Some(bond) && device.has_carrier() && mii_up
        };
        let mut others = self.devices.iter().filter(|(index, _)| **index != port);
        match others.any(|(_, device)| is_usable(device)) {
            true => Ok(()),
            false => Err(Refusal::LAST_USABLE),
        }
    }

    fn touch(&mut self, link: Ifindex) -> Result<(), Refusal> {
        if !self.devices.contains_key(&link) {
            return Err(Refusal::NO_DEVICE);
        }
        self.touched.push(link);
        Ok(())
    }

    fn create_bond(
        &mut self,
        name: &IfName,
        mac: Option<Mac>,
        options: &BondOptions,
    ) -> Result<(), Refusal> {
        if !self.has_bonding {
            return Err(Refusal::UNKNOWN_TYPE);
        }
        if self.index_of(name).is_some() {
            return Err(Refusal::EXISTS);
        }
        let random = self.random_mac();
        let bond = self.add(Device {
            name: name.clone(),
            mac: mac.unwrap_or(random),
            mtu: 1500,
            admin_up: false,
            controller: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            port: None,
            kind: Kind::Bond(BondDevice {
                mode: BondMode::ActiveBackup,
                ports: Vec::new(),
                active: None,
                active_since: Time(0),
                primary: None,
                primary_name: String::new(),
                force_primary: false,
                fail_over_mac: FailOverMac::None,
                primary_reselect: PrimaryReselect::Always,
                miimon_ms: 0,
                all_ports_active: false,
                peer_notifications: 1,
                mac_is_random: mac.is_none(),
            }),
        });
        self.set_options(bond, options)
    }

    /// A bond of another mode, as another manager may have made it.
    pub fn add_foreign_bond(&mut self, name: &IfName, mode: BondMode) -> Option<Ifindex> {
        self.create_bond(name, None, &BondOptions::default()).ok()?;
        let bond = self.index_of(name)?;
        self.bond_mut(bond)?.mode = mode;
        Some(bond)
    }

    /// One option after the other; what came before a refused one stays
    /// (`bond_changelink`, `drivers/net/bonding/bond_netlink.c`, 6.12).
    fn set_options(&mut self, bond: Ifindex, options: &BondOptions) -> Result<(), Refusal> {
        let facts = self.bond_mut(bond).ok_or(Refusal::NO_DEVICE)?;
        let BondOptions {
            miimon_ms,
            fail_over_mac,
            primary_reselect,
            all_ports_active,
            peer_notifications,
        } = options;
        facts.miimon_ms = miimon_ms.unwrap_or(facts.miimon_ms);
        if let Some(value) = primary_reselect {
            facts.primary_reselect = *value;
            self.select_active(bond);
        }
        let facts = self.bond_mut(bond).ok_or(Refusal::NO_DEVICE)?;
        if let Some(value) = fail_over_mac {
            if !facts.ports.is_empty() {
                return Err(Refusal::HAS_PORTS);
            }
            facts.fail_over_mac = *value;
        }
        facts.peer_notifications = peer_notifications.unwrap_or(facts.peer_notifications);
        facts.all_ports_active = all_ports_active.unwrap_or(facts.all_ports_active);
        Ok(())
    }

    /// A bond's MTU is set on all its ports first; one that can't follow refuses it for all.
    fn set_mtu(&mut self, link: Ifindex, mtu: u32) -> Result<(), Refusal> {
        self.touch(link)?;
        let ports = self.bond(link).map(|bond| bond.ports.clone());
        let all: Vec<Ifindex> = ports
            .unwrap_or_default()
            .into_iter()
            .chain([link])
            .collect();
        let too_small = |index: &Ifindex| match self.devices.get(index).map(|one| &one.kind) {
            Some(Kind::Nic(nic)) => nic.spec.max_mtu < mtu,
            _ => false,
        };
        if all.iter().any(too_small) {
            return Err(Refusal::MTU);
        }
        for index in all {
            if let Some(device) = self.devices.get_mut(&index) {
                device.set_mtu(mtu);
            }
        }
        Ok(())
    }

    fn set_mac(&mut self, link: Ifindex, mac: Mac) -> Result<(), Refusal> {
        self.touch(link)?;
        if let Some(bond) = self.bond_mut(link) {
            // `bond_set_mac_address`, `drivers/net/bonding/bond_main.c`, 6.12.
            if bond.fail_over_mac != FailOverMac::None {
                return Ok(());
            }
            bond.mac_is_random = false;
        }
        self.set_bond_mac(link, mac);
        Ok(())
    }

    /// Sets an MTU as an administrator may.
    pub fn change_mtu(&mut self, link: Ifindex, mtu: u32) -> bool {
        let touched = self.touched.len();
        let done = self.set_mtu(link, mtu).is_ok();
        self.touched.truncate(touched);
        done
    }

    /// Sets the primary as an administrator may.
    pub fn change_primary(&mut self, bond: Ifindex, port: Ifindex) {
        // An administrator's mistake is his own.
        let _ = self.set_primary(bond, port);
    }

    /// Sets options as an administrator may; false if the kernel refuses.
    pub fn change_options(&mut self, bond: Ifindex, options: &BondOptions) -> bool {
        self.set_options(bond, options).is_ok()
    }

    /// Takes a port out of its bond as another manager may.
    pub fn steal(&mut self, port: Ifindex) {
        self.release_from_controller(port);
        self.run_timers();
    }

    /// Makes an interface a port of a bond as another manager may; false if the kernel refuses.
    pub fn join(&mut self, port: Ifindex, bond: Ifindex) -> bool {
        let done = self.enslave(port, bond).is_ok();
        self.run_timers();
        done
    }
}
