//! The file by which networkd configures a bond: the standby's, but for what tells the two apart.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::ini::Section;

/// Sections that are about hardware, or about the standby alone.
const LEFT_OUT: [&str; 2] = ["Match", "SR-IOV"];

/// The standby's sections as the bond's file. `iaid` is what the DHCP clients identify the standby by.
pub(super) fn copy(bond: &str, source: &str, sections: &[Section], iaid: Option<u32>) -> String {
    let mut text = format!("{HEADER}{source}\n[Match]\nName={bond}\nType=bond\n");
    let kept = |section: &&Section| !LEFT_OUT.contains(&section.name.as_str());
    for section in sections.iter().filter(kept) {
        let _ = write!(text, "\n[{}]\n", section.name);
        for (key, value) in &section.entries {
            // The bond's MAC is Tandem's to choose.
            if (section.name.as_str(), key.as_str()) != ("Link", "MACAddress") {
                let _ = writeln!(text, "{key}={value}");
            }
        }
    }
    if let Some(iaid) = iaid {
        for section in ["DHCPv4", "DHCPv6"] {
            if !has(sections, section, "IAID") {
                let _ = write!(text, "\n[{section}]\nIAID={iaid}\n");
            }
        }
    }
    text
}

/// What a copy begins with; the file that it was made from follows.
const HEADER: &str = "# Written by tandem, and again when it changes. Made from ";

/// The file that a copy was made from.
pub(super) fn source(text: &str) -> Option<&str> {
    text.lines().next()?.strip_prefix(HEADER)
}

/// networkd does not touch the interface, or only makes it a port of something else.
pub(super) fn leaves_alone(sections: &[Section]) -> bool {
    let is_true = |value: &str| matches!(value, "yes" | "true" | "1" | "on" | "y" | "t");
    last(sections, "Link", "Unmanaged").is_some_and(is_true)
        || last(sections, "Network", "Bond").is_some_and(|bond| !bond.is_empty())
}

/// There is an IPv4 address, or DHCP asks for one alone.
pub(super) fn gives_ipv4(sections: &[Section]) -> bool {
    let is_ipv4 = |value: &str| {
        value
            .split('/')
            .next()
            .is_some_and(|ip| ip.parse::<Ipv4Addr>().is_ok())
    };
    let entries = sections
        .iter()
        .filter(|section| matches!(section.name.as_str(), "Network" | "Address"));
    let mut entries = entries.flat_map(|section| &section.entries);
    // `v4` is the former word (systemd.network(5), 219).
    last(sections, "Network", "DHCP").is_some_and(|how| matches!(how, "ipv4" | "v4"))
        || entries.any(|(key, value)| key == "Address" && is_ipv4(value))
}

fn has(sections: &[Section], section: &str, key: &str) -> bool {
    // `[DHCP]` is the former name of `[DHCPv4]` (systemd.network(5), 243).
    let old = if section == "DHCPv4" { "DHCP" } else { section };
    last(sections, section, key).is_some() || last(sections, old, key).is_some()
}

/// The last value of a key.
fn last<'a>(sections: &'a [Section], section: &str, key: &str) -> Option<&'a str> {
    let entries = sections
        .iter()
        .filter(|found| found.name == section)
        .flat_map(|found| &found.entries);
    let mut values = entries.filter(|(found, _)| found == key);
    values.next_back().map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::ini::parse;
    use super::*;

    #[test]
    fn the_bond_has_all_that_the_standby_has_but_its_name_and_its_mac() {
        let sections = parse(
            "[Match]\nPermanentMACAddress=52:54:00:00:00:01\nName=eth0\n\
             [Link]\nMACAddress=02:00:00:00:00:09\nMTUBytes=1400\nRequiredForOnline=routable\n\
             [Network]\nDHCP=yes\n[Route]\nGateway=192.0.2.1\n[Route]\nGateway=192.0.2.2\n\
             [SR-IOV]\nVirtualFunction=0\n[DHCPv6]\nIAID=7\n",
        );
        let text = copy(
            "bond0",
            "10-netplan-eth0.network",
            &sections,
            Some(3_262_313_993),
        );
        assert_eq!(source(&text), Some("10-netplan-eth0.network"));
        let (_, body) = text.split_once('\n').unwrap();
        assert_eq!(
            body,
            "[Match]\nName=bond0\nType=bond\n\n[Link]\nMTUBytes=1400\nRequiredForOnline=routable\n\
             \n[Network]\nDHCP=yes\n\n[Route]\nGateway=192.0.2.1\n\n[Route]\nGateway=192.0.2.2\n\
             \n[DHCPv6]\nIAID=7\n\n[DHCPv4]\nIAID=3262313993\n"
        );
    }

    #[test]
    fn an_ipv4_address_is_given_or_asked_for_alone() {
        for (text, gives) in [
            ("[Network]\nDHCP=ipv4\n", true),
            ("[Network]\nDHCP=ipv4\nDHCP=yes\n", false),
            ("[Network]\nAddress=192.0.2.5/24\n", true),
            (
                "[Network]\nDHCP=ipv6\n[Address]\nAddress=2001:db8::5/64\n",
                false,
            ),
            ("[Address]\nAddress=192.0.2.5/24\n", true),
        ] {
            assert_eq!(gives_ipv4(&parse(text)), gives, "{text}");
        }
    }

    #[test]
    fn what_networkd_leaves_alone_is_left_alone() {
        assert!(leaves_alone(&parse("[Link]\nUnmanaged=yes\n")));
        assert!(leaves_alone(&parse("[Network]\nBond=bond7\n")));
        assert!(!leaves_alone(&parse(
            "[Link]\nUnmanaged=yes\nUnmanaged=no\n[Network]\nDHCP=yes\n"
        )));
    }
}
