//! Reads `<bonds>`.

use std::net::IpAddr;

use roxmltree::{Node, ParsingOptions};
use tandem_core::Policy;
use tandem_core::link::{Address, Route};
use tandem_core::policy::{MacPolicy, Ownership, PathCheck, PortMatch, Timing};
use tandem_core::types::{IfName, Mac};

use super::bounds;
use super::element::{Element, shown};
use super::error::{Place, XmlError};
use super::types::{Addressing, BONDS_NAMESPACE, Bond, BondDevice, Bonds};

/// Longest `<bonds>` in bytes: what fits into one argument of a command
/// (`MAX_ARG_STRLEN`, `include/uapi/linux/binfmts.h`, 6.12), with room for more white space.
pub const MAX_BYTES: usize = 96 * 1024;
/// Most nodes of a `<bonds>`, comments and white space counted.
const MAX_NODES: u32 = 100_000;
/// Longest alias in bytes.
const MAX_ALIAS_BYTES: usize = 64;

const TIMING: [&str; 10] = [
    "miimon-ms",
    "hold-ms",
    "hold-max-ms",
    "health-ms",
    "settle-ms",
    "removal-timeout-ms",
    "prepared-timeout-ms",
    "command-timeout-ms",
    "announcements",
    "announcement-interval-ms",
];

/// `<bonds>` with the places of its elements, for faults that show later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it says.
    pub bonds: Bonds,
    pub(super) places: Vec<BondPlaces<Place>>,
}

/// Where the parts of a bond stand: as offsets in bytes while they are read, then as places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BondPlaces<P> {
    pub(super) bond: P,
    pub(super) standby: P,
    pub(super) vfs: Vec<P>,
    pub(super) mtu: Option<P>,
    pub(super) ips: Vec<P>,
    pub(super) routes: Vec<P>,
    pub(super) timing: Option<P>,
}

impl BondPlaces<usize> {
    fn map<P>(&self, mut place: impl FnMut(usize) -> P) -> BondPlaces<P> {
        let mut all = |offsets: &[usize]| offsets.iter().map(|at| place(*at)).collect();
        let (vfs, ips, routes) = (all(&self.vfs), all(&self.ips), all(&self.routes));
        BondPlaces {
            bond: place(self.bond),
            standby: place(self.standby),
            vfs,
            mtu: self.mtu.map(&mut place),
            ips,
            routes,
            timing: self.timing.map(&mut place),
        }
    }
}

/// Counting lines for each of thousands of elements would read a long text thousands of times.
fn located(text: &str, bonds: &[BondPlaces<usize>]) -> Vec<BondPlaces<Place>> {
    let mut offsets = Vec::new();
    for bond in bonds {
        bond.map(|at| offsets.push(at));
    }
    let places = bounds::places(text, offsets);
    let place = |at: usize| places.get(&at).copied().unwrap_or_default();
    bonds.iter().map(|bond| bond.map(place)).collect()
}

impl Document {
    /// Reads a document whose root is `<bonds>`.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn parse(text: &str) -> Result<Self, XmlError> {
        let document = open(text, MAX_BYTES, MAX_NODES)?;
        Self::read(document.root_element())
    }

    /// Reads an element `<bonds>`, wherever it stands.
    pub(super) fn read(node: Node<'_, '_>) -> Result<Self, XmlError> {
        if !node.has_tag_name((BONDS_NAMESPACE, "bonds")) {
            let problem = format!("it must be <bonds xmlns=\"{BONDS_NAMESPACE}\">");
            return Err(Element::any(node).error(problem));
        }
        let root = Element::new(node, &[])?;
        let mut bonds = Bonds::default();
        let mut places = Vec::new();
        for child in root.children() {
            let child = child?;
            if child.tag_name().name() != "bond" {
                return Err(root.unknown(child, "there may be <bond> only"));
            }
            let (bond, place) = read_bond(child)?;
            bonds.bonds.push(bond);
            places.push(place);
            if bonds.bonds.len() > Policy::MAX_BONDS {
                let problem = format!("more than {} bonds; remove some", Policy::MAX_BONDS);
                return Err(root.error(problem));
            }
        }
        if bonds.bonds.is_empty() {
            return Err(root.error("there is no <bond>; add one, or remove <bonds>"));
        }
        let places = located(node.document().input_text(), &places);
        let document = Self { bonds, places };
        document.validate()?;
        Ok(document)
    }
}

