//! Where a bond stands and why: the status as a projection of facts, history and choice.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::bond::memory::Memory;
use crate::bond::view::{BondView, Device, Port};
use crate::model::policy::{Origin, Ownership};
use crate::model::status::{BondState, BondStatus, Held, PortStatus, SwitchoverCause, Traffic};
use crate::model::types::{Ifindex, Time};
use crate::report::problems::problems;

/// Describes one bond. `deadline` is when something is due next for it.
pub(crate) fn bond_status(
    context: &Context<'_>,
    origin: Origin,
    deadline: Option<Time>,
) -> BondStatus {
    let Context {
        view,
        choice,
        memory,
        ..
    } = context;
    let (state, reason) = stand(context);
    let bond = view.bond();
    let backups = choice.vfs().skip(1);
    let backups = backups.map(|vf| vf_status(context, vf));
    BondStatus {
        name: view.policy.name.clone(),
        ifindex: bond.map(|bond| bond.ifindex()),
        mac: bond.and_then(|bond| bond.link.mac),
        state,
        traffic: view.traffic(),
        reason,
        standby: view.standby.as_ref().map(|port| {
            let left_alone = memory.is_left_alone(view, port);
            port_status(port, left_alone.then_some(Held::InUse))
        }),
        vf: choice.vf().map(|vf| vf_status(context, vf)),
        backup_vfs: backups.collect(),
        known_vfs: match origin {
            Origin::File => view.policy.vfs.clone(),
            _ => Vec::new(),
        },
        addresses: bond
            .and_then(|bond| bond.addressing)
            .map(|found| found.addresses.clone())
            .unwrap_or_default(),
        problems: problems(context, state),
        fast_path_armed: bond
            .zip(view.active())
            .is_some_and(|(bond, active)| view.world.is_armed_for(bond.ifindex(), active)),
        next_deadline: deadline,
        switchovers: memory.traffic.switchovers(),
        switchover_count: memory.traffic.count,
    }
}

fn port_status(port: &Port<'_>, held: Option<Held>) -> PortStatus {
    let link = port.link;
    PortStatus {
        name: link.name.clone(),
        ifindex: link.ifindex,
        mac: port.mac,
        pci: link.pci,
        driver: link.driver.clone(),
        enslaved: port.enslaved,
        active: port.active,
        carrier: link.admin_up && link.carrier,
        held,
        unproved: None,
    }
}

fn vf_status(context: &Context<'_>, vf: &Port<'_>) -> PortStatus {
    PortStatus {
        unproved: context.memory.vfs.unproved(vf.ifindex()),
        ..port_status(vf, held(context, vf))
    }
}

/// The state, and in one sentence why.
fn stand(context: &Context<'_>) -> (BondState, String) {
    match &context.view.device {
        Device::Taken(_) => (
            BondState::Blocked,
            "another interface has the bond's name".into(),
        ),
        Device::OtherMode(_) => (
            BondState::Blocked,
            "the bond exists in another mode than active-backup".into(),
        ),
        Device::Missing => without_bond(context.view, context.memory),
        Device::Present(_) => with_bond(context),
    }
}

fn without_bond(view: &BondView<'_>, memory: &Memory) -> (BondState, String) {
    let nic = view.nics().next().is_some();
    if !view.world.links_known() {
        (
            BondState::Waiting,
            "the interfaces were not read yet".into(),
        )
    } else if view.policy.undecided {
        let text = "it is not known yet who makes and configures the bond";
        (BondState::Waiting, text.into())
    } else if view.policy.ownership == Ownership::Adopt {
        let text = "another manager has not made the bond yet";
        (BondState::Waiting, text.into())
    } else if !nic {
        (BondState::Waiting, "no NIC for the bond is there".into())
    } else if let Some(text) = left_alone(view, memory) {
        (BondState::Blocked, text)
    } else if view.lacks_mac() {
        let text = "the bond's MAC is not known before its standby comes";
        (BondState::Waiting, text.into())
    } else if let Some(failure) = memory.attempts.obstacle() {
        (BondState::Blocked, failure.message.clone())
    } else {
        (BondState::Assembling, "the bond is being made".into())
    }
}

