//! Bonds of which is not known yet who makes and configures them, because udev has not handled their standby, or is
//! still at what may bring it: a bond that the service made meanwhile, its manager would not configure.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use tandem_core::link::Link;
use tandem_core::policy::{AddressingPolicy, BondPolicy, Origin, Ownership, Policy};
use tandem_core::{IfName, role_of};

use super::{ifupdown, network_manager};
use crate::networkd::{Followed, carries, make_folder, standby_of};
use crate::runtime;
use crate::system_files::SystemFiles;
use crate::udev_state;

/// Not there where all are decided, which is nearly always so.
const PATH: &str = "/run/tandem-nics/undecided.json";

pub(crate) type Undecided = BTreeSet<IfName>;

/// As it was found last; none if the file can't be read.
pub(crate) fn read(files: &SystemFiles) -> Undecided {
    let bonds = runtime::load(&files.path(PATH));
    bonds.ok().flatten().unwrap_or_default()
}

/// As it is now.
pub(crate) fn look(policy: &Policy, files: &SystemFiles, links: &[Link]) -> Undecided {
    // What the host hands over the service acts upon at once.
    let is_handed_over = policy.origin == Origin::Host;
    if is_handed_over || !network_manager::is_used(files) && !ifupdown::is_used(files) {
        return Undecided::new();
    }
    let is_open = |bond: &&BondPolicy| {
        let concerns =
            bond.addressing == AddressingPolicy::Auto && bond.ownership == Ownership::Create;
        let may_change = match standby_of(policy, bond, links) {
            Some(standby) => !udev_state::has_handled(files, standby),
            None => udev_state::is_at_work(files),
        };
        concerns && may_change && !carries(&bond.name, links)
    };
    let open = policy.bonds.iter().filter(is_open);
    open.map(|bond| bond.name.clone()).collect()
}

/// Has the service know them. It learns of it by the bonds' NICs, which are announced anew. This needs root.
pub(super) fn follow(
    policy: &Policy,
    files: &SystemFiles,
    links: &[Link],
    followed: &mut Followed,
) {
    let (before, now) = (read(files), look(policy, files, links));
    if before == now {
        return;
    }
    if let Err(error) = store(files, &now) {
        let error = format!("the service is not told which bonds are undecided: {error:#}");
        followed.done.push(error);
        return;
    }
    for bond in before.difference(&now) {
        let is_nic = |link: &&Link| role_of(link, policy).is_some_and(|(of, _)| of.name == *bond);
        let nics = links.iter().filter(is_nic);
        followed.changed.extend(nics.map(|nic| nic.name.clone()));
    }
}

fn store(files: &SystemFiles, undecided: &Undecided) -> Result<()> {
    let path = files.path(PATH);
    if undecided.is_empty() {
        return Ok(fs::remove_file(&path)?);
    }
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    runtime::store(&path, undecided)?;
    // Whatever this process's umask is: the service is another user.
    Ok(fs::set_permissions(
        &path,
        fs::Permissions::from_mode(0o644),
    )?)
}

#[cfg(test)]
mod tests {
    use tandem_core::link::LinkKind;
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
            (!read(&files).is_empty(), changed.join(" "))
        };
        // Tandem configures it.
        assert_eq!(follows(&links), (false, String::new()));
        let wanted = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service";
        folder.write(wanted, "");
        assert_eq!(follows(&links), (true, String::new()));
        folder.write("/run/udev/data/n2", "");
        assert_eq!(follows(&links), (false, "eth0 eth1".to_owned()));
        // Without a standby, as long as one may come.
        let links = [vf];
        assert_eq!(follows(&links), (false, String::new()));
        folder.write("/run/udev/queue", "");
        assert_eq!(follows(&links), (true, String::new()));
        folder.remove("/run/udev/queue");
        assert_eq!(follows(&links), (false, "eth1".to_owned()));
    }
}
