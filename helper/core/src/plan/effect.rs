//! Whether an action that was acknowledged is seen in the world.
//! `RTM_SETLINK` ignores bond options and says success, and old kernels ignore
//! options they don't know (measured on 6.1, 6.12 and 7.3).

use crate::model::action::{ActionKind, BondOptions};
use crate::model::link::{Addressing, BondFacts, Link, LinkKind};
use crate::model::types::Ifindex;
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
        } => bond(*index, &|facts| {
            options.missing_in(facts) == BondOptions::default()
        }),
        ActionKind::SetAdminUp { link: index, up } => link(*index, &|link| link.admin_up == *up),
        ActionKind::SetMtu { link: index, mtu } => link(*index, &|link| link.mtu == *mtu),
        ActionKind::SetMac { link: index, mac } => link(*index, &|link| link.mac == Some(*mac)),
        ActionKind::Enslave { port, bond } => link(*port, &|link| link.controller == Some(*bond)),
        ActionKind::Release { port, bond } => link(*port, &|link| link.controller != Some(*bond)),
        ActionKind::SetPrimary { bond: index, port } => {
            world.link(*port).is_none() || bond(*index, &|facts| facts.primary == Some(*port))
        }
        ActionKind::MoveAddressing { from: link, .. } | ActionKind::FlushAddressing { link } => {
            !world
                .addressing(*link)
                .is_some_and(Addressing::has_addresses)
        }
        ActionKind::AddAddressing {
            link,
            addresses,
            routes,
        } => {
            let has_all = |present: &Addressing| {
                let has_route = |wanted| present.routes.iter().any(|found| found.is(wanted));
                addresses.iter().all(|one| present.addresses.contains(one))
                    && routes.iter().all(has_route)
            };
            world.link(*link).is_none() || world.addressing(*link).is_some_and(has_all)
        }
        ActionKind::SetFastPath { bond, fast_path } => {
            world.link(*bond).is_none() || world.fast_path(*bond) == Some(fast_path)
        }
        ActionKind::Announce { .. }
        | ActionKind::CheckFree { .. }
        | ActionKind::CheckPath { .. }
        | ActionKind::ReadFrames { .. }
        | ActionKind::ReadTraffic { .. }
        | ActionKind::AskPath { .. }
        | ActionKind::Observe { .. } => true,
    }
}
