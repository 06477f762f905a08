//! The domain's XML: the lab's small guest as libvirt describes it.

use std::path::Path;

use anyhow::{Context, Result};

use super::LibvirtHost;
use crate::agent::proto::PORT_NAME;
use crate::artifacts::qemu::{self, Starter};
use crate::net::{GUEST_V4, GUEST_V6};
use crate::qemu::{Accelerator, accel};
use crate::tandem::BOND;
use crate::vm::{CHANNEL_PORT_NAME, GuestImage};
use crate::{Mac, NicModel, test_mac};

/// The VF's alias, on each host.
pub const VF_ALIAS: &str = "ua-vf";
/// The alias of the product's channel.
pub const CHANNEL_ALIAS: &str = "ua-tandem";
/// A domain's disk, in the folder of its host.
pub const DISK_FILE: &str = "disk.raw";
/// Where a NIC can be plugged in, and some for libvirt's own use.
const ROOT_PORTS: usize = 10;

/// A domain of a test.
#[derive(Debug, Clone)]
pub struct DomainSpec {
    /// Its name.
    pub name: String,
    /// What stands in for the VF.
    pub model: NicModel,
    /// The standby's MAC.
    pub standby: Mac,
    /// The VF's MAC on the first host.
    pub vf: Mac,
    /// MACs of VFs on other hosts.
    pub other_vfs: Vec<Mac>,
    /// Its bonds besides the first.
    pub more: Vec<MoreBond>,
    /// A disk, [`DISK_FILE`] in its host's folder, that hosts don't share.
    pub has_disk: bool,
    /// Parameters of its kernel, beyond the lab's own.
    pub kernel_parameters: Vec<String>,
}

/// A bond of a domain that has several.
#[derive(Debug, Clone, Copy)]
pub struct MoreBond {
    /// Its name.
    pub name: &'static str,
    /// The alias of its VF, on each host.
    pub alias: &'static str,
    /// Its address, in a network of its own.
    address: &'static str,
    /// Its standby's.
    pub standby: Mac,
    /// Its VF's on the first host.
    pub vf: Mac,
    /// Its VF's on the other host.
    pub other_vf: Mac,
}

impl DomainSpec {
    /// An igb NIC as the VF, and one that is on the other host.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            model: NicModel::Igb,
            standby: test_mac(1),
            vf: test_mac(2),
            other_vfs: vec![test_mac(3)],
            more: Vec::new(),
            has_disk: false,
            kernel_parameters: Vec::new(),
        }
    }

    /// The same with two more bonds.
    pub fn with_three_bonds(name: &str) -> Self {
        let bond = |name, alias, address, first_mac| MoreBond {
            name,
            alias,
            address,
            standby: test_mac(first_mac),
            vf: test_mac(first_mac + 1),
            other_vf: test_mac(first_mac + 2),
        };
        Self {
            more: vec![
                bond("bond1", MORE_VF_ALIASES[0], "10.78.0.2", 4),
                bond("bond2", MORE_VF_ALIASES[1], "10.79.0.2", 7),
            ],
            ..Self::new(name)
        }
    }

    /// Name and standby of each bond.
    pub(super) fn bonds(&self) -> impl Iterator<Item = (&'static str, Mac)> {
        let first = std::iter::once((BOND, self.standby));
        first.chain(self.more.iter().map(|bond| (bond.name, bond.standby)))
    }

    /// The bond with the addresses that the lab's client knows, for a guest that has no configuration.
    pub fn bonds_xml(&self) -> String {
        let others: String = self
            .other_vfs
            .iter()
            .map(|mac| format!("    <vf mac='{mac}'/>\n"))
            .collect();
        format!(
            "<bonds xmlns='https://github.com/tandem-vf/tandem/xmlns/bonds/1'>\n  \
             <bond name='{bond}'>\n    <standby mac='{standby}'/>\n    \
             <vf alias='{VF_ALIAS}' mac='{vf}'/>\n{others}    \
             <ip family='ipv4' address='{GUEST_V4}' prefix='24'/>\n    \
             <ip family='ipv6' address='{GUEST_V6}' prefix='64'/>\n    \
             <route family='ipv4' address='{ROUTE}' prefix='24' gateway='{gateway}'/>\n  \
             </bond>\n{more}</bonds>",
            more = self.more.iter().map(MoreBond::xml).collect::<String>(),
            bond = BOND,
            standby = self.standby,
            vf = self.vf,
            gateway = crate::net::CLIENT_V4,
        )
    }

    /// The whole domain, for `virsh create` or `virsh define` on a host.
    pub(super) fn xml(
        &self,
        image: &GuestImage,
        kernel_parameters: &[String],
        host: &LibvirtHost,
    ) -> Result<String> {
        let (kind, cpu) = match accel::detect()? {
            Accelerator::Tcg => ("qemu", "maximum"),
            Accelerator::Kvm => ("kvm", "host-passthrough"),
        };
        let ports = "    <controller type='pci' model='pcie-root-port'/>\n".repeat(ROOT_PORTS);
        let folder = shown(host.folder())?;
        Ok(format!(
            "<domain type='{kind}'>
  <name>{name}</name>
  <metadata>{bonds}</metadata>
  <memory unit='MiB'>384</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>{parameters}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='{cpu}'/>
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='pci' model='pcie-root'/>
{ports}    <controller type='usb' model='none'/>
    {nics}{disk}
    <serial type='file'><source path='{folder}/console.log'/><target port='0'/></serial>
    <channel type='unix'><source mode='bind' path='{folder}/lab'/><target type='virtio' name='{PORT_NAME}'/></channel>
    <channel type='unix'><source mode='bind' path='{folder}/channel'/><target type='virtio' name='{CHANNEL_PORT_NAME}'/><alias name='{CHANNEL_ALIAS}'/></channel>
    <memballoon model='none'/>
  </devices>
</domain>
",
            name = self.name,
            bonds = self.bonds_xml(),
            emulator = shown(&qemu::program(Starter::Libvirt)?)?,
            kernel = shown(&image.kernel)?,
            initramfs = shown(&image.initramfs)?,
            parameters = kernel_parameters.join(" "),
            nics = self.nics_xml(),
            disk = match self.has_disk {
                true => format!(
                    "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>\
                     <source file='{folder}/{DISK_FILE}'/><target dev='vda' bus='virtio'/></disk>"
                ),
                false => String::new(),
            },
        ))
    }

    /// All NICs on the first host.
    fn nics_xml(&self) -> String {
        let more = self.more.iter().map(|it| (it.standby, it.alias, it.vf));
        let pairs = std::iter::once((self.standby, VF_ALIAS, self.vf)).chain(more);
        let nics = pairs.map(|(standby, alias, vf)| {
            nic_xml(NicModel::VirtioNet, standby, None) + &vf_xml(self.model, vf, alias)
        });
        nics.collect()
    }
}

