//! What a NIC is recognised by, whatever its driver makes of it.
//!
//! `IFLA_PERM_ADDRESS` does not have to stay what it was: at each reset of a VF, its driver copies the MAC that the
//! PF has for it at the moment to `perm_addr`, and that is the bond's (`igbvf_reset`,
//! `drivers/net/ethernet/intel/igbvf/netdev.c`, and `ixgbevf_reset`, 6.12: at each closing and change of the MTU).

use crate::model::input::KnownVf;
use crate::model::link::Link;
use crate::model::types::Mac;

/// The MACs of a NIC, as they were before a bond took it, if it was seen then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    permanent: Option<Mac>,
    /// What it had before the bond took it, while one has it: the kernel's own note.
    before_bond: Option<Mac>,
    present: Option<Mac>,
    /// Some bond has or had it: from then on its driver may have rewritten its MACs.
    joined: bool,
}

/// The permanent MAC that the kernel shows for a link; zeros or a multicast MAC are none.
pub(crate) fn shown_permanent_mac(link: &Link) -> Option<Mac> {
    unicast(link.permanent_mac)
}

fn unicast(mac: Option<Mac>) -> Option<Mac> {
    mac.filter(|mac| mac.is_unicast())
}

impl Identity {
    pub(crate) fn of(link: &Link) -> Self {
        Self {
            permanent: shown_permanent_mac(link),
            before_bond: unicast(link.port.as_ref().and_then(|port| port.permanent_mac)),
            present: unicast(link.mac),
            joined: link.port.is_some(),
        }
    }

    /// The NIC is seen again. What it is, is settled once a bond takes it.
    pub(crate) fn seen_again(self, link: &Link) -> Self {
        if self.joined {
            return self;
        }
        let now = Self::of(link);
        if now.joined && self.mac().is_some() {
            return Self {
                joined: true,
                ..self
            };
        }
        now
    }

    /// That of a VF which was known, such as before a restart of the service, if this link is that VF.
    pub(crate) fn recalled(vf: &KnownVf, link: &Link) -> Option<Self> {
        let is_it = vf.ifindex == link.ifindex && vf.pci == link.pci;
        is_it.then_some(Self {
            permanent: Some(vf.mac),
            before_bond: None,
            present: None,
            joined: true,
        })
    }

    /// The MAC that the NIC was born with, else the one it had before a bond took it, else its present one.
    pub(crate) fn mac(&self) -> Option<Mac> {
        self.permanent.or(self.before_bond).or(self.present)
    }

    /// What else may be its own: what it had before the bond took it, or has in none.
    pub(crate) fn mac_besides(&self) -> Option<Mac> {
        let besides = self.before_bond.or(self.present);
        besides.filter(|mac| self.mac() != Some(*mac))
    }

    /// Some bond has or had it.
    pub(crate) fn has_joined(&self) -> bool {
        self.joined
    }

    /// Its permanent MAC is the one that a bond gave it.
    pub(crate) fn has_the_bonds_mac(&self) -> bool {
        self.before_bond.is_some() && self.permanent == self.present
    }
}
