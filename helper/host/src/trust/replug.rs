//! The file that says from where `serve` may plug a VF in again by itself. It is root's, so that a domain's
//! metadata never decides to which network a guest gets.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tandem_core::types::Mac;

use super::device::check_device;
use super::file::{FileError, read_own};
use crate::evacuate::{Vf, VfIdentity};
use crate::hypervisor::Nic;
use crate::words::{printable, shortened};
use crate::xml::Bond;

/// Longest file, in bytes.
const MAX_BYTES: usize = 256 * 1024;
/// Longest name of a network that is taken, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// How the alias of a VF begins whose bond gives it none that libvirt would take.
const ALIAS: &str = "ua-tandem-vf";

/// Where the file is.
pub fn default_file() -> PathBuf {
    PathBuf::from("/etc/tandem-host/replug.toml")
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ReplugError {
    /// It is not to be trusted, or can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not understood.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReplugFile {
    /// The first that fits a domain counts.
    #[serde(default)]
    pub vf: Vec<Allowed>,
}

/// From where domains may get their VF.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Allowed {
    /// Names of domains; a `*` at the end stands for any rest.
    pub domains: Vec<String>,
    /// The libvirt network, such as one of `<forward mode='hostdev'>` over a PF.
    pub network: String,
    /// The MACs that a VF may get there, or `any`. The bond in the domain's XML chooses among them.
    pub macs: Vec<String>,
}

impl ReplugFile {
    /// Reads the file, if it is there.
    ///
    /// # Errors
    /// If others may write it, or it is not understood.
    pub fn read(path: &Path) -> Result<Option<Self>, ReplugError> {
        let Some(text) = read_own(path, MAX_BYTES)? else {
            return Ok(None);
        };
        let wrong = |reason: String| ReplugError::Content {
            path: path.to_owned(),
            reason: shortened(&reason, 1_000),
        };
        let file: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        for one in &file.vf {
            one.check().map_err(wrong)?;
        }
        Ok(Some(file))
    }

    /// The VF that a domain may be given here for its bond, as it would be plugged in; or why there is none.
    /// `nics` are the domain's, as the hypervisor shows them.
    ///
    /// # Errors
    /// If no line of the file allows one.
    pub fn vf(&self, domain: &str, bond: &Bond, nics: &[Nic]) -> Result<Vf, String> {
        let fits = |one: &&Allowed| one.domains.iter().any(|name| is_meant(name, domain));
        let Some(allowed) = self.vf.iter().find(fits) else {
            return Err("no [[vf]] in it names this domain".to_owned());
        };
        let others: Vec<Mac> = nics.iter().filter_map(|nic| nic.mac).collect();
        let mut wanted = bond.vfs.iter().filter_map(|port| port.guest.mac);
        let mac = wanted.find(|mac| allowed.has(*mac)).ok_or_else(|| {
            let network = printable(&allowed.network);
            format!(
                "its `macs` for network {network} has none of the bond's VFs in the domain's XML"
            )
        })?;
        let alias = bond.vfs.iter().filter_map(|port| port.alias.as_deref());
        let alias = alias.into_iter().find(|alias| is_users_alias(alias));
        let alias = alias.map_or_else(|| own_alias(bond.name.as_str()), str::to_owned);
        let network = &allowed.network;
        let device = format!(
            "<interface type='network'><mac address='{mac}'/><source network='{network}'/>\
             <alias name='{alias}'/></interface>"
        );
        check_device(&device).map_err(|error| error.to_string())?;
        Ok(Vf {
            identity: VfIdentity {
                pci: None,
                alias: Some(alias),
                mac: Some(mac).filter(|mac| !others.contains(mac)),
            },
            guest_mac: Some(mac),
            device,
        })
    }
}

impl Allowed {
    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '+');
        let name = &self.network;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(plain) {
            return Err(format!("the network `{name}` has a name that is not taken"));
        }
        if self.domains.is_empty() {
            return Err(format!("network {name} has no `domains`"));
        }
        for mac in &self.macs {
            if mac != "any" && mac.parse::<Mac>().is_err() {
                return Err(format!(
                    "network {name}: `{mac}` is neither a MAC nor `any`"
                ));
            }
        }
        Ok(())
    }

    fn has(&self, mac: Mac) -> bool {
        let is = |one: &String| one == "any" || one.parse() == Ok(mac);
        self.macs.iter().any(is)
    }
}

