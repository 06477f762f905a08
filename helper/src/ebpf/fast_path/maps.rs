//! The maps that the service describes ports and armed VFs in, and reads counters from.

use std::collections::BTreeMap;

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData, MapError, PerCpuHashMap, RingBuf},
};
use rustix::time::{ClockId, clock_gettime};
use tandem_core::{Ifindex, PciAddress, fast_path::ArmedVf};
use tandem_ebpf::{
    ArmedPorts, DEVICE_NAME_LEN, DUPLICATES_HOLD_NS, FastPathFlag, MAC_LEN, MAX_BONDS, MAX_PORTS,
    Port, PortCounters, ROLES_COUNTED, Test,
};

use super::{
    counters::{fold, no_counters},
    error::FastPathError,
    setup::PortCounts,
};
use crate::ebpf::load::{LoadError, take_map};

type Table<K, V> = HashMap<MapData, K, V>;

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h: what a program has written stays.
const NO_EXIST: u64 = 1;

/// The maps, and what the service has written into them.
pub(in crate::ebpf) struct Maps {
    ports: Table<u32, Port>,
    counters: PerCpuHashMap<MapData, u32, PortCounters>,
    transmitting: Table<u32, u32>,
    armed_ports: Table<u32, ArmedPorts>,
    flags: Table<u32, FastPathFlag>,
    devices: Table<[u8; DEVICE_NAME_LEN], u32>,
    carriers: Table<u32, u32>,
    tests: Table<u32, Test>,
    wake: Option<RingBuf<MapData>>,
    described: BTreeMap<u32, Port>,
    armed: BTreeMap<u32, ArmedVf>,
    epoch: u64,
    /// The setup's period that the ports of a bond are counted in.
    periods: BTreeMap<u32, u64>,
    /// By the bond: the last port that went in the present period, and what it had carried.
    /// A VF is gone long before its switchover is over.
    gone: BTreeMap<u32, (u32, PortCounts)>,
}

/// What is wanted of the ports of a bond.
pub(super) struct Wanted<'a> {
    /// The ports, with their `ROLE_*` bits.
    pub(super) roles: &'a BTreeMap<u32, u32>,
    /// The setup's period.
    pub(super) period: u64,
    /// The bond's MAC.
    pub(super) own_mac: Option<[u8; MAC_LEN]>,
    /// The network namespace of bond and ports.
    pub(super) netns_inum: u32,
}

/// Its frames are counted.
fn counts(port: &Port) -> bool {
    port.roles & ROLES_COUNTED != 0
}

/// Nanoseconds of `CLOCK_BOOTTIME`, as the programs have it.
pub(super) fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Until when duplicates are kept away on a port with these roles, if that begins now.
fn duplicates_until_ns(roles: u32) -> u64 {
    if roles & ROLES_COUNTED == 0 {
        return 0;
    }
    boot_ns() + DUPLICATES_HOLD_NS
}

/// The name as the programs compare it; a PCI address always fits ([`DEVICE_NAME_LEN`]).
fn device_name(device: PciAddress) -> [u8; DEVICE_NAME_LEN] {
    let mut bytes = [0; DEVICE_NAME_LEN];
    for (byte, character) in bytes.iter_mut().zip(device.to_string().bytes()) {
        *byte = character;
    }
    bytes
}

/// The names whose leaving starts the fast path.
fn device_names(armed_vf: &ArmedVf) -> Vec<[u8; DEVICE_NAME_LEN]> {
    let devices = [Some(armed_vf.pci), armed_vf.slot];
    devices.into_iter().flatten().map(device_name).collect()
}

/// For which of the other armed bonds the fast path runs when this device leaves. VFs of several bonds
/// may sit below one port, whose leaving is a sign for one of these bonds; the others'
/// fast paths begin with their own devices' signs, which come later.
fn claimant(
    armed: &BTreeMap<u32, ArmedVf>,
    except: u32,
    name: &[u8; DEVICE_NAME_LEN],
) -> Option<u32> {
    let claims = |armed_vf| device_names(armed_vf).contains(name);
    let mut others = armed.iter().filter(|(bond, _)| **bond != except);
    let claimant = others.find(|(_, armed_vf)| claims(armed_vf));
    claimant.map(|(bond, _)| *bond)
}

