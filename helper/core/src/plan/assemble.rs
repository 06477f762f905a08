//! Making the bond and taking its ports in.

use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::bond::view::{Bond, BondView, Device, Port};
use crate::model::action::{ActionKind, BondOptions};
use crate::model::link::PrimaryReselect;
use crate::model::policy::{BondPolicy, MacPolicy, Ownership};
use crate::model::types::Mac;
use crate::plan::{addressing, switchover};

/// Creates the bond once there is a NIC for it and its MAC is known.
pub(super) fn create(context: &Context<'_>) -> Option<ActionKind> {
    let view = context.view;
    let missing = matches!(view.device, Device::Missing);
    if !missing || !has_nic(view) || view.policy.ownership == Ownership::Adopt || view.lacks_mac() {
        return None;
    }
    Some(ActionKind::CreateBond {
        name: view.policy.name.clone(),
        mac: view.wanted_mac(),
        options: options(view.policy),
    })
}

/// A NIC is there that the bond may have. A VF waits for a standby that is left alone, as it has the MAC that is
/// to be the bond's.
fn has_nic(view: &BondView<'_>) -> bool {
    let occupied = view.standby.as_ref().is_some_and(Port::is_occupied);
    let waits = occupied && view.policy.mac == MacPolicy::Standby;
    !waits && view.nics().any(|nic| !nic.is_occupied())
}

/// Asks whether NICs that are up are free, before anything of them is moved.
pub(super) fn check_free(
    context: &Context<'_>,
    bond: &Bond<'_>,
) -> impl Iterator<Item = ActionKind> {
    let standby = context.view.standby.as_ref();
    let is_ours = !context.view.policy.manager_takes_standby;
    let standby = standby.filter(|standby| is_ours && !standby.enslaved);
    let nics = standby.into_iter().chain(context.next_vfs(bond));
    let unasked = |nic: &&Port<'_>| !nic.is_occupied() && !context.memory.is_found_free(nic);
    nics.filter(unasked).map(|nic| bond.check_free(nic))
}

