//! The hypervisors' guest as libvirt describes it, and the forms in which it gets its VF.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::hypervisor::{Hypervisor, Socket};
use super::image::{GUEST_INITRAMFS, GUEST_KERNEL};
use crate::agent::proto::PORT_NAME;
use crate::libvirt::file;
use crate::net::{GUEST_V4, GUEST_V6};
use crate::tandem::BOND;
use crate::vm::CHANNEL_PORT_NAME;
use crate::{Mac, test_mac};

/// The VF's alias, on each hypervisor.
pub const VF_ALIAS: &str = "ua-vf";
/// The alias of a device of no bond, on each hypervisor.
pub(super) const LET_GO_ALIAS: &str = "ua-gpu";
/// The domain's name.
pub(super) const DOMAIN: &str = "guest";
/// Its UUID.
pub(super) const UUID: &str = "7a6e646d-0000-4000-8000-00000000d011";
/// The libvirt network of VFs.
pub const NETWORK: &str = "vfs";
/// The standby's MAC.
pub(super) const STANDBY: Mac = test_mac(1);
/// A switchover of an emulated guest of an emulated hypervisor takes seconds on a busy machine.
const COMMAND_MS: u32 = 60_000;
/// Where a NIC can be plugged in, and some for libvirt's own use.
const ROOT_PORTS: usize = 6;
/// Each character on the serial port is an exit that costs milliseconds.
const KERNEL_PARAMETERS: &str = "console=ttyS0 quiet loglevel=1 mitigations=off panic=-1";

/// How the domain gets its VF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `<interface type='hostdev'>` with the standby's MAC; its PF trusts nobody. Works with nothing set by hand.
    SameMac,
    /// The same with a MAC of its own, and a PF that trusts the VF.
    OwnMac,
    /// The same without trust, in a bond with `mac='follow'`.
    Follow,
    /// `<hostdev>`, with the standby's MAC set on the PF by hand.
    Hostdev,
    /// `<interface type='network'>`, any VF of a libvirt network, with the standby's MAC.
    Network,
}

impl Form {
    fn mac(self, hypervisor: &Hypervisor) -> Mac {
        match (self, hypervisor.name()) {
            (Self::SameMac | Self::Hostdev | Self::Network, _) => STANDBY,
            (Self::OwnMac | Self::Follow, "a") => test_mac(2),
            (Self::OwnMac | Self::Follow, _) => test_mac(3),
        }
    }

    /// What makes a hypervisor ready for it.
    ///
    /// # Errors
    /// It can't be made so.
    pub(super) fn prepare(self, hypervisor: &Hypervisor) -> Result<()> {
        match self {
            Self::SameMac | Self::Follow => Ok(()),
            Self::OwnMac => hypervisor.sh("ip link set pf0 vf 0 trust on").map(drop),
            Self::Hostdev => {
                let script = format!("ip link set pf0 vf 0 mac {STANDBY}");
                hypervisor.sh(&script).map(drop)
            }
            Self::Network if hypervisor.virsh(&["net-list", "--name"])?.contains(NETWORK) => Ok(()),
            Self::Network => {
                let xml = format!(
                    "<network><name>{NETWORK}</name><forward mode='hostdev' managed='yes'><pf dev='pf0'/></forward>\
                     </network>"
                );
                let path = file(hypervisor.folder(), "network.xml", &xml)?;
                hypervisor.virsh(&["net-create", &path]).map(drop)
            }
        }
    }

    /// The device, as `--vf FILE` has it.
    ///
    /// # Errors
    /// The hypervisor has no VF.
    pub(super) fn device_xml(self, hypervisor: &Hypervisor) -> Result<String> {
        let mac = self.mac(hypervisor);
        let source = format!("<source>{}</source>", address(hypervisor.vf())?);
        let common = format!("<rom enabled='no'/><alias name='{VF_ALIAS}'/>");
        Ok(match self {
            Self::SameMac | Self::OwnMac | Self::Follow => format!(
                "<interface type='hostdev' managed='yes'><mac address='{mac}'/>{source}{common}</interface>"
            ),
            Self::Hostdev => format!(
                "<hostdev mode='subsystem' type='pci' managed='yes'>{source}{common}</hostdev>"
            ),
            Self::Network => format!(
                "<interface type='network'><mac address='{mac}'/><source network='{NETWORK}'/>{common}</interface>"
            ),
        })
    }

    fn bonds_xml(self) -> String {
        let (attributes, vfs) = match self {
            Self::SameMac | Self::Hostdev | Self::Network => ("", String::new()),
            Self::OwnMac => ("", format!("<vf mac='{}'/>", test_mac(3))),
            Self::Follow => ("mac='follow'", format!("<vf mac='{}'/>", test_mac(3))),
        };
        // A `<hostdev>` tells no MAC.
        let named = match self {
            Self::Hostdev => format!("mac='{STANDBY}' driver='igbvf'"),
            _ => String::new(),
        };
        format!(
            "<bonds xmlns='https://github.com/tandem-vf/tandem/xmlns/bonds/1'><bond name='{BOND}' {attributes}>\
             <standby mac='{STANDBY}'/><vf alias='{VF_ALIAS}' {named}/>{vfs}\
             <ip family='ipv4' address='{GUEST_V4}' prefix='24'/>\
             <ip family='ipv6' address='{GUEST_V6}' prefix='64'/>\
             <timing command-timeout-ms='{COMMAND_MS}'/></bond></bonds>"
        )
    }
}

