//! What udev is told of an interface, so that other network managers keep off it.
//!
//! `tandem udev NAME` is called by `udev-rules/10-tandem-unmanaged.rules` for each event of a NIC or bond and
//! prints udev properties; `tandem udev --refresh` has udev look again at interfaces whose properties no
//! longer fit the configuration.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::{AddressingPolicy, BondPolicy, Ownership, Policy};
use tandem_core::{IfName, Role, role_of};

use crate::config::{self, HOST_POLICY_PATH};
use crate::observe::once;
use crate::runtime::read_bounded;

/// udev's database: a file for each device it has handled (systemd, `sd-device`, 257).
const UDEV_DATABASE: &str = "/run/udev/data";
/// Largest entry of udev's database that is looked at, in bytes.
const MAX_ENTRY_BYTES: u64 = 1024 * 1024;
/// NetworkManager's own folder; there while it runs.
const NETWORK_MANAGER: &str = "/run/NetworkManager";
/// All property names begin so.
const PREFIX: &str = "TANDEM_";

/// What an interface is to Tandem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    bond: IfName,
    role: &'static str,
    unmanaged: bool,
}

impl Mark {
    /// The mark of a link; `None` if the policy does not speak of it.
    ///
    /// Ports belong to Tandem. A bond that another manager made keeps its manager, and so does its standby,
    /// which that manager may have put there; its VF has to be kept from being configured on its own.
    pub fn of(link: &Link, policy: &Policy) -> Option<Self> {
        let mark = |bond: &BondPolicy, role, unmanaged| Self {
            bond: bond.name.clone(),
            role,
            unmanaged,
        };
        if link.kind == LinkKind::Bond {
            let bond = policy.bonds.iter().find(|bond| bond.name == link.name)?;
            let configured_here = bond.addressing != AddressingPolicy::None;
            return Some(mark(
                bond,
                "bond",
                bond.ownership == Ownership::Create && configured_here,
            ));
        }
        let (bond, role) = role_of(link, policy)?;
        Some(match role {
            Role::Standby => mark(bond, "standby", bond.ownership == Ownership::Create),
            Role::Vf(_) => mark(bond, "vf", true),
        })
    }

    /// The properties, as udev's `IMPORT{program}` reads them.
    pub fn properties(&self) -> Vec<String> {
        vec![
            format!("{PREFIX}BOND={}", self.bond),
            format!("{PREFIX}ROLE={}", self.role),
            unmanaged_property(self.unmanaged),
        ]
    }
}

fn unmanaged_property(unmanaged: bool) -> String {
    format!("{PREFIX}UNMANAGED={}", u8::from(unmanaged))
}

/// The properties of the interface of this name; none if it is gone or not Tandem's.
///
/// # Errors
/// The configuration is wrong, or the kernel does not answer.
pub fn properties(name: &IfName, config: &Path) -> Result<Vec<String>> {
    let policy = policy(config)?;
    if policy.bonds.is_empty() {
        return Ok(Vec::new());
    }
    let link = once::link_named(name)?;
    let mark = link.and_then(|link| Mark::of(&link, &policy));
    Ok(mark.map(|mark| mark.properties()).unwrap_or_default())
}

/// Announces each interface anew whose properties are not what the configuration asks for, and says what it
/// did. An interface that udev has not handled yet is left to its first event.
///
/// NetworkManager reads `NM_UNMANAGED` only when it meets a device (1.52), so it is told of those it has
/// already: it would take a VF out of the bond to try its own connection again.
///
/// # Errors
/// The configuration is wrong, the kernel does not answer, or sysfs can't be written.
pub fn refresh(config: &Path) -> Result<Vec<String>> {
    let policy = policy(config)?;
    let mut done = Vec::new();
    for link in once::links()? {
        if link.kind == LinkKind::Software {
            continue;
        }
        let entry = Path::new(UDEV_DATABASE).join(format!("n{}", link.ifindex));
        let Some(present) = present_properties(&entry) else {
            continue;
        };
        let mark = Mark::of(&link, &policy);
        let wanted: BTreeSet<String> = mark.iter().flat_map(Mark::properties).collect();
        if present == wanted {
            continue;
        }
        let path = PathBuf::from("/sys/class/net")
            .join(link.name.as_str())
            .join("uevent");
        fs::write(&path, "change")
            .with_context(|| format!("can't write {}; this needs root", path.display()))?;
        done.push(format!("announced {} anew", link.name));
        let unmanaged = mark.is_some_and(|mark| mark.unmanaged);
        if unmanaged != present.contains(&unmanaged_property(true)) {
            done.extend(tell_network_manager(&link.name, !unmanaged));
        }
    }
    Ok(done)
}

