//! What answers in the guest.

use tandem_host::evacuate::{Failure, FailureKind, GuestCall, GuestStatus, Reply};

use crate::script::Agent;
use crate::world::World;

/// The answer; `None` if there is none.
pub(crate) fn answer(world: &mut World, call: GuestCall, now_ms: u64) -> Option<Reply> {
    match world.script.agent {
        Agent::Missing => None,
        Agent::Hostile => {
            let text = "the line is longer than any reply";
            Some(Reply::Failed(Failure::new(FailureKind::AgentHostile, text)))
        }
        Agent::Liar => Some(lie(world, call)),
        Agent::SaysNo if matches!(call, GuestCall::PrepareUnplug(_)) => {
            let text = "the standby has no carrier";
            Some(Reply::Failed(Failure::new(FailureKind::AgentRefused, text)))
        }
        Agent::Good | Agent::NotReady | Agent::SaysNo => Some(tell(world, call, now_ms)),
    }
}

fn lie(world: &World, call: GuestCall) -> Reply {
    let lie = GuestStatus {
        bond_known: true,
        standby_usable: true,
        vf_active: true,
        knows_vf: None,
        gap_us: Some(0),
        reason: "all is well".into(),
    };
    match call {
        GuestCall::Status => {
            let told = world.of_bonds().map(|device| (device, lie.clone()));
            Reply::Status(told.collect())
        }
        _ => Reply::Accepted,
    }
}

fn tell(world: &mut World, call: GuestCall, now_ms: u64) -> Reply {
    match call {
        GuestCall::PrepareUnplug(_) | GuestCall::Resume(_) | GuestCall::Announce(_)
            if !world.has_bond =>
        {
            let text = "there is no such bond in the configuration";
            return Reply::Failed(Failure::new(FailureKind::AgentRefused, text));
        }
        GuestCall::Announce(device) if world.script.refuses_announce == Some(device) => {
            let text = "the bond is down";
            return Reply::Failed(Failure::new(FailureKind::AgentRefused, text));
        }
        GuestCall::Configure => world.has_bond = true,
        GuestCall::PrepareUnplug(device) => {
            world.devices[device].prepared = true;
        }
        GuestCall::Resume(device) => world.devices[device].prepared = false,
        GuestCall::Status => {
            let status = |device: usize| GuestStatus {
                bond_known: world.has_bond,
                standby_usable: world.has_bond && world.script.agent != Agent::NotReady,
                vf_active: world.uses(device, now_ms),
                knows_vf: None,
                gap_us: None,
                reason: "as it is".into(),
            };
            let told = world.of_bonds().map(|device| (device, status(device)));
            return Reply::Status(told.collect());
        }
        GuestCall::Hello | GuestCall::Announce(_) => {}
    }
    Reply::Accepted
}
