//! Devices come and go, and what can be known about a PCI function before.

use tandem_core::types::PciAddress;

use super::{Virsh, read};
use crate::hypervisor::{HostError, Nic};
use crate::words::{printable, quoted};
use crate::xml::device::{network_of, parse_device};
use crate::xml::domain::open;
use crate::xml::network::Pool;

/// virsh reads the device's XML there, so that no file has to be made.
const FROM_STDIN: &str = "--file=/dev/stdin";
/// QEMU's words for a second request while the guest still thinks about the first.
const UNDER_WAY: &str = "already in the process of unplug";
/// A libvirt without its driver for node devices (`VIR_ERR_NO_SUPPORT`, `src/util/virerror.c`, libvirt 11.3).
const NO_DRIVER: &str = "not supported by the connection driver";

impl Virsh {
    pub(super) async fn detach_device(&self, name: &str, nic: &Nic) -> Result<(), HostError> {
        let device = device_name(nic);
        let arguments = ["--live", FROM_STDIN];
        match self
            .about(name, "detach-device", &arguments, Some(&nic.xml))
            .await
        {
            Err(HostError::Refused { reason, .. }) if reason.contains(UNDER_WAY) => Ok(()),
            Err(HostError::AlreadyGone { domain, .. }) => Err(HostError::AlreadyGone {
                domain,
                what: device,
            }),
            Err(HostError::UnplugRefused { domain, reason, .. }) => Err(HostError::UnplugRefused {
                domain,
                device,
                reason,
            }),
            answer => answer.map(|_| ()),
        }
    }

    /// libvirt would plug in the same NIC a second time if it has no alias, so this looks first.
    pub(super) async fn attach_device(&self, name: &str, device: &str) -> Result<(), HostError> {
        let nic = self.parse(device)?;
        let there = || HostError::AlreadyThere {
            domain: name.to_owned(),
            what: device_name(&nic),
        };
        if self
            .xml(name, &[])
            .await?
            .nics
            .iter()
            .any(|known| same(known, &nic))
        {
            return Err(there());
        }
        let arguments = ["--live", FROM_STDIN];
        match self
            .about(name, "attach-device", &arguments, Some(device))
            .await
        {
            Err(HostError::AlreadyThere { .. }) => Err(there()),
            answer => answer.map(|_| ()),
        }
    }

    /// What can be known of a device before it is plugged in.
    pub(super) async fn check_device_here(
        &self,
        device: &str,
        together: usize,
    ) -> Result<(), HostError> {
        if let Some(network) = network_of(device) {
            self.check_network(&network, together).await?;
        }
        self.check_pci_function(device).await
    }

    /// The last free VF of its pool may still be taken before ours is plugged in.
    async fn check_network(&self, network: &str, together: usize) -> Result<(), HostError> {
        let refused = |reason: String| HostError::Refused {
            host: self.connection.uri.clone(),
            what: format!("network {}", printable(network)),
            reason,
        };
        let name = quoted(network);
        let target = format!("--network={network}");
        let told = match self.ask(&["net-info", &target]).await {
            Ok(told) => told,
            Err(HostError::Refused { reason, .. }) => {
                let text = format!(
                    "this host does not have it ({reason}); define it there with `virsh net-define`, or name \
                     another one in the VF's XML"
                );
                return Err(refused(text));
            }
            Err(error) => return Err(error),
        };
        if read::is_active(&told) == Some(false) {
            let text = format!("it is not active; run `virsh net-start {name}` there");
            return Err(refused(text));
        }
        let xml = self.ask(&["net-dumpxml", &target]).await;
        let pool = xml.ok().and_then(|xml| Pool::of(&xml));
        if let Some(pool) = pool.filter(|pool| pool.free() < together) {
            let text = format!(
                "{} of its {} devices are free, and {together} are wanted; free more there, or name another network in \
                 the VF's XML",
                pool.free(),
                pool.devices
            );
            return Err(refused(text));
        }
        Ok(())
    }

