//! One configuration file: its keys, and where in the text they are.

use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::Error as _;
use tandem_core::IfName;
use tandem_core::link::{Address, Route};
use tandem_core::policy::{
    AddressingPolicy, BondPolicy, HostMay, MacPolicy, Ownership, PathCheck, PortMatch, Timing,
};
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;

/// What one file says.
pub(super) struct Parsed {
    pub(super) host_may: Option<HostMay>,
    pub(super) bonds: Vec<BondPolicy>,
}

// These comments are the reference of the configuration file (`cargo xtask reference`, tandem.toml(5)).

#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    /// What the host may do to the guest, besides asking for its status and events. Default: `bonds`, which
    /// never touches bonds that the files define.
    #[serde(default, deserialize_with = "host_may")]
    host_may: Option<HostMay>,
    #[serde(default, deserialize_with = "renamed")]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[expect(dead_code, reason = "it only refuses")]
    accept_host_config: (),
    /// One bond; any number of them.
    #[serde(default)]
    bond: Vec<FileBond>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FileBond {
    /// Name of the bond device.
    name: IfName,
    /// The paravirtual NIC, which is always there.
    standby: PortMatch,
    /// Each of these is a VF: one entry for each host the VM may come to, and for each VF of one host. Of several
    /// that are present, the first that is usable gets the traffic, the others are its backups.
    vfs: Vec<PortMatch>,
    /// The MAC that the network sees.
    #[serde(default)]
    mac: MacPolicy,
    /// Who makes the bond device.
    #[serde(default)]
    ownership: Ownership,
    /// Where the bond's addresses come from.
    #[serde(default)]
    addressing: Addressing,
    /// Addresses of the bond, such as `192.0.2.5/24`; with `addressing = "static"`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    addresses: Vec<Network>,
    /// Routes over the bond; with `addressing = "static"`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<FileRoute>"))]
    routes: Vec<FileRoute>,
    /// MTU of the bond in bytes. Default: the standby's.
    mtu: Option<u32>,
    /// What a VF has to show, besides its carrier, before it gets the traffic.
    #[serde(default)]
    path_check: PathCheck,
    /// Times and counts.
    #[serde(default)]
    timing: Timing,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "kebab-case")]
enum Addressing {
    /// As the standby would get them without Tandem: whoever would configure the standby, of systemd-networkd,
    /// NetworkManager, ifupdown and dhcpcd, configures the bond, with the same lease; where none would, as `inherit`.
    #[default]
    Auto,
    /// The addresses and routes of the standby move to the bond; where it has none, those of the VF.
    Inherit,
    /// `addresses` and `routes`.
    Static,
    /// Another network manager configures the bond.
    None,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FileRoute {
    /// Destination, such as `0.0.0.0/0`.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    to: Network,
    /// Gateway.
    via: Option<IpAddr>,
    /// Metric.
    metric: Option<u32>,
}

/// A word that this version does not know is no guest's: here it is a slip of the pen.
fn host_may<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<HostMay>, D::Error> {
    match HostMay::deserialize(deserializer)? {
        HostMay::Unknown => Err(D::Error::custom(
            "write \"none\", \"commands\" or \"bonds\"",
        )),
        known => Ok(Some(known)),
    }
}

fn renamed<'de, D: serde::Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom(
        "this key has gone; write host-may = \"bonds\" for true, host-may = \"commands\" for false",
    ))
}

/// JSON schema of [`File`].
#[cfg(feature = "schema")]
pub(super) fn schema() -> schemars::Schema {
    schemars::schema_for!(File)
}

/// `192.0.2.5/24`, `2001:db8::5/64`.
#[derive(Clone, Copy)]
struct Network(Address);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error =
            || format!("`{text}` is not an address with its prefix; write it like 192.0.2.5/24");
        let (ip, prefix) = text.split_once('/').ok_or_else(error)?;
        let ip: IpAddr = ip.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(error());
        }
        Ok(Self(Address { ip, prefix }))
    }
}

