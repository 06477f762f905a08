//! The status as a projection of world, policy and memory.

use alloc::format;
use alloc::string::{String, ToString};

use crate::memory::Memory;
use crate::plan::lacks_mac;
use crate::policy::Ownership;
use crate::problems::problems;
use crate::status::{BondState, BondStatus, Held, PortStatus, SwitchoverCause, Traffic};
use crate::types::{Ifindex, Time};
use crate::view::{BondView, Device, Port};

/// Describes one bond. `deadline` is when something is due next for it.
pub(crate) fn bond_status(
    view: &BondView<'_>,
    memory: &Memory,
    deadline: Option<Time>,
    now: Time,
) -> BondStatus {
    let (state, reason) = stand(view, memory, now);
    let bond = view.bond();
    BondStatus {
        name: view.policy.name.clone(),
        ifindex: bond.map(|bond| bond.ifindex()),
        mac: bond.and_then(|bond| bond.link.mac),
        state,
        traffic: view.traffic(),
        reason,
        standby: view.standby.as_ref().map(|port| port_status(port, None)),
        vf: view
            .vf()
            .map(|port| port_status(port, memory.held(view, port))),
        addresses: bond
            .and_then(|bond| bond.addressing)
            .map(|found| found.addresses.clone())
            .unwrap_or_default(),
        problems: problems(view, memory, state, now),
        fast_path_armed: bond
            .and_then(|bond| view.world.fast_path(bond.ifindex()))
            .is_some_and(|fast_path| fast_path.armed_vf.is_some()),
        next_deadline: deadline,
        switchovers: memory.traffic.switchovers(),
        switchover_count: memory.traffic.count(),
    }
}

fn port_status(port: &Port<'_>, held: Option<Held>) -> PortStatus {
    let link = port.link;
    PortStatus {
        name: link.name.clone(),
        ifindex: link.ifindex,
        mac: port.mac(),
        pci: link.pci,
        driver: link.driver.clone(),
        enslaved: port.enslaved,
        active: port.active,
        carrier: link.admin_up && link.carrier,
        held,
    }
}

/// Where the bond stands and why.
fn stand(view: &BondView<'_>, memory: &Memory, now: Time) -> (BondState, String) {
    match &view.device {
        Device::Taken(_) => (
            BondState::Blocked,
            "another interface has the bond's name".into(),
        ),
        Device::OtherMode(_) => (
            BondState::Blocked,
            "the bond exists in another mode than active-backup".into(),
        ),
        Device::Missing => without_bond(view, memory),
        Device::Present(_) => with_bond(view, memory, now),
    }
}

fn without_bond(view: &BondView<'_>, memory: &Memory) -> (BondState, String) {
    let failure = memory.attempts.obstacles().next();
    let nic = view.standby.is_some() || view.vf().is_some();
    if !view.world.links_known() {
        (
            BondState::Waiting,
            "the interfaces were not read yet".into(),
        )
    } else if view.policy.ownership == Ownership::Adopt {
        let text = "another manager has not made the bond yet";
        (BondState::Waiting, text.into())
    } else if !nic {
        (BondState::Waiting, "no NIC for the bond is there".into())
    } else if lacks_mac(view) {
        let text = "the bond's MAC is not known before its standby comes";
        (BondState::Waiting, text.into())
    } else if let Some(failure) = failure {
        (BondState::Blocked, failure.message.clone())
    } else {
        (BondState::Assembling, "the bond is being made".into())
    }
}

fn with_bond(view: &BondView<'_>, memory: &Memory, now: Time) -> (BondState, String) {
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
            format!(
                "standby {carrier} carries the traffic: {}",
                no_vf(view, memory)
            ),
        ),
        Traffic::Other => (
            BondState::Unprotected,
            format!("{carrier}, neither VF nor standby, carries the traffic"),
        ),
        Traffic::None => without_traffic(view, memory, now),
    }
}

fn without_traffic(view: &BondView<'_>, memory: &Memory, now: Time) -> (BondState, String) {
    let first = memory.traffic.never_carried().then(|| view.vf()).flatten();
    let joining = view
        .standby
        .as_ref()
        .or(first)
        .filter(|nic| !nic.enslaved && !nic.taken);
    let failure = memory.attempts.obstacles().next();
    let young = memory.assembly_grace_until().is_some_and(|end| now < end);
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

fn no_standby(view: &BondView<'_>) -> String {
    match &view.standby {
        None => "no standby is present".into(),
        Some(standby) if standby.taken => "the standby belongs to another device".into(),
        Some(standby) if !standby.enslaved => "the standby is not in the bond".into(),
        Some(_) => "the standby has no carrier".into(),
    }
}

fn no_vf(view: &BondView<'_>, memory: &Memory) -> String {
    let Some(vf) = view.vf() else {
        return "no VF is present".into();
    };
    let vf_name = &vf.link.name;
    let text = match memory.held(view, vf) {
        Some(held) => held_text(held),
        None if vf.taken => "belongs to another device",
        None => "is being taken in",
    };
    format!("VF {vf_name} {text}")
}

fn held_text(held: Held) -> &'static str {
    match held {
        Held::Holding => "has to keep its carrier for the hold time first",
        Held::NoCarrier => "has no carrier",
        Held::UnplugPrepared => "is about to be unplugged by the host",
        Held::RemovalExpected => "is about to be removed",
        Held::Operator => "waits until an operator asks for the failback",
        Held::Refused => "was refused and is tried again",
        Held::NotChosen => "was not chosen",
        Held::PathBroken => "sends frames that do not reach the standby through the network",
    }
}

fn cause_text(cause: SwitchoverCause) -> &'static str {
    match cause {
        SwitchoverCause::Planned => "the host is about to unplug the VF",
        SwitchoverCause::Warned => "the VF is about to be removed",
        SwitchoverCause::Abrupt => "the other port is gone",
        SwitchoverCause::Carrier => "the other port lost its carrier",
        SwitchoverCause::Operator => "an operator asked",
        SwitchoverCause::Arrival => "the VF is ready",
    }
}

fn name(view: &BondView<'_>, port: Ifindex) -> String {
    match view.world.link(port) {
        Some(link) => link.name.to_string(),
        None => format!("interface {port}"),
    }
}