fn with_bond(context: &Context<'_>) -> (BondState, String) {
    let Context { view, memory, .. } = context;
    if let Some(switchover) = &memory.traffic.switchover
        && view.active().is_some()
    {
        let text = format!(
            "the traffic moves to {}: {}",
            name(view, switchover.target),
            cause_text(switchover.cause)
        );
        return (BondState::SwitchingOver, text);
    }
    let carrier = view.active().map(|active| name(view, active));
    let carrier = carrier.unwrap_or_default();
    match view.traffic() {
        Traffic::Vf if view.standby_usable() => (
            BondState::Accelerated,
            format!("VF {carrier} carries the traffic, the standby is ready"),
        ),
        Traffic::Vf => (
            BondState::Unprotected,
            format!("VF {carrier} carries the traffic: {}", no_standby(view)),
        ),
        Traffic::Standby => (
            BondState::Standby,
            format!("standby {carrier} carries the traffic: {}", no_vf(context)),
        ),
        Traffic::Other => (
            BondState::Unprotected,
            format!("{carrier}, neither VF nor standby, carries the traffic"),
        ),
        Traffic::None | Traffic::Unknown => without_traffic(context),
    }
}

fn without_traffic(context: &Context<'_>) -> (BondState, String) {
    let Context {
        view, memory, now, ..
    } = context;
    let first = context
        .choice
        .vf()
        .filter(|_| memory.traffic.never_carried());
    let joining = view
        .standby
        .as_ref()
        .or(first)
        .filter(|nic| !nic.enslaved && !nic.is_occupied());
    if let Some(text) = left_alone(view, memory) {
        return (BondState::Blocked, text);
    }
    let failure = memory.attempts.obstacle();
    let young = memory.assembly_grace_until().is_some_and(|end| *now < end);
    match (joining, failure) {
        (Some(nic), None) => {
            let text = format!("{} is being taken in", nic.link.name);
            (BondState::Assembling, text)
        }
        (Some(_), Some(failure)) => (BondState::Blocked, failure.message.clone()),
        (None, _) if young => (
            BondState::Assembling,
            "the first port gets its carrier".into(),
        ),
        (None, _) => (BondState::Down, "no port is usable".into()),
    }
}

/// The standby is outside, and the traffic goes through it as it would without a bond.
fn left_alone(view: &BondView<'_>, memory: &Memory) -> Option<String> {
    let standby = view.standby.as_ref()?;
    let name = &standby.link.name;
    let carries = match standby.link.admin_up && standby.link.carrier {
        true => "it carries its traffic itself",
        false => "it is down",
    };
    memory.is_left_alone(view, standby).then(|| {
        format!(
            "the standby {name} is in use and left alone; {carries}, and nothing is accelerated"
        )
    })
}

fn no_standby(view: &BondView<'_>) -> String {
    match &view.standby {
        None => "no standby is present".into(),
        Some(standby) if standby.taken => "the standby belongs to another device".into(),
        Some(standby) if standby.is_occupied() => "something else lies on the standby".into(),
        Some(standby) if !standby.enslaved => "the standby is not in the bond".into(),
        Some(_) => "the standby has no carrier".into(),
    }
}

fn no_vf(context: &Context<'_>) -> String {
    let Some(vf) = context.choice.vf() else {
        return "no VF is present".into();
    };
    let text = match held(context, vf) {
        Some(held) => held_text(held),
        None => "is being taken in",
    };
    format!("VF {} {text}", vf.link.name)
}

