use std::fs;
use std::os::unix::fs::PermissionsExt;

use tandem_core::types::Ifindex;

use tandem_core::link::LinkKind;

use super::profile_files::LOCK_PATH;
use super::*;
use crate::config;
use crate::nics::testing::Folder;

const BOND: &str = "/run/NetworkManager/system-connections/tandem-bond0.nmconnection";
const PORT: &str = "/run/NetworkManager/system-connections/tandem-bond0-standby.nmconnection";
const OWN: &str = "/etc/NetworkManager/system-connections";

/// A guest with NetworkManager whose standby udev has handled.
fn guest() -> Folder {
    let folder = Folder::complete();
    folder.write(
        "/etc/systemd/system/multi-user.target.wants/NetworkManager.service",
        "",
    );
    folder.write("/run/udev/data/n2", "E:ID_NET_DRIVER=virtio_net\n");
    folder
}

fn link(ifindex: u32, name: &str, kind: LinkKind) -> Link {
    let mac = Some("52:54:00:00:00:01".parse().unwrap());
    Link {
        mac,
        permanent_mac: mac.filter(|_| kind == LinkKind::Physical),
        driver: Some("virtio_net".to_owned()),
        ..Link::named(Ifindex(ifindex), name.parse().unwrap(), kind)
    }
}

fn standby() -> Link {
    link(2, "eth0", LinkKind::Physical)
}

/// Follows, and gives the texts of both profiles and what was said.
fn profiles_of(folder: &Folder, links: &[Link]) -> (Option<(String, String)>, Vec<String>) {
    let config = config::load(&folder.path("/etc/tandem/tandem.toml"));
    let readiness = Readiness::look(&folder.files(), &config);
    let policy = config.map(|config| config.policy).unwrap_or_default();
    let mut followed = Followed::default();
    follow(&policy, &readiness, links, &mut followed);
    let said = [followed.done, followed.reasons].concat();
    let text = |path: &str| fs::read_to_string(folder.path(path)).ok();
    let texts = text(BOND).zip(text(PORT));
    let bond = folder.bond().name;
    assert_eq!(serves(&folder.files(), &bond), texts.is_some());
    (texts, said)
}

