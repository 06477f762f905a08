//! Reads libvirt's domain XML: devices, the agent channel, and Tandem's metadata.

use std::path::PathBuf;

use roxmltree::Node;
use tandem_core::types::PciAddress;

use super::bonds::{self, Document};
use super::error::XmlError;
use super::node::{attribute_of, child, text_of};
use super::types::{BONDS_NAMESPACE, CLAIM_NAMESPACE, PROGRESS_NAMESPACE};
use super::unmigratable;
use crate::hypervisor::domain::{Claim, FileDisk, Nic, NicKind, Unmigratable, VolumeDisk};

/// Longest domain XML in bytes; a domain of a thousand devices has half of it.
pub const MAX_BYTES: usize = 1 << 20;
/// Most nodes of a domain XML, comments and white space counted.
const MAX_NODES: u32 = 100_000;

/// What a domain's XML says that concerns Tandem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainXml {
    /// libvirt's number of the running domain; another one at each start.
    pub id: Option<u32>,
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Network devices, then host devices.
    pub nics: Vec<Nic>,
    /// Disks that are files, and that it may write to.
    pub disks: Vec<FileDisk>,
    /// The same of those that are volumes of a pool.
    pub volumes: Vec<VolumeDisk>,
    /// What the hypervisor would refuse to migrate.
    pub unmigratable: Vec<Unmigratable>,
    /// The channel to Tandem in the guest.
    pub channel: Option<ChannelXml>,
    /// `<bonds>`, or what is wrong with it.
    pub bonds: Option<Result<Document, XmlError>>,
    /// The text of `<progress>`.
    pub progress: Option<String>,
    /// Each `<claim>`.
    pub claims: Vec<Claim>,
}

/// `<channel>`, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelXml {
    /// Its unix socket, if it has one.
    pub path: Option<PathBuf>,
    /// The hypervisor makes the socket, and does not connect to one that is there. libvirt prints the
    /// mode of each socket; without one in a definition it connects
    /// (`virDomainChrSourceDefParseUnix`, `src/conf/domain_conf.c`, libvirt 11.3).
    pub listens: bool,
    /// Whether the guest has opened its end; `None` if the hypervisor does not say.
    pub opened: Option<bool>,
}

impl DomainXml {
    /// Reads a domain's XML as `virsh dumpxml` prints it.
    ///
    /// # Errors
    /// If it is not a domain's XML. A fault inside `<bonds>` is told there.
    pub fn parse(text: &str) -> Result<Self, XmlError> {
        let document = open(text)?;
        let root = document.root_element();
        if !root.has_tag_name("domain") {
            return Err(XmlError {
                place: document.text_pos_at(root.range().start).into(),
                element: "the document".to_owned(),
                problem: "it is not the XML of a domain; its root must be <domain>".to_owned(),
            });
        }
        let inside = |name| child(root, name);
        let metadata = |namespace: &str, name: &str| {
            let entries = inside("metadata")?;
            entries
                .children()
                .find(|node| node.has_tag_name((namespace, name)))
        };
        let claims = inside("metadata").into_iter();
        let claims = claims.flat_map(|entries| entries.children());
        let devices = inside("devices");
        let devices = || devices.into_iter().flat_map(|node| node.children());
        let interfaces = devices().filter_map(|node| interface(text, node));
        let hostdevs = devices().filter_map(|node| hostdev(text, node));
        Ok(Self {
            id: root.attribute("id").and_then(|id| id.parse().ok()),
            // Blanks at its ends are part of a name.
            name: text_of(root, "name").to_owned(),
            uuid: text_of(root, "uuid").trim().to_owned(),
            nics: interfaces.chain(hostdevs).collect(),
            disks: devices().filter_map(disk).collect(),
            volumes: devices().filter_map(volume).collect(),
            unmigratable: unmigratable::all(root),
            channel: devices().find_map(channel),
            bonds: metadata(BONDS_NAMESPACE, "bonds").map(Document::read),
            progress: metadata(PROGRESS_NAMESPACE, "progress")
                .map(|node| node.text().unwrap_or_default().to_owned()),
            claims: claims.filter_map(claim).take(Claim::MOST).collect(),
        })
    }
}

fn claim(node: Node<'_, '_>) -> Option<Claim> {
    let name = node.tag_name();
    let token = name.namespace()?.strip_prefix(CLAIM_NAMESPACE)?;
    let text = node.text().unwrap_or_default();
    (name.name() == "claim" && Claim::is_token(token)).then(|| Claim {
        token: token.to_owned(),
        text: text.to_owned(),
    })
}

/// A text as XML, within the bounds of a domain's.
pub(crate) fn open(text: &str) -> Result<roxmltree::Document<'_>, XmlError> {
    bonds::open(text, MAX_BYTES, MAX_NODES)
}

/// What an `<interface>` of the host's network hangs on: its bridge, or the interface below a macvtap.
pub(crate) fn uplink_of(text: &str) -> Option<String> {
    let document = bonds::open(text, bonds::MAX_BYTES, 10_000).ok()?;
    let root = document.root_element();
    let named = ["bridge", "dev"].map(|key| attribute_of(root, "source", key));
    named.into_iter().find(|name| !name.is_empty())
}

