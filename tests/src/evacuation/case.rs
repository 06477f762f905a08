//! The systems compared, and the hardware each is compared on.

use std::str::FromStr;

use anyhow::{Context, Error};

use crate::{HotPlug, NicModel};

/// A way to keep a guest's connections while its VF leaves and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum System {
    /// A virtio NIC without a VF: what a migration costs by itself.
    Floor,
    /// Tandem, and a host that asks it to prepare.
    TandemPlanned,
    /// The same without a VF, and frames for the guest are carried after it.
    FloorCarried,
    /// As [`Self::TandemPlanned`], and frames for the guest are carried after it when it moves.
    TandemCarried,
    /// Tandem, and a host that takes the VF without a word.
    TandemWarned,
    /// As before, and Tandem's user space stands still until the VF is gone: only its kernel programs act.
    TandemKernelAlone,
    /// The host is silent, and the kernel lets Tandem load no eBPF program.
    TandemWithoutEbpf,
    /// An active-backup bond made by a script, which also takes in a VF that comes.
    UnmanagedBond,
    /// The bond of systemd-networkd.
    Networkd,
    /// The bond of `NetworkManager`.
    NetworkManager,
    /// The kernel's `net_failover`, with QEMU's failover on the host's side.
    NetFailover,
}

impl System {
    /// All, in the order they are shown.
    pub const ALL: [Self; 11] = [
        Self::Floor,
        Self::FloorCarried,
        Self::TandemPlanned,
        Self::TandemCarried,
        Self::TandemWarned,
        Self::TandemKernelAlone,
        Self::TandemWithoutEbpf,
        Self::UnmanagedBond,
        Self::Networkd,
        Self::NetworkManager,
        Self::NetFailover,
    ];

    /// Its name on the command line and in results.
    pub fn key(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::FloorCarried => "floor-carried",
            Self::TandemPlanned => "tandem-planned",
            Self::TandemCarried => "tandem-carried",
            Self::TandemWarned => "tandem-warned",
            Self::TandemKernelAlone => "tandem-kernel-alone",
            Self::TandemWithoutEbpf => "tandem-without-ebpf",
            Self::UnmanagedBond => "unmanaged-bond",
            Self::Networkd => "networkd",
            Self::NetworkManager => "network-manager",
            Self::NetFailover => "net-failover",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Floor => "virtio alone: the floor",
            Self::FloorCarried => "virtio alone, carried",
            Self::TandemPlanned => "Tandem, the host asks",
            Self::TandemCarried => "Tandem, carried",
            Self::TandemWarned => "Tandem, the host is silent",
            Self::TandemKernelAlone => "Tandem's kernel part alone, silent",
            Self::TandemWithoutEbpf => "Tandem without eBPF, silent",
            Self::UnmanagedBond => "bond by a script",
            Self::Networkd => "systemd-networkd's bond",
            Self::NetworkManager => "NetworkManager's bond",
            Self::NetFailover => "net_failover, QEMU failover",
        }
    }

    /// Whether it is Tandem.
    pub fn is_tandem(self) -> bool {
        matches!(
            self,
            Self::TandemPlanned
                | Self::TandemCarried
                | Self::TandemWarned
                | Self::TandemKernelAlone
                | Self::TandemWithoutEbpf
        )
    }

    /// Whether frames for the guest are carried after it.
    pub fn is_carried(self) -> bool {
        matches!(self, Self::FloorCarried | Self::TandemCarried)
    }

    fn takes(self, model: NicModel, hot_plug: HotPlug) -> bool {
        let acpi = hot_plug == HotPlug::Acpi;
        match self {
            Self::Floor | Self::FloorCarried => false,
            Self::TandemWarned | Self::UnmanagedBond => true,
            Self::TandemPlanned
            | Self::TandemCarried
            | Self::TandemKernelAlone
            | Self::TandemWithoutEbpf
            | Self::Networkd
            | Self::NetworkManager => acpi,
            // QEMU refuses an igb as the primary: it has several functions.
            Self::NetFailover => acpi && model == NicModel::E1000e,
        }
    }
}

impl FromStr for System {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|system| system.key() == text);
        found.with_context(|| {
            let keys = Self::ALL.map(Self::key).join(", ");
            format!("`{text}` is none of {keys}")
        })
    }
}

/// A system on its hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Case {
    /// The system.
    pub system: System,
    /// What stands in for the VF, and how its hot-plug is signalled; nothing without a VF.
    pub vf: Option<(NicModel, HotPlug)>,
}

impl Case {
    /// Every system on all hardware of these that it can be compared on.
    pub fn all(systems: &[System], models: &[NicModel], hot_plugs: &[HotPlug]) -> Vec<Self> {
        let mut cases = Vec::new();
        for system in systems.iter().copied() {
            if matches!(system, System::Floor | System::FloorCarried) {
                cases.push(Self { system, vf: None });
            }
            for model in models.iter().copied() {
                let taken = hot_plugs
                    .iter()
                    .copied()
                    .filter(|hot_plug| system.takes(model, *hot_plug));
                cases.extend(taken.map(|hot_plug| Self {
                    system,
                    vf: Some((model, hot_plug)),
                }));
            }
        }
        cases
    }

    /// Its hardware, in a word or two.
    pub fn hardware(&self) -> String {
        let Some((model, hot_plug)) = self.vf else {
            return "no VF".to_owned();
        };
        let model = match model {
            NicModel::Igb => "igb",
            NicModel::E1000e => "e1000e",
            NicModel::VirtioNet => "virtio",
        };
        let hot_plug = match hot_plug {
            HotPlug::Acpi => "ACPI",
            HotPlug::Native => "pciehp",
        };
        format!("{model}, {hot_plug}")
    }

    /// The case of this name.
    pub fn of_key(key: &str) -> Option<Self> {
        let models = [NicModel::Igb, NicModel::E1000e];
        let all = Self::all(&System::ALL, &models, &[HotPlug::Acpi, HotPlug::Native]);
        all.into_iter().find(|case| case.key() == key)
    }

    /// Its name in results and files.
    pub fn key(&self) -> String {
        match self.vf {
            None => self.system.key().to_owned(),
            Some(_) => {
                let hardware = self.hardware().to_lowercase().replace(", ", "-");
                format!("{}-{hardware}", self.system.key())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_is_on_the_hardware_it_can_have() {
        let cases = Case::all(
            &System::ALL,
            &[NicModel::Igb, NicModel::E1000e],
            &[HotPlug::Acpi, HotPlug::Native],
        );
        let count = |system| cases.iter().filter(|case| case.system == system).count();
        assert_eq!(System::ALL.map(count), [1, 1, 2, 2, 4, 2, 2, 4, 2, 2, 1]);
        let keys: std::collections::BTreeSet<_> = cases.iter().map(Case::key).collect();
        assert_eq!(keys.len(), cases.len());
        assert!(keys.contains("net-failover-e1000e-acpi"), "{keys:?}");
        for case in &cases {
            assert_eq!(Case::of_key(&case.key()), Some(*case));
        }
        assert_eq!(Case::of_key("floor-igb-acpi"), None);
        assert!(Case::all(&[System::NetFailover], &[NicModel::Igb], &[HotPlug::Acpi]).is_empty());
    }

    #[test]
    fn systems_are_named_by_their_keys() {
        for system in System::ALL {
            assert_eq!(system.key().parse::<System>().unwrap(), system);
        }
        let error = "tandem".parse::<System>().unwrap_err().to_string();
        assert!(error.contains("tandem-planned"), "{error}");
    }
}
