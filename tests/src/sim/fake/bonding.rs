//! The bonding driver's rules for active-backup
//! (`drivers/net/bonding/bond_main.c` and `bond_options.c`, Linux 6.12).

use tandem_core::link::{FailOverMac, Occupant, PrimaryReselect};
use tandem_core::{Ifindex, Mac};

use super::{FakeKernel, Kind, PortDevice, Refusal};

/// Kinds of devices whose lower device has a receive handler (`netdev_rx_handler_register`).
const HANDLERS: [&str; 4] = ["macvlan", "macvtap", "ipvlan", "ipvtap"];

impl FakeKernel {
    /// `bond_enslave`, after the executor took the link down.
    pub(super) fn enslave(&mut self, port: Ifindex, bond: Ifindex) -> Result<(), Refusal> {
        let master = self.devices.get(&bond).ok_or(Refusal::NO_DEVICE)?;
        let (bond_mtu, mut bond_mac) = (master.mtu, master.mac);
        let facts = self.bond(bond).ok_or(Refusal::NOT_A_BOND)?;
        let fail_over_mac = facts.fail_over_mac;
        let lends_mac = facts.mac_is_random && facts.ports.is_empty();
        self.refuse_busy(port)?;
        self.close(port);
        self.release_from_controller(port);

        let device = self.devices.get(&port).ok_or(Refusal::NO_DEVICE)?;
        let Kind::Nic(nic) = &device.kind else {
            return Err(Refusal::NOT_A_PORT);
        };
        if bond_mtu > nic.spec.max_mtu {
            return Err(Refusal::MTU);
        }
        let (mac_before, mtu_before) = (device.mac, device.mtu);
        if lends_mac {
            bond_mac = mac_before;
        }
        let changes_mac = fail_over_mac == FailOverMac::None && bond_mac != mac_before;
        if changes_mac && nic.spec.refuses_mac {
            return Err(Refusal::MAC);
        }
        if lends_mac {
            self.set_bond_mac(bond, bond_mac);
        }
        if let Some(device) = self.devices.get_mut(&port) {
            if changes_mac {
                device.mac = bond_mac;
            }
            device.set_mtu(bond_mtu);
            device.controller = Some(bond);
            // The stack gives a port no link-local address.
            device.port = Some(PortDevice {
                mii_up: false,
                mii_at: None,
                link_failures: 0,
                mac_before,
                mtu_before,
            });
        }
        self.open(port);
        let name = self.devices.get(&port).map(|one| one.name.clone());
        let up = self.devices.get(&port).is_some_and(|one| one.has_carrier());
        if let Some(state) = self
            .devices
            .get_mut(&port)
            .and_then(|one| one.port.as_mut())
        {
            state.mii_up = up;
            state.mii_at = None;
        }
        if let Some(facts) = self.bond_mut(bond) {
            facts.ports.push(port);
            if name.is_some_and(|name| name.as_str() == facts.primary_name) {
                facts.primary = Some(port);
                facts.force_primary = true;
            }
        }
        self.select_active(bond);
        Ok(())
    }

    /// Asked to make a port of a NIC that is up, `bond_enslave` first looks whether something has its frames, and
    /// only then that it is up. A VLAN and an XDP program are nothing to it.
    pub(super) fn refuse_busy(&self, port: Ifindex) -> Result<(), Refusal> {
        let Some(Kind::Nic(nic)) = self.devices.get(&port).map(|device| &device.kind) else {
            return Ok(());
        };
        let has_handler = match &nic.occupant {
            Some(Occupant::Device { kind, .. }) => HANDLERS.contains(&kind.as_str()),
            Some(Occupant::Xdp) | None => false,
        };
        if nic.spec.is_busy || has_handler {
            return Err(Refusal::BUSY);
        }
        Ok(())
    }

    /// `__bond_release_one`: by request, or because the device is going.
    pub(super) fn release_from_controller(&mut self, port: Ifindex) {
        let now = self.now;
        let Some(device) = self.devices.get_mut(&port) else {
            return;
        };
        let (Some(bond), Some(state)) = (device.controller.take(), device.port.take()) else {
            return;
        };
        // In this order, so that a driver that is reset by the first still has the bond's MAC.
        self.close(port);
        if let Some(device) = self.devices.get_mut(&port) {
            device.mac = state.mac_before;
            device.set_mtu(state.mtu_before);
            if let Kind::Nic(nic) = &mut device.kind {
                nic.occupied_at = now;
            }
        }
        let Some(facts) = self.bond_mut(bond) else {
            return;
        };
        facts.ports.retain(|one| *one != port);
        if facts.primary == Some(port) {
            facts.primary = None;
        }
        let was_active = facts.active == Some(port);
        if was_active {
            facts.active = None;
        }
        if facts.ports.is_empty() {
            facts.mac_is_random = true;
            let mac = self.random_mac();
            if let Some(device) = self.devices.get_mut(&bond) {
                device.mac = mac;
            }
        } else if was_active {
            self.select_active(bond);
        }
    }