/// What a device is, for people: `<hostdev>` of the type `usb`, say.
pub(crate) fn kind_of(text: &str) -> Option<String> {
    let document = bonds::open(text, MAX_BYTES, MAX_NODES).ok()?;
    let root = document.root_element();
    let kind = root.attribute("type").or(root.attribute("mode"))?;
    Some(format!("<{} type='{kind}'>", root.tag_name().name()))
}

/// The hypervisor itself takes the device away for a migration and plugs in another one, as it does for one
/// side of QEMU's own failover (`<teaming type='transient'>`).
pub(crate) fn is_transient(text: &str) -> bool {
    let document = bonds::open(text, MAX_BYTES, MAX_NODES);
    document.is_ok_and(|document| {
        attribute_of(document.root_element(), "teaming", "type") == "transient"
    })
}

/// The hypervisor shows the guest a virtio NIC.
pub(crate) fn is_virtio(text: &str) -> bool {
    let document = bonds::open(text, MAX_BYTES, MAX_NODES);
    document.is_ok_and(|document| {
        attribute_of(document.root_element(), "model", "type").starts_with("virtio")
    })
}

/// libvirt lets a USB device stay for a migration; the guest then sees it unplugged
/// (`qemuMigrationSrcIsAllowedHostdev`, `src/qemu/qemu_migration.c`).
pub(crate) fn is_usb(text: &str) -> bool {
    let document = bonds::open(text, MAX_BYTES, MAX_NODES);
    document.is_ok_and(|document| {
        let root = document.root_element();
        root.has_tag_name("hostdev") && root.attribute("type") == Some("usb")
    })
}

pub(super) fn interface(text: &str, node: Node<'_, '_>) -> Option<Nic> {
    if !node.has_tag_name("interface") {
        return None;
    }
    let pci_source = child(node, "source").and_then(pci_address);
    let passed_through = pci_source.is_some() || node.attribute("type") == Some("hostdev");
    Some(Nic {
        alias: attribute_of(node, "alias", "name"),
        mac: attribute_of(node, "mac", "address").parse().ok(),
        kind: if passed_through {
            NicKind::HostdevInterface
        } else {
            NicKind::Interface
        },
        pci_source,
        xml: source_text(text, node),
    })
}

fn is_written_disk(node: Node<'_, '_>) -> bool {
    node.has_tag_name("disk") && child(node, "readonly").is_none()
}

fn disk(node: Node<'_, '_>) -> Option<FileDisk> {
    let path = attribute_of(node, "source", "file");
    (is_written_disk(node) && !path.is_empty()).then(|| FileDisk {
        target: attribute_of(node, "target", "dev"),
        path: path.into(),
    })
}

fn volume(node: Node<'_, '_>) -> Option<VolumeDisk> {
    let [pool, volume] = ["pool", "volume"].map(|key| attribute_of(node, "source", key));
    (is_written_disk(node) && !pool.is_empty() && !volume.is_empty()).then(|| VolumeDisk {
        target: attribute_of(node, "target", "dev"),
        pool,
        volume,
    })
}

pub(super) fn hostdev(text: &str, node: Node<'_, '_>) -> Option<Nic> {
    if !node.has_tag_name("hostdev") {
        return None;
    }
    let is_pci = node.attribute("type") == Some("pci");
    let pci_source = child(node, "source").and_then(pci_address);
    Some(Nic {
        alias: attribute_of(node, "alias", "name"),
        mac: None,
        kind: if is_pci {
            NicKind::Hostdev
        } else {
            NicKind::OtherHostdev
        },
        pci_source: pci_source.filter(|_| is_pci),
        xml: source_text(text, node),
    })
}

fn channel(node: Node<'_, '_>) -> Option<ChannelXml> {
    let target = child(node, "target").filter(|_| node.has_tag_name("channel"))?;
    if target.attribute("name") != Some(tandem_wire::PORT_NAME) {
        return None;
    }
    let path = attribute_of(node, "source", "path");
    Some(ChannelXml {
        path: (node.attribute("type") == Some("unix") && !path.is_empty()).then(|| path.into()),
        listens: attribute_of(node, "source", "mode") == "bind",
        opened: match target.attribute("state") {
            Some("connected") => Some(true),
            Some("disconnected") => Some(false),
            _ => None,
        },
    })
}

/// `<address type='pci' domain='0x0000' bus='0x02' slot='0x10' function='0x0'/>` inside.
fn pci_address(node: Node<'_, '_>) -> Option<PciAddress> {
    let address = child(node, "address")?;
    // `<hostdev>` leaves the type out.
    if !matches!(address.attribute("type"), None | Some("pci")) {
        return None;
    }
    let number = |name| {
        let text = address.attribute(name)?;
        match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        }
    };
    Some(PciAddress {
        domain: number("domain").unwrap_or(0),
        bus: number("bus")?.try_into().ok()?,
        device: number("slot")?.try_into().ok().filter(|slot| *slot < 32)?,
        function: number("function")?
            .try_into()
            .ok()
            .filter(|function| *function < 8)?,
    })
}

fn source_text(text: &str, node: Node<'_, '_>) -> String {
    text.get(node.range()).unwrap_or_default().to_owned()
}
