//! What an interface is to Tandem, as udev's properties.

use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::{AddressingPolicy, Ownership, Policy};
use tandem_core::{IfName, Role, role_of};

use crate::managers;
use crate::nics::Readiness;

/// All property names begin so.
pub(super) const PREFIX: &str = "TANDEM_";

/// What an interface is to Tandem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    bond: IfName,
    role: &'static str,
    pub(super) unmanaged: bool,
    /// Its appearance starts the service.
    pub(super) starts: bool,
}

impl Mark {
    /// The mark of a link; `None` if the policy does not speak of it.
    ///
    /// Ports belong to Tandem where it can take care of them. A bond that another manager made keeps its
    /// manager, and so does its standby, which that manager may have put there; its VF has to be kept from
    /// being configured on its own.
    pub fn of(link: &Link, policy: &Policy, readiness: &Readiness) -> Option<Self> {
        if link.kind == LinkKind::Bond {
            let bond = policy.bonds.iter().find(|bond| bond.name == link.name)?;
            let configured_here = match bond.addressing {
                AddressingPolicy::Auto => !managers::serves(readiness.files(), &bond.name),
                AddressingPolicy::Inherit | AddressingPolicy::Static { .. } => true,
                AddressingPolicy::None => false,
            };
            // Also if its NICs were given back: Tandem made it, so it is no other manager's.
            let is_made_here = readiness.obstacle.is_none() || readiness.is_in_place(&bond.name);
            return Some(Self {
                bond: bond.name.clone(),
                role: "bond",
                unmanaged: bond.ownership == Ownership::Create && configured_here && is_made_here,
                starts: false,
            });
        }
        let (bond, role) = role_of(link, policy)?;
        let (role, is_tandems) = match role {
            Role::Standby => {
                let is_managers = managers::is_made_by_manager(readiness.files(), &bond.name);
                let is_ours = bond.ownership == Ownership::Create && !is_managers;
                ("standby", is_ours)
            }
            Role::Vf(_) => ("vf", true),
        };
        Some(Self {
            bond: bond.name.clone(),
            role,
            unmanaged: is_tandems
                && readiness.reason_to_leave(bond, &link.name).is_none()
                && managers::left_alone(readiness.files(), &bond.name).is_none(),
            starts: readiness.obstacle.is_none(),
        })
    }

    /// The properties, as udev's `IMPORT{program}` reads them.
    pub fn properties(&self) -> Vec<String> {
        vec![
            format!("{PREFIX}BOND={}", self.bond),
            format!("{PREFIX}ROLE={}", self.role),
            unmanaged_property(self.unmanaged),
            format!("{PREFIX}START={}", u8::from(self.starts)),
        ]
    }
}

/// The property that keeps other managers off, or does not.
pub(super) fn unmanaged_property(unmanaged: bool) -> String {
    format!("{PREFIX}UNMANAGED={}", u8::from(unmanaged))
}
