use std::os::unix::fs::PermissionsExt;

use tandem_core::types::Ifindex;

use super::*;
use crate::config;
use crate::nics::GIVEN_BACK_PATH;
use crate::nics::testing::Folder;

const COPY: &str = "/run/systemd/network/02-tandem-bond0.network";

/// A guest whose standby udev has handled.
fn guest() -> Folder {
    let folder = Folder::complete();
    folder.write(
        "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "",
    );
    folder.write(
        "/run/udev/data/n2",
        "E:ID_NET_NAME_PATH=enp0s4\nE:ID_NET_DRIVER=virtio_net\n",
    );
    folder.write("/sys/class/net/eth0/uevent", "INTERFACE=eth0\nIFINDEX=2\n");
    folder.write("/sys/class/net/eth0/type", "1\n");
    folder
}

fn standby(name: &str) -> Link {
    let mac = Some("52:54:00:00:00:01".parse().unwrap());
    Link {
        mac,
        permanent_mac: mac,
        driver: Some("virtio_net".to_owned()),
        ..Link::named(Ifindex(2), name.parse().unwrap(), LinkKind::Physical)
    }
}

fn follow_now(folder: &Folder, links: &[Link]) -> Followed {
    let config = config::load(&folder.path("/etc/tandem/tandem.toml"));
    let readiness = Readiness::look(&folder.files(), &config);
    let policy = config.map(|config| config.policy).unwrap_or_default();
    follow(&policy, &readiness, links)
}

/// Follows, and gives the copy's text and what was said.
fn copy_of(folder: &Folder, links: &[Link]) -> (Option<String>, Vec<String>) {
    let Followed { done, reasons, .. } = follow_now(folder, links);
    let said = [done, reasons].concat();
    (fs::read_to_string(folder.path(COPY)).ok(), said)
}

/// An initrd's networkd is over, and nothing starts another one.
#[test]
fn what_an_initrd_left_is_no_manager() {
    let folder = Folder::complete();
    folder.write("/run/systemd/netif/state", "OPER_STATE=routable\n");
    assert!(!is_used(&folder.files()));
    folder.write(
        "/sys/fs/cgroup/system.slice/systemd-networkd.service/cgroup.procs",
        "1\n",
    );
    assert!(is_used(&folder.files()));
}

#[test]
fn the_first_file_that_fits_the_standby_is_the_bonds() {
    let folder = guest();
    let links = [standby("eth0")];
    assert_eq!(copy_of(&folder, &links), (None, vec![]));

    folder.write(
        "/usr/lib/systemd/network/01-tandem-unmanaged.network",
        "[Match]\nName=*\n[Link]\nUnmanaged=yes\n",
    );
    folder.write(
        "/usr/lib/systemd/network/50-all.network",
        "[Match]\nName=e*\n[Network]\nDHCP=yes\n",
    );
    let netplan = "/run/systemd/network/10-netplan-eth0.network";
    folder.write(
        netplan,
        "[Match]\nPermanentMACAddress=52:54:00:00:00:01\nName=eth0\n[Network]\nDHCP=ipv4\n",
    );
    folder.write(
        "/etc/systemd/network/10-netplan-eth0.network.d/dns.conf",
        "[Network]\nDNS=192.0.2.1\n",
    );
    fs::set_permissions(folder.path(netplan), fs::Permissions::from_mode(0o640)).unwrap();
    let (text, _) = copy_of(&folder, &links);
    assert_eq!(
        text.unwrap(),
        "# Written by tandem, and again when it changes. Made from 10-netplan-eth0.network\n[Match]\nName=bond0\nType=bond\n\
         \n[Network]\nDHCP=ipv4\n\n[Network]\nDNS=192.0.2.1\n\n[DHCPv4]\nIAID=3262313993\n\
         \n[DHCPv6]\nIAID=3262313993\n"
    );
    let mode = fs::metadata(folder.path(COPY))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    let bond = "bond0".parse().unwrap();
    let told = told(&folder.files(), &bond).unwrap();
    assert!(told.contains("10-netplan-eth0.network"), "{told}");

    // Nothing to do a second time; the same file with another content is followed.
    assert_eq!(copy_of(&folder, &links).1, Vec::<String>::new());
    folder.write(netplan, "[Match]\nName=eth0\n[Network]\nDHCP=no\n");
    assert!(copy_of(&folder, &links).0.unwrap().contains("DHCP=no"));
    folder.remove(netplan);
    assert!(copy_of(&folder, &links).0.unwrap().contains("DHCP=yes"));
}

