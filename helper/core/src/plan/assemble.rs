//! Making the bond and taking its ports in.

use alloc::vec::Vec;

use crate::action::{ActionKind, BondOptions};
use crate::link::{FailOverMac, PrimaryReselect};
use crate::plan::addressing::may_take;
use crate::plan::{Context, addressing, switchover};
use crate::policy::{AddressingPolicy, BondPolicy, MacPolicy, Ownership};
use crate::types::Mac;
use crate::view::{Bond, BondView, Device, Port};

/// Creates the bond once there is a NIC for it and its MAC is known.
pub(super) fn create(context: &Context<'_>) -> Option<ActionKind> {
    let view = context.view;
    let missing = matches!(view.device, Device::Missing);
    let nic = view.standby.iter().chain(&view.vfs).any(|nic| !nic.taken);
    if !missing || !nic || view.policy.ownership == Ownership::Adopt || lacks_mac(view) {
        return None;
    }
    Some(ActionKind::CreateBond {
        name: view.policy.name.clone(),
        mac: view.wanted_mac(),
        options: options(view.policy),
    })
}

/// The bond would start with a MAC by chance.
pub(crate) fn lacks_mac(view: &BondView<'_>) -> bool {
    view.policy.mac == MacPolicy::Standby && view.wanted_mac().is_none()
}

/// Options with which a bond is made. `primary_reselect=failure`: the kernel leaves
/// a port that fails by itself, also without the service, but never goes back
/// before the hold time; setting the primary still moves the traffic at once
/// (`bond_option_primary_set`, `drivers/net/bonding/bond_options.c`, 6.12).
fn options(policy: &BondPolicy) -> BondOptions {
    BondOptions {
        miimon_ms: Some(policy.timing.miimon_ms),
        fail_over_mac: Some(fail_over_mac(policy)),
        primary_reselect: Some(PrimaryReselect::Failure),
        all_ports_active: Some(false),
        peer_notifications: Some(policy.timing.announcements),
    }
}

/// The kernel's option that makes the bond show the MAC that the policy wants.
pub(crate) fn fail_over_mac(policy: &BondPolicy) -> FailOverMac {
    match policy.mac {
        MacPolicy::Standby => FailOverMac::None,
        MacPolicy::Follow => FailOverMac::Active,
    }
}

/// Brings options, MAC, MTU and state of a bond that Tandem owns to what they should be.
pub(super) fn configure(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let view = context.view;
    if view.policy.ownership == Ownership::Adopt {
        return Vec::new();
    }
    let link = bond.ifindex();
    let mac = mac_of_empty_bond(view, bond).map(|mac| ActionKind::SetMac { link, mac });
    let mtu = view
        .wanted_mtu(bond)
        .filter(|mtu| *mtu != bond.link.mtu)
        .map(|mtu| ActionKind::SetMtu { link, mtu });
    let up = (!bond.link.admin_up).then_some(ActionKind::SetAdminUp { link, up: true });
    let options = changed_options(view.policy, bond);
    options
        .into_iter()
        .chain(mac)
        .chain(mtu)
        .chain(up)
        .collect()
}

fn changed_options(policy: &BondPolicy, bond: &Bond<'_>) -> Option<ActionKind> {
    let facts = bond.facts;
    let wanted = options(policy);
    let changed = BondOptions {
        miimon_ms: wanted.miimon_ms.filter(|value| *value != facts.miimon_ms),
        // The kernel refuses it while there are ports.
        fail_over_mac: wanted
            .fail_over_mac
            .filter(|value| *value != facts.fail_over_mac && bond.ports == 0),
        primary_reselect: wanted
            .primary_reselect
            .filter(|value| *value != facts.primary_reselect),
        // Follows the state of a switchover.
        all_ports_active: None,
        peer_notifications: wanted
            .peer_notifications
            .filter(|value| *value != facts.peer_notifications),
    };
    (changed != BondOptions::default()).then_some(ActionKind::SetBondOptions {
        bond: bond.ifindex(),
        options: changed,
    })
}

/// An empty bond has a random MAC (kernel) and would take that of its next port.
/// One with ports keeps what it has: changing it cuts connections.
fn mac_of_empty_bond(view: &BondView<'_>, bond: &Bond<'_>) -> Option<Mac> {
    let wanted = view.wanted_mac().filter(|_| bond.ports == 0)?;
    (bond.link.mac != Some(wanted)).then_some(wanted)
}

