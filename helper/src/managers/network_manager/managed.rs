//! Whether NetworkManager is to have a NIC at all, by its own configuration (NetworkManager.conf(5), 1.52).

use super::keyfile::{Keyfile, files_in, is_true, list};
use super::nic::Nic;
use crate::system_files::{SystemFiles, text_of};

/// Of one name, the file in the first folder.
const DROP_INS: &[&str] = &[
    "/etc/NetworkManager/conf.d",
    "/run/NetworkManager/conf.d",
    "/usr/lib/NetworkManager/conf.d",
];
const MAIN: &str = "/etc/NetworkManager/NetworkManager.conf";
/// MACs of NICs whose automatic profile somebody deleted.
const NO_AUTO_DEFAULT: &str = "/var/lib/NetworkManager/no-auto-default.state";

/// Its section of defaults for all profiles; others have more of a name.
const PLAIN: &str = "connection";
/// Of IPv4's and IPv6's settings, those that take a default from there.
const HAVE_DEFAULTS: &[&str] = &[
    "addr-gen-mode",
    "dad-timeout",
    "dhcp-client-id",
    "dhcp-dscp",
    "dhcp-duid",
    "dhcp-hostname-flags",
    "dhcp-iaid",
    "dhcp-ipv6-only-preferred",
    "dhcp-send-hostname",
    "dhcp-send-release",
    "dhcp-timeout",
    "dhcp-vendor-class-identifier",
    "dns-priority",
    "forwarding",
    "ip6-privacy",
    "link-local",
    "mtu",
    "ra-timeout",
    "replace-local-rule",
    "required-timeout",
    "route-metric",
    "route-table",
    "routed-dns",
    "temp-preferred-lifetime",
    "temp-valid-lifetime",
];

/// A key and its value.
pub(super) type Setting = (String, String);

/// All of its configuration, in the order in which later files override earlier ones.
pub(super) struct Configuration(Vec<Keyfile>);

impl Configuration {
    pub(super) fn read(files: &SystemFiles) -> Self {
        let drop_ins = files_in(files, DROP_INS, ".conf");
        let is_local = |path: &std::path::Path| path.starts_with(files.path(DROP_INS[0]));
        let (local, vendor): (Vec<_>, Vec<_>) = drop_ins
            .into_iter()
            .map(|(_, path)| path)
            .partition(|path| is_local(path));
        let paths = vendor.into_iter().chain([files.path(MAIN)]).chain(local);
        Self(paths.map(|path| Keyfile::parse(&text_of(&path))).collect())
    }

    /// The value of a key in the last file that has one; `KEY+=` adds to it.
    fn value(&self, group: &str, key: &str) -> Option<String> {
        let more = format!("{key}+");
        let mut value = None;
        for file in &self.0 {
            for (found, text) in file.group(&[group]) {
                if found == key {
                    value = Some(text.to_owned());
                } else if found == more {
                    let before = value.map(|before: String| before + ";");
                    value = Some(before.unwrap_or_default() + text);
                }
            }
        }
        value
    }

    /// What profiles for this NIC that say nothing of it have of a family's settings (`ipv4`), each key once; an
    /// error where it can't be told whom they are for.
    pub(super) fn defaults(&self, nic: &Nic, family: &str) -> Result<Vec<Setting>, String> {
        let mut defaults: Vec<Setting> = Vec::new();
        for (section, entries) in self.sections() {
            let of_family = |(key, value): &Setting| {
                let (of, key) = key.split_once('.')?;
                let is_one = of == family && HAVE_DEFAULTS.contains(&key);
                is_one.then(|| (key.to_owned(), value.clone()))
            };
            let mut settings = entries.iter().filter_map(of_family).peekable();
            let is_last = value_of(&entries, "stop-match").is_some_and(is_true);
            if settings.peek().is_none() && !is_last {
                continue;
            }
            let devices = value_of(&entries, "match-device");
            let is_for_it = devices.map_or(Ok(true), |devices| fits(devices, nic));
            if !is_for_it.map_err(|what| format!("[{section}]: {what}"))? {
                continue;
            }
            for (key, value) in settings {
                if !defaults.iter().any(|(known, _)| *known == key) {
                    defaults.push((key, value));
                }
            }
            if is_last {
                break;
            }
        }
        Ok(defaults)
    }

    /// Its `[connection…]` sections, those of one name as one, in the order in which they are asked: later files' first,
    /// in each file's own order, and last the one with no more of a name ("CONNECTION SECTION" of
    /// NetworkManager.conf(5), `_sort_groups_cmp` of src/core/nm-config.c, 1.52).
    fn sections(&self) -> Vec<(&str, Vec<Setting>)> {
        let mut merged: Vec<(&str, Vec<Setting>)> = Vec::new();
        for file in &self.0 {
            let groups: Vec<_> = file.groups().collect();
            for (name, entries) in groups.into_iter().rev() {
                if !name.starts_with(PLAIN) {
                    continue;
                }
                let known = merged.iter().position(|(known, _)| *known == name);
                let index = known.unwrap_or_else(|| {
                    merged.push((name, Vec::new()));
                    merged.len() - 1
                });
                let settings = &mut merged[index].1;
                for (key, value) in entries {
                    settings.retain(|(known, _)| known != key);
                    settings.push((key.clone(), value.clone()));
                }
            }
        }
        merged.reverse();
        merged.sort_by_key(|(name, _)| *name == PLAIN);
        merged
    }

