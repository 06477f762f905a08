//! Whether an action that was acknowledged is seen in the world.
//! `RTM_SETLINK` ignores bond options and says success, and old kernels ignore
//! options they don't know (measured on 6.1, 6.12 and 7.3).

use crate::action::{ActionKind, BondOptions};
use crate::link::{Addressing, BondFacts, Link, LinkKind};
use crate::plan::is_route;
use crate::types::Ifindex;
use crate::view::has_addresses;
use crate::world::World;

/// True if the world shows what the action was to bring about, or if the device
/// it was about is gone, so that nothing can be said.
pub(crate) fn is_seen(world: &World, kind: &ActionKind) -> bool {
    let link =
        |ifindex: Ifindex, seen: &dyn Fn(&Link) -> bool| world.link(ifindex).is_none_or(seen);
    let bond = |ifindex: Ifindex, seen: &dyn Fn(&BondFacts) -> bool| {
        let facts = world.link(ifindex).and_then(|link| link.bond.as_ref());
        facts.is_none_or(seen)
    };
    match kind {
        ActionKind::CreateBond { name, .. } => world
            .link_named(name)
            .is_some_and(|link| link.kind == LinkKind::Bond),
        ActionKind::SetBondOptions {
            bond: index,
            options,
        } => bond(*index, &|facts| has_options(facts, options)),
        ActionKind::SetAdminUp { link: index, up } => link(*index, &|link| link.admin_up == *up),
        ActionKind::SetMtu { link: index, mtu } => link(*index, &|link| link.mtu == *mtu),
        ActionKind::SetMac { link: index, mac } => link(*index, &|link| link.mac == Some(*mac)),
        ActionKind::Enslave { port, bond } => link(*port, &|link| link.controller == Some(*bond)),
        ActionKind::Release { port, bond } => link(*port, &|link| link.controller != Some(*bond)),
        ActionKind::SetPrimary { bond: index, port } => {
            world.link(*port).is_none() || bond(*index, &|facts| facts.primary == Some(*port))
        }
        ActionKind::MoveAddressing { from: link, .. } | ActionKind::FlushAddressing { link } => {
            !world.addressing(*link).is_some_and(has_addresses)
        }
        ActionKind::AddAddressing {
            link,
            addresses,
            routes,
        } => {
            let has_all = |present: &Addressing| {
                let has_route = |wanted| present.routes.iter().any(|found| is_route(found, wanted));
                addresses.iter().all(|one| present.addresses.contains(one))
                    && routes.iter().all(has_route)
            };
            world.link(*link).is_none() || world.addressing(*link).is_some_and(has_all)
        }
        ActionKind::SetFastPath { bond, fast_path } => {
            world.link(*bond).is_none() || world.fast_path(*bond) == Some(fast_path)
        }
        ActionKind::Announce { .. }
        | ActionKind::CheckPath { .. }
        | ActionKind::ReadFrames { .. }
        | ActionKind::Observe { .. }
        | ActionKind::Reply { .. }
        | ActionKind::Notify(_) => true,
    }
}

fn has_options(facts: &BondFacts, options: &BondOptions) -> bool {
    let BondOptions {
        miimon_ms,
        fail_over_mac,
        primary_reselect,
        all_ports_active,
        peer_notifications,
    } = options;
    miimon_ms.is_none_or(|value| facts.miimon_ms == value)
        && fail_over_mac.is_none_or(|value| facts.fail_over_mac == value)
        && primary_reselect.is_none_or(|value| facts.primary_reselect == value)
        && all_ports_active.is_none_or(|value| facts.all_ports_active == value)
        && peer_notifications.is_none_or(|value| facts.peer_notifications == value)
}
