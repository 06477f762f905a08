//! Who configures a bond in the place of its standby: the manager that would have configured the standby, where
//! Tandem can instruct it.
//!
//! systemd-networkd gets a file for the bond that Tandem makes ([`crate::networkd`]). NetworkManager has its own way
//! with bonds, so it gets profiles and makes the bond itself ([`network_manager`]). ifupdown is asked to give the bond what
//! the standby's stanza says ([`ifupdown`]), and dhcpcd is kept off the ports ([`dhcpcd`]).

pub(crate) mod decided;
mod dhcpcd;
mod ifupdown;
mod network_manager;
mod teller;

use tandem_core::IfName;
use tandem_core::link::Link;
use tandem_core::policy::{AddressingPolicy, Ownership, Policy};

use crate::networkd::{self, Followed};
use crate::nics::Readiness;
use crate::programs::run;
use crate::system_files::SystemFiles;

use decided::Bonds;
pub(crate) use network_manager::{Nmcli, tell_managed};
pub(crate) use teller::Teller;

/// Runs [`crate::nic_watch`].
const WATCH_UNIT: &str = "tandem-nics.service";

/// Whether a manager that Tandem instructs configures this bond.
pub(crate) fn serves(files: &SystemFiles, bond: &IfName) -> bool {
    networkd::serves(files, bond)
        || is_made_by_manager(files, bond)
        || ifupdown::serves(files, bond)
        || dhcpcd::serves(files, bond)
}

/// Why the NICs of a bond are left to their manager, which Tandem can't have configure the bond in their place.
pub(crate) fn left_alone(files: &SystemFiles, bond: &IfName) -> Option<String> {
    ifupdown::left_alone(files, bond)
}

/// Whether the manager that configures this bond also makes it, and takes the standby in: then both are its own.
pub(crate) fn is_made_by_manager(files: &SystemFiles, bond: &IfName) -> bool {
    network_manager::serves(files, bond)
}

/// Whether the manager that makes this bond can do so by now: it runs and was told all, and the standby has a carrier,
/// without which it leaves NICs as they are.
pub(crate) fn can_make(files: &SystemFiles, standby: Option<&Link>) -> bool {
    let can = network_manager::has_started(files) && !is_told(files);
    can && standby.is_some_and(|standby| standby.carrier)
}

/// Whether a manager is still to be told something.
pub(crate) fn is_told(files: &SystemFiles) -> bool {
    network_manager::is_told(files)
}

/// Where the bond's configuration comes from, in words; nothing if no manager that Tandem instructs has it.
pub(crate) fn told(files: &SystemFiles, bond: &IfName) -> Option<String> {
    networkd::told(files, bond)
        .or_else(|| network_manager::told(files, bond))
        .or_else(|| ifupdown::told(files, bond))
        .or_else(|| dhcpcd::told(files, bond))
}

/// What becomes of the standby's network configuration once it is in a bond of this name, in a sentence; nothing if no
/// manager that Tandem instructs has it.
///
/// # Errors
/// One has it and can't be instructed, and why.
pub(crate) fn prospect(
    files: &SystemFiles,
    bond: &IfName,
    standby: &Link,
) -> Result<Option<String>, String> {
    let refusal =
        |manager: &str, why: String| format!("{manager} does not configure {bond}: {why}.");
    let name = &standby.name;
    let file = networkd::planned(files, bond, standby);
    if let Some(file) = file.map_err(|why| refusal("systemd-networkd", why))? {
        return Ok(Some(format!(
            "systemd-networkd configures {bond} by {file}, with the lease that {name} has."
        )));
    }
    let source = network_manager::planned(files, bond, standby);
    if let Some(source) = source.map_err(|why| refusal("NetworkManager", why))? {
        return Ok(Some(format!(
            "NetworkManager makes {bond} and configures it by {source}, with the lease that {name} has; \
             on a running guest IPv6 addresses are asked for anew, and may be others."
        )));
    }
    let is_its = ifupdown::planned(files, bond, standby);
    if is_its.map_err(|why| refusal("ifupdown", why))? {
        return Ok(Some(format!(
            "ifupdown configures {bond} by the stanza of {name}, with the same address by DHCP."
        )));
    }
    Ok(dhcpcd::planned(files, bond, standby).then(|| {
        format!("dhcpcd, which is restarted, configures {bond} in the place of {name}, with the same lease.")
    }))
}