/// Reads one file's text.
pub(super) fn parse(file: &Path, text: &str) -> Result<Parsed, ConfigError> {
    let mut unknown = None;
    let read = toml::Deserializer::parse(text)
        .and_then(|toml| serde_ignored::deserialize(toml, |path| unknown = Some(path.to_string())));
    let raw: File = read.map_err(|error| {
        let position = error.span().map(|span| line_and_column(text, span.start));
        let message = error.message().trim_end();
        match key_at(text, error.span()) {
            Some(key) => ConfigError::new(file, position, format!("{message} (key `{key}`)")),
            None => ConfigError::new(file, position, message),
        }
    })?;
    if let Some(path) = unknown {
        // Of `bond.0.timing.hold`.
        let mut parts = path.splitn(3, '.').skip(1);
        let number = parts.next().and_then(|number| number.parse().ok());
        let key = parts.next().unwrap_or_default();
        let position = position_of(text, number.unwrap_or_default(), key);
        return Err(ConfigError::new(
            file,
            position,
            format!("unknown key `bond.{key}`"),
        ));
    }
    let mut bonds = Vec::new();
    for (number, bond) in raw.bond.into_iter().enumerate() {
        bonds.push(policy(bond).map_err(|(key, message)| {
            ConfigError::new(file, position_of(text, number, key), message)
        })?);
    }
    Ok(Parsed {
        host_may: raw.host_may,
        bonds,
    })
}

fn policy(bond: FileBond) -> Result<BondPolicy, (&'static str, String)> {
    let addresses: Vec<_> = bond.addresses.iter().map(|network| network.0).collect();
    let routes: Vec<_> = bond
        .routes
        .iter()
        .map(|route| Route {
            destination: route.to.0,
            gateway: route.via,
            metric: route.metric,
        })
        .collect();
    let name = &bond.name;
    let refused = |key: &'static str| {
        let message = format!("`{key}` of bond `{name}` need `addressing = \"static\"`");
        Err((key, message))
    };
    let addressing = match bond.addressing {
        Addressing::Static if addresses.is_empty() => {
            let message = format!("`addressing = \"static\"` of bond `{name}` needs `addresses`");
            return Err(("addressing", message));
        }
        Addressing::Static => AddressingPolicy::Static { addresses, routes },
        _ if !addresses.is_empty() => {
            return refused("addresses");
        }
        _ if !routes.is_empty() => {
            return refused("routes");
        }
        Addressing::Auto => AddressingPolicy::Auto,
        Addressing::Inherit => AddressingPolicy::Inherit,
        Addressing::None => AddressingPolicy::None,
    };
    Ok(BondPolicy {
        name: bond.name,
        standby: bond.standby,
        vfs: bond.vfs,
        mac: bond.mac,
        ownership: bond.ownership,
        addressing,
        manager_takes_standby: false,
        undecided: false,
        expects_ipv4: false,
        mtu: bond.mtu,
        path_check: bond.path_check,
        timing: bond.timing,
    })
}

/// Line and column, from 1, of a key of the file's bond number `bond`; the
/// bond's own line if the key is not written there. `key` may be a path with dots.
pub(super) fn position_of(text: &str, bond: usize, key: &str) -> Option<(usize, usize)> {
    let document = DeTable::parse(text).ok()?;
    let bonds = document.get_ref().get("bond")?;
    let entry = bonds.get_ref().as_array()?.get(bond)?;
    let mut span = entry.span();
    let mut value = entry.get_ref();
    for part in key.split('.') {
        let Some(found) = value.as_table().and_then(|table| table.get_key_value(part)) else {
            break;
        };
        span = found.0.span();
        value = found.1.get_ref();
    }
    Some(line_and_column(text, span.start))
}

/// The dotted path of the innermost key whose value or name is at `span`.
fn key_at(text: &str, span: Option<Range<usize>>) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let mut path = Vec::new();
    descend(document.get_ref(), &span?, &mut path).then(|| path.join("."))
}

/// Looks inside first: a `[table]`'s own span is only its header's.
fn descend(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<String>) -> bool {
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        let inside = match value.get_ref() {
            DeValue::Table(inner) => descend(inner, span, path),
            DeValue::Array(items) => items
                .iter()
                .filter_map(|item| item.get_ref().as_table())
                .any(|inner| descend(inner, span, path)),
            _ => false,
        };
        if inside || holds(key.span()) || holds(value.span()) {
            return true;
        }
        path.pop();
    }
    false
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}
