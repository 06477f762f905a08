//! What udev is told of an interface, so that other network managers keep off it, but only where the
//! service can do its work.
//!
//! `tandem udev NAME` is called by `udev-rules/10-tandem-unmanaged.rules` for each event of a NIC or bond and
//! prints udev properties; `tandem udev --refresh` has udev look again at interfaces whose properties no
//! longer fit.

mod mark;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::Policy;
use tandem_core::types::Ifindex;
use tandem_core::{IfName, role_of};

pub use self::mark::Mark;
use self::mark::{PREFIX, unmanaged_property};
use crate::agent_port;
use crate::config::{self, Config, HOST_POLICY_PATH};
use crate::managers::{self, Nmcli, decided};
use crate::networkd::{Followed, standby_of};
use crate::nics::{Obstacle, Readiness, sysctls};
use crate::observe::once;
use crate::runtime::read_bounded;
use crate::system_files::SystemFiles;
use crate::udev_state;

/// Largest entry of udev's database that is looked at, in bytes.
const MAX_ENTRY_BYTES: u64 = 1024 * 1024;
/// How long a refresh waits for udev to handle what decides who makes the bonds.
const DECISION_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks whether it has: of its queue's end nobody tells.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long udev may take to handle an event.
const UDEV_LIMIT: Duration = Duration::from_secs(10);

/// The properties of the interface of this name; none if it is gone or not Tandem's.
///
/// # Errors
/// The configuration is wrong or names it no more, or the kernel does not answer. Then udev's rule leaves an interface
/// unmarked unless it is in use in a bond.
pub fn properties(name: &IfName, config: &Path) -> Result<Vec<String>> {
    let config = config::load(config)?;
    let policy = effective(&config)?;
    let Some(link) = once::link_named(name)? else {
        return Ok(Vec::new());
    };
    let files = SystemFiles::this();
    if !policy.bonds.is_empty() {
        let readiness = Readiness::look(&files, &Ok(config));
        if let Some(mark) = Mark::of(&link, &policy, &readiness) {
            return Ok(mark.properties());
        }
    }
    let present = present_properties(&udev_state::entry_of(&files, &link));
    if present.is_some_and(|present| present.contains(&unmanaged_property(true))) {
        bail!(
            "{name} is in the configuration no more; in a bond that carries traffic its mark stays"
        );
    }
    Ok(Vec::new())
}

/// What decides the marks, looked at once.
#[derive(Debug)]
pub struct Situation {
    /// What the service would use, or why that can't be read.
    pub policy: Result<Policy, String>,
    /// Whether NICs may be taken.
    pub readiness: Readiness,
    /// All interfaces.
    pub links: Vec<Link>,
}

impl Situation {
    /// As it is now.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn now(config: &Path) -> Result<Self> {
        let loaded = config::load(config);
        let readiness = Readiness::look(&SystemFiles::this(), &loaded);
        let policy = loaded
            .map_err(|error| Obstacle::Configuration(error.to_string()).to_string())
            .and_then(|config| effective(&config).map_err(|error| format!("{error:#}")));
        Ok(Self {
            policy,
            readiness,
            links: once::links()?,
        })
    }

    /// Who makes a bond depends on what udev does next.
    fn has_undecided(&self) -> bool {
        let undecided =
            |policy| decided::waiting_for_udev(policy, self.readiness.files(), &self.links);
        let policy = self.policy.as_ref();
        policy.is_ok_and(|policy| !undecided(policy).is_empty())
    }
}

/// Brings the marks in order once, and says what it did. Waits a moment for udev where that decides who makes a bond:
/// a manager that is told at its start makes it without a detour. Of a bond that the host gives meanwhile nobody tells.
///
/// # Errors
/// As [`Marks::refresh`], or the kernel does not answer.
pub fn refresh(config: &Path) -> Result<Vec<String>> {
    let (mut deadline, mut done) = (Instant::now() + DECISION_LIMIT, Vec::new());
    loop {
        let situation = Situation::now(config)?;
        if Instant::now() < deadline && situation.has_undecided() {
            std::thread::sleep(LOOK_PAUSE);
            continue;
        }
        let marked = Marks::default().refresh(&situation);
        let files = situation.readiness.files();
        let told = managers::finish(files);
        let marked = marked.with_context(|| format!("told meanwhile: {told:?}"))?;
        done.extend([marked, told].concat());
        if Situation::now(config)?.policy == situation.policy {
            return Ok([done, managers::watch_what_is_told(files)].concat());
        }
        deadline = Instant::now();
    }
}

/// Keeps the marks at udev in order.
#[derive(Debug, Default)]
pub struct Marks {
    /// What was announced and when, and udev may not have handled yet.
    announced: BTreeMap<Ifindex, (BTreeSet<String>, Instant)>,
    /// Why managers do not configure the bonds, as it was said last.
    reasons: Vec<String>,
    /// udev had not handled a NIC or bond of the configuration yet.
    waits_for_udev: bool,
}

