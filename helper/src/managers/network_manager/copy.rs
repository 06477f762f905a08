//! The profiles by which NetworkManager makes a bond, configures it as it would have configured the standby, and
//! takes the standby in.

use std::fmt::Write as _;

use siphasher::sip::SipHasher24;
use tandem_core::policy::{BondPolicy, MacPolicy};

use super::managed::{Configuration, Setting};
use super::nic::Nic;
use super::profiles::{AUTOMATIC, CONNECTION, Profile, WIRED};
use crate::networkd::iaid;
use crate::system_files::SystemFiles;

/// Of `[connection]`, what the bond's profile has of its own.
const OWN: &[&str] = &[
    "id",
    "uuid",
    "type",
    "interface-name",
    "autoconnect",
    "autoconnect-priority",
    "autoconnect-retries",
    "timestamp",
    "multi-connect",
];
/// Groups that are about hardware, or that the bond has of its own.
const LEFT_OUT: &[&str] = &[
    "connection",
    "ethernet",
    "802-3-ethernet",
    "match",
    "bond",
    "user",
];
/// What a profile asks for where it says nothing else.
const IP_GROUPS: [&str; 2] = ["ipv4", "ipv6"];
const MAC: &str = "mac-address";
const METRIC: &str = "route-metric";
const IAID: &str = "dhcp-iaid";
/// Of two profiles for the standby NetworkManager takes that with the higher number; more is not possible.
const PRIORITY: u32 = 999;
/// What it gives routes of a wired NIC; those of a bond get another (`nm_device_get_route_metric_default`, 1.52).
const WIRED_METRIC: u32 = 100;
/// What a profile begins with; what it was made from follows.
pub(super) const HEADER: &str = "# Written by tandem, and again when it changes. Made from ";

/// What NetworkManager.conf gives profiles for the standby, by [`IP_GROUPS`]. It may do so for wired NICs alone.
pub(super) struct Defaults([Vec<Setting>; 2]);

impl Defaults {
    /// An error where it can't be told whom they are for.
    pub(super) fn read(files: &SystemFiles, nic: &Nic) -> Result<Self, String> {
        let configuration = Configuration::read(files);
        let [v4, v6] = IP_GROUPS.map(|family| configuration.defaults(nic, family));
        Ok(Self([v4?, v6?]))
    }

    fn of(&self, group: &str) -> &[Setting] {
        let known = IP_GROUPS.iter().zip(&self.0);
        let found = known.into_iter().find(|(name, _)| **name == group);
        found.map_or(&[], |(_, settings)| settings)
    }
}

/// The bond's profile.
pub(super) fn of_bond(
    bond: &BondPolicy,
    nic: &Nic,
    source: &Profile,
    defaults: &Defaults,
) -> String {
    let name = &bond.name;
    let mut text = format!(
        "{HEADER}{}\n[connection]\nid=tandem {name}\nuuid={}\ntype=bond\ninterface-name={name}\n\
         autoconnect-priority={PRIORITY}\nautoconnect-slaves=1\n",
        source.source(),
        uuid_of_bond(name.as_str()),
    );
    for (key, value) in source.file.group(CONNECTION) {
        if !OWN.contains(&key) {
            let _ = writeln!(text, "{key}={value}");
        }
    }
    let _ = write!(text, "\n[ethernet]\n");
    if let (MacPolicy::Standby, Some(mac)) = (bond.mac, nic.mac) {
        let _ = writeln!(text, "cloned-mac-address={mac}");
    }
    let mtu = bond.mtu.map(|mtu| mtu.to_string());
    let mtu = mtu.as_deref().or(source.file.get(WIRED, &["mtu"]));
    if let Some(mtu) = mtu {
        let _ = writeln!(text, "mtu={mtu}");
    }
    text.push_str(&options(bond));
    // What a bond would have otherwise, where the group says nothing of it.
    let asks_as_the_standby = |text: &mut String, group: &str, entries: &[Setting]| {
        let is_among = |known: &[Setting], wanted: &str| known.iter().any(|(key, _)| key == wanted);
        let defaults = defaults.of(group);
        for (key, value) in defaults {
            if !is_among(entries, key) {
                let _ = writeln!(text, "{key}={value}");
            }
        }
        let has = |wanted: &str| is_among(entries, wanted) || is_among(defaults, wanted);
        if !has(METRIC) {
            let _ = writeln!(text, "{METRIC}={WIRED_METRIC}");
        }
        // Where nobody has chosen by what its DHCP client identifies the standby, it is its name.
        if !has(IAID) {
            // As `nm_utils_create_dhcp_iaid` derives it from the interface's name (NetworkManager, 1.52).
            let _ = writeln!(text, "{IAID}={}", iaid::of_bytes(nic.name.as_bytes()));
        }
    };
    for (group, entries) in source.file.groups() {
        if LEFT_OUT.contains(&group) {
            continue;
        }
        let _ = write!(text, "\n[{group}]\n");
        for (key, value) in entries {
            let _ = writeln!(text, "{key}={value}");
        }
        if !IP_GROUPS.contains(&group) {
            continue;
        }
        asks_as_the_standby(&mut text, group, entries);
    }
    // A profile that says nothing of a family asks for it (`nm_connection_normalize`, NetworkManager, 1.52).
    for group in IP_GROUPS {
        if source.file.groups().any(|(name, _)| name == group) {
            continue;
        }
        let _ = write!(text, "\n[{group}]\nmethod=auto\n");
        asks_as_the_standby(&mut text, group, &[]);
    }
    text
}