/// The manager that is to configure this bond, and leaves it alone.
pub(crate) fn ignoring(files: &SystemFiles, bond: &Link) -> Option<&'static str> {
    if networkd::serves(files, &bond.name) && networkd::ignores(files, bond) {
        return Some("systemd-networkd");
    }
    let is_ignored = is_made_by_manager(files, &bond.name) && network_manager::ignores(files, bond);
    is_ignored.then_some("NetworkManager")
}

/// Whether a bond may still have what its standby had, beside its own lease, and nobody waits any more to end that.
pub(crate) fn has_left(files: &SystemFiles, bond: &IfName) -> bool {
    network_manager::has_left(files, bond)
}

/// Instructs the managers, but for what [`finish`] does. This needs root.
pub(crate) fn follow(policy: &Policy, readiness: &Readiness, links: &[Link]) -> Followed {
    let mut followed = networkd::follow(policy, readiness, links);
    network_manager::follow(policy, readiness, links, &mut followed);
    ifupdown::follow(policy, readiness, links, &mut followed);
    dhcpcd::follow(policy, readiness, links, &mut followed);
    decided::follow(policy, readiness.files(), links, &mut followed);
    followed
}

/// Has NetworkManager make its bonds, and says what it did. It has to know before which NICs are Tandem's, or it would
/// configure a VF that is in the bond already.
pub(crate) fn finish(files: &SystemFiles) -> Vec<String> {
    // One that hung before may answer by now.
    network_manager::finish(files, &mut Nmcli::default())
}

/// What a manager did not do yet it is told again by the watch, which no NIC's mark may have started. Says what kept it from that.
pub(crate) fn watch_what_is_told(files: &SystemFiles) -> Vec<String> {
    let start = || run("systemctl", &["start", "--no-block", WATCH_UNIT]);
    let failed = is_told(files).then(start).and_then(Result::err);
    failed.into_iter().collect()
}

/// The policy as the machine is to follow it: a bond that its manager makes, or may make as it is undecided yet, is
/// adopted, and of NICs that are left to their manager none is made.
pub(crate) fn applied(mut policy: Policy, files: &SystemFiles, undecided: &Bonds) -> Policy {
    policy
        .bonds
        .retain(|bond| left_alone(files, &bond.name).is_none());
    for bond in &mut policy.bonds {
        // Only the files of this system say so, not the host.
        bond.undecided = undecided.contains(&bond.name);
        bond.manager_takes_standby = is_made_by_manager(files, &bond.name) || bond.undecided;
        bond.expects_ipv4 =
            networkd::gives_ipv4(files, &bond.name) || ifupdown::gives_ipv4(files, &bond.name);
        if bond.manager_takes_standby {
            bond.ownership = Ownership::Adopt;
            bond.addressing = AddressingPolicy::None;
        }
    }
    policy
}

#[cfg(test)]
mod tests {
    use tandem_core::link::LinkKind;
    use tandem_core::types::Ifindex;

    use super::*;
    use crate::nics::testing::Folder;

    fn prospect_in(folder: &Folder) -> Result<Option<String>, String> {
        let standby = Link::named(Ifindex(2), "eth0".parse().unwrap(), LinkKind::Physical);
        prospect(&folder.files(), &"bond0".parse().unwrap(), &standby)
    }

    #[test]
    fn who_will_configure_the_bond_is_said_and_who_cannot() {
        let folder = Folder::complete();
        assert_eq!(prospect_in(&folder), Ok(None));
        let wants = |unit: &str| {
            folder.write(
                &format!("/etc/systemd/system/multi-user.target.wants/{unit}"),
                "",
            );
        };
        wants("NetworkManager.service");
        let said = prospect_in(&folder).unwrap().unwrap();
        assert!(
            said.starts_with(
                "NetworkManager makes bond0 and configures it by its automatic profile"
            )
        );
        wants("networking.service");
        folder.write(
            "/etc/network/interfaces",
            "auto eth0\niface eth0 inet dhcp\n",
        );
        folder.write(
            "/etc/NetworkManager/NetworkManager.conf",
            "[keyfile]\nunmanaged-devices=*\n",
        );
        let said = prospect_in(&folder).unwrap().unwrap();
        assert!(said.starts_with("ifupdown configures bond0 by the stanza of eth0"));
        folder.write(
            "/etc/network/interfaces",
            "auto eth0\niface eth0 inet ppp\n",
        );
        let said = prospect_in(&folder).unwrap_err();
        assert!(
            said.starts_with("ifupdown does not configure bond0"),
            "{said}"
        );
    }
}
