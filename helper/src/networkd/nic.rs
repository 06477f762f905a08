//! An interface as networkd sees it when it looks for the file that configures it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tandem_core::link::{Link, LinkKind};
use tandem_core::types::Mac;

use crate::programs::ask;
use crate::system_files::{SystemFiles, text_of};
use crate::udev_state;

/// Most answers of systemd that are remembered.
const MAX_ANSWERS: usize = 256;

/// What a `[Match]` section may ask for.
#[derive(Debug, Clone, Default)]
pub(super) struct Nic {
    pub(super) name: String,
    /// Other names that it has.
    pub(super) other_names: Vec<String>,
    pub(super) mac: Option<Mac>,
    pub(super) permanent_mac: Option<Mac>,
    pub(super) driver: Option<String>,
    /// `DEVTYPE`, else the kernel's type.
    pub(super) kind_of_type: Option<String>,
    /// `bond`; nothing for hardware.
    pub(super) kind: Option<&'static str>,
    /// Whether a condition of systemd.unit(5) holds on this system.
    pub(super) condition: Option<fn(&str) -> Option<bool>>,
    /// What udev knows of it.
    pub(super) properties: BTreeMap<String, String>,
}

impl Nic {
    /// As udev and the kernel show it; nothing before udev has handled it.
    pub(super) fn of(files: &SystemFiles, link: &Link) -> Option<Self> {
        if !udev_state::has_handled(files, link) {
            return None;
        }
        let folder = format!("/sys/class/net/{}", link.name);
        let mut properties = BTreeMap::new();
        let event = files.text(&format!("{folder}/uevent"));
        let database = text_of(&udev_state::entry_of(files, link));
        let of_udev = database.lines().filter_map(|line| line.strip_prefix("E:"));
        for line in event.lines().chain(of_udev) {
            if let Some((key, value)) = line.split_once('=') {
                properties.insert(key.to_owned(), value.to_owned());
            }
        }
        // ARPHRD_ETHER (include/uapi/linux/if_arp.h, 6.12).
        let is_ethernet = files.text(&format!("{folder}/type")).trim() == "1";
        let by_type = is_ethernet.then(|| "ether".to_owned());
        // udev gives these to it as further names (`AlternativeNamesPolicy=`, systemd.link(5)).
        let other_names = properties
            .iter()
            .filter(|(key, _)| key.starts_with("ID_NET_NAME"));
        let driver = properties.get("ID_NET_DRIVER").cloned();
        Some(Self {
            name: link.name.to_string(),
            other_names: other_names.map(|(_, name)| name.clone()).collect(),
            mac: link.mac,
            permanent_mac: link.permanent_mac,
            driver: driver.or_else(|| link.driver.clone()),
            kind_of_type: properties.get("DEVTYPE").cloned().or(by_type),
            kind: (link.kind == LinkKind::Bond).then_some("bond"),
            condition: (files.root == Path::new("/")).then_some(holds_here),
            properties,
        })
    }

    /// A bond that may not be there yet.
    pub(super) fn bond(name: &str, standby: &Self) -> Self {
        Self {
            name: name.to_owned(),
            mac: standby.mac,
            condition: standby.condition,
            kind_of_type: Some("bond".to_owned()),
            kind: Some("bond"),
            driver: Some("bonding".to_owned()),
            ..Self::default()
        }
    }

    #[cfg(test)]
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind_of_type: Some("ether".to_owned()),
            ..Self::default()
        }
    }
}

/// Whether a condition holds; nothing if systemd can't tell. Asked once: only the host's name changes before the
/// next boot.
fn holds_here(condition: &str) -> Option<bool> {
    static ANSWERS: Mutex<BTreeMap<String, bool>> = Mutex::new(BTreeMap::new());
    if condition.starts_with("ConditionHost=") {
        return holds(condition);
    }
    let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(answer) = answers.get(condition) {
        return Some(*answer);
    }
    let answer = holds(condition)?;
    // What others write into their files has no end.
    if answers.len() < MAX_ANSWERS {
        answers.insert(condition.to_owned(), answer);
    }
    Some(answer)
}

/// Asks systemd; nothing if it can't tell.
fn holds(condition: &str) -> Option<bool> {
    let said = ask("systemd-analyze", &["condition", condition]).ok()?;
    let said = [said.output, said.errors].concat();
    let ended = |how: &str| said.lines().any(|line| line == how);
    match (ended("Conditions succeeded."), ended("Conditions failed.")) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}
