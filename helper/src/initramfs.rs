//! What an initramfs is told of the NICs: the program and its configuration are not in there, so rules of udev that
//! stand for the configuration as it is when the initramfs is made (`tandem udev --initramfs`).
//!
//! A network that is asked for there (`rd.neednet=1 ip=dhcp`) is then configured on the standby, which hands it to
//! the bond later, and on no VF.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use tandem_core::policy::{Policy, PortMatch};

use crate::config;
use crate::udev_marks::effective;

/// First: what decides who manages a NIC reads it in the same event.
const HEAD: &str = "\
# Made by `tandem udev --initramfs`: no network manager of the initramfs configures a VF.
SUBSYSTEM!=\"net\", GOTO=\"tandem_initramfs_end\"
ACTION==\"remove\", GOTO=\"tandem_initramfs_end\"
DEVPATH==\"/devices/virtual/*\", GOTO=\"tandem_initramfs_end\"
";
const END: &str = "\
ENV{TANDEM_ROLE}==\"vf\", ENV{TANDEM_UNMANAGED}=\"1\", ENV{ID_NET_MANAGED_BY}=\"tandem\", ENV{NM_UNMANAGED}=\"1\"
LABEL=\"tandem_initramfs_end\"
";

/// The rules for the bonds that are configured now; nothing without one.
///
/// # Errors
/// The configuration is wrong.
pub fn rules(config: &Path) -> Result<Vec<String>> {
    let policy = effective(&config::load(config)?)?;
    Ok(text(&policy).lines().map(str::to_owned).collect())
}

/// Of the entries that fit a NIC the most exact one counts, the standby's before a VF's, the first before a later one:
/// here the last rule that fits.
fn text(policy: &Policy) -> String {
    let mut entries = Vec::new();
    for bond in &policy.bonds {
        entries.push((&bond.standby, "standby", true));
        entries.extend(bond.vfs.iter().map(|vf| (vf, "vf", false)));
    }
    entries.retain(|(port, ..)| port.driver.as_deref().is_none_or(is_plain));
    entries.reverse();
    entries.sort_by_key(|(port, _, is_standby)| (conditions(port).len(), *is_standby));
    let mut text = String::new();
    for (port, role, _) in entries {
        let fits = conditions(port).join(", ");
        let _ = writeln!(text, "{fits}, ENV{{TANDEM_ROLE}}=\"{role}\"");
    }
    match text.is_empty() {
        true => text,
        false => format!("{HEAD}{text}{END}"),
    }
}

/// It means nothing but itself to udev. The host may have written it.
fn is_plain(driver: &str) -> bool {
    let mut chars = driver.chars();
    chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// No bond has been there yet: a NIC's present MAC is its permanent one.
fn conditions(port: &PortMatch) -> Vec<String> {
    let mac = port.mac.map(|mac| format!("ATTR{{address}}==\"{mac}\""));
    let pci = port.pci.map(|pci| format!("DEVPATH==\"*/{pci}/*\""));
    let driver = port.driver.as_ref();
    let driver = driver.map(|driver| format!("DRIVERS==\"{driver}\""));
    [mac, pci, driver].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy_of(lines: &str) -> Policy {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tandem.toml");
        std::fs::write(&path, lines).unwrap();
        config::load(&path).unwrap().policy
    }

    #[test]
    fn the_most_exact_entry_has_the_last_word() {
        let text = text(&policy_of(
            "[[bond]]\nname = \"bond0\"\nstandby = { mac = \"52:54:00:00:00:01\", driver = \"virtio_net\" }\n\
             vfs = [{ mac = \"52:54:00:00:00:01\" }, { pci = \"0000:07:00.0\", driver = \"igbvf\" }]\n",
        ));
        let roles: Vec<_> = text
            .lines()
            .filter(|line| line.contains("}=\"vf\"") || line.contains("}=\"standby\""))
            .collect();
        assert_eq!(
            roles,
            [
                "ATTR{address}==\"52:54:00:00:00:01\", ENV{TANDEM_ROLE}=\"vf\"",
                "DEVPATH==\"*/0000:07:00.0/*\", DRIVERS==\"igbvf\", ENV{TANDEM_ROLE}=\"vf\"",
                "ATTR{address}==\"52:54:00:00:00:01\", DRIVERS==\"virtio_net\", ENV{TANDEM_ROLE}=\"standby\"",
            ]
        );
    }

    #[test]
    fn a_drivers_name_is_no_rule() {
        let text = text(&policy_of(
            "[[bond]]\nname = \"bond0\"\nstandby = { mac = \"52:54:00:00:00:01\" }\n\
             vfs = [{ driver = 'x\",RUN+=\"/bin/sh' }, { driver = \"*\" }]\n",
        ));
        assert!(!text.contains("RUN") && !text.contains("DRIVERS"), "{text}");
    }

    #[test]
    fn without_a_bond_there_is_nothing_to_tell() {
        assert_eq!(text(&Policy::default()), "");
    }
}