#[test]
fn who_follows_learns_which_bonds_have_another_manager() {
    let folder = guest();
    let links = [standby("eth0")];
    let changed = || {
        let changed = follow_now(&folder, &links).changed;
        changed.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let file = "/etc/systemd/network/50-all.network";
    assert!(changed().is_empty());
    folder.write(file, "[Match]\nName=e*\n[Network]\nDHCP=yes\n");
    assert_eq!(changed(), ["bond0"]);
    // Another content is the same manager's.
    folder.write(file, "[Match]\nName=e*\n[Network]\nDHCP=no\n");
    assert!(changed().is_empty());
    folder.write(file, "[Match]\nName=e*\n[Network]\nBond=x\n");
    assert_eq!(changed(), ["bond0"]);
}

#[test]
fn what_is_not_known_now_changes_nothing() {
    let folder = guest();
    folder.write(
        "/etc/systemd/network/50-all.network",
        "[Match]\nName=e*\n[Network]\nDHCP=yes\n",
    );
    folder.remove("/run/udev/data/n2");
    assert_eq!(copy_of(&folder, &[standby("eth0")]).0, None);
    folder.write("/run/udev/data/n2", "");
    assert!(copy_of(&folder, &[standby("eth0")]).0.is_some());
    assert!(copy_of(&folder, &[]).0.is_some());
    folder.remove("/run/udev/data/n2");
    assert!(copy_of(&folder, &[standby("eth0")]).0.is_some());
}

#[test]
fn the_copy_goes_where_networkd_is_not_to_configure_the_bond() {
    let folder = guest();
    let links = [standby("eth0")];
    let file = "/etc/systemd/network/50-all.network";
    let is_there = || copy_of(&folder, &links).0.is_some();
    folder.write(file, "[Match]\nName=e*\n[Network]\nDHCP=yes\n");
    assert!(is_there());
    folder.write(file, "[Match]\nName=e*\n[Link]\nUnmanaged=yes\n");
    assert!(!is_there());
    folder.write(file, "[Match]\nName=e*\nHost=web1\n[Network]\nDHCP=yes\n");
    let (text, said) = copy_of(&folder, &links);
    assert!(
        text.is_none() && said[0].contains("depends on `Host=`"),
        "{said:?}"
    );
    folder.write(file, "[Match]\nName=e*\n[Network]\nDHCP=yes\n");
    assert!(is_there());

    // Given back.
    folder.write(GIVEN_BACK_PATH, r#"{"bond0": "it crashed"}"#);
    assert!(!is_there());
    folder.remove(GIVEN_BACK_PATH);
    assert!(is_there());
    // Another way of addressing.
    let config = fs::read_to_string(folder.path("/etc/tandem/tandem.toml")).unwrap();
    folder.write(
        "/etc/tandem/tandem.toml",
        &format!("{config}addressing = \"inherit\"\n"),
    );
    assert!(!is_there());
    folder.write("/etc/tandem/tandem.toml", &config);
    assert!(is_there());
    // No longer any business of Tandem's.
    folder.write("/etc/tandem/tandem.toml", "");
    assert!(!is_there());
    // networkd is off.
    folder.write("/etc/tandem/tandem.toml", &config);
    folder.remove_folder("/etc/systemd/system/multi-user.target.wants");
    folder.write(
        "/etc/systemd/system/multi-user.target.wants/tandem.service",
        "",
    );
    assert!(!is_there());
}

#[test]
fn the_administrators_file_for_the_bond_comes_first() {
    let folder = guest();
    folder.write(
        "/etc/systemd/network/10-lan.network",
        "[Match]\nName=e*\n[Network]\nDHCP=yes\n",
    );
    folder.write(
        "/etc/systemd/network/20-bond.network",
        "[Match]\nName=bond0\n[Network]\nAddress=192.0.2.5/24\n",
    );
    let (text, _) = copy_of(&folder, &[standby("eth0")]);
    let text = text.unwrap();
    assert!(
        text.contains("Address=192.0.2.5/24") && !text.contains("DHCP=yes"),
        "{text}"
    );
}

#[test]
fn a_name_that_is_a_pattern_reaches_no_file() {
    let folder = guest();
    folder.write(
        "/etc/systemd/network/10-lan.network",
        "[Match]\nName=e*\n[Network]\nDHCP=yes\n",
    );
    let config = fs::read_to_string(folder.path("/etc/tandem/tandem.toml")).unwrap();
    folder.write("/etc/tandem/tandem.toml", &config.replace("bond0", "*"));
    let (_, said) = copy_of(&folder, &[standby("eth0")]);
    assert!(said.len() == 1 && said[0].contains("its name"), "{said:?}");
    let written = ini::list(&folder.files(), &[RUN_FOLDER], "network");
    assert!(written.is_empty(), "{written:?}");
}

#[test]
fn the_copy_of_a_bond_that_carries_traffic_stays() {
    let folder = guest();
    let file = "/etc/systemd/network/50-all.network";
    folder.write(file, "[Match]\nName=e*\n[Network]\nDHCP=yes\n");
    let bond = Link {
        ifindex: Ifindex(3),
        kind: LinkKind::Bond,
        driver: None,
        ..standby("bond0")
    };
    let port = Link {
        controller: Some(Ifindex(3)),
        ..standby("eth0")
    };
    assert!(copy_of(&folder, std::slice::from_ref(&port)).0.is_some());
    folder.remove(file);
    assert!(copy_of(&folder, &[port.clone(), bond.clone()]).0.is_some());
    folder.write(
        "/etc/tandem/tandem.toml",
        "[[bond]]\nname = \"bond1\"\nstandby = { mac = \"52:54:00:00:00:01\" }\nvfs = []\n",
    );
    assert!(copy_of(&folder, &[port, bond]).0.is_some());
    assert!(copy_of(&folder, &[standby("eth0")]).0.is_none());
}

#[test]
fn what_udev_has_not_handled_may_be_managed() {
    let folder = guest();
    let policy = config::load(&folder.path("/etc/tandem/tandem.toml"))
        .unwrap()
        .policy;
    let is_any_managed = |links: &[Link]| {
        let no_bond = |_: &Link| None;
        manages_any(&folder.files(), &policy, links, no_bond)
    };
    let other = Link::named(Ifindex(3), "eth7".parse().unwrap(), LinkKind::Physical);
    assert_eq!(is_any_managed(&[standby("eth0")]), Some(false));
    assert_eq!(is_any_managed(&[standby("eth0"), other.clone()]), None);
    folder.write("/run/udev/data/n3", "E:ID_NET_DRIVER=igb\n");
    folder.write("/sys/class/net/eth7/uevent", "INTERFACE=eth7\nIFINDEX=3\n");
    folder.write("/sys/class/net/eth7/type", "1\n");
    assert_eq!(is_any_managed(&[standby("eth0"), other]), Some(false));
}