fn is_meant(pattern: &str, domain: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => domain.starts_with(start),
        None => domain == pattern,
    }
}

/// One for each bond of a domain, or for each of its devices.
pub(crate) fn own_alias(of: &str) -> String {
    let mut alias = format!("{ALIAS}-");
    for byte in of.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => alias.push(char::from(byte)),
            other => alias.push_str(&format!("_{other:02x}")),
        }
    }
    alias
}

/// libvirt takes these from its users, and no others (`virDomainDeviceInfoParseXML`, libvirt 11.3).
fn is_users_alias(alias: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    alias.starts_with("ua-") && alias.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::xml::Document;
    use crate::xml::device::parse_device;

    const FILE: &str = "[[vf]]\ndomains = ['g1', 'web-*']\nnetwork = 'vfs-a'\n\
                        macs = ['52:54:00:12:34:02', '52:54:00:12:34:03']\n\
                        [[vf]]\ndomains = ['*']\nnetwork = 'vfs-b'\nmacs = ['any']\n";

    fn bond(vfs: &str) -> Bond {
        let text = format!(
            "<bonds xmlns='{}'><bond name='bond0'><standby mac='52:54:00:12:34:01'/>{vfs}</bond></bonds>",
            crate::xml::BONDS_NAMESPACE
        );
        Document::parse(&text).unwrap().bonds.bonds.remove(0)
    }

    fn file(text: &str) -> Result<ReplugFile, ReplugError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replug.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        ReplugFile::read(&path).map(|file| file.expect("it is there"))
    }

    #[test]
    fn the_file_decides_the_network_and_the_bond_chooses_among_its_macs() {
        let file = file(FILE).unwrap();
        let vfs = "<vf mac='52:54:00:12:34:09'/><vf alias='ua-vf' mac='52:54:00:12:34:03'/>";
        let vf = file.vf("web-7", &bond(vfs), &[]).unwrap();
        assert_eq!(vf.guest_mac, "52:54:00:12:34:03".parse().ok());
        assert_eq!(vf.identity.alias.as_deref(), Some("ua-vf"));
        check_device(&vf.device).unwrap();
        let nic = parse_device(&vf.device).unwrap();
        assert!(vf.identity.is(&nic) && nic.xml.contains("<source network='vfs-a'/>"));
        let other = file.vf("db", &bond(vfs), &[]).unwrap();
        assert!(other.device.contains("network='vfs-b'") && other.device.contains("34:09"));
        let refused = file.vf("g1", &bond("<vf mac='52:54:00:12:34:09'/>"), &[]);
        assert!(refused.unwrap_err().contains("macs"));
        let odd = bond("<vf alias='ua-vf.1' mac='52:54:00:12:34:02'/>");
        let vf = file.vf("g1", &odd, &[]).unwrap();
        assert_eq!(vf.identity.alias.as_deref(), Some("ua-tandem-vf-bond0"));
        check_device(&vf.device).unwrap();
        // Another bond of the domain has another one.
        let mut other = bond("<vf mac='52:54:00:12:34:03'/>");
        other.name = "b.1".parse().unwrap();
        let other = file.vf("g1", &other, &[]).unwrap();
        assert_eq!(other.identity.alias.as_deref(), Some("ua-tandem-vf-b_2e1"));
        check_device(&other.device).unwrap();
    }

    #[test]
    fn a_file_that_is_not_understood_allows_nothing() {
        for (wrong, why) in [
            ("[[vf]]\ndomains=['a']\nnetwork='x'", "macs"),
            (
                "[[vf]]\ndomains=['a']\nnetwork=\"x'/><y\"\nmacs=[]",
                "not taken",
            ),
            ("[[vf]]\ndomains=[]\nnetwork='x'\nmacs=[]", "domains"),
            ("[[vf]]\ndomains=['a']\nnetwork='x'\nmacs=['x']", "neither"),
            (
                "[[vf]]\ndomains=['a']\nnetwork='x'\nmacs=[]\nscript='/tmp/p'",
                "script",
            ),
        ] {
            let error = file(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(file("").unwrap(), ReplugFile::default());
        assert!(
            ReplugFile::default()
                .vf("a", &bond("<vf mac='52:54:00:12:34:02'/>"), &[])
                .is_err()
        );
        let none = ReplugFile::read(Path::new("/nowhere/replug.toml"));
        assert!(matches!(none, Ok(None)));
    }
}
