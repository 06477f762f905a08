//! What an evacuation shall bring about, and how long each part may take.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tandem_core::types::{Mac, PciAddress};

use crate::hypervisor::Nic;
use crate::xml::device::read_device;

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Where the domain ran at first.
    Source,
    /// Where it shall go.
    Destination,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Source, Self::Destination];

    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// Most devices of one evacuation.
pub const MAX_DEVICES: usize = 8;

/// What shall be brought about. Kept in this host's own record, so that a recovery has it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
pub struct Spec {
    /// The domain's name.
    pub domain: String,
    /// Its name on the destination, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed: Option<String>,
    /// How this program reaches the source; empty if it does not, and the domain has left it.
    pub source_uri: String,
    /// How this program reaches the destination.
    pub destination_uri: String,
    /// Every pass-through device that leaves the source or comes on the destination; at most [`MAX_DEVICES`].
    pub devices: Vec<Device>,
    /// How much depends on the guest.
    pub agent: AgentUse,
    /// The channel on the destination can be opened from here; a unix socket of another machine
    /// can't, and then the guest is not asked there.
    pub reaches_destination_agent: bool,
    /// The domain's XML has bonds for the guest, to be given to it.
    pub configure: bool,
    /// The operator agreed to end without a VF.
    pub yes_degraded: bool,
}

/// A pass-through device of the domain: what leaves the source, and what takes its place on the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Device {
    /// What it is to the guest.
    pub role: DeviceRole,
    /// On the source; `None` if the domain has none now.
    pub source: Option<Vf>,
    /// On the destination; `None` if the operator agreed to end without.
    pub destination: Option<Vf>,
}

/// What a device is to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DeviceRole {
    /// The VF of a bond.
    Vf {
        /// Its name; `None` if the guest has only one.
        bond: Option<String>,
    },
    /// A device of no bond, which the operator lets go.
    LetGo,
}

impl Device {
    /// It, on that side.
    pub fn vf(&self, side: Side) -> Option<&Vf> {
        match side {
            Side::Source => self.source.as_ref(),
            Side::Destination => self.destination.as_ref(),
        }
    }

    /// It is the VF of a bond.
    pub fn is_of_bond(&self) -> bool {
        matches!(self.role, DeviceRole::Vf { .. })
    }

    /// Its bond, if that has a name here.
    pub fn bond(&self) -> Option<&str> {
        match &self.role {
            DeviceRole::Vf { bond } => bond.as_deref(),
            DeviceRole::LetGo => None,
        }
    }

    /// The destination's VF of a bond as a device of the domain, as far as its description tells.
    pub fn arriving(&self) -> Option<Nic> {
        let vf = self.destination.as_ref().filter(|_| self.is_of_bond());
        read_device(&vf?.device).ok()
    }

    /// Its name for people, as it is on that side.
    pub fn describe(&self, side: Side) -> String {
        let vf = self
            .vf(side)
            .or(self.source.as_ref())
            .or(self.destination.as_ref());
        let what = vf.map_or_else(|| "the VF".to_owned(), |vf| vf.identity.describe());
        match self.bond() {
            Some(bond) => format!("{what} of {bond}"),
            None => what,
        }
    }
}

/// How a [`Spec`] is written: one with no more than a bond's VF as it always was, so that every version reads it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum SpecText {
    One(OneVf),
    Several(#[serde(with = "Spec")] Spec),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct OneVf {
    domain: String,
    source_uri: String,
    destination_uri: String,
    bond: Option<String>,
    source_vf: Option<Vf>,
    destination_vf: Option<Vf>,
    agent: AgentUse,
    reaches_destination_agent: bool,
    configure: bool,
    yes_degraded: bool,
}

// What is derived with `remote` are functions of [`Spec`] itself, for [`SpecText::Several`].
impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Serialize::serialize(&SpecText::from(self.clone()), to)
    }
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        <SpecText as Deserialize>::deserialize(from).map(Self::from)
    }
}

impl From<SpecText> for Spec {
    fn from(text: SpecText) -> Self {
        match text {
            SpecText::One(one) => Self {
                domain: one.domain,
                renamed: None,
                source_uri: one.source_uri,
                destination_uri: one.destination_uri,
                devices: vec![Device {
                    role: DeviceRole::Vf { bond: one.bond },
                    source: one.source_vf,
                    destination: one.destination_vf,
                }],
                agent: one.agent,
                reaches_destination_agent: one.reaches_destination_agent,
                configure: one.configure,
                yes_degraded: one.yes_degraded,
            },
            SpecText::Several(several) => several,
        }
    }
}

impl From<Spec> for SpecText {
    fn from(spec: Spec) -> Self {
        match spec.devices.as_slice() {
            [
                Device {
                    role: DeviceRole::Vf { bond },
                    source,
                    destination,
                },
            ] if spec.renamed.is_none() => Self::One(OneVf {
                bond: bond.clone(),
                source_vf: source.clone(),
                destination_vf: destination.clone(),
                domain: spec.domain,
                source_uri: spec.source_uri,
                destination_uri: spec.destination_uri,
                agent: spec.agent,
                reaches_destination_agent: spec.reaches_destination_agent,
                configure: spec.configure,
                yes_degraded: spec.yes_degraded,
            }),
            _ => Self::Several(spec),
        }
    }
}

/// A VF: how it is recognised, and how it is plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Vf {
    /// How a look recognises it.
    pub identity: VfIdentity,
    /// Its MAC, by which the guest knows it; `None` lets the guest take the one it has.
    pub guest_mac: Option<Mac>,
    /// The device's description for [`crate::hypervisor::Host::attach`].
    pub device: String,
}

