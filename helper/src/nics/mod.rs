//! Whether the NICs of a bond may be taken from their network manager: only where the service can do its work.
//!
//! A NIC that is marked and that nobody takes care of is a guest without a network. So [`Readiness`] looks
//! before each mark, [`crate::nic_watch`] gives NICs back that were marked for nothing, and a bond that has a port keeps
//! its NICs whatever else is wrong: nobody may tear it while the service is away.

mod bonding;
mod obstacle;
pub(crate) mod sysctls;
#[cfg(test)]
pub(crate) mod testing;
mod unit;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use tandem_core::IfName;
use tandem_core::policy::{BondPolicy, Ownership};

pub(crate) use bonding::lack as bonding_lack;
pub use obstacle::{Obstacle, UNIT, USER};
pub use unit::UnitState;

use crate::config::{Config, ConfigError};
use crate::runtime;
use crate::system_files::SystemFiles;

/// Bonds whose NICs were given back. In a folder of root's: user `tandem` must not decide this.
pub const GIVEN_BACK_PATH: &str = "/run/tandem-nics/given-back.json";

/// Bonds whose NICs were given back, and why.
pub type GivenBack = BTreeMap<IfName, String>;

/// Reads what was given back; nothing was if the file can't be read.
pub fn given_back(files: &SystemFiles) -> GivenBack {
    let bonds = runtime::load(&files.path(GIVEN_BACK_PATH));
    bonds.ok().flatten().unwrap_or_default()
}

/// Remembers what was given back until the next boot.
///
/// # Errors
/// The folder can't be made, or the file not written: this needs root.
pub(crate) fn remember(bonds: &GivenBack) -> Result<()> {
    let path = Path::new(GIVEN_BACK_PATH);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    runtime::store(path, bonds)
}

/// The ports that a bond has in the kernel (`slaves`, Documentation/networking/bonding.rst, 6.12).
pub(crate) fn ports(files: &SystemFiles, bond: &IfName) -> Vec<String> {
    let list = files.text(&format!("/sys/class/net/{bond}/bonding/slaves"));
    list.split_whitespace().map(str::to_owned).collect()
}

/// The bond is one of another mode (`mode`, Documentation/networking/bonding.rst, 6.12), which the service leaves alone.
pub(crate) fn is_of_another_mode(files: &SystemFiles, bond: &IfName) -> bool {
    let mode = files.text(&format!("/sys/class/net/{bond}/bonding/mode"));
    !mode.is_empty() && !mode.starts_with("active-backup")
}

/// What decides whether NICs are taken, looked at once.
#[derive(Debug, Clone)]
pub struct Readiness {
    files: SystemFiles,
    /// What keeps the service from its work, for all bonds.
    pub obstacle: Option<Obstacle>,
    /// Bonds that the service did not make in time.
    pub given_back: GivenBack,
}

impl Readiness {
    /// Looks at the system.
    pub fn look(files: &SystemFiles, config: &Result<Config, ConfigError>) -> Self {
        Self {
            obstacle: Obstacle::find(files, config),
            given_back: given_back(files),
            files: files.clone(),
        }
    }

    /// Why the NICs of a bond are left to their manager; nothing if they are Tandem's.
    ///
    /// `nic` is the interface that is asked for. In a bond that another manager made, only its own ports
    /// are kept whatever is wrong: that bond works without the rest of them too.
    pub fn reason_to_leave(&self, bond: &BondPolicy, nic: &IfName) -> Option<Obstacle> {
        let ports = ports(&self.files, &bond.name);
        let is_in_place = match bond.ownership {
            _ if is_of_another_mode(&self.files, &bond.name) => false,
            Ownership::Create => !ports.is_empty(),
            Ownership::Adopt => ports.iter().any(|port| port == nic.as_str()),
        };
        if is_in_place {
            return None;
        }
        let given_back = self.given_back.get(&bond.name);
        let given_back = given_back.map(|reason| Obstacle::GivenBack(reason.clone()));
        self.obstacle.clone().or(given_back)
    }

    /// The system that was looked at.
    pub(crate) fn files(&self) -> &SystemFiles {
        &self.files
    }

    /// The bond has a port: the service did its work.
    pub fn is_in_place(&self, bond: &IfName) -> bool {
        !ports(&self.files, bond).is_empty() && !is_of_another_mode(&self.files, bond)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Folder;
    use super::*;
    use crate::config;

    fn look(folder: &Folder) -> (Readiness, BondPolicy) {
        let config = config::load(&folder.path("/etc/tandem/tandem.toml"));
        let bond = folder.bond();
        (Readiness::look(&folder.files(), &config), bond)
    }

    fn leaves(folder: &Folder, nic: &str) -> Option<Obstacle> {
        let (readiness, bond) = look(folder);
        readiness.reason_to_leave(&bond, &nic.parse().unwrap())
    }

    #[test]
    fn nics_are_taken_where_everything_is_there_and_left_where_it_was_given_back() {
        let folder = Folder::complete();
        assert_eq!(leaves(&folder, "eth0"), None);
        folder.write(GIVEN_BACK_PATH, r#"{"bond0": "it crashed"}"#);
        assert_eq!(
            leaves(&folder, "eth0"),
            Some(Obstacle::GivenBack("it crashed".to_owned()))
        );
        folder.write(GIVEN_BACK_PATH, r#"{"bond1": "it crashed"}"#);
        assert_eq!(leaves(&folder, "eth0"), None);
    }

    #[test]
    fn a_bond_with_a_port_keeps_its_nics_whatever_is_wrong() {
        let folder = Folder::complete();
        folder.remove("/etc/passwd");
        folder.write(GIVEN_BACK_PATH, r#"{"bond0": "it crashed"}"#);
        assert_eq!(leaves(&folder, "eth1"), Some(Obstacle::NoUser));
        folder.write("/sys/class/net/bond0/bonding/slaves", "\n");
        assert_eq!(leaves(&folder, "eth1"), Some(Obstacle::NoUser));
        folder.write("/sys/class/net/bond0/bonding/slaves", "eth0\n");
        let mode = "/sys/class/net/bond0/bonding/mode";
        folder.write(mode, "802.3ad 4\n");
        assert_eq!(leaves(&folder, "eth1"), Some(Obstacle::NoUser));
        folder.write(mode, "active-backup 1\n");
        assert_eq!(leaves(&folder, "eth1"), None);

        // Made by another manager: what is no port is not kept from it.
        let (readiness, mut bond) = look(&folder);
        bond.ownership = Ownership::Adopt;
        let leaves = |nic: &str| readiness.reason_to_leave(&bond, &nic.parse().unwrap());
        assert_eq!(leaves("eth0"), None);
        assert_eq!(leaves("eth1"), Some(Obstacle::NoUser));
    }
}
