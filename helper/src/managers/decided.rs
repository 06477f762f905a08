//! Of which bonds it is known who makes and configures them: a bond that the service made before, NetworkManager and
//! ifupdown would not configure.
//!
//! Root's processes look, once udev has handled the bond's standby and is not at what may bring one, and instruct the
//! managers; the service waits for that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use tandem_core::link::Link;
use tandem_core::policy::{BondPolicy, Policy, PortMatch};
use tandem_core::{IfName, role_of};

use super::{ifupdown, network_manager};
use crate::networkd::{Followed, carries, standby_of};
use crate::nics;
use crate::runtime;
use crate::system_files::SystemFiles;
use crate::udev_state;

/// The bonds of which it is known, and the standbys with which it is. There where one of those managers is used.
const PATH: &str = "/run/tandem-nics/decided.json";
/// How long the service waits for it; then it makes the bond.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Names of bonds.
pub(crate) type Bonds = BTreeSet<IfName>;

type Decided = BTreeMap<IfName, PortMatch>;

fn decided(files: &SystemFiles) -> Decided {
    let bonds = runtime::load(&files.path(PATH));
    bonds.ok().flatten().unwrap_or_default()
}

/// The bonds of which it has to be known. Without systemd nobody would look.
fn concerned<'a>(policy: &'a Policy, files: &SystemFiles) -> Vec<&'a BondPolicy> {
    let is_any_used = || network_manager::is_used(files) || ifupdown::is_used(files);
    if !files.has_systemd() || !is_any_used() {
        return Vec::new();
    }
    let bonds = policy.bonds.iter();
    bonds
        .filter(|bond| bond.is_configured_as_standby())
        .collect()
}

fn names<'a>(bonds: impl IntoIterator<Item = &'a BondPolicy>) -> Bonds {
    bonds.into_iter().map(|bond| bond.name.clone()).collect()
}

/// The bonds that the service does not make yet. One that has ports was made.
pub(crate) fn undecided(policy: &Policy, files: &SystemFiles) -> Bonds {
    let decided = decided(files);
    let bonds = concerned(policy, files);
    let is_decided = |bond: &BondPolicy| decided.get(&bond.name) == Some(&bond.standby);
    let is_open =
        |bond: &&BondPolicy| !is_decided(bond) && nics::ports(files, &bond.name).is_empty();
    names(bonds.into_iter().filter(is_open))
}

/// The bonds of which it can't be known before udev has handled more.
pub(crate) fn waiting_for_udev(policy: &Policy, files: &SystemFiles, links: &[Link]) -> Bonds {
    let waits = |bond: &&BondPolicy| match standby_of(policy, bond, links) {
        Some(standby) => !udev_state::has_handled(files, standby),
        None => udev_state::is_at_work(files),
    };
    let bonds = concerned(policy, files).into_iter().filter(waits);
    let mut bonds = names(bonds.filter(|bond| !carries(&bond.name, links)));
    if !udev_state::is_running(files) {
        bonds.clear();
    }
    bonds
}

/// Has the service know of which bonds it is known by now. It learns of it by their NICs, which are announced anew. This
/// needs root.
pub(super) fn follow(
    policy: &Policy,
    files: &SystemFiles,
    links: &[Link],
    followed: &mut Followed,
) {
    if let Err(error) = follow_file(policy, files, links, followed) {
        let error = format!("the service is not told who makes its bonds: {error:#}");
        followed.done.push(error);
    }
}

fn follow_file(
    policy: &Policy,
    files: &SystemFiles,
    links: &[Link],
    followed: &mut Followed,
) -> Result<()> {
    let waiting = waiting_for_udev(policy, files, links);
    let mut bonds = concerned(policy, files);
    bonds.retain(|bond| !waiting.contains(&bond.name));
    let now: Decided = bonds
        .iter()
        .map(|bond| (bond.name.clone(), bond.standby.clone()))
        .collect();
    if decided(files) == now {
        return Ok(());
    }
    let _lock = network_manager::lock(files)?;
    let before = decided(files);
    runtime::store_for_service(&files.path(PATH), &now)?;
    let is_new = |name: &IfName| before.get(name) != now.get(name) && now.contains_key(name);
    let is_nic = |link: &&Link| role_of(link, policy).is_some_and(|(of, _)| is_new(&of.name));
    let nics = links.iter().filter(is_nic);
    followed.changed.extend(nics.map(|nic| nic.name.clone()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use tandem_core::link::LinkKind;
    use tandem_core::policy::AddressingPolicy;
    use tandem_core::types::Ifindex;

    use super::*;
    use crate::config;
    use crate::nics::testing::Folder;

    fn link(ifindex: u32, name: &str, mac: &str) -> Link {
        let mac = Some(mac.parse().unwrap());
        Link {
            mac,
            permanent_mac: mac,
            ..Link::named(Ifindex(ifindex), name.parse().unwrap(), LinkKind::Physical)
        }
    }

    #[test]
    fn a_bond_is_undecided_until_udev_has_handled_its_standby() {
        let folder = Folder::complete();
        let files = folder.files();
        let policy = config::load(&folder.path("/etc/tandem/tandem.toml"))
            .unwrap()
            .policy;
        let vf = link(3, "eth1", "52:54:00:00:00:02");
        let standby = link(2, "eth0", "52:54:00:00:00:01");
        let links = [vf.clone(), standby];
        let follows = |links: &[Link]| {
            let mut followed = Followed::default();
            follow(&policy, &files, links, &mut followed);
            assert_eq!(followed.done, Vec::<String>::new());
            let changed: Vec<_> = followed.changed.iter().map(ToString::to_string).collect();
            (undecided(&policy, &files).is_empty(), changed.join(" "))
        };
        folder.write("/run/udev/control", "");
        // Tandem configures it.
        assert_eq!(follows(&links), (true, String::new()));
        let wanted = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service";
        folder.write(wanted, "");
        assert_eq!(follows(&links), (false, String::new()));
        folder.write("/run/udev/data/n2", "");
        assert_eq!(follows(&links), (true, "eth0 eth1".to_owned()));
        // Without a standby, as long as one may come.
        let links = [vf];
        assert_eq!(follows(&links), (true, String::new()));
        folder.write("/run/udev/queue", "");
        assert_eq!(follows(&links), (false, String::new()));
        folder.remove("/run/udev/queue");
        assert_eq!(follows(&links), (true, "eth1".to_owned()));
        // With another standby it is another bond.
        let mut other = policy.clone();
        other.bonds[0].standby = other.bonds[0].vfs[0].clone();
        assert_eq!(undecided(&other, &files).len(), 1);
        folder.write("/sys/class/net/bond0/bonding/slaves", "eth0\n");
        assert_eq!(undecided(&other, &files).len(), 0);
        // Without udev nothing is waited for.
        folder.write("/run/udev/queue", "");
        assert_eq!(waiting_for_udev(&policy, &files, &links).len(), 1);
        folder.remove("/run/udev/control");
        assert_eq!(waiting_for_udev(&policy, &files, &links).len(), 0);
    }

    #[test]
    fn a_bond_that_another_addressing_says_all_of_waits_for_nobody() {
        let folder = Folder::complete();
        let wanted = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service";
        folder.write(wanted, "");
        let files = folder.files();
        let mut policy = config::load(&folder.path("/etc/tandem/tandem.toml"))
            .unwrap()
            .policy;
        assert_eq!(undecided(&policy, &files).len(), 1);
        policy.bonds[0].addressing = AddressingPolicy::Inherit;
        assert_eq!(undecided(&policy, &files).len(), 0);
    }
}
