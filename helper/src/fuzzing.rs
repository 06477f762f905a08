//! Ways in for tests/fuzz to parsers that nobody else outside calls. Built with `--cfg fuzzing` only.

use std::sync::LazyLock;

use tandem_core::link::{Addressing, Link, LinkKind};
use tandem_core::policy::PortMatch;
use tandem_core::{IfName, Ifindex, Input, Policy};

use crate::act::NextHop;
use crate::config::{self, Config, ConfigError};
use crate::nics::Readiness;
use crate::observe::udev::{UdevEvent, event_of_kernel};
use crate::packet::frames;
use crate::system_files::SystemFiles;
use crate::udev_marks::{Mark, properties_in};
use crate::{ebpf, netlink};

pub use crate::channel::fuzzing::Conversation;

/// What one datagram of rtnetlink came to.
#[derive(Debug)]
pub struct Datagram {
    /// Messages in it.
    pub messages: usize,
    /// Links, addresses, routes and next hops in them, and refusals.
    pub items: usize,
    /// The links.
    pub links: Vec<Link>,
    /// What it says of the addresses and routes of link 2.
    pub addressing: Addressing,
    /// Payloads that would create the next hops anew.
    pub next_hops: Vec<Vec<u8>>,
    /// The kernel's words where it refuses.
    pub reasons: Vec<String>,
}

/// Reads a datagram as every reader of rtnetlink does.
pub fn rtnetlink(datagram: &[u8]) -> Datagram {
    const LINK: Ifindex = Ifindex(2);
    let mut found = Datagram {
        messages: 0,
        items: 0,
        links: Vec::new(),
        addressing: Addressing {
            ifindex: LINK,
            addresses: Vec::new(),
            routes: Vec::new(),
            expiries: Vec::new(),
        },
        next_hops: Vec::new(),
        reasons: Vec::new(),
    };
    found.items += netlink::hint::hints(datagram).count();
    for message in netlink::message::messages(datagram) {
        let payload = message.payload;
        found.messages += 1;
        let link = netlink::link::decode(payload);
        found.links.extend(link.map(|described| described.link));
        found.items += usize::from(netlink::link::bond_delays(payload).is_some());
        if let Some(assigned) = netlink::address::decode(payload) {
            found.addressing.addresses.push(assigned.address);
        }
        found
            .addressing
            .routes
            .extend(netlink::route::decode(payload, LINK));
        found.items += usize::from(netlink::route::local_ip(payload).is_some());
        if let Some(next_hop) = NextHop::decode(payload) {
            let anew = next_hop.payload(next_hop.device().unwrap_or(LINK));
            found.items += usize::from(NextHop::decode(&anew).is_some());
            found.next_hops.push(anew);
        }
        let refused = netlink::request::refusal(message.message_type, message.flags, payload);
        found
            .reasons
            .extend(refused.err().map(|error| error.to_string()));
    }
    found
}

/// A datagram of the kernel's device events.
pub fn device_event(packet: &[u8]) -> Option<UdevEvent> {
    event_of_kernel(packet)
}

/// A record of the kernel programs' ring buffer.
pub fn ring_record(bytes: &[u8]) -> Option<Input> {
    ebpf::event_input(bytes).ok().flatten()
}

/// What a frame of a path check carries.
pub fn path_check_payload(frame: &[u8]) -> Option<&[u8]> {
    frames::path_check_payload(frame)
}

/// Who answers by this frame of ARP, or of neighbour discovery.
pub fn neighbour_answer(frame: &[u8]) -> [Option<std::net::IpAddr>; 2] {
    [
        frames::arp_answer(frame).map(Into::into),
        frames::solicited_answer(frame).map(Into::into),
    ]
}

/// A configuration file.
///
/// # Errors
/// What is wrong with it.
pub fn configuration(text: &str) -> Result<Config, ConfigError> {
    config::merge(&[(config::DEFAULT_PATH.into(), text.to_owned())])
}

/// What udev is told of each NIC and bond that a policy names, where the service can do its work.
pub fn udev_properties(policy: &Policy) -> Vec<Vec<String>> {
    static READINESS: LazyLock<Readiness> = LazyLock::new(|| {
        let files = SystemFiles {
            root: "/nonexistent".into(),
            kernel_release: String::new(),
        };
        let mut readiness = Readiness::look(&files, &configuration(""));
        readiness.obstacle = None;
        readiness
    });
    let mut told = Vec::new();
    for bond in &policy.bonds {
        let port = |matched: &PortMatch| Link {
            permanent_mac: matched.mac,
            pci: matched.pci,
            driver: matched.driver.clone(),
            ..link("eth0".parse().ok(), LinkKind::Physical)
        };
        let bond_itself = link(Some(bond.name.clone()), LinkKind::Bond);
        let ports = std::iter::once(&bond.standby).chain(&bond.vfs).map(port);
        let links = ports.chain([bond_itself]);
        let marks = links.filter_map(|link| Mark::of(&link, policy, &READINESS));
        told.extend(marks.map(|mark| mark.properties()));
    }
    told
}

/// Tandem's properties in an entry of udev's database.
pub fn udev_entry(text: &str) -> usize {
    properties_in(text).len()
}

fn link(name: Option<IfName>, kind: LinkKind) -> Link {
    Link::named(Ifindex(2), name.expect("it is a name"), kind)
}