impl Marks {
    /// Announces each interface anew whose properties are not what they should be, gives the channel's port to
    /// the service's user, and says what it did. An interface that udev has not handled yet is left to its first
    /// event. Under a wrong configuration only what is in use in a bond stays marked.
    ///
    /// NetworkManager reads `NM_UNMANAGED` only when it meets a device (1.52), so it is told of those it has
    /// already: it would take a VF out of the bond to try its own connection again. `managers::finish` is left to do.
    ///
    /// # Errors
    /// sysfs can't be written.
    pub fn refresh(&mut self, situation: &Situation) -> Result<Vec<String>> {
        let readiness = &situation.readiness;
        // What it has handled from here on is not looked at for sure.
        self.waits_for_udev = waits_for_udev(situation);
        let mut done = agent_port::give_to_service(readiness.files());
        // First: a bond's mark depends on it. A configuration that can't be read changes nothing here.
        let mut followed = Followed::default();
        if let Ok(policy) = &situation.policy {
            followed = managers::follow(policy, readiness, &situation.links);
            done.append(&mut followed.done);
            let copied = sysctls::follow(readiness.files(), policy, &situation.links);
            done.extend(copied.unwrap_or_else(|error| vec![format!("{error:#}")]));
            if self.reasons != followed.reasons {
                done.extend(followed.reasons.iter().cloned());
                self.reasons.clone_from(&followed.reasons);
            }
        }
        let (mut failed, mut nmcli) = (Ok(()), Nmcli::default());
        for link in &situation.links {
            if link.kind == LinkKind::Software {
                continue;
            }
            let is_other = followed.changed.contains(&link.name);
            let present = match present_properties(&udev_state::entry_of(readiness.files(), link)) {
                Some(present) => present,
                // Its first event may have asked already, when the answer was another one.
                None if is_other => BTreeSet::new(),
                None => continue,
            };
            let is_in_use = link.controller.is_some() || readiness.is_in_place(&link.name);
            let mark = situation.policy.as_ref();
            let wanted: BTreeSet<String> = match mark.map(|it| Mark::of(link, it, readiness)) {
                Ok(Some(mark)) => mark.properties().into_iter().collect(),
                // As the rule does: a manager would tear a bond that goes on without the policy.
                Ok(None) if is_in_use && present.contains(&unmanaged_property(true)) => continue,
                Err(_) if is_in_use => continue,
                Ok(None) | Err(_) => BTreeSet::new(),
            };
            if present == wanted {
                self.announced.remove(&link.ifindex);
            }
            let is_announced = self
                .announced
                .get(&link.ifindex)
                .is_some_and(|(told, at)| *told == wanted && at.elapsed() < UDEV_LIMIT);
            if is_other || (present != wanted && !is_announced) {
                match announce(&mut nmcli, &link.name, &present, &wanted) {
                    Ok(said) => done.extend(said),
                    Err(error) => failed = Err(error),
                }
                self.announced
                    .insert(link.ifindex, (wanted, Instant::now()));
            }
        }
        failed.map(|()| done)
    }

    /// udev had not handled a NIC or bond of the configuration before the last look: it may still rename it, and mark it
    /// by what was so before.
    pub fn waits_for_udev(&self) -> bool {
        self.waits_for_udev
    }
}

/// Has udev handle an interface anew, and says so.
fn announce(
    nmcli: &mut Nmcli,
    name: &IfName,
    present: &BTreeSet<String>,
    wanted: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let path = PathBuf::from("/sys/class/net")
        .join(name.as_str())
        .join("uevent");
    match fs::write(&path, "change") {
        // Gone, or renamed, which udev hears of by itself.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        written => {
            written.with_context(|| format!("can't write {}; this needs root", path.display()))?;
        }
    }
    let mut done = vec![format!("announced {name} anew")];
    let unmanaged = wanted.contains(&unmanaged_property(true));
    if unmanaged != present.contains(&unmanaged_property(true)) {
        done.extend(managers::tell_managed(nmcli, name, !unmanaged));
    }
    Ok(done)
}

/// What the service would use: the files' bonds, else those of the host if it may provide any.
///
/// # Errors
/// The host's bonds can't be read.
pub fn effective(config: &Config) -> Result<Policy> {
    if config.host_bonds_refused().is_some() {
        return Ok(config.policy.clone());
    }
    Ok(config::load_host_policy(HOST_POLICY_PATH.as_ref())?.unwrap_or_default())
}

/// udev has not handled a NIC or bond of the configuration yet, or is still at what may bring one: at boot it loads the
/// NICs' drivers.
fn waits_for_udev(situation: &Situation) -> bool {
    let Ok(policy) = &situation.policy else {
        return false;
    };
    let files = situation.readiness.files();
    if lacks_standby(policy, &situation.links) && udev_state::is_at_work(files) {
        return true;
    }
    let is_named = |link: &Link| policy.bonds.iter().any(|bond| bond.name == link.name);
    let mut links = situation.links.iter();
    links.any(|link| {
        (role_of(link, policy).is_some() || is_named(link)) && !udev_state::has_handled(files, link)
    })
}

