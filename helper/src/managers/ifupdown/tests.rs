use std::fs;

use tandem_core::types::Ifindex;

use super::*;
use crate::config;
use crate::nics::testing::Folder;

const DHCP: &str = "auto eth0\niface eth0 inet dhcp\n";

/// A guest with ifupdown.
fn guest(interfaces: &str) -> Folder {
    let folder = Folder::complete();
    folder.write(
        "/etc/systemd/system/multi-user.target.wants/networking.service",
        "",
    );
    folder.write(INTERFACES, interfaces);
    folder
}

fn link(ifindex: u32, name: &str, kind: LinkKind, last: u8) -> Link {
    let mac = Some(format!("52:54:00:00:00:{last:02x}").parse().unwrap());
    Link {
        mac,
        permanent_mac: mac.filter(|_| kind == LinkKind::Physical),
        ..Link::named(Ifindex(ifindex), name.parse().unwrap(), kind)
    }
}

fn nics() -> Vec<Link> {
    vec![
        link(2, "eth0", LinkKind::Physical, 1),
        link(3, "eth1", LinkKind::Physical, 2),
    ]
}

/// As they are once the service did its work.
fn bonded() -> Vec<Link> {
    let mut links = nics();
    for link in &mut links {
        link.controller = Some(Ifindex(4));
    }
    links.push(link(4, "bond0", LinkKind::Bond, 1));
    links
}

/// Follows; what configures the bond, why it is left alone, and what was said.
fn follows(folder: &Folder, links: &[Link]) -> (Option<String>, Option<String>, Vec<String>) {
    let config = config::load(&folder.path("/etc/tandem/tandem.toml"));
    let readiness = Readiness::look(&folder.files(), &config);
    let policy = config.map(|config| config.policy).unwrap_or_default();
    let mut followed = Followed::default();
    follow(&policy, &readiness, links, &mut followed);
    let (files, bond) = (folder.files(), folder.bond().name);
    let said = [followed.done, followed.reasons].concat();
    (told(&files, &bond), left_alone(&files, &bond), said)
}

#[test]
fn the_standbys_stanza_becomes_the_bonds_and_ports_get_none() {
    let folder = guest(&format!("{DHCP}allow-hotplug eth1\niface eth1 inet dhcp\n"));
    let (told, left, said) = follows(&folder, &nics());
    assert_eq!(
        told.as_deref(),
        Some("ifupdown, as /etc/network/interfaces says of eth0")
    );
    assert_eq!((left, said.len()), (None, 1));
    let text = |path: &str| fs::read_to_string(folder.path(path)).unwrap();
    assert_eq!(text(BONDS_PATH), "bond0=eth0\n");
    assert!(
        text(PORTS_PATH)
            .ends_with("auto eth0\niface eth0 inet manual\nauto eth1\niface eth1 inet manual\n")
    );
    // Once is enough, and a standby that is gone for a moment changes nothing.
    assert_eq!(follows(&folder, &nics()).2, Vec::<String>::new());
    assert!(follows(&folder, &[]).0.is_some());
}

#[test]
fn dhclient_keeps_its_name() {
    let folder = guest(DHCP);
    let (theirs, own) = (
        "/var/lib/dhcp/dhclient.eth0.leases",
        "/var/lib/dhcp/dhclient.bond0.leases",
    );
    let text = || folder.files().text(own);
    follows(&folder, &nics());
    assert_eq!(text(), "");
    folder.write(
        theirs,
        "default-duid \"\\000\\001a\";\nlease {\n  interface \"eth0\";\n}\n",
    );
    follows(&folder, &nics());
    assert_eq!(text(), "default-duid \"\\000\\001a\";\n");
    // It has one.
    folder.write(theirs, "default-duid \"b\";\n");
    assert_eq!(follows(&folder, &nics()).2, Vec::<String>::new());
    folder.write(own, "lease {\n  interface \"bond0\";\n}\n");
    assert_eq!(follows(&folder, &nics()).2.len(), 1);
    assert_eq!(
        text(),
        "default-duid \"b\";\nlease {\n  interface \"bond0\";\n}\n"
    );
}

#[test]
fn what_it_does_not_configure_is_not_its() {
    for interfaces in [
        "",
        "auto eth1\niface eth1 inet dhcp\n",
        "iface eth0 inet dhcp\n",
    ] {
        let (told, left, said) = follows(&guest(interfaces), &nics());
        assert_eq!((told, left, said), (None, None, vec![]), "{interfaces}");
    }
    // Nothing starts it.
    let folder = guest(DHCP);
    folder.remove("/etc/systemd/system/multi-user.target.wants/networking.service");
    assert_eq!(follows(&folder, &nics()).0, None);
}

#[test]
fn nics_that_cannot_be_handed_over_are_left_to_it_and_the_reason_is_said() {
    let folder = guest(&format!("{DHCP}  up ip rule add iif eth0 table 7\n"));
    let (told, left, said) = follows(&folder, &nics());
    assert!(
        told.is_none() && left.unwrap().contains("iif eth0"),
        "{said:?}"
    );
    folder.write(INTERFACES, &format!("{DHCP}iface bond0 inet dhcp\n"));
    let (_, left, said) = follows(&folder, &nics());
    assert!(
        left.unwrap().contains("`addressing = \"none\"`"),
        "{said:?}"
    );
    folder.write(INTERFACES, DHCP);
    let (told, left, _) = follows(&folder, &nics());
    assert!(told.is_some() && left.is_none());
    // The host may have named it.
    let (stanzas, standby) = (Stanzas::read(&folder.files()), "eth0".parse().unwrap());
    for name in ["-a", "a$b", "a;b"] {
        assert!(
            is_its(&stanzas, &name.parse().unwrap(), &standby).is_err(),
            "{name}"
        );
    }
}

#[test]
fn it_gets_nics_back_but_not_from_a_bond_that_carries() {
    let folder = guest(DHCP);
    assert!(follows(&folder, &nics()).0.is_some());
    folder.remove("/etc/passwd");
    folder.write(INTERFACES, "");
    assert!(follows(&folder, &bonded()).0.is_some());
    assert!(follows(&folder, &nics()).0.is_none());

    // Nor does a configuration that names it no more end it.
    let folder = guest(DHCP);
    follows(&folder, &nics());
    folder.write("/etc/tandem/tandem.toml", "");
    let config = config::load(&folder.path("/etc/tandem/tandem.toml")).unwrap();
    let bonds_with = |links: &[Link]| {
        let readiness = Readiness::look(&folder.files(), &Ok(config.clone()));
        let mut followed = Followed::default();
        follow(&config.policy, &readiness, links, &mut followed);
        folder.files().text(BONDS_PATH)
    };
    assert_eq!(bonds_with(&bonded()), "bond0=eth0\n");
    assert_eq!(bonds_with(&nics()), "");
}