#[test]
fn the_automatic_profile_becomes_the_bonds() {
    let folder = guest();
    // Where it runs already.
    folder.write(
        "/run/NetworkManager/system-connections/Wired connection 1.nmconnection",
        "[connection]\nid=Wired connection 1\nuuid=wired\ntype=ethernet\nautoconnect-priority=-999\n\
         interface-name=eth0\n[ipv4]\nmethod=auto\n[.nmmeta]\nnm-generated=true\n",
    );
    folder.write(
        "/run/NetworkManager/devices/2",
        "[device]\nmanaged=1\nconnection-uuid=wired\n",
    );
    let (texts, said) = profiles_of(&folder, &[standby()]);
    let (bond, port) = texts.unwrap();
    assert_eq!(
        bond,
        "# Written by tandem, and again when it changes. Made from its automatic profile\n\
         [connection]\nid=tandem bond0\nuuid=4cd1973f-b0f4-868d-9f02-8fc941e65b9a\ntype=bond\n\
         interface-name=bond0\nautoconnect-priority=999\nautoconnect-slaves=1\n\n\
         [ethernet]\ncloned-mac-address=52:54:00:00:00:01\n\n\
         [bond]\nmode=active-backup\nmiimon=100\nfail_over_mac=none\nprimary_reselect=failure\n\
         num_grat_arp=3\n\n\
         [ipv4]\nmethod=auto\nroute-metric=100\ndhcp-iaid=726689589\n\n\
         [ipv6]\nmethod=auto\naddr-gen-mode=default\nroute-metric=100\ndhcp-iaid=726689589\n"
    );
    assert!(port.contains("\nmaster=4cd1973f-b0f4-868d-9f02-8fc941e65b9a\nslave-type=bond\n"));
    assert!(port.ends_with("[ethernet]\nmac-address=52:54:00:00:00:01\n"));
    assert_eq!(
        said,
        ["NetworkManager is to make and configure bond0 by its automatic profile"]
    );
    let files = folder.files();
    let private = |path: &str| files.path(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((private(BOND), private(SERVED_PATH)), (0o600, 0o644));
    // Who can open it can keep it locked: nobody but root, also where an earlier version made it.
    assert_eq!(private(LOCK_PATH), 0o600);
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(files.path(LOCK_PATH), open).unwrap();
    drop(lock(&files).unwrap());
    assert_eq!(private(LOCK_PATH), 0o600);
    assert_eq!(profiles_of(&folder, &[standby()]).1, Vec::<String>::new());
}

/// An initrd's NetworkManager is over, and nothing starts another one.
#[test]
fn what_an_initrd_left_is_no_manager() {
    let folder = guest();
    folder.remove("/etc/systemd/system/multi-user.target.wants/NetworkManager.service");
    folder.write("/run/NetworkManager/devices/2", "[device]\nmanaged=1\n");
    assert!(!is_used(&folder.files()) && !has_started(&folder.files()));
    assert!(profiles_of(&folder, &[standby()]).0.is_none());
    folder.write(
        "/sys/fs/cgroup/system.slice/NetworkManager.service/cgroup.procs",
        "1\n",
    );
    assert!(is_used(&folder.files()) && has_started(&folder.files()));
}

#[test]
fn the_profile_that_fits_best_becomes_the_bonds() {
    let folder = guest();
    let profile = |name: &str, text: &str| {
        folder.write(
            &format!("{OWN}/{name}.nmconnection"),
            &format!("[connection]\nid={name}\nuuid={name}\ntype=ethernet\n{text}"),
        );
    };
    profile("other", "interface-name=eth7\nautoconnect-priority=50\n");
    profile("by-mac", "[ethernet]\nmac-address=52:54:00:00:00:09\n");
    profile("off", "autoconnect=false\nautoconnect-priority=60\n");
    profile("old", "zone=old\n");
    profile("used", "zone=used\n");
    folder.write(
        "/var/lib/NetworkManager/timestamps",
        "[timestamps]\nold=1700000000\nused=1800000000\n",
    );
    let bond = || profiles_of(&folder, &[standby()]).0.unwrap().0;
    let text = bond();
    assert!(text.contains("\nzone=used\n"));
    // It says nothing of addresses, and so asks for them.
    for group in ["ipv4", "ipv6"] {
        let asks = "method=auto\nroute-metric=100\ndhcp-iaid=726689589\n";
        assert!(text.contains(&format!("\n[{group}]\n{asks}")), "{text}");
    }
    profile(
        "cloud",
        "interface-name=eth0\nautoconnect-priority=120\nzone=cloud\n[user]\norigin=x\n\
         [ethernet]\nmac-address=52:54:00:00:00:01\nmtu=1400\n\
         [ipv4]\nmethod=manual\naddress1=192.0.2.5/24,192.0.2.1\nroute-metric=7\n\
         [ipv6]\nmethod=disabled\n[proxy]\n",
    );
    let text = bond();
    assert!(
        text.contains(
            "\nzone=cloud\n\n[ethernet]\ncloned-mac-address=52:54:00:00:00:01\nmtu=1400\n"
        )
    );
    assert!(text.contains("\naddress1=192.0.2.5/24,192.0.2.1\nroute-metric=7\n"));
    assert!(!text.contains("[user]") && !text.contains("uuid=cloud"));
    // What wired NICs have by default a bond has not: it gets what the profile leaves open.
    let conf = "/etc/NetworkManager/conf.d/10.conf";
    folder.write(
        conf,
        "[connection-x]\nmatch-device=type:ethernet\nipv4.route-metric=50\nipv4.dad-timeout=5\nipv6.dhcp-iaid=9\n",
    );
    let text = bond();
    let asks =
        "address1=192.0.2.5/24,192.0.2.1\nroute-metric=7\ndad-timeout=5\ndhcp-iaid=726689589\n";
    assert!(text.contains(asks), "{text}");
    let asks = "method=disabled\ndhcp-iaid=9\nroute-metric=100\n";
    assert!(text.contains(asks), "{text}");
    folder.remove(conf);
    // What NetworkManager has up now comes before all others.
    folder.write(
        "/run/NetworkManager/devices/2",
        "[device]\nmanaged=1\nconnection-uuid=old\n",
    );
    assert!(bond().contains("\nzone=old\n"));
}

#[test]
fn what_is_not_only_an_address_is_left_alone_and_said() {
    let folder = guest();
    let profile = |text: &str| {
        folder.write(
            &format!("{OWN}/lan"),
            &format!("[connection]\nid=lan\nuuid=lan\ntype=802-3-ethernet\n{text}"),
        );
        profiles_of(&folder, &[standby()])
    };
    let (texts, said) = profile("[802-1x]\neap=tls\n");
    assert!(
        texts.is_none() && said[0].ends_with("/lan has 802.1X"),
        "{said:?}"
    );
    let (texts, said) = profile("[match]\npath=pci-*\n");
    assert!(texts.is_none() && said[0].contains("depends on `path` in its [match]"));
    // A port of something else, and what NetworkManager does not manage.
    assert_eq!(profile("master=br0\nslave-type=bridge\n"), (None, vec![]));
    folder.remove(&format!("{OWN}/lan"));
    folder.write(
        "/etc/NetworkManager/NetworkManager.conf",
        "[keyfile]\nunmanaged-devices=*\n",
    );
    assert_eq!(profiles_of(&folder, &[standby()]), (None, vec![]));
}

#[test]
fn the_administrators_own_bond_is_left_to_him() {
    let folder = guest();
    folder.write(
        &format!("{OWN}/bond.nmconnection"),
        "[connection]\nid=bond\nuuid=bond\ntype=bond\ninterface-name=bond0\n",
    );
    let (texts, said) = profiles_of(&folder, &[standby()]);
    assert!(
        texts.is_none() && said[0].contains("with `ownership = \"adopt\"`"),
        "{said:?}"
    );
}

#[test]
fn profiles_come_and_go_with_what_they_depend_on_but_not_under_a_bond_that_carries() {
    let folder = guest();
    let present = |links: &[Link]| profiles_of(&folder, links).0.is_some();
    assert!(present(&[standby()]));
    // Gone for a moment, as it is at its unplug.
    assert!(present(&[]));
    folder.write(crate::nics::GIVEN_BACK_PATH, r#"{"bond0": "it crashed"}"#);
    let port = Link {
        controller: Some(Ifindex(3)),
        ..standby()
    };
    assert!(present(&[port.clone(), link(3, "bond0", LinkKind::Bond)]));
    // Nor does a configuration that names it no more take them away.
    let none = tempfile::NamedTempFile::new().unwrap();
    let config = config::load(none.path()).unwrap();
    let readiness = Readiness::look(&folder.files(), &Ok(config.clone()));
    let bond = [port.clone(), link(3, "bond0", LinkKind::Bond)];
    follow(&config.policy, &readiness, &bond, &mut Followed::default());
    assert!(folder.files().exists(BOND) && folder.files().exists(PORT));
    assert!(!present(&[standby()]));
    folder.remove(crate::nics::GIVEN_BACK_PATH);
    // Made by Tandem before: it stays so until the next boot.
    assert!(!present(&[port, link(3, "bond0", LinkKind::Bond)]));
}

#[test]
fn another_standby_of_a_bond_that_carries_is_taken_in() {
    let folder = guest();
    let (bond, _) = profiles_of(&folder, &[standby()]).0.unwrap();
    assert_eq!(telling::pending_standbys(&folder.files()), ["eth0"]);
    telling::forget(&folder.files());
    folder.write(
        "/etc/tandem/tandem.toml",
        "[[bond]]\nname = \"bond0\"\nstandby = { mac = \"52:54:00:00:00:03\" }\n\
         vfs = [{ mac = \"52:54:00:00:00:02\" }]\n",
    );
    let other = Some("52:54:00:00:00:03".parse().unwrap());
    let other = Link {
        mac: other,
        permanent_mac: other,
        ..link(4, "eth2", LinkKind::Physical)
    };
    let port = Link {
        controller: Some(Ifindex(3)),
        ..standby()
    };
    let links = [port, link(3, "bond0", LinkKind::Bond), other];
    let moved = || {
        let config = config::load(&folder.path("/etc/tandem/tandem.toml"));
        let readiness = Readiness::look(&folder.files(), &config);
        let mut followed = Followed::default();
        follow(&config.unwrap().policy, &readiness, &links, &mut followed);
        assert_eq!(followed.done, Vec::<String>::new());
        let pending = telling::pending_standbys(&folder.files());
        telling::forget(&folder.files());
        pending
    };
    // udev may still rename it.
    assert_eq!(moved(), Vec::<String>::new());
    folder.write("/run/udev/data/n4", "E:ID_NET_DRIVER=virtio_net\n");
    assert_eq!(moved(), ["eth2"]);
    let text = |path: &str| fs::read_to_string(folder.path(path)).unwrap();
    assert!(text(PORT).ends_with("[ethernet]\nmac-address=52:54:00:00:00:03\n"));
    assert_eq!(text(BOND), bond);
    assert_eq!(moved(), Vec::<String>::new());
}