    /// `bond_select_active_slave`.
    pub(super) fn select_active(&mut self, bond: Ifindex) {
        let up = |port: &Ifindex| self.is_mii_up(*port);
        let Some(facts) = self.bond(bond) else {
            return;
        };
        let primary = facts.primary.filter(up);
        let active = facts.active.filter(up);
        let first = facts.ports.iter().copied().find(up);
        let forced = facts.force_primary && primary.is_some();
        let preferred = primary.or(first);
        let best = match (forced, preferred, active) {
            (true, _, _) => primary,
            (false, _, None) => preferred,
            (false, None, Some(active)) => Some(active),
            (false, Some(preferred), Some(active)) => Some(match facts.primary_reselect {
                // The fake NICs all have the same speed, so better is never the case.
                PrimaryReselect::Always => preferred,
                PrimaryReselect::Better | PrimaryReselect::Failure => active,
            }),
        };
        if let Some(facts) = self.bond_mut(bond)
            && forced
        {
            facts.force_primary = false;
        }
        self.change_active(bond, best);
    }

    fn change_active(&mut self, bond: Ifindex, port: Option<Ifindex>) {
        let now = self.now;
        let Some(facts) = self.bond_mut(bond) else {
            return;
        };
        if facts.active == port {
            return;
        }
        facts.active = port;
        facts.active_since = now;
        let follows = facts.fail_over_mac == FailOverMac::Active;
        let mac = port
            .and_then(|port| self.devices.get(&port))
            .map(|one| one.mac);
        if let Some(mac) = mac.filter(|_| follows) {
            self.set_bond_mac(bond, mac);
        }
    }

    /// `bond_miimon_commit` for one port.
    pub(super) fn port_link_changed(&mut self, bond: Ifindex, port: Ifindex, up: bool) {
        let Some(facts) = self.bond(bond) else {
            return;
        };
        let concerned = if up {
            facts.active.is_none() || facts.primary == Some(port)
        } else {
            facts.active == Some(port)
        };
        if concerned {
            self.select_active(bond);
        }
    }

    /// `bond_slave_netdev_event`, `NETDEV_CHANGENAME`.
    pub(super) fn port_renamed(&mut self, bond: Ifindex, port: Ifindex, name: &str) {
        let Some(facts) = self.bond_mut(bond) else {
            return;
        };
        if facts.primary == Some(port) {
            facts.primary = None;
        } else if facts.primary_name == name {
            facts.primary = Some(port);
        } else {
            return;
        }
        self.select_active(bond);
    }

    /// `bond_option_primary_set`: remembered by name, moves the traffic at once.
    pub(super) fn set_primary(&mut self, bond: Ifindex, port: Ifindex) -> Result<(), Refusal> {
        self.bond(bond).ok_or(Refusal::NO_DEVICE)?;
        let name = self.devices.get(&port).map(|one| one.name.clone());
        let Some(facts) = self.bond_mut(bond) else {
            return Err(Refusal::NOT_A_BOND);
        };
        match name {
            // An index that is unknown clears the primary (measured).
            None => {
                facts.primary = None;
                facts.primary_name.clear();
            }
            Some(name) => {
                facts.primary = facts.ports.contains(&port).then_some(port);
                facts.force_primary = facts.primary.is_some();
                facts.primary_name = name.to_string();
            }
        }
        self.select_active(bond);
        Ok(())
    }

    /// Sets the active port by itself, as `ip link set type bond active_slave` does: not sticky.
    pub fn set_active(&mut self, bond: Ifindex, port: Ifindex) {
        let has = self.bond(bond).is_some_and(|one| one.ports.contains(&port));
        if has && self.is_mii_up(port) {
            self.change_active(bond, Some(port));
        }
    }

    fn is_mii_up(&self, port: Ifindex) -> bool {
        let port = self.devices.get(&port).and_then(|one| one.port.as_ref());
        port.is_some_and(|port| port.mii_up)
    }

    pub(super) fn set_bond_mac(&mut self, bond: Ifindex, mac: Mac) {
        if let Some(device) = self.devices.get_mut(&bond) {
            device.mac = mac;
        }
    }
}
