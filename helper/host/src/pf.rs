//! What a VF's PF says of it, on this host: its MAC, and whether it may choose another one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tandem_core::types::{Mac, PciAddress};
use tokio::process::Command;

/// How long `ip` may take; a driver that is busy has the kernel's lock for a moment.
const LIMIT: Duration = Duration::from_secs(5);
/// Layers between a standby's way out and its PF that are looked through: a bridge over a VLAN over a bond of it has three.
const MAX_LAYERS: usize = 4;
/// Interfaces that are looked at on the way: a bridge has one for each of its guests.
const MAX_INTERFACES: usize = 4_096;
/// Functions that a PF has at most (`PCI_SRIOV_TOTAL_VF` is 16 bits wide; no device comes near).
const MAX_VFS: u32 = 4_096;

/// A VF as its PF sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VfSetting {
    /// The PF's interface.
    pub pf: String,
    /// The VF's number there.
    pub number: u32,
    /// The MAC that the PF has for it; `None` if it has none, or does not say.
    pub mac: Option<Mac>,
    /// Whether it may choose another MAC; `None` if the driver does not say.
    pub trusted: Option<bool>,
}

/// Asks the PF of a VF of this host. `None` if it is no VF, its PF has no interface here, or it does not answer.
pub(crate) async fn vf_setting(vf: PciAddress) -> Option<VfSetting> {
    let (pf, number) = pf_of(Path::new("/sys/bus/pci/devices"), vf)?;
    let mut command = Command::new("ip");
    command
        .args(["-json", "link", "show", "dev", &pf])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let listing = output.ok()?.ok()?.stdout;
    let (mac, trusted) = of_listing(&listing, number)?;
    Some(VfSetting {
        pf,
        number,
        mac,
        trusted,
    })
}

/// That interface is the PF itself, or stands on it: a bridge with the PF as a port, a VLAN or a macvtap of it, a bond with
/// it, or several of these one over the other.
pub(crate) fn leads_to(interface: &str, pf: &str) -> bool {
    leads_to_in(Path::new("/sys/class/net"), interface, pf)
}

fn leads_to_in(net: &Path, interface: &str, pf: &str) -> bool {
    let mut layer = vec![interface.to_owned()];
    let mut seen = BTreeSet::from([interface.to_owned()]);
    for _ in 0..=MAX_LAYERS {
        if layer.iter().any(|name| name == pf) {
            return true;
        }
        let below = layer.iter().flat_map(|name| below(net, name));
        let new = below.filter(|name| seen.len() < MAX_INTERFACES && seen.insert(name.clone()));
        layer = new.collect();
    }
    false
}

/// What that interface stands on, by the links that the kernel makes (`netdev_adjacent_sysfs_add`, `net/core/dev.c`,
/// and `br_sysfs_addif`, `net/bridge/br_sysfs_if.c`, Linux 6.12).
fn below(net: &Path, interface: &str) -> Vec<String> {
    if interface.is_empty() || interface.contains('/') || interface.starts_with('.') {
        return Vec::new();
    }
    let names = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok())
    };
    let own = net.join(interface);
    let ports = names(own.join("brif"));
    let lower = names(own).filter_map(|name| name.strip_prefix("lower_").map(str::to_owned));
    ports.chain(lower).collect()
}

/// The interface of a VF's PF, and the VF's number there.
fn pf_of(devices: &Path, vf: PciAddress) -> Option<(String, u32)> {
    let physical = devices.join(vf.to_string()).join("physfn");
    let number = (0..MAX_VFS)
        .map(|number| (number, physical.join(format!("virtfn{number}"))))
        .map_while(|(number, link)| Some((number, fs::read_link(link).ok()?)))
        .find(|(_, target)| {
            target
                .file_name()
                .is_some_and(|name| *name == *vf.to_string())
        })?
        .0;
    let mut interfaces = fs::read_dir(physical.join("net")).ok()?;
    let name: PathBuf = interfaces.next()?.ok()?.file_name().into();
    Some((name.to_str()?.to_owned(), number))
}

