//! Reads and completes the description of one device, as it is given to attach it.

use roxmltree::{Document, Node};
use tandem_core::types::Mac;

use super::bonds;
use super::domain::{hostdev, interface};
use super::error::XmlError;
use super::node::attribute_of;
use crate::hypervisor::domain::{Nic, NicKind};

/// Most nodes of a device's XML, comments and white space counted.
const MAX_NODES: u32 = 10_000;

/// Why a description is none of a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// libvirt's.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// A plain QEMU's.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

fn open(text: &str) -> Result<Document<'_>, XmlError> {
    bonds::open(text, bonds::MAX_BYTES, MAX_NODES)
}

/// Reads the description of one device: libvirt's XML, or a plain QEMU's JSON.
///
/// # Errors
/// If it is neither.
pub fn read_device(text: &str) -> Result<Nic, DeviceError> {
    if text.trim_start().starts_with('{') {
        return Ok(nic_of_json(text)?);
    }
    Ok(parse_device(text)?)
}

/// Reads the XML of one device.
///
/// # Errors
/// If it is neither `<interface>` nor a PCI `<hostdev>`.
pub fn parse_device(text: &str) -> Result<Nic, XmlError> {
    let document = open(text)?;
    let root = document.root_element();
    let nic = interface(text, root).or_else(|| hostdev(text, root));
    let nic = nic.filter(|nic| nic.kind != NicKind::OtherHostdev);
    nic.ok_or_else(|| XmlError {
        place: document.text_pos_at(root.range().start).into(),
        element: "the document".to_owned(),
        problem: "it is no NIC; its root must be <interface>, or <hostdev type='pci'>".to_owned(),
    })
}

/// What `device_add` would make of it, as far as it is of use to recognise the device.
fn nic_of_json(text: &str) -> Result<Nic, serde_json::Error> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    let device = value.get("device").filter(|one| one.is_object());
    let device = device.unwrap_or(&value);
    let word = |key: &str| device.get(key).and_then(serde_json::Value::as_str);
    let pci_source = word("host").and_then(|text| text.parse().ok());
    Ok(Nic {
        alias: word("id").unwrap_or_default().to_owned(),
        mac: word("mac").and_then(|text| text.parse().ok()),
        kind: if pci_source.is_some() {
            NicKind::Hostdev
        } else {
            NicKind::Interface
        },
        pci_source,
        xml: text.to_owned(),
    })
}

/// The libvirt network that a NIC's XML names, if it is of one.
pub(crate) fn network_of(text: &str) -> Option<String> {
    let document = open(text).ok()?;
    let root = document.root_element();
    let is_of_network = root.has_tag_name("interface") && root.attribute("type") == Some("network");
    let network = attribute_of(root, "source", "network");
    (is_of_network && !network.is_empty()).then_some(network)
}

/// An `<interface>` that names no MAC, with this one: a hypervisor would make up one that no guest knows. `None` if it
/// is no `<interface>`, or has one.
pub(crate) fn with_mac(text: &str, mac: Mac) -> Option<String> {
    let document = open(text).ok()?;
    let root = document.root_element();
    let lacks = root.has_tag_name("interface") && attribute_of(root, "mac", "address").is_empty();
    if !lacks {
        return None;
    }
    with_child(text, root, "mac", &format!("<mac address='{mac}'/>"))
}

/// An `<interface>` that neither an alias of the user's nor a host's function tells from others, with this alias: two of
/// them with one MAC would be plugged in. `None` if it is none.
pub(crate) fn with_alias(text: &str, alias: &str) -> Option<String> {
    let document = open(text).ok()?;
    let root = document.root_element();
    let nic = interface(text, root)?;
    if nic.alias.starts_with("ua-") || nic.pci_source.is_some() {
        return None;
    }
    with_child(text, root, "alias", &format!("<alias name='{alias}'/>"))
}

/// The element with this child in place of one of that name. `None` where it has no room for children.
fn with_child(text: &str, root: Node<'_, '_>, name: &str, child: &str) -> Option<String> {
    let first = root.first_child()?.range().start;
    let old = root.children().find(|node| node.has_tag_name(name));
    let place = old.map_or(first..first, |old| old.range());
    let (before, after) = (text.get(..place.start)?, text.get(place.end..)?);
    Some(format!("{before}{child}{after}"))
}

/// Children that say where an `<interface>` comes from; all others say what it is in the guest.
const ORIGIN: [&str; 2] = ["source", "driver"];

/// An `<interface>` as it is now, which comes from the network of the one that is configured: what it is in the guest, such
/// as its address there, stays. `None` if that names no network.
pub(crate) fn from_its_network(now: &str, configured: &str) -> Option<String> {
    network_of(configured)?;
    let (there, here) = (open(configured).ok()?, open(now).ok()?);
    let (there, here) = (there.root_element(), here.root_element());
    let tag = configured.get(there.range().start..there.first_child()?.range().start)?;
    let comes = parts(configured, there, |name| ORIGIN.contains(&name))?;
    let stays = parts(now, here, |name| !ORIGIN.contains(&name))?;
    Some(format!("{tag}{comes}{stays}</interface>"))
}

/// The elements in it whose names fit, as they are written.
fn parts(text: &str, root: Node<'_, '_>, fits: impl Fn(&str) -> bool) -> Option<String> {
    let elements = root.children().filter(Node::is_element);
    let elements = elements.filter(|node| fits(node.tag_name().name()));
    elements.map(|node| text.get(node.range())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_it_comes_from_is_as_it_is_configured() {
        let now = "<interface type='hostdev' managed='yes'>\n  <mac address='52:54:00:00:00:02'/>\n  <driver \
                   name='vfio'/><source>\n<address type='pci' domain='0' bus='1' slot='2' function='1'/></source>\
                   <vlan><tag id='7'/></vlan><alias name='ua-vf'/><address type='pci' domain='0' bus='9' slot='0' \
                   function='0'/></interface>";
        let configured = "<interface type='network'><mac address='52:54:00:00:00:02'/><source network='vfs'/>\
                          <alias name='ua-vf'/><address type='pci' domain='0' bus='5' slot='0' function='0'/>\
                          </interface>";
        let expected = "<interface type='network'><source network='vfs'/><mac address='52:54:00:00:00:02'/><vlan>\
                        <tag id='7'/></vlan><alias name='ua-vf'/><address type='pci' domain='0' bus='9' slot='0' \
                        function='0'/></interface>";
        assert_eq!(from_its_network(now, configured).as_deref(), Some(expected));
        assert_eq!(from_its_network(configured, now), None);
        assert_eq!(from_its_network(now, "<interface type='network'/>"), None);
    }
}
