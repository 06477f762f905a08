use tandem_core::types::Ifindex;

use super::*;
use crate::config;
use crate::nics::GIVEN_BACK_PATH;
use crate::nics::testing::Folder;

/// A guest with dhcpcd's service and this file.
fn guest(text: &str) -> Folder {
    let folder = Folder::complete();
    folder.write(
        "/etc/systemd/system/multi-user.target.wants/dhcpcd.service",
        "",
    );
    folder.write(CONFIG, text);
    folder
}

fn nic(ifindex: u32, name: &str) -> Link {
    let mac = Some(
        format!("52:54:00:00:00:{:02x}", ifindex - 1)
            .parse()
            .unwrap(),
    );
    Link {
        mac,
        permanent_mac: mac,
        ..Link::named(Ifindex(ifindex), name.parse().unwrap(), LinkKind::Physical)
    }
}

/// Follows; the copy, and which bonds changed their manager.
fn follows(folder: &Folder, links: &[Link]) -> (String, Vec<String>) {
    let config = config::load(&folder.path("/etc/tandem/tandem.toml"));
    let readiness = Readiness::look(&folder.files(), &config);
    let policy = config.map(|config| config.policy).unwrap_or_default();
    let mut followed = Followed::default();
    follow(&policy, &readiness, links, &mut followed);
    let changed = followed.changed.iter().map(ToString::to_string).collect();
    (folder.files().text(COPY), changed)
}

#[test]
fn the_ports_are_denied_and_the_bond_is_configured_as_the_standby() {
    let folder =
        guest("duid\nallowinterfaces eth*\n interface eth0\nmetric 50\ninterface eth7\nstatic x\n");
    let (text, changed) = follows(&folder, &[nic(2, "eth0"), nic(3, "eth1")]);
    assert_eq!(
        text,
        "# Written by tandem: bond0=eth0\ndenyinterfaces eth0 eth1\nduid\nallowinterfaces eth* bond0\n\
         interface bond0\nmetric 50\ninterface eth7\nstatic x\n"
    );
    assert_eq!(changed, ["bond0"]);
    let bond = "bond0".parse().unwrap();
    assert!(
        told(&folder.files(), &bond)
            .unwrap()
            .ends_with("says of eth0")
    );

    // Its administrator changes it: the same manager's.
    folder.write(CONFIG, "duid\n");
    let (text, changed) = follows(&folder, &[nic(2, "eth0"), nic(3, "eth1")]);
    assert!(text.ends_with("eth1\nduid\n") && changed.is_empty());
    // A VF that left stays denied, another one comes to it.
    let (text, _) = follows(&folder, &[nic(2, "eth0"), nic(3, "eth5")]);
    assert!(text.contains("\ndenyinterfaces eth0 eth1 eth5\n"), "{text}");
    assert!(follows(&folder, &[]).0.contains("bond0=eth0"));

    // Given back.
    folder.write(GIVEN_BACK_PATH, r#"{"bond0": "it crashed"}"#);
    let given_back = follows(&folder, &[nic(2, "eth0")]);
    assert_eq!(given_back, (String::new(), vec!["bond0".to_owned()]));
    assert!(!serves(&folder.files(), &bond));
}

#[test]
fn what_it_would_not_configure_is_not_its() {
    for text in [
        "denyinterfaces lo,eth0\n",
        "allowinterfaces eth1 eth2\n",
        "denyinterfaces bond*\n",
    ] {
        let folder = guest(text);
        let links = [nic(2, "eth0")];
        assert_eq!(follows(&folder, &links).0, "", "{text}");
        assert!(!planned(
            &folder.files(),
            &"bond0".parse().unwrap(),
            &links[0]
        ));
    }
    // Its service is off.
    let folder = guest("");
    folder.remove("/etc/systemd/system/multi-user.target.wants/dhcpcd.service");
    assert_eq!(follows(&folder, &[nic(2, "eth0")]).0, "");
    // Another manager's already.
    let folder = guest("");
    folder.write("/run/systemd/network/02-tandem-bond0.network", "");
    assert_eq!(follows(&folder, &[nic(2, "eth0")]).0, "");
}

#[test]
fn a_bond_that_carries_traffic_stays_its() {
    let folder = guest("");
    follows(&folder, &[nic(2, "eth0")]);
    folder.write(CONFIG, "denyinterfaces eth0\n");
    let bond = Link::named(Ifindex(4), "bond0".parse().unwrap(), LinkKind::Bond);
    let port = Link {
        controller: Some(Ifindex(4)),
        ..nic(2, "eth0")
    };
    let links = [port, bond];
    let (text, changed) = follows(&folder, &links);
    assert!(text.contains("bond0=eth0") && changed.is_empty(), "{text}");
    // Nor does a configuration that names it no more end it.
    folder.write("/etc/tandem/tandem.toml", "");
    let (text, changed) = follows(&folder, &links);
    assert!(text.contains("bond0=eth0") && changed.is_empty(), "{text}");
    assert!(text.contains("denyinterfaces eth0"), "{text}");
    assert_eq!(follows(&folder, &[nic(2, "eth0")]).0, "");
}

#[test]
fn what_the_file_says_of_a_standby_is_the_bonds_where_udev_renamed_it_late() {
    let folder = guest("interface enp0s4\nmetric 50\n");
    let (text, _) = follows(&folder, &[nic(2, "eth0")]);
    assert!(text.contains("\ninterface enp0s4\n"), "{text}");
    let bond = Link::named(Ifindex(4), "bond0".parse().unwrap(), LinkKind::Bond);
    let port = Link {
        controller: Some(Ifindex(4)),
        ..nic(2, "enp0s4")
    };
    let (text, changed) = follows(&folder, &[port, bond]);
    assert_eq!(
        text,
        "# Written by tandem: bond0=enp0s4\ndenyinterfaces enp0s4 eth0\ninterface bond0\nmetric 50\n"
    );
    assert_eq!(changed, Vec::<String>::new());
}
