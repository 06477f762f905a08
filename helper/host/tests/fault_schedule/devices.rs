//! The devices of the domain: each comes and goes by itself.

use tandem_core::types::{Mac, PciAddress};
use tandem_host::evacuate::{Failure, FailureKind, Side, Stage as At, Vf, VfIdentity};
use tandem_host::hypervisor::{DomainState, EventKind, Nic, NicKind};

use crate::script::{DeviceScript, Unplug};
use crate::world::{World, index};

/// A device uses its driver and carries traffic so long after it came, in ms.
const IN_USE_AFTER_MS: u64 = 1_500;

/// What becomes of one device.
#[derive(Debug, Clone)]
pub(crate) struct FakeDevice {
    pub(crate) script: DeviceScript,
    /// The guest was asked to release it, and did not take it again.
    pub(crate) prepared: bool,
    pub(crate) since_ms: u64,
    refusals: u32,
    /// An unplug is under way in the guest.
    pub(crate) unplugging: bool,
    /// Times that it left; an unplug concerns the device of its time.
    pub(crate) releases: u32,
    /// How often plugging it in will fail yet, by host.
    attach_failures: [u32; 2],
}

impl FakeDevice {
    pub(crate) fn new(script: DeviceScript) -> Self {
        Self {
            prepared: false,
            since_ms: 0,
            refusals: 0,
            unplugging: false,
            releases: 0,
            attach_failures: script.attach_failures,
            script,
        }
    }
}

/// The device of that number, of a host.
pub(crate) fn vf(side: Side, device: usize) -> Vf {
    let number = u8::try_from(device).expect("a few");
    let pci = PciAddress {
        domain: 0,
        bus: if side == Side::Source { 3 } else { 4 },
        device: 16 + number,
        function: 0,
    };
    Vf {
        identity: VfIdentity {
            pci: Some(pci),
            alias: None,
            mac: None,
        },
        guest_mac: None,
        device: format!("<hostdev><source>{pci}</source></hostdev>"),
    }
}

/// The same as a look shows it.
pub(crate) fn nic(side: Side, device: usize) -> Nic {
    let number = u8::try_from(device).expect("a few");
    let host = u8::try_from(index(side)).expect("two");
    Nic {
        alias: alias(device),
        mac: Some(Mac([0x52, 0x54, 0, 1, host, number])),
        kind: NicKind::HostdevInterface,
        pci_source: vf(side, device).identity.pci,
        xml: vf(side, device).device,
    }
}

fn alias(device: usize) -> String {
    format!("hostdev{device}")
}

impl World {
    /// The domain has that device on that host.
    pub(crate) fn has(&self, side: Side, device: usize) -> bool {
        let identity = vf(side, device).identity;
        self.host(side).nics.iter().any(|nic| identity.is(nic))
    }

    /// It is to have it there, if all goes well or is undone.
    pub(crate) fn wants(&self, side: Side, device: usize) -> bool {
        let script = &self.devices[device].script;
        match side {
            Side::Source => !script.gone_already,
            Side::Destination => script.named,
        }
    }

    /// It has all that it is to have there, and at least one.
    pub(crate) fn has_vf(&self, side: Side) -> bool {
        let mut wanted = (0..self.devices.len())
            .filter(|device| self.wants(side, *device))
            .peekable();
        wanted.peek().is_some() && wanted.all(|device| self.has(side, device))
    }

    /// Devices that are the VF of a bond.
    pub(crate) fn of_bonds(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.devices.len()).filter(|device| !self.devices[*device].script.let_go)
    }

    /// The guest was asked to release a VF, and did not take it again.
    pub(crate) fn is_prepared(&self) -> bool {
        self.devices.iter().any(|device| device.prepared)
    }

    /// The traffic of that device's bond goes over it.
    pub(crate) fn uses(&self, device: usize, now_ms: u64) -> bool {
        let attached = self.runs_on().is_some_and(|side| self.has(side, device));
        let one = &self.devices[device];
        attached && self.has_bond && !one.prepared && now_ms >= one.since_ms + IN_USE_AFTER_MS
    }

    /// The traffic of all bonds goes over their VFs.
    pub(crate) fn uses_vf(&self, now_ms: u64) -> bool {
        let mut bonds = self.of_bonds().peekable();
        bonds.peek().is_some() && bonds.all(|device| self.uses(device, now_ms))
    }

    pub(crate) fn attach(&mut self, side: Side, device: usize, now_ms: u64) -> Result<(), Failure> {
        let fail = |kind, text: &str| Err(Failure::new(kind, text));
        match self.host(side).state {
            DomainState::Absent => return fail(FailureKind::NoSuchDomain, "no such domain"),
            DomainState::ShutOff | DomainState::Incoming => {
                return fail(FailureKind::Refused, "the domain does not run");
            }
            DomainState::Running | DomainState::Paused => {}
        }
        if self.migration.is_some() {
            return fail(FailureKind::Refused, "a migration has the domain");
        }
        if self.has(side, device) && !self.script.attach_is_blind {
            return fail(FailureKind::AlreadyThere, "the device is there");
        }
        let failures = &mut self.devices[device].attach_failures[index(side)];
        if *failures > 0 {
            *failures = failures.saturating_sub(u32::from(*failures != u32::MAX));
            return fail(FailureKind::Other, "vfio: group is not viable");
        }
        self.host_mut(side).nics.push(nic(side, device));
        self.devices[device].since_ms = now_ms;
        let alias = alias(device);
        self.events.push((side, EventKind::DeviceAdded { alias }));
        Ok(())
    }

    /// `Ok(Some(ms))`: the guest will release it after so long.
    pub(crate) fn detach(&mut self, device: usize) -> Result<Option<u64>, Failure> {
        self.require_record("an unplug", |record| record.stage >= At::Unplugging);
        if self.host(Side::Source).state == DomainState::Absent {
            return Err(Failure::new(FailureKind::NoSuchDomain, "no such domain"));
        }
        if !self.has(Side::Source, device) {
            return Err(Failure::new(FailureKind::AlreadyGone, "the device is gone"));
        }
        let is_busy = self.script.busy_unplugs > 0;
        self.script.busy_unplugs = self.script.busy_unplugs.saturating_sub(1);
        let busy = Failure::new(FailureKind::Refused, "cannot acquire state change lock");
        if is_busy {
            return Err(busy);
        }
        let one = &mut self.devices[device];
        match one.script.unplug {
            Unplug::Ignored => Ok(None),
            Unplug::Refused(times) if one.refusals < times => {
                one.refusals += 1;
                let alias = alias(device);
                self.events
                    .push((Side::Source, EventKind::UnplugRefused { alias }));
                Ok(None)
            }
            Unplug::Refused(_) => Ok(Some(500)),
            Unplug::After(ms) if !one.unplugging => {
                one.unplugging = true;
                Ok(Some(ms))
            }
            Unplug::After(_) if self.script.refuses_second_unplug => Err(busy),
            Unplug::After(_) => Ok(None),
        }
    }

    /// The guest has released a device on the source.
    pub(crate) fn released(&mut self, device: usize) {
        let one = &mut self.devices[device];
        one.unplugging = false;
        one.releases += 1;
        let identity = vf(Side::Source, device).identity;
        let host = self.host_mut(Side::Source);
        let before = host.nics.len();
        host.nics.retain(|nic| !identity.is(nic));
        if host.nics.len() < before {
            // The guest takes whatever VF comes next.
            self.devices[device].prepared = false;
            let alias = alias(device);
            self.events
                .push((Side::Source, EventKind::DeviceRemoved { alias }));
        }
    }
}