    /// NetworkManager manages this NIC; an error where that can't be told.
    pub(super) fn manages(&self, nic: &Nic) -> Result<bool, String> {
        if let Some(devices) = self.value("keyfile", "unmanaged-devices")
            && fits(&devices, nic)?
        {
            return Ok(false);
        }
        if self.is_of_ifupdown(nic) {
            return Ok(false);
        }
        for file in &self.0 {
            for (group, entries) in file.groups().filter(|(name, _)| name.starts_with("device")) {
                if value_of(entries, "managed").is_none_or(is_true) {
                    continue;
                }
                match value_of(entries, "match-device").map(|devices| fits(devices, nic)) {
                    None => return Ok(false),
                    Some(Ok(false)) => {}
                    Some(Ok(true)) => return Ok(false),
                    Some(Err(what)) => return Err(format!("[{group}]: {what}")),
                }
            }
        }
        Ok(true)
    }

    /// Debian's plugin leaves to ifupdown what stands in its file.
    fn is_of_ifupdown(&self, nic: &Nic) -> bool {
        let plugins = self.value("main", "plugins").unwrap_or_default();
        let is_used = list(&plugins).any(|plugin| plugin == "ifupdown");
        let is_managed = self.value("ifupdown", "managed");
        is_used && !is_managed.as_deref().is_some_and(is_true) && nic.is_of_ifupdown
    }

    /// NetworkManager makes a profile for a NIC that has none.
    pub(super) fn has_automatic_profile(
        &self,
        files: &SystemFiles,
        nic: &Nic,
    ) -> Result<bool, String> {
        let refused = self.value("main", "no-auto-default").unwrap_or_default();
        let deleted = files.text(NO_AUTO_DEFAULT);
        let is_deleted = deleted
            .split_whitespace()
            .any(|mac| nic.is_mac(mac.trim_start_matches("mac:")));
        Ok(!is_deleted && !fits(&refused, nic)?)
    }
}

fn value_of<'a>(entries: &'a [Setting], key: &str) -> Option<&'a str> {
    let found = entries.iter().find(|(found, _)| found == key);
    found.map(|(_, value)| value.as_str())
}

/// Whether a list of devices has this NIC ("Device List Format" of NetworkManager.conf(5)).
fn fits(devices: &str, nic: &Nic) -> Result<bool, String> {
    let mut is_listed = false;
    let mut has_exceptions_alone = true;
    for entry in list(devices) {
        let (is_exception, entry) = match entry.strip_prefix("except:") {
            Some(entry) => (true, entry),
            None => (false, entry),
        };
        has_exceptions_alone &= is_exception;
        if fits_one(entry, nic)? {
            if is_exception {
                return Ok(false);
            }
            is_listed = true;
        }
    }
    let is_empty = list(devices).next().is_none();
    Ok(is_listed || has_exceptions_alone && !is_empty)
}

