//! The profile by which NetworkManager would configure a NIC (nm-settings-keyfile(5), 1.52).

use std::path::PathBuf;

use super::keyfile::{DEVICES, Keyfile, PREFIX, files_in, is_true, list};
use super::managed::Configuration;
use super::nic::Nic;
use crate::system_files::{SystemFiles, text_of};

/// Of one name, the file in the first folder.
const FOLDERS: &[&str] = &[
    "/etc/NetworkManager/system-connections",
    "/run/NetworkManager/system-connections",
    "/usr/lib/NetworkManager/system-connections",
];
/// When profiles were last used, by their UUIDs.
const TIMESTAMPS: &str = "/var/lib/NetworkManager/timestamps";
pub(super) const CONNECTION: &[&str] = &["connection"];
/// The settings of a wired NIC, by their names.
pub(super) const WIRED: &[&str] = &["ethernet", "802-3-ethernet"];
/// As it configures a NIC that has no profile.
pub(super) const AUTOMATIC: &str =
    "[ipv4]\nmethod=auto\n[ipv6]\nmethod=auto\naddr-gen-mode=default\n";
/// Keys of a port, older and newer ones.
const CONTROLLER: &[&str] = &["controller", "master"];

/// What NetworkManager knows how to configure an interface by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    /// Its file; nothing for the profile that NetworkManager makes by itself.
    pub(super) path: Option<PathBuf>,
    pub(super) file: Keyfile,
}

impl Profile {
    /// As it makes one for a NIC that has none.
    fn automatic() -> Self {
        Self {
            path: None,
            file: Keyfile::parse(AUTOMATIC),
        }
    }