impl BondView<'_> {
    /// The bond's MTU in bytes as it should be: the policy's as far as the standby
    /// can follow, else the standby's while the bond has no ports.
    pub(crate) fn wanted_mtu(&self, bond: &Bond<'_>) -> Option<u32> {
        let standby = self.standby.as_ref().map(|port| port.link);
        match self.policy.mtu {
            Some(mtu) => {
                let limit = standby.map_or(0, |link| link.max_mtu);
                Some(if limit == 0 { mtu } else { mtu.min(limit) })
            }
            None => standby.filter(|_| bond.ports == 0).map(|link| link.mtu),
        }
    }
}

/// Takes the standby in, once its addresses are safe on the bond.
pub(super) fn take_standby(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let view = context.view;
    let standby = view.standby.as_ref()?;
    let known = !view.standby_is_unread();
    let ready = known && !standby.enslaved && !standby.taken && is_prepared(view, bond);
    (ready && is_cleared(context, bond, standby)).then(|| enslave(bond, standby))
}

/// The bond is up, and shows the right MAC before a first port could lend it another.
fn is_prepared(view: &BondView<'_>, bond: &Bond<'_>) -> bool {
    let ours = view.policy.ownership == Ownership::Create;
    !ours || (bond.link.admin_up && mac_of_empty_bond(view, bond).is_none())
}

/// Taking the standby in would cost it no address, or is to be done later. Routes that could not be moved
/// must not keep it out for ever; they are tried before, being the earlier action.
fn is_cleared(context: &Context<'_>, bond: &Bond<'_>, standby: &Port<'_>) -> bool {
    match context.view.policy.addressing {
        AddressingPolicy::Inherit => {
            !standby.has_addresses() || addressing::stays_outside(context, bond, standby)
        }
        AddressingPolicy::Static { .. } | AddressingPolicy::None => !standby.has_addressing(),
    }
}

/// Takes the chosen VF in as a backup.
pub(super) fn take_vf(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let vf = context.view.vf()?;
    let ready = may_take(context, bond, vf)
        && is_prepared(context.view, bond)
        && switchover::joins_as_backup(context, bond)
        && !vf.has_addresses();
    ready.then(|| enslave(bond, vf))
}

/// Opens ports that somebody closed.
pub(super) fn open_ports(context: &Context<'_>) -> Vec<ActionKind> {
    let view = context.view;
    let ports = view.standby.iter().chain(view.vf());
    ports
        .filter(|port| port.enslaved && !port.link.admin_up)
        .filter(|port| !context.memory.is_leaving(port))
        .map(|port| ActionKind::SetAdminUp {
            link: port.ifindex(),
            up: true,
        })
        .collect()
}

/// Gives ports the bond's MTU again where somebody gave them another. The kernel lets them differ
/// (`bond_slave_netdev_event`, `NETDEV_CHANGEMTU`, `drivers/net/bonding/bond_main.c`, 6.12), and frames that are
/// too long for a port are lost there once it carries the traffic.
pub(super) fn port_mtus(context: &Context<'_>, bond: &Bond<'_>) -> Vec<ActionKind> {
    let view = context.view;
    let mtu = bond.link.mtu;
    let settled = view.wanted_mtu(bond).is_none_or(|wanted| wanted == mtu);
    let due = context
        .memory
        .mtus_due_at()
        .is_some_and(|at| context.now >= at);
    if view.policy.ownership == Ownership::Adopt || !settled || !due {
        return Vec::new();
    }
    let ports = view.standby.iter().chain(view.vf());
    ports
        .filter(|port| port.enslaved && port.link.mtu != mtu && port.takes_mtu(mtu))
        .filter(|port| !context.memory.is_leaving(port))
        .map(|port| ActionKind::SetMtu {
            link: port.ifindex(),
            mtu,
        })
        .collect()
}

/// Makes a NIC a port of the bond.
pub(super) fn enslave(bond: &Bond<'_>, port: &Port<'_>) -> ActionKind {
    ActionKind::Enslave {
        port: port.ifindex(),
        bond: bond.ifindex(),
    }
}
