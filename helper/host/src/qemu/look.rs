//! What QEMU shows of its guest.

use serde_json::{Map, Value, json};
use tandem_core::types::PciAddress;

use super::Qemu;
use super::qmp::QmpError;
use crate::hypervisor::{
    AgentChannel, ChannelSocket, DomainFacts, DomainState, HostError, JobFacts, JobOperation,
    JobPhase, Nic, NicKind,
};

/// PCI class of network controllers, the two upper bytes of the class code: 02h, Ethernet 00h.
const ETHERNET: u64 = 0x0200;
/// Most PCI devices that are looked at.
const MAX_DEVICES: usize = 4096;
/// Properties of a device that another `device_add` of it needs, where it has them.
const PROPERTIES: [&str; 5] = ["mac", "netdev", "host", "romfile", "failover_pair_id"];

impl Qemu {
    pub(super) async fn own_name(&self) -> Result<String, HostError> {
        let name = self.execute("query-name", json!({})).await?;
        Ok(name["name"].as_str().unwrap_or_default().to_owned())
    }

    pub(super) async fn run_state(&self) -> Result<DomainState, HostError> {
        match self.connection.try_execute("query-status", json!({})).await {
            Ok(status) => Ok(state(status["status"].as_str().unwrap_or_default())),
            Err(QmpError::Unreachable { ended: true, .. }) => Ok(DomainState::Absent),
            Err(error) => Err(self.connection.explain("query-status", error)),
        }
    }

    pub(super) async fn facts(&self, name: &str) -> Result<DomainFacts, HostError> {
        let status = match self.connection.try_execute("query-status", json!({})).await {
            Ok(status) => status,
            // Nobody listens on the socket: the process has ended.
            Err(QmpError::Unreachable { ended: true, .. }) => return Ok(DomainFacts::absent(name)),
            Err(error) => return Err(self.connection.explain("query-status", error)),
        };
        match self.require(name).await {
            Err(HostError::NoSuchDomain { .. }) => return Ok(DomainFacts::absent(name)),
            known => known?,
        }
        let reason = status["status"].as_str().unwrap_or_default().to_owned();
        let uuid = self.execute("query-uuid", json!({})).await?;
        Ok(DomainFacts {
            name: name.to_owned(),
            uuid: uuid["UUID"].as_str().unwrap_or_default().to_owned(),
            state: state(&reason),
            reason,
            // The socket is the process's own, so its inode tells one process from the next.
            run_id: self.socket_inode(),
            disks: Vec::new(),
            volumes: Vec::new(),
            unmigratable: Vec::new(),
            nics: self.nics().await?,
            channel: self.channel().await?,
        })
    }

    fn socket_inode(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(&self.socket);
        metadata.map_or_else(|_| String::new(), |file| file.ino().to_string())
    }

    async fn channel(&self) -> Result<Option<AgentChannel>, HostError> {
        let Some(socket) = &self.agent else {
            return Ok(None);
        };
        let devices = self.execute("query-chardev", json!({})).await?;
        let path = socket.display().to_string();
        // `disconnected:unix:PATH,server=on`
        let own = devices.as_array().into_iter().flatten().find(|device| {
            let name = device["filename"].as_str().unwrap_or_default();
            name.split(',')
                .any(|part| part.ends_with(&format!("unix:{path}")))
        });
        Ok(Some(AgentChannel {
            // Of the command line, and of no domain's XML.
            socket: Some(ChannelSocket::named(socket)),
            refused: None,
            opened: own.and_then(|device| device["frontend-open"].as_bool()),
        }))
    }

    async fn nics(&self) -> Result<Vec<Nic>, HostError> {
        let buses = self.execute("query-pci", json!({})).await?;
        let passed = self.passed_through().await?;
        let mut nics = Vec::new();
        for PciDevice {
            name,
            bridge,
            is_nic,
        } in pci_devices(&buses)
        {
            if is_nic || passed.iter().any(|passed| passed == name) {
                nics.push(self.nic(name, bridge).await?);
            }
        }
        Ok(nics)
    }