    /// Its file, in words.
    pub(super) fn source(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "its automatic profile".to_owned(),
        }
    }

    /// It asks for its IPv4 address.
    pub(super) fn is_leased(&self) -> bool {
        let method = self.file.get(&["ipv4"], &["method"]);
        method.is_none_or(|method| method == "auto")
    }

    fn of_connection(&self, keys: &[&str]) -> Option<&str> {
        self.file.get(CONNECTION, keys)
    }

    fn priority(&self) -> i64 {
        let priority = self.of_connection(&["autoconnect-priority"]);
        priority.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// The profile that NetworkManager would use for this NIC without Tandem; nothing if it would not configure it, and
/// an error where that can't be told or is more than an address.
pub(super) fn for_nic(files: &SystemFiles, nic: &Nic) -> Result<Option<Profile>, String> {
    let configuration = Configuration::read(files);
    if !configuration.manages(nic)? {
        return Ok(None);
    }
    let mut found = Vec::new();
    for profile in all(files) {
        if fits(&profile, nic)? {
            found.push(profile);
        }
    }
    let timestamps = Keyfile::parse(&files.text(TIMESTAMPS));
    let last_used = |profile: &Profile| {
        let uuid = profile.of_connection(&["uuid"])?;
        let seconds = timestamps.get(&["timestamps"], &[uuid])?;
        seconds.parse::<u64>().ok()
    };
    let active = active_now(files, nic);
    let best = found.into_iter().max_by_key(|profile| {
        let is_active = active.is_some() && profile.of_connection(&["uuid"]) == active.as_deref();
        (is_active, profile.priority(), last_used(profile))
    });
    match best {
        Some(profile) if profile.of_connection(CONTROLLER).is_some() => Ok(None),
        Some(profile) => match more_than_addresses(&profile) {
            Some(what) => Err(format!("{} has {what}", profile.source())),
            None => Ok(Some(profile)),
        },
        None if configuration.has_automatic_profile(files, nic)? => Ok(Some(Profile::automatic())),
        None => Ok(None),
    }
}

/// The administrator's own profile for a bond of this name.
pub(super) fn of_bond(files: &SystemFiles, bond: &str) -> Option<PathBuf> {
    let is_it = |profile: &Profile| {
        profile.of_connection(&["type"]) == Some("bond")
            && profile.of_connection(&["interface-name"]) == Some(bond)
    };
    all(files).find(is_it).and_then(|profile| profile.path)
}

fn all(files: &SystemFiles) -> impl Iterator<Item = Profile> {
    let listed = files_in(files, FOLDERS, "").into_iter();
    // What editors and package managers leave behind (`nm_keyfile_utils_ignore_filename`).
    let is_left_over =
        |name: &str| name.ends_with(['~', '#']) || name.contains(".rpm") || name.ends_with(".bak");
    let others = listed.filter(move |(name, _)| !name.starts_with(PREFIX) && !is_left_over(name));
    let profiles = others.map(|(_, path)| Profile {
        file: Keyfile::parse(&text_of(&path)),
        path: Some(path),
    });
    // A running NetworkManager writes down what it made by itself: automatic ones, and those of what it found.
    profiles.filter(|profile| {
        let is_made = profile.file.get(&[".nmmeta"], &["nm-generated"]);
        !is_made.is_some_and(is_true)
    })
}

/// NetworkManager would use this profile for the NIC by itself.
fn fits(profile: &Profile, nic: &Nic) -> Result<bool, String> {
    let is_wired = profile
        .of_connection(&["type"])
        .is_some_and(|kind| WIRED.contains(&kind));
    let is_automatic = profile.of_connection(&["autoconnect"]).is_none_or(is_true);
    if !is_wired || !is_automatic {
        return Ok(false);
    }
    if let Some(name) = profile.of_connection(&["interface-name"])
        && name != nic.name
    {
        return Ok(false);
    }
    let wired = |keys: &[&str]| profile.file.get(WIRED, keys);
    if let Some(mac) = wired(&["mac-address"])
        && !nic.is_mac(mac)
    {
        return Ok(false);
    }
    let denied = wired(&["mac-address-denylist", "mac-address-blacklist"]).unwrap_or_default();
    if list(denied).any(|mac| nic.is_mac(mac)) {
        return Ok(false);
    }
    for (key, value) in profile.file.group(&["match"]) {
        let is_match = match key {
            "interface-name" => Some(any_of(value, |pattern| nic.has_name_like(pattern))),
            "driver" => Some(any_of(value, |pattern| nic.has_driver_like(pattern))),
            _ => None,
        };
        match is_match.flatten() {
            Some(true) => {}
            Some(false) => return Ok(false),
            None => {
                return Err(format!(
                    "whether {} is for {} depends on `{key}` in its [match]",
                    profile.source(),
                    nic.name
                ));
            }
        }
    }
    Ok(true)
}

/// One of these patterns fits; nothing where some are put in a way that is not known here (`!`, `&`, `|`).
fn any_of(patterns: &str, fits: impl Fn(&str) -> bool) -> Option<bool> {
    let is_plain = |pattern: &str| !pattern.starts_with(['!', '&', '|', '\\']);
    list(patterns)
        .all(is_plain)
        .then(|| list(patterns).any(fits))
}

/// The UUID of the profile that a running NetworkManager uses for the NIC.
pub(super) fn active_now(files: &SystemFiles, nic: &Nic) -> Option<String> {
    let state = files.text(&format!("{DEVICES}/{}", nic.ifindex));
    let state = Keyfile::parse(&state);
    let uuid = state.get(&["device"], &["connection-uuid"])?;
    Some(uuid.to_owned())
}

/// What a bond could not have in the NIC's place.
fn more_than_addresses(profile: &Profile) -> Option<&'static str> {
    let has = |group: &str| profile.file.groups().any(|(name, _)| name == group);
    let cloned = profile.file.get(WIRED, &["cloned-mac-address"]);
    let is_settled = |mac: &str| matches!(mac, "preserve" | "permanent");
    if has("802-1x") {
        return Some("802.1X");
    }
    if has("pppoe") {
        return Some("PPPoE");
    }
    let is_other = cloned.is_some_and(|mac| !is_settled(mac));
    is_other.then_some("another MAC for it")
}