/// Parses XML that may be hostile: bounded in bytes, nodes and work, and without DTD. No other call of
/// the parser is made.
pub(crate) fn open(
    text: &str,
    max_bytes: usize,
    max_nodes: u32,
) -> Result<roxmltree::Document<'_>, XmlError> {
    if text.len() > max_bytes {
        return Err(XmlError::too_long(max_bytes));
    }
    bounds::check(text)?;
    let options = ParsingOptions {
        nodes_limit: max_nodes,
        ..ParsingOptions::default()
    };
    roxmltree::Document::parse_with_options(text, options)
        .map_err(|error| XmlError::unreadable(&error))
}

fn read_bond(node: Node<'_, '_>) -> Result<(Bond, BondPlaces<usize>), XmlError> {
    let element = Element::new(
        node,
        &["name", "mac", "ownership", "path-check", "addresses"],
    )?;
    let mut places = BondPlaces {
        bond: element.offset(),
        ..BondPlaces::default()
    };
    let mut standby = None;
    let mut vfs = Vec::new();
    let mut mtu = None;
    let mut addresses = Vec::new();
    let mut routes = Vec::new();
    let mut timing = None;
    for child in element.children() {
        let child = child?;
        match child.tag_name().name() {
            "standby" => {
                let (port, place) = read_port(child)?;
                once(&element, child, standby.replace(port).is_some())?;
                places.standby = place;
            }
            "vf" => {
                let (port, place) = read_port(child)?;
                vfs.push(port);
                places.vfs.push(place);
            }
            "mtu" => {
                let size = Element::new(child, &["size"])?.empty()?;
                let value = size.required("size", size.number("size")?)?;
                once(&element, child, mtu.replace(value).is_some())?;
                places.mtu = Some(size.offset());
            }
            "ip" => {
                let ip = Element::new(child, &["family", "address", "prefix"])?.empty()?;
                addresses.push(read_address(&ip)?);
                places.ips.push(ip.offset());
            }
            "route" => {
                let (route, place) = read_route(child)?;
                routes.push(route);
                places.routes.push(place);
            }
            "timing" => {
                let (value, place) = read_timing(child)?;
                once(&element, child, timing.replace(value).is_some())?;
                places.timing = Some(place);
            }
            _ => {
                let known = "there may be <standby>, <vf>, <mtu>, <ip>, <route> and <timing>";
                return Err(element.unknown(child, known));
            }
        }
        let longest = vfs.len().max(addresses.len()).max(routes.len());
        if longest > Policy::MAX_ADDRESSES || vfs.len() > Policy::MAX_VFS {
            let problem = format!(
                "more than {} <vf>, or {} <ip> or <route>; remove some",
                Policy::MAX_VFS,
                Policy::MAX_ADDRESSES
            );
            return Err(element.error(problem));
        }
    }
    let bond = Bond {
        name: element.required("name", element.read("name", name)?)?,
        mac: element.read("mac", mac_policy)?.unwrap_or_default(),
        ownership: element.read("ownership", ownership)?.unwrap_or_default(),
        path_check: element.read("path-check", path_check)?.unwrap_or_default(),
        standby: standby.ok_or_else(|| element.error("there is no <standby>; add it"))?,
        vfs,
        mtu,
        addressing: addressing(&element, addresses, routes)?,
        timing: timing.unwrap_or_default(),
    };
    if bond.vfs.is_empty() {
        return Err(element.error("there is no <vf>; add one"));
    }
    Ok((bond, places))
}

fn once(bond: &Element<'_, '_>, child: Node<'_, '_>, before: bool) -> Result<(), XmlError> {
    if before {
        return Err(bond.unknown(child, "there is one already"));
    }
    Ok(())
}

fn addressing(
    bond: &Element<'_, '_>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
) -> Result<Addressing, XmlError> {
    let given = bond.text("addresses");
    if addresses.is_empty() && !routes.is_empty() {
        return Err(bond.error("<route> needs an <ip>; add one, or remove it"));
    }
    match (given, addresses.is_empty()) {
        (None | Some("static"), false) => Ok(Addressing::Static { addresses, routes }),
        (Some(other), false) => Err(bond.error(format!(
            "addresses=\"{}\" has no use for <ip>; write static, or remove <ip> and <route>",
            shown(other)
        ))),
        (None | Some("auto"), true) => Ok(Addressing::Auto),
        (Some("inherit"), true) => Ok(Addressing::Inherit),
        (Some("static"), true) => Err(bond.error("addresses=\"static\" needs an <ip>; add it")),
        (Some("dhcp"), true) => Ok(Addressing::Dhcp),
        (Some("none"), true) => Ok(Addressing::None),
        (Some(other), true) => Err(bond.error(format!(
            "addresses: `{}` is not one of auto, inherit, static, dhcp, none",
            shown(other)
        ))),
    }
}