/// A device of no bond that is passed through as a GPU is: the other VF.
pub(super) fn let_go_xml(hypervisor: &Hypervisor) -> Result<String> {
    let source = address(hypervisor.other_vf())?;
    Ok(format!(
        "<hostdev mode='subsystem' type='pci' managed='yes'><source>{source}</source><rom enabled='no'/>\
         <alias name='{LET_GO_ALIAS}'/></hostdev>"
    ))
}

/// The whole domain on a hypervisor, with its VF if it has one, and `more` devices. Its virtio NIC is vhost's, or it is refused.
pub(super) fn xml(form: Option<Form>, more: &str, hypervisor: &Hypervisor) -> Result<String> {
    let ports = "<controller type='pci' model='pcie-root-port'/>".repeat(ROOT_PORTS);
    let mut channels = String::new();
    for (socket, name) in [
        (Socket::Agent, PORT_NAME),
        (Socket::Channel, CHANNEL_PORT_NAME),
    ] {
        let path = hypervisor.guest_socket(socket);
        write!(
            channels,
            "<channel type='unix'><source mode='bind' path='{}'/><target type='virtio' name='{name}'/></channel>",
            path.display()
        )?;
    }
    Ok(format!(
        "<domain type='kvm'><name>{DOMAIN}</name><uuid>{UUID}</uuid><metadata>{bonds}</metadata><memory unit='MiB'>256</memory>
<vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type><kernel>{GUEST_KERNEL}</kernel>
<initrd>{GUEST_INITRAMFS}</initrd><cmdline>{KERNEL_PARAMETERS}</cmdline></os><features><acpi/></features>
<cpu mode='host-passthrough'/><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<controller type='pci' model='pcie-root'/>{ports}<controller type='usb' model='none'/>
<interface type='bridge'><mac address='{STANDBY}'/><source bridge='br0'/><model type='virtio'/><driver name='vhost'/>
<rom enabled='no'/></interface>
{vf}{more}<serial type='file'><source path='/tmp/console.log'/><target port='0'/></serial>{channels}
<memballoon model='none'/></devices></domain>",
        bonds = form.map(Form::bonds_xml).unwrap_or_default(),
        vf = match form {
            Some(form) => form.device_xml(hypervisor)?,
            None => String::new(),
        },
    ))
}

/// The domain as the other hypervisor is to have it: without its VF, and with sockets in that one's folder.
pub(super) fn for_other(live: &str, here: &Hypervisor, there: &Hypervisor) -> Result<String> {
    let folder = |one: &Hypervisor| format!("{}/", one.folder().display());
    let mut xml = live.to_owned();
    for alias in [VF_ALIAS, LET_GO_ALIAS] {
        if xml.contains(&format!("<alias name='{alias}'/>")) {
            xml = without(&xml, alias)?;
        }
    }
    Ok(xml.replace(&folder(here), &folder(there)))
}

fn without(xml: &str, alias: &str) -> Result<String> {
    let named = format!("<alias name='{alias}'/>");
    let at = xml
        .find(&named)
        .with_context(|| format!("the domain has no {alias}"))?;
    let element = |name: &str| {
        let begin = xml[..at].rfind(&format!("<{name} "))?;
        Some((begin, format!("</{name}>")))
    };
    let (begin, end_tag) = ["interface", "hostdev"]
        .into_iter()
        .filter_map(element)
        .max()
        .context("an alias of no device")?;
    let end = at
        + xml[at..]
            .find(&end_tag)
            .context("a device without an end")?;
    Ok(format!("{}{}", &xml[..begin], &xml[end + end_tag.len()..]))
}

/// `0000:01:10.0` as libvirt writes it.
fn address(pci: &str) -> Result<String> {
    let parts: Vec<&str> = pci.split([':', '.']).collect();
    let [domain, bus, slot, function] = parts[..] else {
        anyhow::bail!("{pci} is no PCI address");
    };
    Ok(format!(
        "<address type='pci' domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_vf_is_left_out() {
        for kind in ["interface type='hostdev'", "hostdev mode='subsystem'"] {
            let name = kind.split(' ').next().unwrap_or_default();
            let vf = format!("<{kind}><source/><alias name='{VF_ALIAS}'/><x/></{name}>");
            let xml =
                format!("<a/><interface type='bridge'><alias name='net0'/></interface>{vf}<b/>");
            let left = without(&xml, VF_ALIAS).unwrap();
            assert_eq!(
                left,
                "<a/><interface type='bridge'><alias name='net0'/></interface><b/>"
            );
        }
    }

    #[test]
    fn an_address_is_written_as_libvirt_does() {
        let written = address("0000:01:10.2").unwrap();
        assert_eq!(
            written,
            "<address type='pci' domain='0x0000' bus='0x01' slot='0x10' function='0x2'/>"
        );
        assert!(address("pf0").is_err());
    }
}