/// Options with which a bond is made. `primary_reselect=failure`: the kernel leaves
/// a port that fails by itself, also without the service, but never goes back
/// before the hold time; setting the primary still moves the traffic at once
/// (`bond_option_primary_set`, `drivers/net/bonding/bond_options.c`, 6.12).
fn options(policy: &BondPolicy) -> BondOptions {
    BondOptions {
        miimon_ms: Some(policy.timing.miimon_ms),
        fail_over_mac: Some(policy.mac.fail_over_mac()),
        primary_reselect: Some(PrimaryReselect::Failure),
        all_ports_active: Some(false),
        peer_notifications: Some(policy.timing.announcements),
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
    let mtu = wanted_mtu(view, bond)
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
    let options = options(policy);
    let wanted = BondOptions {
        // The kernel refuses it while there are ports.
        fail_over_mac: options.fail_over_mac.filter(|_| bond.ports == 0),
        // Follows the state of a switchover.
        all_ports_active: None,
        ..options
    };
    let options = wanted.missing_in(bond.facts);
    let bond = bond.ifindex();
    (options != BondOptions::default()).then_some(ActionKind::SetBondOptions { bond, options })
}

/// An empty bond has a random MAC (kernel) and would take that of its next port.
/// One with ports keeps what it has: changing it cuts connections.
fn mac_of_empty_bond(view: &BondView<'_>, bond: &Bond<'_>) -> Option<Mac> {
    let wanted = view.wanted_mac().filter(|_| bond.ports == 0)?;
    (bond.link.mac != Some(wanted)).then_some(wanted)
}

/// The bond's MTU in bytes as it should be: the policy's as far as the standby
/// can follow, else the standby's while the bond has no ports.
fn wanted_mtu(view: &BondView<'_>, bond: &Bond<'_>) -> Option<u32> {
    let standby = view.standby.as_ref().map(|port| port.link);
    match view.policy.mtu {
        Some(mtu) => {
            let limit = standby.map_or(0, |link| link.max_mtu);
            Some(if limit == 0 { mtu } else { mtu.min(limit) })
        }
        None => standby.filter(|_| bond.ports == 0).map(|link| link.mtu),
    }
}

/// Takes the standby in, once its addresses are safe on the bond.
pub(super) fn take_standby(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let view = context.view;
    let standby = view.standby.as_ref()?;
    let is_ours = !view.policy.manager_takes_standby;
    let free = is_ours && !standby.enslaved && context.memory.is_found_free(standby);
    let ready = free && !view.standby_is_unread() && is_prepared(view, bond);
    (ready && is_cleared(context, bond, standby)).then(|| bond.enslave(standby))
}

/// The bond is up, and shows the right MAC before a first port could lend it another.
fn is_prepared(view: &BondView<'_>, bond: &Bond<'_>) -> bool {
    let ours = view.policy.ownership == Ownership::Create;
    !ours || (bond.link.admin_up && mac_of_empty_bond(view, bond).is_none())
}

/// Taking the standby in would cost it no address, or is to be done later. Routes that could not be moved
/// must not keep it out for ever; they are tried before, being the earlier action.
fn is_cleared(context: &Context<'_>, bond: &Bond<'_>, standby: &Port<'_>) -> bool {
    if addressing::keeps_what_it_has(context, bond, standby) {
        !standby.has_addresses() || addressing::stays_outside(context, bond, standby)
    } else {
        !standby.has_addressing()
    }
}

/// Takes the chosen VFs in as backups.
pub(super) fn take_vfs(context: &Context<'_>, bond: &Bond<'_>) -> impl Iterator<Item = ActionKind> {
    // The manager sets the bond's options before it takes the standby in: the kernel refuses it once there is a port.
    let view = context.view;
    let standby = view.standby.as_ref();
    let is_made =
        !view.policy.manager_takes_standby || standby.is_some_and(|standby| standby.enslaved);
    let ready = is_made && is_prepared(view, bond) && switchover::joins_as_backup(context, bond);
    let may_join =
        move |vf: &&Port<'_>| ready && context.memory.is_found_free(vf) && !vf.has_addresses();
    let vfs = context.next_vfs(bond).filter(may_join);
    vfs.map(|vf| bond.enslave(vf))
}

/// Opens ports that somebody closed.
pub(super) fn open_ports(context: &Context<'_>) -> impl Iterator<Item = ActionKind> {
    let closed = context.kept_ports().filter(|port| !port.link.admin_up);
    closed.map(|port| ActionKind::SetAdminUp {
        link: port.ifindex(),
        up: true,
    })
}

/// Gives ports the bond's MTU again where somebody gave them another. The kernel lets them differ
/// (`bond_slave_netdev_event`, `NETDEV_CHANGEMTU`, `drivers/net/bonding/bond_main.c`, 6.12), and frames that are
/// too long for a port are lost there once it carries the traffic. Where the bond is to get another MTU itself, that
/// comes first, unless it was refused.
pub(super) fn port_mtus(
    context: &Context<'_>,
    bond: &Bond<'_>,
) -> impl Iterator<Item = ActionKind> {
    let Context {
        view, memory, now, ..
    } = context;
    let mtu = bond.link.mtu;
    let is_refused = |mtu| {
        let link = bond.ifindex();
        memory.attempts.failures(&ActionKind::SetMtu { link, mtu }) > 0
    };
    let is_settled =
        wanted_mtu(view, bond).is_none_or(|wanted| wanted == mtu || is_refused(wanted));
    let is_due = memory.mtus_due_at().is_some_and(|at| *now >= at);
    let is_ours = view.policy.ownership == Ownership::Create;
    context
        .kept_ports()
        .filter(move |port| is_ours && is_settled && is_due && port.link.mtu != mtu)
        .filter(move |port| port.takes_mtu(mtu))
        .map(move |port| ActionKind::SetMtu {
            link: port.ifindex(),
            mtu,
        })
}
