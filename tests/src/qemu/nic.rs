//! The guest's NICs: model, MAC, place on the PCI bus, and the tap behind each.

use serde_json::{Value, json};
pub use tandem_core::types::Mac;

/// QEMU's property of a virtio NIC that has several queues.
const MANY_QUEUES: &str = "mq";

/// A locally administered MAC address that ends in `last`, for tests.
pub const fn test_mac(last: u8) -> Mac {
    Mac([0x02, 0x7a, 0x6e, 0x64, 0x6d, last])
}

/// What kind of NIC QEMU emulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NicModel {
    /// virtio-net: the standby.
    VirtioNet,
    /// Intel 82574L, one PCI function: a stand-in for a VF.
    E1000e,
    /// Intel 82576 with SR-IOV: a stand-in for a VF, or a PF with real VFs inside the guest.
    Igb,
}

impl NicModel {
    /// QEMU's name for it.
    pub fn device(self) -> &'static str {
        match self {
            Self::VirtioNet => "virtio-net-pci",
            Self::E1000e => "e1000e",
            Self::Igb => "igb",
        }
    }
}

/// Where a device sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// On the root bus, at this device number: there from start to end.
    RootBus(u8),
    /// Behind the root port of this index: can be unplugged and plugged in.
    RootPort(u8),
}

impl Slot {
    fn bus(self) -> String {
        match self {
            Self::RootBus(_) => "pcie.0".to_owned(),
            Self::RootPort(index) => format!("rp{index}"),
        }
    }

    fn address(self) -> String {
        match self {
            Self::RootBus(number) => format!("0x{number:x}"),
            Self::RootPort(_) => "0x0".to_owned(),
        }
    }
}

/// A NIC of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// QEMU's id of the device; the network behind it is `net-ID`.
    pub id: String,
    /// Its model.
    pub model: NicModel,
    /// Its permanent MAC.
    pub mac: Mac,
    /// Where it sits.
    pub slot: Slot,
    /// Device properties beyond these, such as `("failover", true)`.
    pub properties: Vec<(String, Value)>,
}

impl Nic {
    /// The arguments of `-device` and of QMP's `device_add`.
    pub fn device(&self) -> Value {
        let mut device = json!({
            "driver": self.model.device(),
            "id": self.id,
            "netdev": self.netdev_id(),
            "mac": self.mac.to_string(),
            "bus": self.slot.bus(),
            "addr": self.slot.address(),
            // Without this the ROM's memory block differs between hosts and breaks migration.
            "romfile": "",
        });
        for (name, value) in &self.properties {
            device[name] = value.clone();
        }
        device
    }

    /// The arguments of `-netdev` and of QMP's `netdev_add`, over a tap that exists.
    pub fn netdev(&self, tap: &str) -> Value {
        let mut netdev = json!({
            "type": "tap",
            "id": self.netdev_id(),
            "ifname": tap,
            "script": "no",
            "downscript": "no",
        });
        if self.queues() > 1 {
            netdev["queues"] = self.queues().into();
        }
        netdev
    }

    /// Two queues instead of one, each with an interrupt of its own in either direction, and two more for the rest.
    pub(crate) fn two_queues(&mut self) {
        let properties = [(MANY_QUEUES, json!(true)), ("vectors", json!(6))];
        let properties = properties.map(|(name, value)| (name.to_owned(), value));
        self.properties.extend(properties);
    }

    /// How many queues it and its tap have.
    pub fn queues(&self) -> u8 {
        let has_two = self.properties.iter().any(|(name, _)| name == MANY_QUEUES);
        1 + u8::from(has_two)
    }

    /// QEMU's id of the network behind the device.
    pub fn netdev_id(&self) -> String {
        format!("net-{}", self.id)
    }
}
