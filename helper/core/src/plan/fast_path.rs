//! The fast path: when its programs count, and for which VF it is armed.

use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::bond::view::{Bond, Port};
use crate::model::action::ActionKind;
use crate::model::fast_path::{ArmedVf, FastPath};
use crate::model::link::FailOverMac;
use crate::world::FastPathSupport;

/// Has the fast-path programs do what is wanted of them now.
pub(super) fn set(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let world = context.view.world;
    if world.fast_path_support() != FastPathSupport::Supported || !world.addressing_known() {
        return None;
    }
    let fast_path = wanted(context, bond);
    let bond = bond.ifindex();
    (world.fast_path(bond) != Some(&fast_path))
        .then_some(ActionKind::SetFastPath { bond, fast_path })
}

/// The programs deliver what still arrives on this port, and keep duplicates away: its removal was
/// announced, and they have no order yet that ends its fast path.
pub(super) fn is_redirected(context: &Context<'_>, bond: &Bond<'_>, old: &Port<'_>) -> bool {
    let fast_path = context.view.world.fast_path(bond.ifindex());
    let armed_vf = fast_path.and_then(|fast_path| fast_path.armed_vf.as_ref());
    old.warning.is_some() && armed_vf.is_some_and(|armed_vf| armed_vf.vf == old.ifindex())
}

/// Reads what they counted, once a switchover is over.
pub(super) fn measure(context: &Context<'_>, bond: &Bond<'_>) -> Option<ActionKind> {
    let ports = context.memory.traffic.to_measure(context.now)?.to_vec();
    let bond = bond.ifindex();
    Some(ActionKind::ReadFrames { bond, ports })
}

fn wanted(context: &Context<'_>, bond: &Bond<'_>) -> FastPath {
    let traffic = &context.memory.traffic;
    let switching_over = traffic.is_switching_over(context.now);
    let view = context.view;
    let mut ports: Vec<_> = view
        .nics()
        .filter(|port| port.enslaved && (switching_over || !port.active))
        .map(Port::ifindex)
        .collect();
    ports.sort_unstable();
    FastPath {
        ports,
        period: traffic.period(context.now),
        mac: bond.link.mac,
        armed_vf: armed_vf(context, bond),
    }
}

/// The port that takes over is the one that the machine would choose, so that both go the same way.
/// Only where all ports share one MAC: elsewhere frames of the bond would leave the
/// standby with a MAC that is not its own.
fn armed_vf(context: &Context<'_>, bond: &Bond<'_>) -> Option<ArmedVf> {
    let view = context.view;
    let (vf, next) = context.choice.to_arm?;
    let shared = bond.facts.fail_over_mac == FailOverMac::None;
    let addresses = bond.addressing.map(|found| found.addresses.iter());
    Some(ArmedVf {
        vf: vf.ifindex(),
        pci: vf.link.pci?,
        slot: vf.link.pci_parent,
        standby: next.ifindex(),
        mac: bond.link.mac.filter(|_| shared)?,
        addresses: addresses.into_iter().flatten().map(|one| one.ip).collect(),
        upper_devices: view.world.upper_devices(bond.ifindex()),
    })
}