/// MAC and trust of one VF in what `ip -json link show` prints.
fn of_listing(listing: &[u8], number: u32) -> Option<(Option<Mac>, Option<bool>)> {
    let listing: Value = serde_json::from_slice(listing).ok()?;
    let mut vfs = listing[0]["vfinfo_list"].as_array()?.iter();
    let vf = vfs.find(|vf| vf["vf"] == number)?;
    let mac: Option<Mac> = vf["address"].as_str().and_then(|mac| mac.parse().ok());
    Some((mac.filter(|mac| mac.is_unicast()), vf["trust"].as_bool()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VF: PciAddress = PciAddress {
        domain: 0,
        bus: 1,
        device: 0x10,
        function: 2,
    };

    #[test]
    fn a_vf_is_found_by_its_pf_s_links() {
        let top = tempfile::tempdir().unwrap();
        let (pf, vf) = (
            top.path().join("0000:01:00.0"),
            top.path().join(VF.to_string()),
        );
        fs::create_dir_all(pf.join("net/pf0")).unwrap();
        fs::create_dir_all(&vf).unwrap();
        for (number, function) in ["0000:01:10.0", "0000:01:10.2"].iter().enumerate() {
            let link = pf.join(format!("virtfn{number}"));
            std::os::unix::fs::symlink(format!("../{function}"), link).unwrap();
        }
        assert_eq!(pf_of(top.path(), VF), None, "no VF of any PF");
        std::os::unix::fs::symlink("../0000:01:00.0", vf.join("physfn")).unwrap();
        assert_eq!(pf_of(top.path(), VF), Some(("pf0".to_owned(), 1)));
    }

    #[test]
    fn a_pf_is_found_below_whatever_stands_on_it() {
        let net = tempfile::tempdir().unwrap();
        let over = |upper: &str, link: &str| {
            fs::create_dir_all(net.path().join(upper).join(link)).unwrap();
        };
        // Bridges over the PF, a VLAN of a bond of it, and a macvtap on a VLAN of it.
        over("br0", "brif/pf0");
        over("br0", "brif/vnet0");
        over("br1", "lower_bond0.7");
        over("bond0.7", "lower_bond0");
        over("bond0", "lower_pf0");
        over("macvtap0", "lower_pf0.9");
        over("pf0.9", "lower_pf0");
        over("br2", "brif/other");
        // No kernel has a circle.
        over("other", "lower_br2");
        over("pf0", "device");
        let leads = |interface: &str| leads_to_in(net.path(), interface, "pf0");
        for interface in ["pf0", "br0", "br1", "bond0", "macvtap0"] {
            assert!(leads(interface), "{interface}");
        }
        for interface in ["br2", "nope", "", "..", "../br0", "pf1"] {
            assert!(!leads(interface), "{interface}");
        }
    }

    #[test]
    fn what_ip_prints_is_understood() {
        // As iproute2 6.15 printed it for an igb.
        let listing = br#"[{"ifindex":3,"ifname":"pf0","vfinfo_list":[
            {"vf":0,"link_type":"ether","address":"02:7a:6e:00:01:02","broadcast":"ff:ff:ff:ff:ff:ff",
             "vlan_list":[{}],"rate":{},"spoofchk":true,"link-state":"auto","trust":true},
            {"vf":1,"address":"00:00:00:00:00:00","trust":false},{"vf":2}]}]"#;
        let mac: Mac = "02:7a:6e:00:01:02".parse().unwrap();
        let found = |number| of_listing(listing, number);
        assert_eq!(found(0), Some((Some(mac), Some(true))));
        assert_eq!(found(1), Some((None, Some(false))));
        assert_eq!(found(2), Some((None, None)));
        assert_eq!(found(3), None);
        assert_eq!(of_listing(b"Device \"pf0\" does not exist.", 0), None);
    }
}