impl MoreBond {
    fn xml(&self) -> String {
        let Self {
            name,
            alias,
            address,
            standby,
            vf,
            other_vf,
        } = self;
        format!(
            "  <bond name='{name}'>\n    <standby mac='{standby}'/>\n    \
             <vf alias='{alias}' mac='{vf}'/>\n    <vf mac='{other_vf}'/>\n    \
             <ip family='ipv4' address='{address}' prefix='24'/>\n  </bond>\n"
        )
    }
}

/// The aliases of the VFs of further bonds.
const MORE_VF_ALIASES: [&str; 2] = ["ua-vf1", "ua-vf2"];

/// A network that is reached through the client, to see that routes come along.
pub(super) const ROUTE: &str = "198.51.100.0";

/// A NIC on the host's bridge that stands in for a VF, for `--vf FILE`.
pub fn vf_xml(model: NicModel, mac: Mac, alias: &str) -> String {
    nic_xml(model, mac, Some(alias))
}

fn nic_xml(model: NicModel, mac: Mac, alias: Option<&str>) -> String {
    let model = match model {
        NicModel::VirtioNet => "virtio",
        NicModel::E1000e => "e1000e",
        NicModel::Igb => "igb",
    };
    let alias = alias.map_or_else(String::new, |alias| format!("<alias name='{alias}'/>"));
    // A ROM that only one side has breaks migration.
    format!(
        "<interface type='bridge'><mac address='{mac}'/><source bridge='br0'/>\
         <model type='{model}'/><rom enabled='no'/>{alias}</interface>"
    )
}

/// The XML of a domain as another host is to have it: without its VFs, and with that host's own sockets.
pub(super) fn for_other_host(
    live: &str,
    here: &LibvirtHost,
    there: &LibvirtHost,
) -> Result<String> {
    let more = MORE_VF_ALIASES.iter();
    let without = more.fold(without_interface(live, VF_ALIAS), |xml, alias| {
        without_interface(&xml, alias)
    });
    Ok(without.replace(
        &format!("{}/", shown(here.folder())?),
        &format!("{}/", shown(there.folder())?),
    ))
}

fn without_interface(xml: &str, alias: &str) -> String {
    let wanted = format!("<alias name='{alias}'/>");
    let mut kept = String::with_capacity(xml.len());
    let mut rest = xml;
    while let Some((before, after)) = rest.split_once("<interface ") {
        kept.push_str(before);
        let (interface, next) = after.split_once("</interface>").unwrap_or((after, ""));
        if !interface.contains(&wanted) {
            kept.push_str("<interface ");
            kept.push_str(interface);
            kept.push_str("</interface>");
        }
        rest = next;
    }
    kept.push_str(rest);
    kept
}

fn shown(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("the path {} is no text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_vf_is_left_out() {
        let xml = "<a/><interface type='x'><alias name='net0'/></interface>\
                   <interface type='y'><alias name='ua-vf'/></interface><b/>";
        assert_eq!(
            without_interface(xml, "ua-vf"),
            "<a/><interface type='x'><alias name='net0'/></interface><b/>"
        );
    }
}
