//! A NIC as NetworkManager sees it when it looks for its profile.

use tandem_core::link::Link;
use tandem_core::types::Mac;

use crate::managers::ifupdown::stanzas::Stanzas;
use crate::system_files::SystemFiles;

/// What profiles and configuration may ask for.
#[derive(Debug, Clone)]
pub(super) struct Nic {
    pub(super) ifindex: u32,
    pub(super) name: String,
    /// The permanent MAC, by which profiles know it.
    pub(super) mac: Option<Mac>,
    pub(super) driver: Option<String>,
    /// `/etc/network/interfaces` speaks of it.
    pub(super) is_of_ifupdown: bool,
}

impl Nic {
    pub(super) fn of(files: &SystemFiles, link: &Link) -> Self {
        let name = link.name.to_string();
        Self {
            ifindex: link.ifindex.0,
            is_of_ifupdown: Stanzas::read(files).has(&name),
            name,
            mac: link.permanent_mac.or(link.mac),
            driver: link.driver.clone(),
        }
    }

    #[cfg(test)]
    pub(super) fn named(name: &str) -> Self {
        Self {
            ifindex: 2,
            name: name.to_owned(),
            mac: "52:54:00:00:00:01".parse().ok(),
            driver: Some("virtio_net".to_owned()),
            is_of_ifupdown: false,
        }
    }

    pub(super) fn is_mac(&self, text: &str) -> bool {
        text.parse().is_ok_and(|mac| self.mac == Some(mac))
    }

    pub(super) fn has_name_like(&self, pattern: &str) -> bool {
        glob(pattern, &self.name)
    }

    pub(super) fn has_driver_like(&self, pattern: &str) -> bool {
        self.driver
            .as_deref()
            .is_some_and(|driver| glob(pattern, driver))
    }
}

/// A shell's pattern.
fn glob(pattern: &str, value: &str) -> bool {
    glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(value))
}
