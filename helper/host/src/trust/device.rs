//! Descriptions of devices that may be plugged in: a PCI function, a NIC from one of libvirt's networks, and
//! nothing with which the hypervisor runs a program or opens a file.

use roxmltree::Node;
use serde_json::{Map, Value};

use crate::qemu::read_device;
use crate::words::{printable, shortened};
use crate::xml::bonds::{MAX_BYTES, open};

/// Most nodes of a device's XML.
const MAX_NODES: u32 = 1_000;
/// Longest reason, in characters.
const SHOWN: usize = 200;

/// A device that is not plugged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this device is not plugged in: {0}; use <hostdev type='pci'>, <interface type='hostdev'> or \
     <interface type='network'>"
)]
pub struct DeviceError(String);

/// One element: its path, and the attributes it may have. What stands in no line has no place.
type Allowed = (&'static str, &'static [&'static str]);

const PCI: &[&str] = &["type", "domain", "bus", "slot", "function", "multifunction"];
const HOSTDEV: [Allowed; 9] = [
    ("hostdev", &["mode", "type", "managed"]),
    ("hostdev/source", &[]),
    ("hostdev/source/address", PCI),
    ("hostdev/driver", &["name"]),
    ("hostdev/alias", &["name"]),
    ("hostdev/address", PCI),
    ("hostdev/boot", &["order"]),
    ("hostdev/rom", &["enabled", "bar"]),
    ("hostdev/teaming", &["type", "persistent"]),
];
const INTERFACE: [Allowed; 17] = [
    ("interface", &["type", "managed"]),
    ("interface/mac", &["address", "type"]),
    (
        "interface/source",
        &["network", "portgroup", "portid", "bridge"],
    ),
    ("interface/source/address", PCI),
    ("interface/driver", &["name"]),
    ("interface/alias", &["name"]),
    ("interface/model", &["type"]),
    ("interface/address", PCI),
    ("interface/boot", &["order"]),
    ("interface/rom", &["enabled", "bar"]),
    ("interface/link", &["state"]),
    ("interface/mtu", &["size"]),
    ("interface/teaming", &["type", "persistent"]),
    ("interface/vlan", &["trunk"]),
    ("interface/vlan/tag", &["id", "nativeMode"]),
    ("interface/virtualport", &["type"]),
    (
        "interface/virtualport/parameters",
        &[
            "profileid",
            "interfaceid",
            "instanceid",
            "managerid",
            "typeid",
            "typeidversion",
        ],
    ),
];
/// Kinds of `<interface>`. A bridge is what stands in for a VF where there is none; it is taken from whoever
/// runs this program only, as all devices are.
const KINDS: [&str; 3] = ["hostdev", "network", "bridge"];
/// Ways of a plain QEMU's `netdev` to the host's network; `user` and `vhost-user`, say, run programs or open
/// any socket (`qapi/net.json`, QEMU 10.0).
const NETDEVS: [&str; 2] = ["tap", "vhost-vdpa"];
/// Keys of a `tap` or `device` that name a program or a file.
const PROGRAMS: [&str; 2] = ["script", "downscript"];
const FILES: [&str; 4] = ["helper", "br", "sysfsdev", "path"];

/// Refuses what is not known to be harmless: libvirt's XML, or a plain QEMU's JSON.
///
/// # Errors
/// If it is none of the devices above, or has an element, attribute or key that is not among theirs.
pub fn check_device(text: &str) -> Result<(), DeviceError> {
    let checked = if text.trim_start().starts_with('{') {
        check_json(text)
    } else {
        check_xml(text)
    };
    checked.map_err(|reason| DeviceError(shortened(&reason, SHOWN)))
}

fn check_xml(text: &str) -> Result<(), String> {
    let document = open(text, MAX_BYTES, MAX_NODES).map_err(|error| error.to_string())?;
    let root = document.root_element();
    let kind = root.attribute("type").unwrap_or_default();
    let (fits, lines): (bool, &[Allowed]) = match root.tag_name().name() {
        "hostdev" => {
            let mode = root.attribute("mode").unwrap_or("subsystem");
            (kind == "pci" && mode == "subsystem", &HOSTDEV)
        }
        "interface" => (KINDS.contains(&kind), &INTERFACE),
        _ => (false, &[]),
    };
    if !fits {
        let name = printable(root.tag_name().name());
        return Err(format!("<{name} type='{}'> is none", printable(kind)));
    }
    check_element(root, root.tag_name().name(), lines)
}

fn check_element(node: Node<'_, '_>, path: &str, lines: &[Allowed]) -> Result<(), String> {
    let known = lines.iter().find(|(known, _)| *known == path);
    let Some((_, attributes)) = known.filter(|_| node.tag_name().namespace().is_none()) else {
        return Err(format!("<{}> has no place in it", printable(path)));
    };
    for attribute in node.attributes() {
        if attribute.namespace().is_some() || !attributes.contains(&attribute.name()) {
            let (path, name) = (printable(path), printable(attribute.name()));
            return Err(format!("<{path}> has the attribute `{name}`"));
        }
    }
    for child in node.children() {
        if child.is_element() {
            let path = format!("{path}/{}", child.tag_name().name());
            check_element(child, &path, lines)?;
        } else if child.is_text() && !child.text().unwrap_or_default().trim().is_empty() {
            return Err(format!("<{}> has text in it", printable(path)));
        }
    }
    Ok(())
}

fn check_json(text: &str) -> Result<(), String> {
    if text.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    let device = read_device(text)?;
    check_keys(&device.device)?;
    let named = |map: &Map<String, Value>, key: &str| {
        map.get(key).is_some_and(|value| value.as_str() != Some(""))
    };
    if named(&device.device, "romfile") {
        return Err("`romfile` names a file".to_owned());
    }
    let Some(netdev) = &device.netdev else {
        return Ok(());
    };
    let kind = netdev.get("type").and_then(Value::as_str);
    if !kind.is_some_and(|kind| NETDEVS.contains(&kind)) {
        return Err(format!("its netdev is none of {}", NETDEVS.join(", ")));
    }
    check_keys(netdev)
}

fn check_keys(map: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in map {
        let key = key.as_str();
        let is_none = matches!(value.as_str(), Some("no" | ""));
        if FILES.contains(&key) || (PROGRAMS.contains(&key) && !is_none) {
            return Err(format!("`{key}` names a program or a file"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vfs_are_plugged_in() {
        for device in [
            "<hostdev mode='subsystem' type='pci' managed='yes'><driver name='vfio'/><source>\
             <address domain='0x0000' bus='0x03' slot='0x10' function='0x0'/></source>\
             <alias name='ua-vf'/></hostdev>",
            "<interface type='hostdev' managed='yes'>\n  <mac address='52:54:00:00:00:02'/>\n  <source>\
             <address type='pci' domain='0' bus='3' slot='16' function='0'/></source><vlan><tag id='42'/>\
             </vlan></interface>",
            "<interface type='network'><mac address='52:54:00:00:00:02'/><source network='vfs'/>\
             <!-- the pool --><alias name='ua-vf'/></interface>",
            "<interface type='bridge'><source bridge='br0'/><model type='igb'/><rom enabled='no'/></interface>",
            r#"{"driver": "vfio-pci", "id": "vf", "host": "0000:03:10.0", "bus": "port1"}"#,
            r#"{"netdev": {"type": "tap", "id": "n", "ifname": "t", "script": "no", "downscript": "no"},
                "device": {"driver": "igb", "id": "vf", "netdev": "n", "romfile": ""}}"#,
        ] {
            assert_eq!(check_device(device), Ok(()), "{device}");
        }
    }

    #[test]
    fn nothing_that_runs_a_program_or_opens_a_file_is_plugged_in() {
        let network = |inside: &str| format!("<interface type='network'>{inside}</interface>");
        for device in [
            "<interface type='ethernet'><script path='/tmp/p'/></interface>".to_owned(),
            "<interface type='user'><backend type='passt' logFile='/tmp/l'/></interface>".to_owned(),
            "<interface type='direct'><source dev='eth0' mode='passthrough'/></interface>".to_owned(),
            "<interface type='vhostuser'><source type='unix' path='/tmp/s' mode='server'/></interface>".to_owned(),
            "<interface/>".to_owned(),
            "<hostdev mode='subsystem' type='usb'><source/></hostdev>".to_owned(),
            "<hostdev mode='capabilities' type='pci'/>".to_owned(),
            "<disk type='file'><source file='/etc/shadow'/></disk>".to_owned(),
            "<x:interface xmlns:x='y' type='network'/>".to_owned(),
            network("<script path='/tmp/p'/>"),
            network("<backend tap='/dev/net/tun' vhost='/tmp/v'/>"),
            network("<source network='a' dev='eth0'/>"),
            network("<source network='a'><script path='/tmp/p'/></source>"),
            network("<target dev='x'/>"),
            network("<rom file='/etc/shadow'/>"),
            network("<driver name='vhost' x='y'/>"),
            network("words"),
            network("<script xmlns='x' path='/tmp/p'/>"),
            "<hostdev type='pci'><rom file='/etc/shadow'/></hostdev>".to_owned(),
            r#"{"driver": "vfio-pci", "id": "vf", "sysfsdev": "/sys/x"}"#.to_owned(),
            r#"{"driver": "igb", "id": "vf", "path": "/tmp/x"}"#.to_owned(),
            r#"{"driver": "igb", "id": "vf", "romfile": "/etc/shadow"}"#.to_owned(),
            r#"{"netdev": {"type": "tap", "id": "n", "script": "/tmp/p"}, "device": {"driver": "igb", "id": "v"}}"#.to_owned(),
            r#"{"netdev": {"type": "user", "id": "n", "guestfwd": []}, "device": {"driver": "igb", "id": "v"}}"#.to_owned(),
        ] {
            assert!(check_device(&device).is_err(), "{device}");
        }
        assert!(check_device(&network(&"<link/>".repeat(2_000))).is_err());
    }
}