/// Whether another armed bond has the same standby, as one that was made anew over the same ports has.
fn is_standby_of_another(armed: &BTreeMap<u32, ArmedVf>, except: u32, standby: Ifindex) -> bool {
    let mut others = armed.iter().filter(|(bond, _)| **bond != except);
    others.any(|(_, armed_vf)| armed_vf.standby == standby)
}

/// Removes what may not be there.
fn remove<K: Pod, V: Pod>(table: &mut Table<K, V>, key: K) -> Result<(), MapError> {
    match table.remove(&key) {
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Adds what may be there already, and then stays.
fn add<K: Pod, V: Pod>(table: &mut Table<K, V>, key: K, value: V) -> Result<(), MapError> {
    match table.insert(key, value, NO_EXIST) {
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::EEXIST) =>
        {
            Ok(())
        }
        other => other,
    }
}

impl Maps {
    /// Takes the maps out of the object.
    pub(in crate::ebpf) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let mut map = |name| take_map(ebpf, name);
        Ok(Self {
            ports: map("PORTS")?.try_into()?,
            counters: map("COUNTERS")?.try_into()?,
            transmitting: map("TRANSMITTING")?.try_into()?,
            armed_ports: map("ARMED")?.try_into()?,
            flags: map("FLAGS")?.try_into()?,
            devices: map("DEVICES")?.try_into()?,
            carriers: map("CARRIERS")?.try_into()?,
            tests: map("TESTS")?.try_into()?,
            wake: Some(map("WAKE")?.try_into()?),
            described: BTreeMap::new(),
            armed: BTreeMap::new(),
            epoch: 0,
            periods: BTreeMap::new(),
            gone: BTreeMap::new(),
        })
    }

    /// What wakes the thread; there once.
    pub(super) fn take_wake_ring(&mut self) -> Result<RingBuf<MapData>, FastPathError> {
        self.wake.take().ok_or(FastPathError::Stopped)
    }

    /// Describes the ports of a bond, and no others of it. Ports that were counted on
    /// before in the same period go on counting.
    pub(super) fn set_ports(
        &mut self,
        bond: u32,
        wanted: &Wanted<'_>,
    ) -> Result<(), FastPathError> {
        let roles = wanted.roles;
        let others = self.described.values().filter(|port| port.bond != bond);
        if others.count() + roles.len() > MAX_PORTS as usize {
            return Err(FastPathError::TooManyPorts { bond });
        }
        let same_period = self.periods.insert(bond, wanted.period) == Some(wanted.period);
        if !same_period {
            self.gone.remove(&bond);
        }
        let gone = |ifindex: &u32, port: &Port| port.bond == bond && !roles.contains_key(ifindex);
        let gone: Vec<u32> = self
            .described
            .iter()
            .filter(|(ifindex, port)| gone(ifindex, port))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in gone {
            if same_period && let Some(frames) = self.counted(ifindex) {
                self.gone.insert(bond, (ifindex, frames));
                while self.gone.len() > MAX_BONDS as usize {
                    self.gone.pop_first();
                }
            }
            self.remove_port(ifindex)?;
        }
        if roles.is_empty() {
            if !self.gone.contains_key(&bond) {
                self.periods.remove(&bond);
            }
            return Ok(remove(&mut self.transmitting, bond)?);
        }
        add(&mut self.transmitting, bond, 0)?;
        self.epoch += 1;
        for (&ifindex, &roles) in roles {
            let mut port = Port {
                duplicates_until_ns: duplicates_until_ns(roles),
                epoch: self.epoch,
                bond,
                netns_inum: wanted.netns_inum,
                roles,
                own_mac: wanted.own_mac.unwrap_or_default(),
                padding: [0; 6],
            };
            let before = self.described.get(&ifindex);
            match before.filter(|before| same_period && counts(before) && counts(&port)) {
                Some(before) => port.epoch = before.epoch,
                None if counts(&port) => self.counters.insert(ifindex, no_counters()?, 0)?,
                None => {}
            }
            self.ports.insert(ifindex, port, 0)?;
            self.described.insert(ifindex, port);
        }
        Ok(())
    }

    fn remove_port(&mut self, ifindex: u32) -> Result<(), MapError> {
        remove(&mut self.ports, ifindex)?;
        // Not there unless the port was counted on.
        let _ = self.counters.remove(&ifindex);
        self.described.remove(&ifindex);
        Ok(())
    }

    /// Notes which port a bond sends through.
    pub(super) fn set_transmitting(&mut self, bond: u32, port: u32) -> Result<(), FastPathError> {
        if port != 0 && self.transmitting.get(&bond, 0)? != port {
            self.transmitting.insert(bond, port, 0)?;
        }
        Ok(())
    }

    /// Whether the armed VF, if any, is for the same ports and devices.
    pub(super) fn is_armed_as(&self, bond: u32, wanted: Option<&ArmedVf>) -> bool {
        let key = |armed_vf: &ArmedVf| {
            (
                armed_vf.vf,
                armed_vf.standby,
                armed_vf.mac,
                device_names(armed_vf),
            )
        };
        wanted.map(key) == self.armed.get(&bond).map(key)
    }

    /// Arms the fast path of a bond. One that is armed the same way goes on as it is.
    pub(super) fn arm(
        &mut self,
        bond: u32,
        armed_vf: &ArmedVf,
        carrier: bool,
    ) -> Result<(), FastPathError> {
        let ports = ArmedPorts {
            vf: armed_vf.vf.0,
            standby: armed_vf.standby.0,
            mac: armed_vf.mac.0,
            padding: [0; 2],
        };
        self.armed.insert(bond, armed_vf.clone());
        self.set_carrier(armed_vf.standby.0, carrier)?;
        self.armed_ports.insert(bond, ports, 0)?;
        add(&mut self.flags, bond, FastPathFlag::LOWERED)?;
        // Last: from here on a removal starts the fast path.
        for name in device_names(armed_vf) {
            self.devices.insert(name, bond, 0)?;
        }
        Ok(())
    }

    /// Tells whether the standby can carry frames.
    pub(super) fn set_carrier(&mut self, standby: u32, carrier: bool) -> Result<(), FastPathError> {
        Ok(self.carriers.insert(standby, u32::from(carrier), 0)?)
    }

    /// Disarms the fast path of a bond; one that runs ends.
    pub(super) fn disarm(&mut self, bond: u32) -> Result<(), FastPathError> {
        let Some(armed_vf) = self.armed.get(&bond).cloned() else {
            return Ok(());
        };
        for name in device_names(&armed_vf) {
            match claimant(&self.armed, bond, &name) {
                Some(other) => self.devices.insert(name, other, 0)?,
                None => remove(&mut self.devices, name)?,
            }
        }
        remove(&mut self.flags, bond)?;
        remove(&mut self.armed_ports, bond)?;
        remove(&mut self.tests, bond)?;
        if !is_standby_of_another(&self.armed, bond, armed_vf.standby) {
            remove(&mut self.carriers, armed_vf.standby.0)?;
        }
        self.armed.remove(&bond);
        Ok(())
    }

    /// Removes everything about a bond.
    pub(super) fn forget(&mut self, bond: u32) -> Result<(), FastPathError> {
        self.disarm(bond)?;
        let nothing = Wanted {
            roles: &BTreeMap::new(),
            period: 0,
            own_mac: None,
            netns_inum: 0,
        };
        self.set_ports(bond, &nothing)?;
        self.periods.remove(&bond);
        self.gone.remove(&bond);
        Ok(())
    }

    /// Begins a new counting period, and keeps duplicates away for longer.
    pub(super) fn reset(&mut self, bond: u32) -> Result<(), FastPathError> {
        self.epoch += 1;
        self.gone.remove(&bond);
        self.change_ports(bond, Some(self.epoch))
    }

    /// Keeps duplicates away for longer.
    pub(super) fn prolong(&mut self, bond: u32) -> Result<(), FastPathError> {
        self.change_ports(bond, None)
    }

    fn change_ports(&mut self, bond: u32, epoch: Option<u64>) -> Result<(), FastPathError> {
        let ports = self.described.iter_mut();
        for (ifindex, port) in ports.filter(|(_, port)| port.bond == bond && counts(port)) {
            port.epoch = epoch.unwrap_or(port.epoch);
            port.duplicates_until_ns = duplicates_until_ns(port.roles);
            self.ports.insert(ifindex, *port, 0)?;
        }
        Ok(())
    }

    /// What a port carried; `None` for one that is not counted on, and was not in this period.
    pub(super) fn frames(&self, ifindex: u32) -> Option<PortCounts> {
        let gone = || self.gone.values().find(|(port, _)| *port == ifindex);
        self.counted(ifindex)
            .or_else(|| gone().map(|(_, frames)| *frames))
    }

    /// Sum over the CPUs.
    fn counted(&self, ifindex: u32) -> Option<PortCounts> {
        let port = self.described.get(&ifindex).filter(|port| counts(port))?;
        let per_cpu = self.counters.get(&ifindex, 0).ok()?;
        Some(fold(per_cpu.iter(), port.epoch))
    }

    /// A test frame of this number is about to be sent through a bond.
    pub(super) fn begin_test(&mut self, bond: u32, number: u64) -> Result<(), FastPathError> {
        let test = Test {
            number,
            ..Test::default()
        };
        Ok(self.tests.insert(bond, test, 0)?)
    }

    /// How far the bond's last test frame came.
    pub(super) fn test(&self, bond: u32) -> Result<Test, FastPathError> {
        Ok(self.tests.get(&bond, 0)?)
    }

    /// Whether the fast path is running.
    pub(super) fn is_running(&self, bond: u32) -> bool {
        let flag = self.flags.get(&bond, 0);
        flag.is_ok_and(|flag| boot_ns() < flag.until_ns)
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::Mac;

    use super::*;

    #[test]
    fn a_port_above_two_vfs_is_the_others_once_one_is_disarmed() {
        let armed_vf = |device: &str| ArmedVf {
            vf: Ifindex(3),
            pci: device.parse().unwrap(),
            slot: Some("0000:00:10.0".parse().unwrap()),
            standby: Ifindex(2),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            addresses: Vec::new(),
            upper_devices: 0,
        };
        let armed = BTreeMap::from([(7, armed_vf("0000:01:00.0")), (8, armed_vf("0000:01:00.1"))]);
        let after =
            |disarmed, name: &str| claimant(&armed, disarmed, &device_name(name.parse().unwrap()));
        assert_eq!(after(7, "0000:01:00.0"), None);
        assert_eq!(after(7, "0000:00:10.0"), Some(8));
        assert_eq!(after(8, "0000:00:10.0"), Some(7));
        assert_eq!(after(8, "0000:00:11.0"), None);
        assert!(
            is_standby_of_another(&armed, 7, Ifindex(2)),
            "bond 8 has it too"
        );
        assert!(!is_standby_of_another(&armed, 7, Ifindex(3)));
        assert!(!is_standby_of_another(&BTreeMap::new(), 7, Ifindex(2)));
    }

    #[test]
    fn the_longest_address_keeps_room_for_its_end() {
        let name = device_name("0000:01:00.0".parse().unwrap());
        assert_eq!(&name[..12], b"0000:01:00.0");
        assert_eq!(name[12..], [0; 8]);
        let longest = device_name("ffffffff:ff:1f.7".parse().unwrap());
        assert_eq!(longest[16..], [0; 4]);
    }
}