fn fits_one(entry: &str, nic: &Nic) -> Result<bool, String> {
    if entry == "*" {
        return Ok(true);
    }
    let Some((kind, value)) = entry.split_once(':').filter(|_| !nic.is_mac(entry)) else {
        return Ok(entry == nic.name || nic.is_mac(entry));
    };
    match kind {
        "interface-name" => match value.strip_prefix('=') {
            Some(name) => Ok(name == nic.name),
            None => Ok(nic.has_name_like(value.trim_start_matches('~'))),
        },
        "mac" => Ok(nic.is_mac(value)),
        "type" => Ok(value == "ethernet"),
        "driver" => Ok(nic.has_driver_like(value)),
        // Another MAC.
        _ if entry.parse::<tandem_core::types::Mac>().is_ok() => Ok(false),
        _ => Err(format!("`{entry}` is not known here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::testing::Folder;

    fn manages(text: &str) -> Result<bool, String> {
        let folder = Folder::new();
        folder.write("/etc/NetworkManager/conf.d/10.conf", text);
        Configuration::read(&folder.files()).manages(&Nic::named("eth0"))
    }

    #[test]
    fn it_manages_what_its_files_do_not_take_from_it() {
        for (text, expected) in [
            ("", true),
            ("[keyfile]\nunmanaged-devices=*\n", false),
            (
                "[keyfile]\nunmanaged-devices=eth1;mac:52:54:00:00:00:09\n",
                true,
            ),
            ("[keyfile]\nunmanaged-devices=52:54:00:00:00:01\n", false),
            ("[keyfile]\nunmanaged-devices=52:54:00:00:00:09\n", true),
            ("[keyfile]\nunmanaged-devices=interface-name:eth*\n", false),
            // Ubuntu's way, and how a server's is switched on again.
            (
                "[keyfile]\nunmanaged-devices=*,except:type:wifi,except:type:gsm\n",
                false,
            ),
            (
                "[keyfile]\nunmanaged-devices=*,except:type:ethernet\n",
                true,
            ),
            (
                "[device-x]\nmatch-device=driver:virtio*\nmanaged=0\n",
                false,
            ),
            ("[device-x]\nmatch-device=driver:igb\nmanaged=0\n", true),
            ("[device]\nmanaged=false\n", false),
        ] {
            assert_eq!(manages(text), Ok(expected), "{text}");
        }
        assert!(manages("[keyfile]\nunmanaged-devices=s390-subchannels:0\n").is_err());
    }

    #[test]
    fn defaults_are_those_of_the_sections_that_fit() {
        let folder = Folder::new();
        let of = |family: &str| {
            let defaults =
                Configuration::read(&folder.files()).defaults(&Nic::named("eth0"), family)?;
            let texts = defaults.iter().map(|(key, value)| format!("{key}={value}"));
            Ok::<_, String>(texts.collect::<Vec<_>>().join(" "))
        };
        folder.write(
            MAIN,
            "[connection]\nipv4.route-metric=55\nipv4.dhcp-timeout=90\nipv6.ip6-privacy=0\n\
             [connection-wifi]\nmatch-device=type:wifi\nipv4.route-metric=600\n\
             [connection-wired]\nmatch-device=type:ethernet\nipv4.route-metric=50\n",
        );
        assert_eq!(of("ipv4").unwrap(), "route-metric=50 dhcp-timeout=90");
        assert_eq!(of("ipv6").unwrap(), "ip6-privacy=0");
        // Files that are read later come first, but for `[connection]`, which is one for all and the last.
        let local = "/etc/NetworkManager/conf.d/10.conf";
        folder.write(
            local,
            "[connection]\nipv4.route-metric=7\nipv4.dns=192.0.2.1\n[connection-x]\nipv4.dad-timeout=8\n",
        );
        assert_eq!(
            of("ipv4").unwrap(),
            "dad-timeout=8 route-metric=50 dhcp-timeout=90"
        );
        folder.write(local, "[connection-x]\nmatch-device=eth0\nstop-match=1\n");
        assert_eq!(of("ipv4").unwrap(), "");
        // Sections of one name are one.
        folder.write(local, "[connection-wired]\nmatch-device=type:wifi\n");
        assert_eq!(of("ipv4").unwrap(), "route-metric=55 dhcp-timeout=90");
        // What is not known here matters where it is about addresses.
        let unknown = "[connection-x]\nmatch-device=s390-subchannels:0\n";
        folder.write(local, &format!("{unknown}connection.mdns=2\n"));
        assert_eq!(of("ipv4").unwrap(), "route-metric=50 dhcp-timeout=90");
        folder.write(local, &format!("{unknown}ipv4.route-metric=1\n"));
        assert_eq!(
            of("ipv4").unwrap_err(),
            "[connection-x]: `s390-subchannels:0` is not known here"
        );
    }

    #[test]
    fn later_files_override_earlier_ones() {
        let folder = Folder::new();
        folder.write(MAIN, "[keyfile]\nunmanaged-devices=eth0\n");
        folder.write(
            "/usr/lib/NetworkManager/conf.d/90.conf",
            "[keyfile]\nunmanaged-devices=*\n",
        );
        let manages = || Configuration::read(&folder.files()).manages(&Nic::named("eth0"));
        assert_eq!(manages(), Ok(false));
        folder.write(
            "/etc/NetworkManager/conf.d/10.conf",
            "[keyfile]\nunmanaged-devices=none\n",
        );
        assert_eq!(manages(), Ok(true));
        folder.write(
            "/etc/NetworkManager/conf.d/20.conf",
            "[keyfile]\nunmanaged-devices+=eth0\n",
        );
        assert_eq!(manages(), Ok(false));
    }

    #[test]
    fn what_is_ifupdowns_is_left_to_it() {
        let folder = Folder::new();
        folder.write(
            MAIN,
            "[main]\nplugins=ifupdown,keyfile\n[ifupdown]\nmanaged=false\n",
        );
        let nic = Nic {
            is_of_ifupdown: true,
            ..Nic::named("eth0")
        };
        let manages = || Configuration::read(&folder.files()).manages(&nic);
        assert_eq!(manages(), Ok(false));
        folder.write(
            "/etc/NetworkManager/conf.d/10.conf",
            "[ifupdown]\nmanaged=true\n",
        );
        assert_eq!(manages(), Ok(true));
    }

    #[test]
    fn an_automatic_profile_may_be_refused() {
        let folder = Folder::new();
        let nic = Nic::named("eth0");
        let has_one =
            || Configuration::read(&folder.files()).has_automatic_profile(&folder.files(), &nic);
        assert_eq!(has_one(), Ok(true));
        folder.write(NO_AUTO_DEFAULT, "52:54:00:00:00:01\n");
        assert_eq!(has_one(), Ok(false));
        folder.remove(NO_AUTO_DEFAULT);
        folder.write(MAIN, "[main]\nno-auto-default=*\n");
        assert_eq!(has_one(), Ok(false));
    }
}