/// A bond has no standby yet.
fn lacks_standby(policy: &Policy, links: &[Link]) -> bool {
    let mut bonds = policy.bonds.iter();
    bonds.any(|bond| standby_of(policy, bond, links).is_none())
}

/// Tandem's properties in an entry of udev's database; `None` if there is no entry.
fn present_properties(entry: &Path) -> Option<BTreeSet<String>> {
    let text = String::from_utf8(read_bounded(entry, MAX_ENTRY_BYTES).ok()??).ok()?;
    Some(properties_in(&text))
}

pub(crate) fn properties_in(entry: &str) -> BTreeSet<String> {
    let properties = entry.lines().filter_map(|line| line.strip_prefix("E:"));
    let own = properties.filter(|property| property.starts_with(PREFIX));
    own.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::testing::Folder;
    use tandem_core::types::Ifindex;

    fn link(name: &str, kind: LinkKind, mac: &str) -> Link {
        Link {
            mac: Some(mac.parse().unwrap()),
            permanent_mac: (kind == LinkKind::Physical).then(|| mac.parse().unwrap()),
            ..Link::named(Ifindex(2), name.parse().unwrap(), kind)
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
        effective(&config::load(&path).unwrap()).unwrap()
    }

    fn mark(link: &Link, lines: &str, folder: &Folder) -> Option<Mark> {
        let config = config::load(&folder.path("/etc/tandem/tandem.toml"));
        let readiness = Readiness::look(&folder.files(), &config);
        Mark::of(link, &policy_of(lines), &readiness)
    }

    fn unmanaged(lines: &str) -> [Option<bool>; 4] {
        unmanaged_on(lines, &Folder::complete())
    }

    fn unmanaged_on(lines: &str, folder: &Folder) -> [Option<bool>; 4] {
        [
            link("eth0", LinkKind::Physical, "52:54:00:00:00:01"),
            link("eth1", LinkKind::Physical, "52:54:00:00:00:02"),
            link("bond0", LinkKind::Bond, "52:54:00:00:00:01"),
            link("eth2", LinkKind::Physical, "52:54:00:00:00:03"),
        ]
        .map(|link| mark(&link, lines, folder).map(|mark| mark.unmanaged))
    }

    #[test]
    fn nothing_is_taken_where_the_service_cannot_start_unless_the_bond_is_in_use() {
        let folder = Folder::complete();
        folder.remove("/etc/passwd");
        let left = [Some(false), Some(false), Some(false), None];
        assert_eq!(unmanaged_on("", &folder), left);
        let eth0 = link("eth0", LinkKind::Physical, "52:54:00:00:00:01");
        assert!(!mark(&eth0, "", &folder).unwrap().starts);
        folder.write("/sys/class/net/bond0/bonding/slaves", "eth1\n");
        let taken = [Some(true), Some(true), Some(true), None];
        assert_eq!(unmanaged_on("", &folder), taken);
    }

    #[test]
    fn while_udev_loads_drivers_a_standby_may_still_come() {
        let folder = Folder::complete();
        let config = config::load(&folder.path("/etc/tandem/tandem.toml"));
        let situation = Situation {
            policy: Ok(policy_of("")),
            readiness: Readiness::look(&folder.files(), &config),
            links: Vec::new(),
        };
        assert!(!waits_for_udev(&situation));
        folder.write("/run/udev/queue", "");
        assert!(waits_for_udev(&situation));
        let vf = link("eth1", LinkKind::Physical, "52:54:00:00:00:02");
        let standby = link("eth0", LinkKind::Physical, "52:54:00:00:00:01");
        let policy = policy_of("");
        assert!(lacks_standby(&policy, std::slice::from_ref(&vf)));
        assert!(!lacks_standby(&policy, &[vf, standby]));
    }

    #[test]
    fn what_was_given_back_is_not_taken_and_starts_the_service_all_the_same() {
        let folder = Folder::complete();
        folder.write(crate::nics::GIVEN_BACK_PATH, r#"{"bond0": "it crashed"}"#);
        // The bond itself is Tandem's own, without ports.
        let expected = [Some(false), Some(false), Some(true), None];
        assert_eq!(unmanaged_on("", &folder), expected);
        let eth1 = link("eth1", LinkKind::Physical, "52:54:00:00:00:02");
        assert!(mark(&eth1, "", &folder).unwrap().starts);
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
        let folder = Folder::complete();
        assert_eq!(mark(&vlan, "", &folder), None);
        let other_bond = link("bond1", LinkKind::Bond, "52:54:00:00:00:01");
        assert_eq!(mark(&other_bond, "", &folder), None);
    }

    #[test]
    fn properties_go_to_udev_and_come_back_from_its_database() {
        let eth0 = link("eth0", LinkKind::Physical, "52:54:00:00:00:01");
        let written = mark(&eth0, "", &Folder::complete()).unwrap().properties();
        assert_eq!(
            written,
            [
                "TANDEM_BOND=bond0",
                "TANDEM_ROLE=standby",
                "TANDEM_UNMANAGED=1",
                "TANDEM_START=1"
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
