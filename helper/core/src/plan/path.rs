//! The hand-over programs in the kernel: when they count, and for whom they step in.

use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::bond::view::{Bond, Port};
use crate::model::action::ActionKind;
use crate::model::link::FailOverMac;
use crate::model::path::{PathWatch, Rescue};

/// Has the hand-over programs do what is wanted of them now.
pub(super) fn watch(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let world = context.view.world;
    if !world.paths_supported() || !world.addressing_known() {
        return None;
    }
    let watch = wanted(context, bond);
    let bond = bond.ifindex();
    (world.path(bond) != Some(&watch)).then_some(ActionKind::WatchPath { bond, watch })
}

/// The programs deliver what still arrives on this port, and keep duplicates away: its removal was
/// announced, and they have no order yet that ends its rescue.
pub(super) fn is_rescued(context: &Context<'_>, bond: &Bond<'_>, old: &Port<'_>) -> bool {
    let watch = context.view.world.path(bond.ifindex());
    let rescue = watch.and_then(|watch| watch.rescue.as_ref());
    old.warning.is_some() && rescue.is_some_and(|rescue| rescue.vf == old.ifindex())
}

/// Reads what they counted, once a handoff is over.
pub(super) fn measure(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let ports = context.memory.traffic.to_measure(context.now)?.to_vec();
    let bond = bond.ifindex();
    Some(ActionKind::ReadFrames { bond, ports })
}

fn wanted(context: &Context<'_>, bond: &Bond<'_>) -> PathWatch {
    let traffic = &context.memory.traffic;
    let handing_over = traffic.is_handing_over(context.now);
    let view = context.view;
    let mut ports: Vec<_> = view
        .nics()
        .filter(|port| port.enslaved && (handing_over || !port.active))
        .map(Port::ifindex)
        .collect();
    ports.sort_unstable();
    PathWatch {
        ports,
        period: traffic.period(context.now),
        mac: bond.link.mac,
        rescue: rescue(context, bond),
    }
}

/// Only where all ports share one MAC: elsewhere frames of the bond would leave the
/// standby with a MAC that is not its own.
fn rescue(context: &Context<'_>, bond: &Bond<'_>) -> Option<Rescue> {
    let view = context.view;
    let vf = view.vfs.iter().find(|vf| vf.active)?;
    let standby = view.standby.as_ref().filter(|port| port.usable)?;
    let shared = bond.facts.fail_over_mac == FailOverMac::None;
    let addresses = bond.addressing.map(|found| found.addresses.iter());
    Some(Rescue {
        vf: vf.ifindex(),
        pci: vf.link.pci?,
        slot: vf.link.pci_parent,
        standby: standby.ifindex(),
        mac: bond.link.mac.filter(|_| shared)?,
        addresses: addresses.into_iter().flatten().map(|one| one.ip).collect(),
        stacked: view.world.stacked(bond.ifindex()),
    })
}
