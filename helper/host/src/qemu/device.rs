//! Devices come and go.

use serde_json::{Value, json};
use tandem_core::types::PciAddress;

use super::Qemu;
use super::device_text::{DeviceText, read};
use super::qmp::QmpError;
use crate::hypervisor::{HostError, Nic};

/// Where the host's PCI functions are.
const PCI_FUNCTIONS: &str = "/sys/bus/pci/devices";

impl Qemu {
    pub(super) async fn detach_device(&self, name: &str, nic: &Nic) -> Result<(), HostError> {
        self.require(name).await?;
        let command = "device_del";
        let asked = self
            .connection
            .try_execute(command, json!({ "id": nic.alias }))
            .await;
        match asked {
            Ok(_) => Ok(()),
            Err(QmpError::Refused { class, .. }) if class == "DeviceNotFound" => {
                Err(HostError::AlreadyGone {
                    domain: name.to_owned(),
                    what: format!("the device {}", nic.alias),
                })
            }
            Err(QmpError::Refused { desc, .. }) if desc.contains("in the process of unplug") => {
                Ok(())
            }
            Err(error) => Err(self.connection.explain(command, error)),
        }
    }

    pub(super) async fn attach_device(&self, name: &str, text: &str) -> Result<(), HostError> {
        self.require(name).await?;
        let DeviceText { netdev, device } = self.parse(text)?;
        let id = device["id"].as_str().unwrap_or_default().to_owned();
        let there = || HostError::AlreadyThere {
            domain: name.to_owned(),
            what: format!("the device {id}"),
        };
        let path = json!({ "path": format!("/machine/peripheral/{id}") });
        if self.connection.try_execute("qom-list", path).await.is_ok() {
            return Err(there());
        }
        let mut added = None;
        if let Some(netdev) = netdev {
            let netdev_id = netdev["id"].clone();
            match self
                .connection
                .try_execute("netdev_add", Value::Object(netdev))
                .await
            {
                Ok(_) => added = Some(netdev_id),
                // A device that leaves does not take its netdev along.
                Err(QmpError::Refused { desc, .. }) if is_duplicate(&desc) => {}
                Err(error) => return Err(self.connection.explain("netdev_add", error)),
            }
        }
        let plugged = self
            .connection
            .try_execute("device_add", Value::Object(device))
            .await;
        let Err(error) = plugged else { return Ok(()) };
        if let Some(id) = added {
            // The device's failure is what counts.
            let _ = self
                .connection
                .try_execute("netdev_del", json!({ "id": id }))
                .await;
        }
        match error {
            QmpError::Refused { desc, .. } if is_duplicate(&desc) => Err(there()),
            error => Err(self.connection.explain("device_add", error)),
        }
    }

    /// QEMU does not tell what other processes use; a function in use is refused when it is attached.
    pub(super) fn check_pci_function(&self, text: &str) -> Result<(), HostError> {
        let DeviceText { device, .. } = self.parse(text)?;
        let Some(host) = device.get("host").and_then(Value::as_str) else {
            return Ok(());
        };
        let full = if host.matches(':').count() == 1 {
            format!("0000:{host}")
        } else {
            host.to_owned()
        };
        let function: PciAddress = full
            .parse()
            .map_err(|error| self.refused("the device", format!("{error}")))?;
        let path = std::path::Path::new(PCI_FUNCTIONS).join(function.to_string());
        if path.exists() {
            return Ok(());
        }
        Err(self.refused(
            &format!("PCI function {function}"),
            "this host has no such function",
        ))
    }

    fn parse(&self, text: &str) -> Result<DeviceText, HostError> {
        read(text).map_err(|reason| self.refused("the device's JSON", reason))
    }
}

/// QEMU's words: `Duplicate device ID 'vf0'`, `Duplicate ID 'net0' for netdev`.
fn is_duplicate(desc: &str) -> bool {
    desc.starts_with("Duplicate ")
}
