//! The maps that the service describes ports and rescues in, and reads counters from.

use std::collections::BTreeMap;

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData, MapError, PerCpuHashMap, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use rustix::time::{ClockId, clock_gettime};
use tandem_ebpf::{
    DEVICE_NAME_LEN, DUPLICATES_HOLD_NS, MAX_PORTS, Port, PortCounters, ROLE_WATCHED, RescueFlag,
    RescuePorts, Traffic,
};

use super::{PathError, PathPlan, PortFrames, Rescue};
use crate::ebpf::StartError;

type Table<K, V> = HashMap<MapData, K, V>;

/// `BPF_NOEXIST` of include/uapi/linux/bpf.h: what a program has written stays.
const NO_EXIST: u64 = 1;

/// The maps, and what the service has written into them.
pub(in crate::ebpf) struct Maps {
    ports: Table<u32, Port>,
    counters: PerCpuHashMap<MapData, u32, PortCounters>,
    transmitting: Table<u32, u32>,
    rescues: Table<u32, RescuePorts>,
    flags: Table<u32, RescueFlag>,
    devices: Table<[u8; DEVICE_NAME_LEN], u32>,
    carriers: Table<u32, u32>,
    reflex: Option<RingBuf<MapData>>,
    described: BTreeMap<u32, Port>,
    armed: BTreeMap<u32, Rescue>,
    epoch: u64,
    /// The plan's period that the ports of a bond are counted in.
    periods: BTreeMap<u32, u64>,
}

/// Nanoseconds of `CLOCK_BOOTTIME`, as the programs have it.
pub(super) fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The name as the programs compare it.
fn device_name(name: &str) -> Result<[u8; DEVICE_NAME_LEN], PathError> {
    if name.len() >= DEVICE_NAME_LEN {
        return Err(PathError::DeviceName {
            name: name.to_owned(),
        });
    }
    let mut bytes = [0; DEVICE_NAME_LEN];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}

/// The names whose leaving begins the rescue.
fn device_names(rescue: &Rescue) -> Result<Vec<[u8; DEVICE_NAME_LEN]>, PathError> {
    let names = [Some(&rescue.device), rescue.slot.as_ref()];
    names
        .into_iter()
        .flatten()
        .map(|name| device_name(name))
        .collect()
}

