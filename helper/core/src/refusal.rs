//! What a failed action says about its device.

mod errno;

use alloc::format;
use alloc::string::String;

use crate::action::ActionKind;
use crate::input::Outcome;
use crate::link::{FailOverMac, Link};
use crate::memory::Memory;
use crate::memory::attempts::{DeviceMark, Failure};
use crate::status::ProblemCode;
use crate::types::{IfName, Ifindex, Time};
use crate::view::BondView;
use crate::world::World;

/// Longest part of a kernel message that is kept, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// Turns an outcome into a failure with its cause; `None` if there was none, or
/// if the device is simply gone.
pub(crate) fn failure(
    view: &BondView<'_>,
    kind: &ActionKind,
    outcome: &Outcome,
) -> Option<Failure> {
    let device = subject(view.world, kind);
    let (code, message) = match outcome {
        Outcome::Accepted | Outcome::Gone => return None,
        Outcome::TimedOut => {
            let message = format!("no answer in time to: {}", describe(view.world, kind));
            (ProblemCode::ActionFailed, message)
        }
        Outcome::Failed { errno, message } => {
            let code = classify(view, kind, *errno, message);
            (code, explain(view.world, kind, *errno, message))
        }
    };
    Some(Failure {
        code,
        device,
        message,
    })
}

/// An action that was acknowledged and changed nothing.
pub(crate) fn no_effect(view: &BondView<'_>, kind: &ActionKind) -> Failure {
    Failure {
        code: ProblemCode::NoEffect,
        device: subject(view.world, kind),
        message: format!(
            "acknowledged by the kernel, but nothing changed: {}",
            describe(view.world, kind)
        ),
    }
}

fn classify(view: &BondView<'_>, kind: &ActionKind, errno: i32, message: &str) -> ProblemCode {
    let says = |word: &str| message.to_ascii_lowercase().contains(word);
    match kind {
        ActionKind::CreateBond { .. } => {
            let unknown = [errno::EOPNOTSUPP, errno::ENODEV].contains(&errno);
            if unknown || says("unknown device type") {
                ProblemCode::BondingMissing
            } else {
                ProblemCode::ActionFailed
            }
        }
        ActionKind::Enslave { port, bond } => {
            let mac_differs = mac_would_change(view, *port, *bond);
            let mac_errno = [
                errno::EPERM,
                errno::EACCES,
                errno::EAGAIN,
                errno::EADDRNOTAVAIL,
            ];
            let mtu_errno = [errno::EINVAL, errno::ERANGE];
            if says("mtu") || (mtu_errno.contains(&errno) && mtu_would_change(view, *port, *bond)) {
                ProblemCode::MtuRefused
            } else if mac_differs && (mac_errno.contains(&errno) || says("mac address")) {
                ProblemCode::MacRefused
            } else {
                ProblemCode::ActionFailed
            }
        }
        ActionKind::SetMtu { .. } => ProblemCode::MtuRefused,
        ActionKind::SetFastPath { .. } | ActionKind::ReadFrames { .. } => {
            ProblemCode::SwitchoverUnmeasured
        }
        ActionKind::CheckPath { .. } if errno == errno::ETIMEDOUT => ProblemCode::PathBroken,
        _ => ProblemCode::ActionFailed,
    }
}

fn mac_would_change(view: &BondView<'_>, port: Ifindex, bond: Ifindex) -> bool {
    let mac = |index| view.world.link(index).and_then(|link| link.mac);
    let shared = view
        .bond()
        .is_some_and(|bond| bond.facts.fail_over_mac == FailOverMac::None);
    shared && mac(port) != mac(bond)
}

fn mtu_would_change(view: &BondView<'_>, port: Ifindex, bond: Ifindex) -> bool {
    let mtu = |index| view.world.link(index).map(|link| link.mtu);
    mtu(port) != mtu(bond)
}

/// One sentence: what failed, on which device, why, and the error number's name. Whoever reports an outcome gives
/// the reason only.
fn explain(world: &World, kind: &ActionKind, errno: i32, message: &str) -> String {
    let message: String = message.chars().take(MAX_MESSAGE_CHARS).collect();
    let number = match (errno, errno::name(errno)) {
        (0, _) => String::new(),
        (_, Some(name)) => format!(" ({name})"),
        (_, None) => format!(" (errno {errno})"),
    };
    format!("could not {}: {message}{number}", describe(world, kind))
}

