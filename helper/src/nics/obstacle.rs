//! What keeps the service from its work, as far as files tell before it starts.

use std::path::PathBuf;

use super::bonding;
use crate::config::{Config, ConfigError};
use crate::system_files::{SystemFiles, UNIT_FOLDERS};

/// The service's unit.
pub const UNIT: &str = "tandem.service";
/// The user that it runs as.
pub const USER: &str = "tandem";

/// Why the NICs are left to their network manager.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The files can't be read as a configuration.
    #[error("the configuration is wrong: {0}")]
    Configuration(String),
    /// Nobody made the user.
    #[error("the user `{USER}` does not exist")]
    NoUser,
    /// No bond can be made.
    #[error("the kernel has no bonding driver: {0}")]
    NoBonding(String),
    /// The unit is gone, or was never there.
    #[error("{UNIT} is not installed")]
    NotInstalled,
    /// The administrator forbids the unit.
    #[error("{UNIT} is masked by {}", .0.display())]
    Masked(PathBuf),
    /// Nothing starts the unit.
    #[error("{UNIT} is not enabled")]
    NotEnabled,
    /// Tandem can't have their manager configure a bond in their place.
    #[error("their network manager can't be told to configure the bond: {0}")]
    LeftToManager(String),
    /// The service was waited for, and made no bond.
    #[error("{0}")]
    GivenBack(String),
}

impl Obstacle {
    /// The first one there is. Without systemd, user and unit are nobody's business.
    pub fn find(files: &SystemFiles, config: &Result<Config, ConfigError>) -> Option<Self> {
        if let Err(error) = config {
            return Some(Self::Configuration(error.to_string()));
        }
        let unit = files.has_systemd().then(|| Self::of_unit(files)).flatten();
        unit.or_else(|| bonding::lack(files).map(Self::NoBonding))
    }

    /// What keeps systemd from starting the service.
    pub(crate) fn of_unit(files: &SystemFiles) -> Option<Self> {
        let Some(unit) = files.first(UNIT_FOLDERS, UNIT) else {
            return Some(Self::NotInstalled);
        };
        // A link to /dev/null, or an empty file (systemd.unit(5)).
        let is_masked =
            std::fs::metadata(&unit).is_ok_and(|file| !file.is_file() || file.len() == 0);
        if is_masked {
            return Some(Self::Masked(unit));
        }
        if !unit.exists() {
            return Some(Self::NotInstalled);
        }
        if !files.has_user(USER) {
            return Some(Self::NoUser);
        }
        (!files.is_wanted(UNIT)).then_some(Self::NotEnabled)
    }

    /// What to do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Configuration(_) => {
                "correct the line that is named (`tandem check` looks at it), then `systemctl restart tandem`"
            }
            Self::NoUser => "`systemd-sysusers tandem.conf`, then `systemctl restart tandem`",
            Self::NoBonding(_) => {
                "install the kernel's full set of modules or remove what forbids `bonding`, \
                 then `systemctl restart tandem`"
            }
            Self::NotInstalled => {
                "install the package `tandem` anew, then `systemctl enable --now tandem.service`"
            }
            Self::Masked(_) => "`systemctl unmask tandem.service`, then `systemctl restart tandem`",
            Self::NotEnabled => "`systemctl enable --now tandem.service`",
            Self::LeftToManager(_) => {
                "change what is named, or set `addressing = \"none\"` and have the manager configure the bond; then \
                 `systemctl restart tandem`"
            }
            Self::GivenBack(_) => {
                "`journalctl -u tandem` tells more; once it is mended, `systemctl restart tandem`"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::nics::testing::Folder;

    fn find(folder: &Folder) -> Option<Obstacle> {
        let config = config::load(&folder.path("/etc/tandem/tandem.toml"));
        Obstacle::find(&folder.files(), &config)
    }

    #[test]
    fn nothing_is_in_the_way_where_everything_is_there() {
        assert_eq!(find(&Folder::complete()), None);
    }

    #[test]
    fn each_lack_is_named() {
        let folder = Folder::complete();
        folder.write("/etc/tandem/tandem.toml", "[[bond]]\nnmae = \"bond0\"\n");
        let found = find(&folder).unwrap();
        assert!(matches!(&found, Obstacle::Configuration(why) if why.contains("tandem.toml:2:1")));

        let folder = Folder::complete();
        folder.write("/etc/passwd", "root:x:0:0::/:/bin/sh\n");
        assert_eq!(find(&folder), Some(Obstacle::NoUser));
        folder.write("/etc/userdb/tandem.user", "{}");
        assert_eq!(find(&folder), None);

        let folder = Folder::complete();
        folder.write("/etc/modprobe.d/no.conf", "blacklist bonding\n");
        let found = find(&folder).unwrap();
        assert!(matches!(&found, Obstacle::NoBonding(why) if why.contains("no.conf")));

        let folder = Folder::complete();
        folder.remove("/usr/lib/systemd/system/tandem.service");
        assert_eq!(find(&folder), Some(Obstacle::NotInstalled));
    }

    #[test]
    fn a_unit_may_be_masked_or_not_be_enabled() {
        let folder = Folder::complete();
        folder.remove("/etc/systemd/system/multi-user.target.wants/tandem.service");
        assert_eq!(find(&folder), Some(Obstacle::NotEnabled));
        let device = "/usr/lib/systemd/system/dev-x.device.wants/tandem.service";
        folder.write(device, "");
        assert_eq!(find(&folder), None);

        folder.write("/run/systemd/generator.early/tandem.service", "");
        assert!(matches!(find(&folder), Some(Obstacle::Masked(_))));
        folder.remove("/run/systemd/generator.early/tandem.service");
        folder.link("/dev/null", "/etc/systemd/system/tandem.service");
        assert!(matches!(find(&folder), Some(Obstacle::Masked(_))));
    }

    #[test]
    fn without_systemd_only_configuration_and_kernel_count() {
        let folder = Folder::complete();
        folder.remove_folder("/run/systemd");
        folder.remove("/etc/passwd");
        folder.remove("/usr/lib/systemd/system/tandem.service");
        assert_eq!(find(&folder), None);
    }
}