/// Which of the other armed bonds is rescued when this device leaves. VFs of several bonds
/// may sit below one port, whose leaving is a sign for one of these bonds; the others'
/// rescues begin with their own devices' signs, which come later.
fn claimant(
    armed: &BTreeMap<u32, Rescue>,
    except: u32,
    name: &[u8; DEVICE_NAME_LEN],
) -> Option<u32> {
    let claims = |rescue| device_names(rescue).is_ok_and(|names| names.contains(name));
    let mut others = armed.iter().filter(|(bond, _)| **bond != except);
    let claimant = others.find(|(_, rescue)| claims(rescue));
    claimant.map(|(bond, _)| *bond)
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
    pub(in crate::ebpf) fn take(ebpf: &mut Ebpf) -> Result<Self, StartError> {
        let mut map = |name| ebpf.take_map(name).ok_or(StartError::NoMap(name));
        Ok(Self {
            ports: map("PORTS")?.try_into()?,
            counters: map("COUNTERS")?.try_into()?,
            transmitting: map("TRANSMITTING")?.try_into()?,
            rescues: map("RESCUES")?.try_into()?,
            flags: map("FLAGS")?.try_into()?,
            devices: map("DEVICES")?.try_into()?,
            carriers: map("CARRIERS")?.try_into()?,
            reflex: Some(map("REFLEX")?.try_into()?),
            described: BTreeMap::new(),
            armed: BTreeMap::new(),
            epoch: 0,
            periods: BTreeMap::new(),
        })
    }

    /// What wakes the reflex; there once.
    pub(super) fn take_reflex_ring(&mut self) -> Result<RingBuf<MapData>, PathError> {
        self.reflex.take().ok_or(PathError::Stopped)
    }

    /// Describes the ports of a bond, and no others of it. Ports that were watched
    /// before in the same period go on counting.
    pub(super) fn set_ports(
        &mut self,
        bond: u32,
        roles: &BTreeMap<u32, u32>,
        period: u64,
        netns_inum: u32,
    ) -> Result<(), PathError> {
        let others = self.described.values().filter(|port| port.bond != bond);
        if others.count() + roles.len() > MAX_PORTS as usize {
            return Err(PathError::TooManyPorts { bond });
        }
        let gone = |ifindex: &u32, port: &Port| port.bond == bond && !roles.contains_key(ifindex);
        let gone: Vec<u32> = self
            .described
            .iter()
            .filter(|(ifindex, port)| gone(ifindex, port))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in gone {
            self.remove_port(ifindex)?;
        }
        if roles.is_empty() {
            self.periods.remove(&bond);
            return Ok(remove(&mut self.transmitting, bond)?);
        }
        let same_period = self.periods.insert(bond, period) == Some(period);
        add(&mut self.transmitting, bond, 0)?;
        self.epoch += 1;
        let duplicates_until_ns = boot_ns() + DUPLICATES_HOLD_NS;
        for (&ifindex, &roles) in roles {
            let watched = roles & ROLE_WATCHED != 0;
            let before = self.described.get(&ifindex);
            let counting =
                before.filter(|port| same_period && watched && port.roles & ROLE_WATCHED != 0);
            let port = Port {
                duplicates_until_ns: if watched { duplicates_until_ns } else { 0 },
                epoch: counting.map_or(self.epoch, |port| port.epoch),
                bond,
                netns_inum,
                roles,
                padding: 0,
            };
            if watched && counting.is_none() {
                self.counters.insert(ifindex, no_counters()?, 0)?;
            }
            self.ports.insert(ifindex, port, 0)?;
            self.described.insert(ifindex, port);
        }
        Ok(())
    }

    fn remove_port(&mut self, ifindex: u32) -> Result<(), MapError> {
        remove(&mut self.ports, ifindex)?;
        // Not there unless the port was watched.
        let _ = self.counters.remove(&ifindex);
        self.described.remove(&ifindex);
        Ok(())
    }

    /// Notes which port a bond sends through, unless that is known.
    pub(super) fn set_transmitting_if_unknown(
        &mut self,
        bond: u32,
        port: u32,
    ) -> Result<(), PathError> {
        if port != 0 && self.transmitting.get(&bond, 0)? == 0 {
            self.transmitting.insert(bond, port, 0)?;
        }
        Ok(())
    }

    /// Whether the armed rescue, if any, is for the same ports and devices.
    pub(super) fn is_armed_as(&self, plan: &PathPlan) -> Result<bool, PathError> {
        let key = |rescue: &Rescue| -> Result<_, PathError> {
            Ok((rescue.vf, rescue.standby, rescue.mac, device_names(rescue)?))
        };
        let wanted = plan.rescue.as_ref().map(key).transpose()?;
        let armed = self.armed.get(&plan.bond).map(key).transpose()?;
        Ok(wanted == armed)
    }

    /// Arms the rescue of a bond. One that is armed the same way goes on as it is.
    pub(super) fn arm(
        &mut self,
        bond: u32,
        rescue: &Rescue,
        carrier: bool,
    ) -> Result<(), PathError> {
        let ports = RescuePorts {
            vf: rescue.vf,
            standby: rescue.standby,
            mac: rescue.mac,
            padding: [0; 2],
        };
        self.armed.insert(bond, rescue.clone());
        self.set_carrier(rescue.standby, carrier)?;
        self.rescues.insert(bond, ports, 0)?;
        add(&mut self.flags, bond, RescueFlag::LOWERED)?;
        // Last: from here on a removal begins the rescue.
        for name in device_names(rescue)? {
            self.devices.insert(name, bond, 0)?;
        }
        Ok(())
    }

    /// Tells whether the standby can carry frames.
    pub(super) fn set_carrier(&mut self, standby: u32, carrier: bool) -> Result<(), PathError> {
        Ok(self.carriers.insert(standby, u32::from(carrier), 0)?)
    }

    /// Disarms the rescue of a bond; one that is going on ends.
    pub(super) fn disarm(&mut self, bond: u32) -> Result<(), PathError> {
        let Some(rescue) = self.armed.get(&bond).cloned() else {
            return Ok(());
        };
        for name in device_names(&rescue)? {
            match claimant(&self.armed, bond, &name) {
                Some(other) => self.devices.insert(name, other, 0)?,
                None => remove(&mut self.devices, name)?,
            }
        }
        remove(&mut self.flags, bond)?;
        remove(&mut self.rescues, bond)?;
        remove(&mut self.carriers, rescue.standby)?;
        self.armed.remove(&bond);
        Ok(())
    }

    /// Removes everything about a bond.
    pub(super) fn forget(&mut self, bond: u32) -> Result<(), PathError> {
        self.disarm(bond)?;
        self.set_ports(bond, &BTreeMap::new(), 0, 0)
    }

    /// Begins a new counting period, and keeps duplicates away for longer.
    pub(super) fn reset(&mut self, bond: u32) -> Result<(), PathError> {
        self.epoch += 1;
        let watched = self
            .described
            .iter_mut()
            .filter(|(_, port)| port.bond == bond && port.roles & ROLE_WATCHED != 0);
        for (ifindex, port) in watched {
            port.epoch = self.epoch;
            port.duplicates_until_ns = boot_ns() + DUPLICATES_HOLD_NS;
            self.ports.insert(ifindex, *port, 0)?;
        }
        Ok(())
    }

    /// Sum over the CPUs; `None` for a port that is not watched.
    pub(super) fn frames(&self, ifindex: u32) -> Option<PortFrames> {
        let port = self.described.get(&ifindex)?;
        if port.roles & ROLE_WATCHED == 0 {
            return None;
        }
        let per_cpu = self.counters.get(&ifindex, 0).ok()?;
        Some(fold(per_cpu.iter(), port.epoch))
    }

    /// Whether a rescue is going on.
    pub(super) fn is_rescuing(&self, bond: u32) -> bool {
        let flag = self.flags.get(&bond, 0);
        flag.is_ok_and(|flag| boot_ns() < flag.until_ns)
    }
}

