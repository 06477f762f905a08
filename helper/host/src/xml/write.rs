//! Writes `<bonds>`, `<progress>` and `<claim>`.

use std::fmt::Write;

use tandem_core::link::Address;
use tandem_core::policy::{MacPolicy, Ownership, PathCheck, Timing};

use super::types::{Addressing, BONDS_NAMESPACE, Bond, BondDevice, Bonds};

impl Bonds {
    /// A document of its own, which [`super::Document::parse`] reads back.
    pub fn to_xml(&self) -> String {
        self.written(&format!(" xmlns=\"{BONDS_NAMESPACE}\""))
    }

    /// The same without namespace: libvirt's metadata call adds it.
    pub(crate) fn to_metadata(&self) -> String {
        self.written("")
    }

    fn written(&self, namespace: &str) -> String {
        let mut text = format!("<bonds{namespace}>\n");
        for bond in &self.bonds {
            bond.write(&mut text);
        }
        text.push_str("</bonds>\n");
        text
    }
}

impl Bond {
    fn write(&self, text: &mut String) {
        let mut bond = Tag::new("bond");
        bond.add("name", &self.name);
        if self.mac == MacPolicy::Follow {
            bond.add("mac", "follow");
        }
        if self.ownership == Ownership::Adopt {
            bond.add("ownership", "adopt");
        }
        match self.path_check {
            PathCheck::Auto => {}
            PathCheck::None => bond.add("path-check", "none"),
            PathCheck::Standby => bond.add("path-check", "standby"),
        }
        match self.addressing {
            Addressing::Auto | Addressing::Static { .. } => {}
            Addressing::Inherit => bond.add("addresses", "inherit"),
            Addressing::Dhcp => bond.add("addresses", "dhcp"),
            Addressing::None => bond.add("addresses", "none"),
        }
        text.push_str(&format!("  {}>\n", bond.open));
        let mut line = |tag: Tag| text.push_str(&format!("    {}/>\n", tag.open));
        line(self.standby.tag("standby"));
        for vf in &self.vfs {
            line(vf.tag("vf"));
        }
        if let Some(mtu) = self.mtu {
            let mut tag = Tag::new("mtu");
            tag.add("size", mtu);
            line(tag);
        }
        if let Addressing::Static { addresses, routes } = &self.addressing {
            for address in addresses {
                line(address_tag("ip", address));
            }
            for route in routes {
                let mut tag = address_tag("route", &route.destination);
                tag.add_some("gateway", route.gateway);
                tag.add_some("metric", route.metric);
                line(tag);
            }
        }
        if let Some(tag) = timing_tag(&self.timing) {
            line(tag);
        }
        text.push_str("  </bond>\n");
    }
}

impl BondDevice {
    fn tag(&self, name: &str) -> Tag {
        let mut tag = Tag::new(name);
        tag.add_some("alias", self.alias.as_ref());
        tag.add_some("mac", self.guest.mac);
        tag.add_some("pci", self.guest.pci);
        tag.add_some("driver", self.guest.driver.as_ref());
        tag
    }
}

fn address_tag(name: &str, address: &Address) -> Tag {
    let mut tag = Tag::new(name);
    tag.add("family", if address.ip.is_ipv4() { "ipv4" } else { "ipv6" });
    tag.add("address", address.ip);
    tag.add("prefix", address.prefix);
    tag
}

/// Only what differs from the usual.
fn timing_tag(timing: &Timing) -> Option<Tag> {
    let usual = Timing::default();
    let mut tag = Tag::new("timing");
    for (name, value, usual) in [
        ("miimon-ms", timing.miimon_ms.into(), usual.miimon_ms.into()),
        ("hold-ms", timing.hold_ms, usual.hold_ms),
        ("hold-max-ms", timing.hold_max_ms, usual.hold_max_ms),
        ("health-ms", timing.health_ms, usual.health_ms),
        ("settle-ms", timing.settle_ms, usual.settle_ms),
        (
            "removal-timeout-ms",
            timing.removal_timeout_ms,
            usual.removal_timeout_ms,
        ),
        (
            "prepared-timeout-ms",
            timing.prepared_timeout_ms,
            usual.prepared_timeout_ms,
        ),
        (
            "command-timeout-ms",
            timing.command_timeout_ms,
            usual.command_timeout_ms,
        ),
        (
            "announcements",
            timing.announcements.into(),
            usual.announcements.into(),
        ),
        (
            "announcement-interval-ms",
            timing.announcement_interval_ms,
            usual.announcement_interval_ms,
        ),
    ] {
        if value != usual {
            tag.add(name, value);
        }
    }
    (*timing != usual).then_some(tag)
}

/// `<progress>` around a record.
pub(crate) fn progress_to_metadata(record: &str) -> String {
    format!("<progress>{}</progress>", escaped(record))
}

/// `<claim>` around who claims.
pub(crate) fn claim_to_metadata(text: &str) -> String {
    format!("<claim>{}</claim>", escaped(text))
}

/// A tag being written, up to its `>`.
struct Tag {
    open: String,
}

impl Tag {
    fn new(name: &str) -> Self {
        Self {
            open: format!("<{name}"),
        }
    }

    fn add(&mut self, name: &str, value: impl ToString) {
        let value = escaped(&value.to_string());
        // Writing to a String does not fail.
        let _ = write!(self.open, " {name}=\"{value}\"");
    }

    fn add_some(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }
}

pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}