    /// Names of the devices that are the host's own, NICs or not.
    async fn passed_through(&self) -> Result<Vec<String>, HostError> {
        let path = json!({ "path": "/machine/peripheral" });
        let children = match self.connection.try_execute("qom-list", path).await {
            Ok(children) => children,
            Err(QmpError::Refused { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(self.connection.explain("qom-list", error)),
        };
        let children = children.as_array().into_iter().flatten();
        let passed = children.filter(|child| {
            let kind = child["type"].as_str().unwrap_or_default();
            kind.starts_with("child<vfio-pci")
        });
        let names = passed.filter_map(|child| child["name"].as_str());
        Ok(names.take(MAX_DEVICES).map(str::to_owned).collect())
    }

    /// A device with what it takes to plug it in again.
    async fn nic(&self, alias: &str, bus: Option<&str>) -> Result<Nic, HostError> {
        let mut device = Map::new();
        let driver = self.property(alias, "type").await?;
        device.insert("driver".to_owned(), driver.unwrap_or_default());
        device.insert("id".to_owned(), alias.into());
        if let Some(bus) = bus {
            device.insert("bus".to_owned(), bus.into());
        }
        for name in PROPERTIES {
            let value = self.property(alias, name).await?;
            let given = value.filter(|value| {
                // An empty ROM file asks for none.
                name == "romfile" && value.is_string()
                    || value.as_str().is_some_and(|v| !v.is_empty())
            });
            if let Some(value) = given {
                device.insert(name.to_owned(), value);
            }
        }
        let text = |name: &str| device.get(name).and_then(Value::as_str).unwrap_or_default();
        let pci_source: Option<PciAddress> = text("host").parse().ok();
        let passed_through = text("driver").starts_with("vfio-pci");
        Ok(Nic {
            alias: alias.to_owned(),
            mac: text("mac").parse().ok(),
            kind: if passed_through {
                NicKind::Hostdev
            } else {
                NicKind::Interface
            },
            pci_source,
            xml: Value::Object(device).to_string(),
        })
    }

    /// A property, if the device has it.
    async fn property(&self, alias: &str, name: &str) -> Result<Option<Value>, HostError> {
        let path = format!("/machine/peripheral/{alias}");
        let arguments = json!({ "path": path, "property": name });
        match self.connection.try_execute("qom-get", arguments).await {
            Ok(value) => Ok(Some(value)),
            Err(QmpError::Refused { .. }) => Ok(None),
            Err(error) => Err(self.connection.explain("qom-get", error)),
        }
    }

    pub(super) async fn migration(&self) -> Result<JobFacts, HostError> {
        Ok(job(&self.execute("query-migrate", json!({})).await?))
    }
}

/// A PCI device that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PciDevice<'a> {
    pub(super) name: &'a str,
    /// The bridge above it.
    pub(super) bridge: Option<&'a str>,
    pub(super) is_nic: bool,
}

/// All PCI devices that have a name. Bridges nest as deep as QEMU says, so they are walked without recursion.
pub(super) fn pci_devices(buses: &Value) -> Vec<PciDevice<'_>> {
    let mut found = Vec::new();
    let mut open: Vec<(&Value, Option<&str>)> = Vec::new();
    let mut count = 0;
    open.extend(
        buses
            .as_array()
            .into_iter()
            .flatten()
            .rev()
            .map(|bus| (bus, None)),
    );
    while let Some((bus, bridge)) = open.pop() {
        for device in bus["devices"].as_array().into_iter().flatten() {
            count += 1;
            if count > MAX_DEVICES {
                return found;
            }
            let name = device["qdev_id"].as_str().filter(|name| !name.is_empty());
            found.extend(name.map(|name| PciDevice {
                name,
                bridge,
                is_nic: device["class_info"]["class"].as_u64() == Some(ETHERNET),
            }));
            if device["pci_bridge"]["devices"].is_array() {
                open.push((&device["pci_bridge"], name));
            }
        }
    }
    found
}

/// QEMU's `RunState` (qapi/run-state.json, QEMU 10.0).
pub(super) fn state(status: &str) -> DomainState {
    match status {
        "running" => DomainState::Running,
        "inmigrate" => DomainState::Incoming,
        // Its guest has left or ended, only the process is still there.
        "postmigrate" | "shutdown" => DomainState::ShutOff,
        _ => DomainState::Paused,
    }
}

/// `query-migrate` (qapi/migration.json, QEMU 10.0).
pub(super) fn job(info: &Value) -> JobFacts {
    let number = |value: &Value| value.as_u64();
    let phase = match info["status"].as_str() {
        None | Some("none") => JobPhase::None,
        Some("setup" | "wait-unplug") => JobPhase::Setup,
        Some("active") => JobPhase::PreCopy,
        Some(status) if status.starts_with("postcopy") => JobPhase::PostCopy,
        Some("pre-switchover" | "device") => JobPhase::SwitchOver,
        Some("completed") => JobPhase::Completed,
        Some("failed") => JobPhase::Failed,
        Some("cancelling" | "cancelled") => JobPhase::Cancelled,
        Some(_) => JobPhase::Other,
    };
    let ram = &info["ram"];
    // Megabits in QEMU are 10^6 bits.
    let rate = ram["mbps"]
        .as_f64()
        .filter(|mbps| mbps.is_finite() && *mbps >= 0.0);
    JobFacts {
        phase,
        operation: JobOperation::Migration,
        memory_total_bytes: number(&ram["total"]),
        memory_remaining_bytes: number(&ram["remaining"]),
        rate_bytes_per_s: rate.map(|mbps| (mbps * 125_000.0) as u64),
        dirty_bytes_per_s: number(&ram["dirty-pages-rate"])
            .zip(number(&ram["page-size"]))
            .map(|(pages, bytes)| pages.saturating_mul(bytes)),
        downtime_ms: number(&info["downtime"]).or_else(|| number(&info["expected-downtime"])),
        elapsed_ms: number(&info["total-time"]),
        passes: number(&ram["dirty-sync-count"]),
    }
}