fn no_counters() -> Result<PerCpuValues<PortCounters>, PathError> {
    let system = |error| PathError::System {
        what: "the number of CPUs",
        error,
    };
    let cpus = nr_cpus().map_err(|(_, error)| system(error))?;
    PerCpuValues::try_from(vec![PortCounters::default(); cpus]).map_err(system)
}

/// Adds up what the CPUs counted in this period.
fn fold<'a>(per_cpu: impl Iterator<Item = &'a PortCounters>, epoch: u64) -> PortFrames {
    per_cpu.filter(|counters| counters.epoch == epoch).fold(
        PortFrames::default(),
        |sum, counters| PortFrames {
            rx: joined(&sum.rx, &counters.rx),
            tx: joined(&sum.tx, &counters.tx),
            late: joined(&sum.late, &counters.late),
            duplicates: sum.duplicates.saturating_add(counters.duplicates),
        },
    )
}

fn joined(a: &Traffic, b: &Traffic) -> Traffic {
    let first = [a.first_boot_ns, b.first_boot_ns];
    Traffic {
        frames: a.frames.saturating_add(b.frames),
        group_frames: a.group_frames.saturating_add(b.group_frames),
        // Zero: none passed on that CPU.
        first_boot_ns: first.into_iter().filter(|ns| *ns != 0).min().unwrap_or(0),
        last_boot_ns: a.last_boot_ns.max(b.last_boot_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_the_cpus_add_up_without_those_of_an_earlier_period() {
        let traffic = |frames, first_boot_ns, last_boot_ns| Traffic {
            frames,
            group_frames: 1,
            first_boot_ns,
            last_boot_ns,
        };
        let cpu = |epoch, rx, tx| PortCounters {
            epoch,
            rx,
            tx,
            late: rx,
            duplicates: 2,
        };
        let none = Traffic::default();
        let cpus = [
            cpu(7, traffic(5, 100, 900), none),
            cpu(6, traffic(50, 1, 2000), traffic(9, 1, 1)),
            cpu(7, traffic(1, 300, 300), traffic(4, 200, 250)),
            PortCounters::default(),
        ];
        let frames = fold(cpus.iter(), 7);
        assert_eq!((frames.rx.frames, frames.rx.group_frames), (6, 2));
        assert_eq!(
            (frames.rx.first_boot_ns, frames.rx.last_boot_ns),
            (100, 900)
        );
        assert_eq!((frames.tx.frames, frames.tx.first_boot_ns), (4, 200));
        assert_eq!(frames.late, frames.rx);
        assert_eq!(frames.duplicates, 4);
        assert_eq!(fold(cpus.iter(), 8), PortFrames::default());
    }

    #[test]
    fn a_port_above_two_vfs_is_the_others_once_one_is_disarmed() {
        let rescue = |device: &str| Rescue {
            vf: 3,
            device: device.to_owned(),
            slot: Some("0000:00:10.0".to_owned()),
            standby: 2,
            mac: [2, 0, 0, 0, 0, 1],
            announcements: Vec::new(),
        };
        let armed = BTreeMap::from([(7, rescue("0000:01:00.0")), (8, rescue("0000:01:00.1"))]);
        let after = |disarmed, name: &str| claimant(&armed, disarmed, &device_name(name).unwrap());
        assert_eq!(after(7, "0000:01:00.0"), None);
        assert_eq!(after(7, "0000:00:10.0"), Some(8));
        assert_eq!(after(8, "0000:00:10.0"), Some(7));
        assert_eq!(after(8, "0000:00:11.0"), None);
    }

    #[test]
    fn a_device_name_keeps_room_for_its_end() {
        let name = device_name("0000:01:00.0").unwrap();
        assert_eq!(&name[..12], b"0000:01:00.0");
        assert_eq!(name[12..], [0; 8]);
        assert!(device_name(&"x".repeat(19)).is_ok());
        assert!(matches!(
            device_name(&"x".repeat(20)),
            Err(PathError::DeviceName { .. })
        ));
    }
}