/// How a VF is recognised among a domain's NICs: the first of these that is known counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VfIdentity {
    /// The host's PCI function.
    pub pci: Option<PciAddress>,
    /// An alias that a person chose (libvirt: `ua-…`): aliases that libvirt makes up are reused.
    pub alias: Option<String>,
    /// The MAC, where no other NIC of the domain has it.
    pub mac: Option<Mac>,
}

impl VfIdentity {
    /// The NIC is this VF.
    pub fn is(&self, nic: &Nic) -> bool {
        match (self.pci, &self.alias, self.mac) {
            (Some(pci), _, _) => nic.pci_source == Some(pci),
            (None, Some(alias), _) => nic.alias == *alias,
            (None, None, Some(mac)) => nic.mac == Some(mac),
            (None, None, None) => false,
        }
    }

    /// Nothing is known to recognise it by.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A look could take one for the other.
    fn overlaps(&self, other: &Self) -> bool {
        let pci = self.pci.is_some() && self.pci == other.pci;
        let alias = self.alias.is_some() && self.alias == other.alias;
        let mac = self.mac.is_some() && self.mac == other.mac;
        pci || alias || mac
    }

    /// The name for people.
    pub fn describe(&self) -> String {
        match (self.pci, &self.alias, self.mac) {
            (Some(pci), _, _) => format!("PCI function {pci}"),
            (None, Some(alias), _) => format!("device {alias}"),
            (None, None, Some(mac)) => format!("NIC {mac}"),
            (None, None, None) => "an unnamed NIC".to_owned(),
        }
    }
}

/// How much depends on the guest's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentUse {
    /// Without it nothing is begun.
    Required,
    /// It is used if it answers (`--yes-degraded`).
    IfThere,
    /// It is not asked at all (`--no-agent`).
    Never,
}

/// A spec that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Nothing to recognise a device by.
    #[error(
        "{what} on the {} can't be recognised: its XML has no host PCI address, no `<alias name='ua-…'/>` and no MAC; \
         add one", side.as_str()
    )]
    Nameless {
        /// Where.
        side: Side,
        /// The device.
        what: String,
    },
    /// One device would be two.
    #[error("{what} is named twice for the {}; each bond and each device needs one of its own", side.as_str())]
    Twice {
        /// Where.
        side: Side,
        /// The device.
        what: String,
    },
    /// More than it can hold.
    #[error("an evacuation has at most {MAX_DEVICES} devices, and this one would have {0}")]
    TooMany(usize),
}

impl Spec {
    /// Each bond's VF of the destination as a device of the domain, as far as its description tells.
    pub fn arriving(&self) -> Vec<Nic> {
        self.devices.iter().filter_map(Device::arriving).collect()
    }

    /// Checks what can be checked without a look at the hosts.
    ///
    /// # Errors
    /// If a device can't be recognised, or could be taken for another one.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.devices.len() > MAX_DEVICES {
            return Err(SpecError::TooMany(self.devices.len()));
        }
        for side in Side::BOTH {
            let named = self
                .devices
                .iter()
                .filter_map(|one| Some((one, one.vf(side)?)));
            for (number, (one, vf)) in named.clone().enumerate() {
                let what = || match one.bond() {
                    Some(bond) => format!("the VF of {bond}"),
                    None if one.is_of_bond() => "the VF".to_owned(),
                    None => "a device".to_owned(),
                };
                if vf.identity.is_empty() {
                    return Err(SpecError::Nameless { side, what: what() });
                }
                let mut before = named.clone().take(number);
                if before.any(|(_, other)| other.identity.overlaps(&vf.identity)) {
                    let what = vf.identity.describe();
                    return Err(SpecError::Twice { side, what });
                }
            }
        }
        Ok(())
    }

    /// Numbers of the devices that are a bond's VF.
    pub fn of_bonds(&self) -> impl Iterator<Item = usize> + '_ {
        let devices = self.devices.iter().enumerate();
        devices
            .filter(|(_, one)| one.is_of_bond())
            .map(|(device, _)| device)
    }

    /// Names of the bonds, as far as they have one here.
    pub fn bonds(&self) -> Vec<String> {
        let bonds = self.devices.iter().filter_map(Device::bond);
        bonds.map(str::to_owned).collect()
    }

    /// How many devices are of no bond.
    pub(super) fn let_go(&self) -> u8 {
        let count = self.devices.len() - self.of_bonds().count();
        u8::try_from(count).unwrap_or(u8::MAX)
    }

    /// The oldest version of a record that can say it.
    pub(super) fn record_version(&self) -> u32 {
        match self.devices.as_slice() {
            _ if self.renamed.is_some() => 4,
            [one] if one.is_of_bond() => 2,
            _ => 3,
        }
    }

    /// The domain's name on that side.
    pub fn name(&self, side: Side) -> &str {
        match (&self.renamed, side) {
            (Some(renamed), Side::Destination) => renamed,
            _ => &self.domain,
        }
    }

    /// The guest can and shall be asked while it is there.
    pub fn asks_guest(&self, side: Side) -> bool {
        let reaches = side == Side::Source || self.reaches_destination_agent;
        self.agent != AgentUse::Never && reaches
    }

    /// How this program reaches that side.
    pub fn uri(&self, side: Side) -> &str {
        match side {
            Side::Source => &self.source_uri,
            Side::Destination => &self.destination_uri,
        }
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
