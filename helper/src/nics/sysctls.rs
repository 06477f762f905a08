//! What the administrator set for the standby alone, the bond has too: keys of `net.ipv4.conf` and `net.ipv6.conf`
//! (Documentation/networking/ip-sysctl.rst, 6.12).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::Result;
use tandem_core::IfName;
use tandem_core::link::Link;
use tandem_core::policy::{Ownership, Policy};

use crate::networkd::{carries, standby_of};
use crate::runtime;
use crate::system_files::SystemFiles;

/// What was written, so that whoever changes it afterwards is heard.
const WRITTEN_PATH: &str = "/run/tandem-nics/sysctls.json";
/// How an interface sends, answers, forwards and filters. Not what a network manager sets as it configures one
/// (`disable_ipv6`, `accept_ra`, `autoconf`, `addr_gen_mode`, `use_tempaddr`), and nothing that counts time.
const KEYS: &[(&str, &[&str])] = &[
    (
        "ipv4",
        &[
            "accept_local",
            "accept_redirects",
            "accept_source_route",
            "arp_accept",
            "arp_announce",
            "arp_filter",
            "arp_ignore",
            "drop_gratuitous_arp",
            "drop_unicast_in_l2_multicast",
            "forwarding",
            "log_martians",
            "promote_secondaries",
            "proxy_arp",
            "route_localnet",
            "rp_filter",
            "secure_redirects",
            "send_redirects",
            "src_valid_mark",
        ],
    ),
    (
        "ipv6",
        &[
            "accept_redirects",
            "accept_source_route",
            "accept_untracked_na",
            "drop_unicast_in_l2_multicast",
            "drop_unsolicited_na",
            "forwarding",
            "ndisc_notify",
            "proxy_ndp",
        ],
    ),
];

/// Of a bond's number in the kernel, the keys that were written.
type Written = BTreeMap<u32, BTreeSet<String>>;

/// Gives bonds what their standbys have, and says what it did. A key that is not at its default on the bond, or was
/// written before, is left as it is. This needs root.
pub(crate) fn follow(files: &SystemFiles, policy: &Policy, links: &[Link]) -> Result<Vec<String>> {
    let before: Written = runtime::load(&files.path(WRITTEN_PATH))
        .ok()
        .flatten()
        .unwrap_or_default();
    let mut written = before.clone();
    let mut said = Vec::new();
    for bond in policy
        .bonds
        .iter()
        .filter(|bond| bond.ownership == Ownership::Create)
    {
        let device = links.iter().find(|link| link.name == bond.name);
        let standby = standby_of(policy, bond, links);
        let Some((device, standby)) = device.zip(standby).filter(|_| carries(&bond.name, links))
        else {
            continue;
        };
        let done = written.entry(device.ifindex.0).or_default();
        for (path, value) in differing(files, &standby.name, &bond.name) {
            if done.contains(&path) {
                continue;
            }
            said.push(match fs::write(files.path(&path), &value) {
                Ok(()) => format!("{path} is {value}, as for {}", standby.name),
                Err(error) => format!("can't write {path}: {error}"),
            });
            done.insert(path);
        }
    }
    written.retain(|ifindex, keys| {
        !keys.is_empty() && links.iter().any(|link| link.ifindex.0 == *ifindex)
    });
    if written != before {
        runtime::store(&files.path(WRITTEN_PATH), &written)?;
    }
    Ok(said)
}

/// The files of the keys that are set for the standby and not for the bond, and the standby's values.
fn differing(files: &SystemFiles, standby: &IfName, bond: &IfName) -> Vec<(String, String)> {
    let keys = KEYS
        .iter()
        .flat_map(|(family, keys)| keys.iter().map(move |key| (family, key)));
    let found = keys.filter_map(|(family, key)| {
        // Names have no slash; one with a dot is a folder like any other here.
        let path = |name: &str| format!("/proc/sys/net/{family}/conf/{name}/{key}");
        let value = |name: &str| {
            Some(files.text(&path(name)).trim().to_owned()).filter(|text| !text.is_empty())
        };
        let (wanted, default, present) = (
            value(standby.as_str())?,
            value("default")?,
            value(bond.as_str())?,
        );
        (wanted != default && present == default).then(|| (path(bond.as_str()), wanted))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use tandem_core::link::LinkKind;
    use tandem_core::types::Ifindex;

    use super::*;
    use crate::nics::testing::Folder;

    fn links() -> Vec<Link> {
        let mac = Some("52:54:00:00:00:01".parse().unwrap());
        let bond = Ifindex(4);
        vec![
            Link {
                mac,
                permanent_mac: mac,
                controller: Some(bond),
                ..Link::named(Ifindex(2), "eth0".parse().unwrap(), LinkKind::Physical)
            },
            Link::named(bond, "bond0".parse().unwrap(), LinkKind::Bond),
        ]
    }

    #[test]
    fn the_bond_gets_what_was_set_for_the_standby_once() {
        let folder = Folder::complete();
        let key = |name: &str, key: &str| format!("/proc/sys/net/{key}").replace("IF", name);
        let set = |name: &str, what: &str, value: &str| folder.write(&key(name, what), value);
        for name in ["default", "eth0", "bond0"] {
            for what in [
                "ipv4/conf/IF/arp_announce",
                "ipv4/conf/IF/rp_filter",
                "ipv6/conf/IF/accept_ra",
            ] {
                set(name, what, "0\n");
            }
        }
        set("eth0", "ipv4/conf/IF/arp_announce", "2\n");
        set("eth0", "ipv6/conf/IF/accept_ra", "2\n");
        // Somebody set it for the bond.
        set("eth0", "ipv4/conf/IF/rp_filter", "1\n");
        set("bond0", "ipv4/conf/IF/rp_filter", "2\n");
        let policy = Policy {
            bonds: vec![folder.bond()],
            ..Policy::default()
        };
        let files = folder.files();
        folder.write("/run/tandem-nics/a", "");
        let follow = || follow(&files, &policy, &links()).unwrap();
        assert_eq!(
            follow(),
            ["/proc/sys/net/ipv4/conf/bond0/arp_announce is 2, as for eth0"]
        );
        let value = |what: &str| files.text(&key("bond0", what)).trim().to_owned();
        assert_eq!(value("ipv4/conf/IF/arp_announce"), "2");
        assert_eq!(value("ipv4/conf/IF/rp_filter"), "2");
        assert_eq!(value("ipv6/conf/IF/accept_ra"), "0");
        // Set back by somebody, it stays so.
        set("bond0", "ipv4/conf/IF/arp_announce", "0\n");
        assert_eq!(follow(), Vec::<String>::new());
    }
}
