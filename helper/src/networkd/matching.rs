//! Whether a `.network` file is the one that networkd uses for an interface (`[Match]`, systemd.network(5), 257).

use super::ini::Section;
use super::nic::Nic;

/// What a `[Match]` section says to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fit {
    /// The file is for it.
    Yes,
    /// It is not.
    No,
    /// It depends on what is not known here.
    Unknown(String),
}

/// Holds an interface against the file's `[Match]` sections. A file that asks for nothing is no interface's
/// (networkd ignores it).
pub(super) fn fit(sections: &[Section], nic: &Nic) -> Fit {
    let mut asked: Vec<(&str, Vec<String>)> = Vec::new();
    let entries = sections.iter().filter(|section| section.name == "Match");
    for (key, value) in entries.flat_map(|section| &section.entries) {
        let words = &mut match asked.iter().position(|(known, _)| known == key) {
            Some(at) => &mut asked[at],
            None => {
                asked.push((key, Vec::new()));
                let last = asked.len() - 1;
                &mut asked[last]
            }
        }
        .1;
        if value.is_empty() {
            words.clear();
        }
        let (inverted, list) = match value.strip_prefix('!') {
            Some(list) => ("!", list),
            None => ("", value.as_str()),
        };
        words.extend(
            list.split_whitespace()
                .map(|word| format!("{inverted}{}", unquoted(word))),
        );
    }
    asked.retain(|(_, words)| !words.is_empty());
    if asked.is_empty() {
        return Fit::No;
    }
    let mut unknown = None;
    for (key, words) in &asked {
        match one(key, words, nic) {
            Some(false) => return Fit::No,
            Some(true) => {}
            None => unknown = Some(format!("`{key}=` in its [Match]")),
        }
    }
    unknown.map_or(Fit::Yes, Fit::Unknown)
}

/// One key; nothing if it is not known here.
fn one(key: &str, words: &[String], nic: &Nic) -> Option<bool> {
    let mac = |mac: Option<_>| {
        mac.is_some_and(|mac| {
            words
                .iter()
                .any(|word| word.replace('-', ":").parse() == Ok(mac))
        })
    };
    let text = |value: Option<&String>| matches_any(words, value.map(String::as_str).as_slice());
    Some(match key {
        "MACAddress" => mac(nic.mac),
        "PermanentMACAddress" => mac(nic.permanent_mac),
        "Name" => {
            let names: Vec<_> = std::iter::once(&nic.name)
                .chain(&nic.other_names)
                .map(String::as_str)
                .collect();
            matches_any(words, &names)
        }
        "Path" => text(nic.properties.get("ID_PATH")),
        "Driver" => text(nic.driver.as_ref()),
        "Type" => text(nic.kind_of_type.as_ref()),
        "Kind" => matches_any(words, nic.kind.as_slice()),
        "Property" => words.iter().all(|word| has_property(nic, word)),
        // Only a wireless interface has these.
        "SSID" | "BSSID" | "WLANInterfaceType" => false,
        "Architecture" | "Credential" | "Firmware" | "Host" | "KernelCommandLine"
        | "KernelVersion" | "Version" | "Virtualization" => {
            return nic.condition?(&format!("Condition{key}={}", words.join(" ")));
        }
        _ => return None,
    })
}

/// `net_condition_test_strv` (systemd, src/shared/netif-util.c, 257): no word that forbids it, and one that allows
/// it if any does.
fn matches_any(words: &[String], values: &[&str]) -> bool {
    let fits = |pattern: &str| values.iter().any(|value| is_like(pattern, value));
    let (mut asks, mut allowed) = (false, false);
    for word in words {
        match word.strip_prefix('!') {
            Some(pattern) if fits(pattern) => return false,
            Some(_) => {}
            None => {
                asks = true;
                allowed |= fits(word);
            }
        }
    }
    allowed || !asks
}

fn has_property(nic: &Nic, word: &str) -> bool {
    let (inverted, word) = match word.strip_prefix('!') {
        Some(word) => (true, word),
        None => (false, word),
    };
    let has = word.split_once('=').is_some_and(|(key, pattern)| {
        nic.properties
            .get(key)
            .is_some_and(|value| is_like(pattern, value))
    });
    has != inverted
}