/// Why a VF is not in use.
fn held(context: &Context<'_>, vf: &Port<'_>) -> Option<Held> {
    let Context {
        view, memory, now, ..
    } = *context;
    let policy = view.policy;
    if memory.is_prepared(vf) {
        Some(Held::UnplugPrepared)
    } else if vf.warning.is_some() {
        Some(Held::RemovalExpected)
    } else if memory.is_left_alone(view, vf) {
        Some(Held::InUse)
    } else if !vf.enslaved && is_unfit(view, memory, vf) {
        Some(Held::Refused)
    } else if vf.enslaved && !vf.usable {
        Some(Held::NoCarrier)
    } else if vf.active {
        None
    } else if memory.operator_hold {
        Some(Held::Operator)
    } else if vf.enslaved && memory.vfs.lost_path(vf.ifindex()).is_some() {
        Some(Held::PathLost)
    } else if vf.enslaved && fails_path_check(view, memory, vf) {
        Some(Held::PathBroken)
    } else if vf.enslaved && view.traffic() == Traffic::Vf {
        Some(match memory.vfs.carrier_has_held(policy, vf, now) {
            false => Held::Holding,
            true if memory.vfs.path_is_checked(policy, vf, false) => Held::Backup,
            true => Held::Unchecked,
        })
    } else if vf.enslaved && memory.vfs.carrier_has_held(policy, vf, now) && is_loading(context) {
        Some(Held::Unarmed)
    } else if vf.enslaved {
        Some(Held::Holding)
    } else {
        None
    }
}

/// The fast-path programs are waited for.
fn is_loading(context: &Context<'_>) -> bool {
    let due = context.view.world.fast_paths_due_at();
    due.is_some_and(|due| context.now < due)
}

/// The bond could not take this NIC in, or would not be able to.
fn is_unfit(view: &BondView<'_>, memory: &Memory, port: &Port<'_>) -> bool {
    let bond = view.bond();
    let too_large = bond.is_some_and(|bond| !port.takes_mtu(bond.link.mtu));
    too_large || memory.is_refused(view, port)
}

/// The VF was to show that its frames pass through the network, and they did not.
fn fails_path_check(view: &BondView<'_>, memory: &Memory, vf: &Port<'_>) -> bool {
    let ports = view.bond().zip(view.standby.as_ref());
    ports.is_some_and(|(bond, standby)| {
        memory
            .attempts
            .failure(&bond.check_path(vf, standby, memory.vfs.proof(view.policy, vf)))
            .is_some()
    })
}

fn held_text(held: Held) -> &'static str {
    match held {
        Held::Holding => "has to keep its carrier for the hold time first",
        Held::NoCarrier => "has no carrier",
        Held::UnplugPrepared => "is about to be unplugged by the host",
        Held::RemovalExpected => "is about to be removed",
        Held::Operator => "waits until an operator asks for the failback",
        Held::Refused => "was refused and is tried again",
        Held::Unarmed => "waits for the kernel programs that act when it is taken without a word",
        Held::Backup => "is ready to take over",
        Held::Unchecked => "is checked once the standby carries the traffic",
        Held::InUse => "is in use by something else",
        Held::PathLost => "has a carrier and no way into the network",
        Held::PathBroken => "has a carrier, but its frames do not pass the network",
        Held::Unknown => "is not in use",
    }
}

fn cause_text(cause: SwitchoverCause) -> &'static str {
    match cause {
        SwitchoverCause::Planned => "the host is about to unplug the VF",
        SwitchoverCause::Warned => "the VF is about to be removed",
        SwitchoverCause::Abrupt => "the other port is gone",
        SwitchoverCause::Carrier => "the other port lost its carrier",
        SwitchoverCause::PathLost => "frames do not pass through the other port",
        SwitchoverCause::Operator => "an operator asked",
        SwitchoverCause::Arrival => "the VF is ready",
        SwitchoverCause::Unknown => "unknown",
    }
}

fn name(view: &BondView<'_>, port: Ifindex) -> String {
    match view.world.link(port) {
        Some(link) => link.name.to_string(),
        None => format!("interface {port}"),
    }
}