/// Has NetworkManager, if it runs, take or let go of an interface. Letting go, it leaves addresses and bonds as
/// they are (1.52).
fn tell_network_manager(name: &IfName, managed: bool) -> Option<String> {
    if !Path::new(NETWORK_MANAGER).exists() {
        return None;
    }
    let managed = if managed { "yes" } else { "no" };
    let told = Command::new("nmcli")
        .args(["--wait", "5", "device", "set"])
        .args([name.as_str(), "managed", managed])
        .stdin(Stdio::null())
        .output();
    Some(match told {
        Ok(output) if output.status.success() => {
            format!("told NetworkManager: {name} managed {managed}")
        }
        Ok(output) => format!(
            "NetworkManager does not set {name} to managed {managed}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => {
            format!("can't tell NetworkManager, {name} managed {managed}: nmcli: {error}")
        }
    })
}

/// What the service would use: the files' bonds, else those of the host if it may provide any.
fn policy(config: &Path) -> Result<Policy> {
    let config = config::load(config)?;
    if !config.policy.bonds.is_empty() || !config.accept_host_config {
        return Ok(config.policy);
    }
    Ok(config::load_host_policy(HOST_POLICY_PATH.as_ref())?.unwrap_or_default())
}

/// Tandem's properties in an entry of udev's database; `None` if there is no entry.
fn present_properties(entry: &Path) -> Option<BTreeSet<String>> {
    let text = String::from_utf8(read_bounded(entry, MAX_ENTRY_BYTES).ok()??).ok()?;
    let properties = text.lines().filter_map(|line| line.strip_prefix("E:"));
    Some(
        properties
            .filter(|property| property.starts_with(PREFIX))
            .map(str::to_owned)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::types::Ifindex;

    fn link(name: &str, kind: LinkKind, mac: &str) -> Link {
        Link {
            ifindex: Ifindex(2),
            name: name.parse().unwrap(),
            kind,
            mac: Some(mac.parse().unwrap()),
            permanent_mac: (kind == LinkKind::Physical).then(|| mac.parse().unwrap()),
            pci: None,
            pci_parent: None,
            driver: None,
            mtu: 1500,
            max_mtu: 0,
            admin_up: false,
            carrier: false,
            controller: None,
            bond: None,
            port: None,
        }
    }

    fn policy_of(lines: &str) -> Policy {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tandem.toml");
        let text = format!(
            "[[bond]]\nname = \"bond0\"\nstandby = {{ mac = \"52:54:00:00:00:01\" }}\n\
             vfs = [{{ mac = \"52:54:00:00:00:02\" }}]\n{lines}\n"
        );
        fs::write(&path, text).unwrap();
        policy(&path).unwrap()
    }

    fn unmanaged(lines: &str) -> [Option<bool>; 4] {
        let policy = policy_of(lines);
        [
            link("eth0", LinkKind::Physical, "52:54:00:00:00:01"),
            link("eth1", LinkKind::Physical, "52:54:00:00:00:02"),
            link("bond0", LinkKind::Bond, "52:54:00:00:00:01"),
            link("eth2", LinkKind::Physical, "52:54:00:00:00:03"),
        ]
        .map(|link| Mark::of(&link, &policy).map(|mark| mark.unmanaged))
    }

    #[test]
    fn ports_are_unmanaged_and_the_bond_where_tandem_configures_it() {
        assert_eq!(unmanaged(""), [Some(true), Some(true), Some(true), None]);
        assert_eq!(
            unmanaged("addressing = \"none\""),
            [Some(true), Some(true), Some(false), None]
        );
        assert_eq!(
            unmanaged("ownership = \"adopt\""),
            [Some(false), Some(true), Some(false), None]
        );
    }

    #[test]
    fn upper_devices_of_a_port_are_not_marked() {
        let vlan = link("eth0.5", LinkKind::Software, "52:54:00:00:00:01");
        assert_eq!(Mark::of(&vlan, &policy_of("")), None);
        let other_bond = link("bond1", LinkKind::Bond, "52:54:00:00:00:01");
        assert_eq!(Mark::of(&other_bond, &policy_of("")), None);
    }

    #[test]
    fn properties_go_to_udev_and_come_back_from_its_database() {
        let eth0 = link("eth0", LinkKind::Physical, "52:54:00:00:00:01");
        let written = Mark::of(&eth0, &policy_of("")).unwrap().properties();
        assert_eq!(
            written,
            [
                "TANDEM_BOND=bond0",
                "TANDEM_ROLE=standby",
                "TANDEM_UNMANAGED=1"
            ]
        );

        let folder = tempfile::tempdir().unwrap();
        let entry = folder.path().join("n2");
        assert_eq!(present_properties(&entry), None);
        let lines: Vec<_> = written
            .iter()
            .map(|property| format!("E:{property}\n"))
            .collect();
        fs::write(
            &entry,
            format!("I:123\nE:ID_BUS=pci\n{}V:1\n", lines.concat()),
        )
        .unwrap();
        assert_eq!(
            present_properties(&entry),
            Some(written.into_iter().collect())
        );
    }

    #[test]
    fn a_wrong_configuration_is_an_error_and_not_an_empty_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tandem.toml");
        fs::write(&path, "bonds = 1").unwrap();
        assert!(properties(&"lo".parse().unwrap(), &path).is_err());
        fs::write(&path, "").unwrap();
        assert!(
            properties(&"lo".parse().unwrap(), &path)
                .unwrap()
                .is_empty()
        );
    }
}