/// Those with which Tandem makes a bond.
fn options(bond: &BondPolicy) -> String {
    let fail_over_mac = match bond.mac {
        MacPolicy::Standby => "none",
        MacPolicy::Follow => "active",
    };
    format!(
        "\n[bond]\nmode=active-backup\nmiimon={}\nfail_over_mac={fail_over_mac}\n\
         primary_reselect=failure\nnum_grat_arp={}\n",
        bond.timing.miimon_ms, bond.timing.announcements
    )
}

/// The standby's profile: a port of the bond, and nothing else.
pub(super) fn of_standby(bond: &BondPolicy, nic: &Nic, source: &Profile) -> Option<String> {
    let (name, mac) = (&bond.name, nic.mac?);
    Some(format!(
        "{HEADER}{}\n[connection]\nid=tandem {name} standby\nuuid={}\ntype=ethernet\n\
         master={}\nslave-type=bond\nautoconnect-priority={PRIORITY}\n\n[ethernet]\nmac-address={mac}\n",
        source.source(),
        uuid_of_standby(name.as_str()),
        uuid_of_bond(name.as_str()),
    ))
}

/// The standby's profile, as it is, for this NIC; nothing if there is none.
pub(super) fn for_standby(profile: &str, nic: &Nic) -> Option<String> {
    let mac = nic.mac?;
    let lines = profile.lines().map(|line| match line.split_once('=') {
        Some((MAC, _)) => format!("{MAC}={mac}\n"),
        _ => format!("{line}\n"),
    });
    (!profile.is_empty()).then(|| lines.collect())
}

/// What NetworkManager goes back to where the other two don't work: it makes no automatic profile for a NIC that
/// has one (`device_realized`, src/core/settings/nm-settings.c, 1.52), and the standby has Tandem's.
pub(super) fn in_need(bond: &BondPolicy, nic: &Nic) -> Option<String> {
    let (name, mac) = (&bond.name, nic.mac?);
    Some(format!(
        "{HEADER}its automatic profile\n[connection]\nid=tandem {name} without a bond\nuuid={}\ntype=ethernet\n\
         autoconnect-priority=-{PRIORITY}\n\n[ethernet]\nmac-address={mac}\n\n{AUTOMATIC}",
        uuid(&format!("in need {name}")),
    ))
}

/// By which NetworkManager knows the bond's profile.
pub(super) fn uuid_of_bond(bond: &str) -> String {
    uuid(&format!("bond {bond}"))
}

/// By which NetworkManager knows the standby's profile.
pub(super) fn uuid_of_standby(bond: &str) -> String {
    uuid(&format!("standby {bond}"))
}

/// The same for the same words: of version 8 (RFC 9562), which leaves it to who makes it.
fn uuid(words: &str) -> String {
    let half = |key: u64| SipHasher24::new_with_keys(0x7461_6e64_656d, key).hash(words.as_bytes());
    let high = half(0) & !0xf000 | 0x8000;
    let low = half(1) & !(0b11 << 62) | 0b10 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}