/// Looks whether a refused NIC changed so that it may be taken now.
pub(crate) fn note_marks(view: &BondView<'_>, memory: &mut Memory, now: Time) {
    let Some(bond) = view.bond() else { return };
    for nic in view.standby.iter().chain(&view.vfs) {
        let kind = ActionKind::Enslave {
            port: nic.ifindex(),
            bond: bond.ifindex(),
        };
        memory
            .attempts
            .note_mark(&kind, &mark(nic.link, bond.link), now);
    }
}

/// Facts that decide whether a refused NIC would be refused again.
pub(crate) fn mark_of(view: &BondView<'_>, kind: &ActionKind) -> Option<DeviceMark> {
    let ActionKind::Enslave { port, .. } = kind else {
        return None;
    };
    let link = view.world.link(*port)?;
    Some(mark(link, view.bond()?.link))
}

fn mark(link: &Link, bond: &Link) -> DeviceMark {
    DeviceMark {
        permanent_mac: link.permanent_mac,
        max_mtu: link.max_mtu,
        driver: link.driver.clone(),
        bond_mac: bond.mac,
        bond_mtu: bond.mtu,
    }
}

/// The device that an action is about.
fn subject(world: &World, kind: &ActionKind) -> Option<IfName> {
    let index = match kind {
        ActionKind::CreateBond { name, .. } => return Some(name.clone()),
        ActionKind::SetBondOptions { bond, .. }
        | ActionKind::Announce { bond, .. }
        | ActionKind::SetFastPath { bond, .. }
        | ActionKind::ReadFrames { bond, .. } => bond,
        ActionKind::SetAdminUp { link, .. }
        | ActionKind::SetMtu { link, .. }
        | ActionKind::SetMac { link, .. }
        | ActionKind::AddAddressing { link, .. }
        | ActionKind::FlushAddressing { link } => link,
        ActionKind::MoveAddressing { from, .. } => from,
        ActionKind::Enslave { port, .. }
        | ActionKind::Release { port, .. }
        | ActionKind::SetPrimary { port, .. }
        | ActionKind::CheckPath { from: port, .. } => port,
        ActionKind::Observe { .. } | ActionKind::Reply { .. } | ActionKind::Notify(_) => {
            return None;
        }
    };
    world.link(*index).map(|link| link.name.clone())
}

/// What an action does, in words that follow "to" or stand alone.
pub(crate) fn describe(world: &World, kind: &ActionKind) -> String {
    let name = |index: &Ifindex| match world.link(*index) {
        Some(link) => format!("{}", link.name),
        None => format!("interface {index}"),
    };
    match kind {
        ActionKind::CreateBond { name, .. } => format!("create {name}"),
        ActionKind::SetBondOptions { bond, options } => match options.all_ports_active {
            Some(true) => format!("accept frames on all ports of {}", name(bond)),
            Some(false) => format!("accept frames on the active port of {} only", name(bond)),
            None => format!("set options of {}", name(bond)),
        },
        ActionKind::SetAdminUp { link, up: true } => format!("bring {} up", name(link)),
        ActionKind::SetAdminUp { link, up: false } => format!("take {} down", name(link)),
        ActionKind::SetMtu { link, mtu } => format!("set the MTU of {} to {mtu}", name(link)),
        ActionKind::SetMac { link, mac } => format!("set the MAC of {} to {mac}", name(link)),
        ActionKind::Enslave { port, bond } => {
            format!("make {} a port of {}", name(port), name(bond))
        }
        ActionKind::Release { port, bond } => format!("release {} from {}", name(port), name(bond)),
        ActionKind::SetPrimary { bond, port } => {
            format!("move the traffic of {} to {}", name(bond), name(port))
        }
        ActionKind::MoveAddressing { from, to } => {
            format!("move the addresses of {} to {}", name(from), name(to))
        }
        ActionKind::AddAddressing { link, .. } => format!("add addresses to {}", name(link)),
        ActionKind::FlushAddressing { link } => format!("remove the addresses of {}", name(link)),
        ActionKind::Announce { bond, port } => {
            format!("announce {} through {}", name(bond), name(port))
        }
        ActionKind::CheckPath { from, to, .. } => {
            format!("send a frame from {} to {}", name(from), name(to))
        }
        ActionKind::SetFastPath { bond, fast_path } if fast_path.is_nothing() => {
            format!("detach the fast-path programs of {}", name(bond))
        }
        ActionKind::SetFastPath { bond, .. } => {
            format!("attach the fast-path programs of {}", name(bond))
        }
        ActionKind::ReadFrames { bond, .. } => format!("read the frame counters of {}", name(bond)),
        ActionKind::Observe { source } => format!("read {source:?} anew"),
        ActionKind::Reply { .. } => "reply".into(),
        ActionKind::Notify(_) => "notify".into(),
    }
}