fn unquoted(word: &str) -> &str {
    let inner = word
        .strip_prefix('"')
        .and_then(|word| word.strip_suffix('"'));
    inner.unwrap_or(word)
}

/// A shell's pattern, as fnmatch(3) reads it.
fn is_like(pattern: &str, value: &str) -> bool {
    glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(value))
}

#[cfg(test)]
mod tests {
    use super::super::ini;
    use super::*;

    fn nic() -> Nic {
        let mac = Some("52:54:00:00:00:01".parse().unwrap());
        let properties = [("ID_PATH", "pci-0000:00:04.0"), ("TANDEM_UNMANAGED", "1")];
        Nic {
            mac,
            permanent_mac: mac,
            driver: Some("virtio_net".to_owned()),
            other_names: vec!["enp0s4".to_owned()],
            properties: properties
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..Nic::named("eth0")
        }
    }

    fn is(text: &str, nic: &Nic) -> Fit {
        fit(&ini::parse(text), nic)
    }

    #[test]
    fn a_file_is_for_an_interface_if_all_it_asks_for_fits() {
        for fits in [
            "[Match]\nName=eth0",
            "[Match]\nName=en* wl*",
            "[Match]\nName=!wl* lo",
            "[Match]\nName=wl*\nName=eth?",
            "[Match]\nName=wl*\nName=\nName=eth[0-3]",
            "[Match]\nMACAddress=52:54:00:00:00:09 52-54-00-00-00-01",
            "[Match]\nPermanentMACAddress=52:54:00:00:00:01\nName=eth0",
            "[Match]\nDriver=virtio*",
            "[Match]\nPath=pci-*:04.0",
            "[Match]\nType=ether\nKind=!*",
            "[Match]\nProperty=ID_PATH=pci-* !ID_BUS=usb",
            "[Match]\nType=ether\n[Network]\nDHCP=yes\n[Match]\nName=eth0",
        ] {
            assert_eq!(is(fits, &nic()), Fit::Yes, "{fits}");
        }
        for other in [
            "",
            "[Match]\n",
            "[Match]\nName=",
            "[Network]\nDHCP=yes",
            "[Match]\nName=eth1",
            "[Match]\nName=!eth*",
            "[Match]\nName=*\nDriver=igb",
            "[Match]\nMACAddress=52:54:00:00:00:09",
            "[Match]\nType=wlan",
            "[Match]\nKind=veth\nVirtualization=container",
            "[Match]\nName=eth[",
            "[Match]\nProperty=ID_BUS=usb",
            "[Match]\nName=*\nProperty=!ID_PATH=pci*",
        ] {
            assert_eq!(is(other, &nic()), Fit::No, "{other}");
        }
    }

    #[test]
    fn what_is_not_known_here_is_not_guessed() {
        let said = is("[Match]\nName=eth0\nHost=web*", &nic());
        assert_eq!(said, Fit::Unknown("`Host=` in its [Match]".to_owned()));
    }

    #[test]
    fn what_is_of_the_system_is_asked_of_systemd() {
        let nic = Nic {
            condition: Some(|condition| match condition {
                "ConditionKernelCommandLine=!nfsroot" => Some(true),
                "ConditionHost=db*" => Some(false),
                _ => None,
            }),
            ..nic()
        };
        assert_eq!(
            is("[Match]\nType=ether\nKernelCommandLine=!nfsroot", &nic),
            Fit::Yes
        );
        assert_eq!(is("[Match]\nName=eth0\nHost=db*", &nic), Fit::No);
        let said = is("[Match]\nName=eth0\nFirmware=uefi", &nic);
        assert_eq!(said, Fit::Unknown("`Firmware=` in its [Match]".to_owned()));
    }

    #[test]
    fn a_bond_is_no_hardware() {
        let bond = Nic::bond("bond0", &nic());
        assert_eq!(is("[Match]\nType=ether\nKind=!*", &bond), Fit::No);
        assert_eq!(is("[Match]\nKind=bond", &bond), Fit::Yes);
        assert_eq!(is("[Match]\nName=bond*", &bond), Fit::Yes);
    }
}
