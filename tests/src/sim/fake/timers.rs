//! What drivers and link monitors do by themselves, in their own time.

use tandem_core::{Ifindex, Time};

use super::{FakeKernel, Kind};

impl FakeKernel {
    /// Lets time pass; drivers and link monitors do their part. True if they did anything.
    pub fn advance(&mut self, now: Time) -> bool {
        let mut changed = false;
        while let Some(at) = self.next_timer().filter(|at| *at <= now) {
            self.count_frames(at);
            self.now = self.now.max(at);
            self.run_timers();
            changed = true;
        }
        self.count_frames(now);
        self.now = self.now.max(now);
        changed
    }

    /// Opens an interface; a NIC's carrier follows, and a bond's link monitor starts.
    pub(super) fn open(&mut self, link: Ifindex) {
        let now = self.now;
        let Some(device) = self.devices.get_mut(&link) else {
            return;
        };
        if device.admin_up {
            return;
        }
        device.admin_up = true;
        if let Kind::Nic(nic) = &mut device.kind
            && nic.cable
        {
            nic.carrier_at = Some(now.plus_ms(nic.spec.carrier_delay_ms));
        }
        self.monitor_ports(link, Some(now));
        self.run_timers();
    }

    /// Closes an interface: its carrier goes, IPv4 routes and IPv6 addresses too.
    /// A bond's link monitor stops (`bond_close`, `drivers/net/bonding/bond_main.c`, 6.12).
    pub(super) fn close(&mut self, link: Ifindex) {
        let Some(device) = self.devices.get_mut(&link) else {
            return;
        };
        if !device.admin_up {
            return;
        }
        device.admin_up = false;
        device.reset();
        device.routes.clear();
        device.addresses.retain(|address| address.ip.is_ipv4());
        if let Kind::Nic(nic) = &mut device.kind {
            nic.carrier_at = None;
        }
        self.monitor_ports(link, None);
        self.set_carrier(link, false);
    }

    /// When the bond's link monitor looks at each of its ports next.
    fn monitor_ports(&mut self, bond: Ifindex, at: Option<Time>) {
        let ports = self.bond(bond).map(|bond| bond.ports.clone());
        for port in ports.unwrap_or_default() {
            if let Some(device) = self.devices.get_mut(&port)
                && let Some(state) = &mut device.port
            {
                state.mii_at = at;
            }
        }
    }

    pub(super) fn set_carrier(&mut self, link: Ifindex, carrier: bool) {
        let Some(device) = self.devices.get_mut(&link) else {
            return;
        };
        let Kind::Nic(nic) = &mut device.kind else {
            return;
        };
        if nic.carrier == carrier {
            return;
        }
        nic.carrier = carrier;
        let controller = device.controller;
        self.schedule_mii(controller, link);
    }

    /// The bond's link monitor will notice within its interval.
    fn schedule_mii(&mut self, controller: Option<Ifindex>, port: Ifindex) {
        let now = self.now;
        let bond = controller.and_then(|bond| self.devices.get(&bond));
        if bond.is_none_or(|bond| !bond.admin_up) {
            return;
        }
        let interval_ms = controller
            .and_then(|bond| self.bond(bond))
            .map_or(0, |bond| u64::from(bond.miimon_ms));
        if let Some(port) = self
            .devices
            .get_mut(&port)
            .and_then(|one| one.port.as_mut())
        {
            port.mii_at = Some(now.plus_ms(interval_ms));
        }
    }

    /// When a driver or link monitor does something by itself next.
    pub fn next_timer(&self) -> Option<Time> {
        let times = self.devices.values().flat_map(|device| {
            let carrier = match &device.kind {
                Kind::Nic(nic) => nic.carrier_at,
                Kind::Bond(_) | Kind::Software => None,
            };
            let mii = device.port.as_ref().and_then(|port| port.mii_at);
            [carrier, mii]
        });
        times.flatten().min()
    }

    pub(super) fn run_timers(&mut self) {
        let indices: Vec<Ifindex> = self.devices.keys().copied().collect();
        for index in indices {
            let Some(device) = self.devices.get_mut(&index) else {
                continue;
            };
            if let Kind::Nic(nic) = &mut device.kind
                && nic.carrier_at.is_some_and(|at| at <= self.now)
            {
                nic.carrier_at = None;
                self.set_carrier(index, true);
            }
            self.run_link_monitor(index);
        }
    }

    fn run_link_monitor(&mut self, port: Ifindex) {
        let now = self.now;
        let Some(device) = self.devices.get_mut(&port) else {
            return;
        };
        let up = device.has_carrier();
        let (Some(state), Some(bond)) = (&mut device.port, device.controller) else {
            return;
        };
        if state.mii_at.is_none_or(|at| at > now) {
            return;
        }
        state.mii_at = None;
        if state.mii_up != up {
            state.mii_up = up;
            state.link_failures += u32::from(!up);
            self.port_link_changed(bond, port, up);
        }
    }
}