    async fn check_pci_function(&self, device: &str) -> Result<(), HostError> {
        let Some(function) = self.parse(device)?.pci_source else {
            return Ok(());
        };
        let refused = |reason: String| HostError::Refused {
            host: self.connection.uri.clone(),
            what: format!("PCI function {function}"),
            reason,
        };
        let node = format!("pci_{}", function.to_string().replace([':', '.'], "_"));
        let node = format!("--device={node}");
        match self.ask(&["nodedev-dumpxml", &node]).await {
            // A driver of this host's own has it, so no guest does; each domain need not be asked.
            Ok(text) if is_of_the_host(&text) => return Ok(()),
            Ok(_) => {}
            // Nothing can be known of it there; whether it exists, the plug shows.
            Err(HostError::Refused { reason, .. }) if reason.contains(NO_DRIVER) => {}
            Err(HostError::Refused { reason, .. }) => {
                return Err(refused(format!("this host has no such function: {reason}")));
            }
            Err(error) => return Err(error),
        }
        // Whoever has it on a host with too many domains, or too slow a one, libvirt refuses to plug it in.
        let limit = self.connection.limit * 2 / 3;
        match tokio::time::timeout(limit, self.holder(function)).await {
            Ok(Ok(Some(domain))) => Err(refused(format!("domain {domain} has it"))),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) | Err(_) => Ok(()),
        }
    }

    /// The domain that has that function; a question to each domain that runs here.
    async fn holder(&self, function: PciAddress) -> Result<Option<String>, HostError> {
        let running = self.ask(&["list", "--uuid"]).await?;
        for uuid in running
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            let target = format!("--domain={uuid}");
            let text = match self.ask(&["dumpxml", &target]).await {
                Ok(text) => text,
                // It has ended since it was listed, or comes in just now and shows nothing before it is there.
                Err(HostError::Refused { .. } | HostError::TimedOut { .. }) => continue,
                Err(error) => return Err(error),
            };
            let Ok(xml) = super::parse::domain(text).await else {
                continue;
            };
            if xml.nics.iter().any(|nic| nic.pci_source == Some(function)) {
                return Ok(Some(xml.name));
            }
        }
        Ok(None)
    }

    fn parse(&self, device: &str) -> Result<Nic, HostError> {
        parse_device(device).map_err(|error| HostError::Refused {
            host: self.connection.uri.clone(),
            what: "the device's XML".to_owned(),
            reason: error.to_string(),
        })
    }
}

/// A driver other than that which hands a function to guests (vfio-pci and its variants) is bound to it.
fn is_of_the_host(node_device: &str) -> bool {
    let Ok(document) = open(node_device) else {
        return false;
    };
    let mut children = document.root_element().children();
    let driver = children.find(|node| node.has_tag_name("driver"));
    let name = driver.and_then(|driver| driver.children().find(|node| node.has_tag_name("name")));
    let name = name.and_then(|name| name.text());
    name.is_some_and(|name| !name.contains("vfio"))
}

/// The same device as one the domain has: by alias or host function, or by MAC if neither is told. An alias that
/// no person chose says nothing: libvirt gives those out anew when a device is attached.
fn same(known: &Nic, wanted: &Nic) -> bool {
    let chosen = wanted.alias.starts_with("ua-");
    let by_alias = chosen && known.alias == wanted.alias;
    let by_function = wanted.pci_source.is_some() && known.pci_source == wanted.pci_source;
    let by_mac = !chosen
        && wanted.pci_source.is_none()
        && wanted.mac.is_some()
        && known.mac == wanted.mac
        && known.kind == wanted.kind;
    by_alias || by_function || by_mac
}

fn device_name(nic: &Nic) -> String {
    match (nic.alias.as_str(), nic.mac, nic.pci_source) {
        ("", Some(mac), _) => format!("the NIC {mac}"),
        ("", None, Some(function)) => format!("the PCI device {function}"),
        ("", None, None) => "the device".to_owned(),
        (alias, ..) => format!("the device {alias}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_that_libvirt_made_up_is_no_sign_of_a_device() {
        let hostdev = |alias: &str, slot: u8| {
            let text = format!(
                "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='59' slot='{slot}' \
                 function='0'/></source><alias name='{alias}'/></hostdev>"
            );
            parse_device(&text).unwrap()
        };
        let nic = |alias: &str, mac: &str| {
            let text = format!(
                "<interface type='network'><mac address='52:54:00:00:00:{mac}'/><source network='n'/>\
                 <alias name='{alias}'/></interface>"
            );
            parse_device(&text).unwrap()
        };
        assert!(!same(&hostdev("hostdev0", 1), &hostdev("hostdev0", 2)));
        assert!(same(&hostdev("hostdev1", 1), &hostdev("hostdev0", 1)));
        assert!(same(&hostdev("ua-a", 1), &hostdev("ua-a", 2)));
        assert!(!same(&nic("net1", "01"), &nic("net1", "02")));
        assert!(same(&nic("net2", "01"), &nic("net1", "01")));
        assert!(!same(&nic("ua-a", "01"), &nic("ua-b", "01")));
    }
}