fn read_port(node: Node<'_, '_>) -> Result<(BondDevice, usize), XmlError> {
    let element = Element::new(node, &["alias", "mac", "pci", "driver"])?.empty()?;
    let port = BondDevice {
        alias: element.read("alias", alias)?,
        guest: PortMatch {
            mac: element.read("mac", mac)?,
            pci: element.value("pci")?,
            driver: element.text("driver").map(str::to_owned),
        },
    };
    if port == BondDevice::default() {
        return Err(element.error("it names no device; give its mac, alias, pci or driver"));
    }
    Ok((port, element.offset()))
}

fn read_route(node: Node<'_, '_>) -> Result<(Route, usize), XmlError> {
    let attributes = ["family", "address", "prefix", "gateway", "metric"];
    let element = Element::new(node, &attributes)?.empty()?;
    let route = Route {
        destination: read_address(&element)?,
        gateway: element.value("gateway")?,
        metric: element.number("metric")?,
    };
    Ok((route, element.offset()))
}

fn read_address(element: &Element<'_, '_>) -> Result<Address, XmlError> {
    let ip: IpAddr = element.required("address", element.value("address")?)?;
    let prefix: u8 = element.required("prefix", element.number("prefix")?)?;
    let (family, longest) = if ip.is_ipv4() {
        ("ipv4", 32)
    } else {
        ("ipv6", 128)
    };
    if prefix > longest {
        let problem = format!("prefix {prefix} is longer than {longest}, the longest of {family}");
        return Err(element.error(problem));
    }
    if element.text("family").is_some_and(|given| given != family) {
        return Err(element.error(format!("{ip} is of the family {family}; write that")));
    }
    Ok(Address { ip, prefix })
}

fn read_timing(node: Node<'_, '_>) -> Result<(Timing, usize), XmlError> {
    let element = Element::new(node, &TIMING)?.empty()?;
    let usual = Timing::default();
    let ms = |name, usual| Ok::<u64, XmlError>(element.number(name)?.unwrap_or(usual));
    let timing = Timing {
        miimon_ms: element.number("miimon-ms")?.unwrap_or(usual.miimon_ms),
        hold_ms: ms("hold-ms", usual.hold_ms)?,
        hold_max_ms: ms("hold-max-ms", usual.hold_max_ms)?,
        health_ms: ms("health-ms", usual.health_ms)?,
        settle_ms: ms("settle-ms", usual.settle_ms)?,
        removal_timeout_ms: ms("removal-timeout-ms", usual.removal_timeout_ms)?,
        prepared_timeout_ms: ms("prepared-timeout-ms", usual.prepared_timeout_ms)?,
        command_timeout_ms: ms("command-timeout-ms", usual.command_timeout_ms)?,
        announcements: element
            .number("announcements")?
            .unwrap_or(usual.announcements),
        announcement_interval_ms: ms("announcement-interval-ms", usual.announcement_interval_ms)?,
    };
    Ok((timing, element.offset()))
}

/// Printable ASCII only: what an XML schema can describe and every shell shows.
fn name(text: &str) -> Result<IfName, String> {
    let name: IfName = text.parse().map_err(|error| format!("{error}"))?;
    if text.chars().all(|c| c.is_ascii_graphic()) {
        Ok(name)
    } else {
        Err(format!("`{}` has characters beyond ASCII", shown(text)))
    }
}

fn mac(text: &str) -> Result<Mac, String> {
    let mac: Mac = text.parse().map_err(|error| format!("{error}"))?;
    // Two digits for each byte, as libvirt's schema has it.
    if text.len() == mac.to_string().len() {
        Ok(mac)
    } else {
        Err(format!("write it as {mac}"))
    }
}

fn alias(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if !text.is_empty() && text.len() <= MAX_ALIAS_BYTES && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        let shown = shown(text);
        Err(format!(
            "`{shown}` is not an alias; use 1 to 64 letters, digits, `_`, `-` and `.`"
        ))
    }
}

fn mac_policy(text: &str) -> Result<MacPolicy, String> {
    match text {
        "standby" => Ok(MacPolicy::Standby),
        "follow" => Ok(MacPolicy::Follow),
        other => Err(format!("`{}` is not one of standby, follow", shown(other))),
    }
}

fn ownership(text: &str) -> Result<Ownership, String> {
    match text {
        "create" => Ok(Ownership::Create),
        "adopt" => Ok(Ownership::Adopt),
        other => Err(format!("`{}` is not one of create, adopt", shown(other))),
    }
}

fn path_check(text: &str) -> Result<PathCheck, String> {
    match text {
        "auto" => Ok(PathCheck::Auto),
        "none" => Ok(PathCheck::None),
        "standby" => Ok(PathCheck::Standby),
        other => Err(format!(
            "`{}` is not one of auto, none, standby",
            shown(other)
        )),
    }
}
