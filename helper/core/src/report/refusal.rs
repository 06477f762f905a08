//! What a failed action says about its device.

use alloc::format;
use alloc::string::String;

use crate::bond::history::attempts::Failure;
use crate::model::action::{ActionKind, PathProof};
use crate::model::input::Outcome;
use crate::model::link::FailOverMac;
use crate::model::status::ProblemCode;
use crate::model::types::{IfName, Ifindex};
use crate::report::errno;
use crate::world::World;

/// Longest part of a kernel message that is kept, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// Turns an outcome into a failure with its cause; `None` if there was none, or
/// if the device is simply gone.
pub(crate) fn failure(world: &World, kind: &ActionKind, outcome: &Outcome) -> Option<Failure> {
    let device = subject(world, kind);
    let (code, message) = match outcome {
        Outcome::Accepted | Outcome::Gone => return None,
        Outcome::TimedOut => {
            let message = format!("no answer in time to: {}", describe(world, kind));
            (ProblemCode::ActionFailed, message)
        }
        Outcome::Failed { errno, .. }
            if *errno == errno::EBUSY && matches!(kind, ActionKind::CheckFree { .. }) =>
        {
            let name = device
                .as_ref()
                .map_or_else(String::new, |name| format!("{name}"));
            let message = format!(
                "something that no list of links here shows has the frames of {name}, such as a macvlan in \
                 another network namespace; {name} is left alone"
            );
            (ProblemCode::NicInUse, message)
        }
        Outcome::Failed { errno, message } => {
            let code = classify(world, kind, *errno, message);
            (code, explain(world, kind, *errno, message))
        }
    };
    Some(Failure {
        code,
        device,
        message,
    })
}

/// An action that was acknowledged and changed nothing.
pub(crate) fn no_effect(world: &World, kind: &ActionKind) -> Failure {
    Failure {
        code: ProblemCode::NoEffect,
        device: subject(world, kind),
        message: format!(
            "acknowledged by the kernel, but nothing changed: {}",
            describe(world, kind)
        ),
    }
}

fn classify(world: &World, kind: &ActionKind, errno: i32, message: &str) -> ProblemCode {
    let says = |word: &str| message.to_ascii_lowercase().contains(word);
    let is = |numbers: &[i32]| numbers.contains(&errno);
    match *kind {
        ActionKind::CreateBond { .. }
            if is(&[errno::EOPNOTSUPP, errno::ENODEV]) || says("unknown device type") =>
        {
            ProblemCode::BondingMissing
        }
        ActionKind::Enslave { port, bond }
            if says("mtu")
                || (is(&[errno::EINVAL, errno::ERANGE]) && mtu_would_change(world, port, bond)) =>
        {
            ProblemCode::MtuRefused
        }
        ActionKind::Enslave { port, bond }
            if mac_would_change(world, port, bond) && (is(&MAC_REFUSED) || says("mac address")) =>
        {
            ProblemCode::MacRefused
        }
        ActionKind::Enslave { .. } if errno == errno::EBUSY => ProblemCode::NicInUse,
        ActionKind::SetMtu { .. } => ProblemCode::MtuRefused,
        ActionKind::SetFastPath { .. } | ActionKind::ReadFrames { .. } => {
            ProblemCode::SwitchoverUnmeasured
        }
        ActionKind::CheckPath { proof, .. } if errno == errno::ETIMEDOUT => match proof {
            PathProof::Standby | PathProof::NoFault => ProblemCode::PathBroken,
            PathProof::Neighbours => ProblemCode::PathLost,
        },
        _ => ProblemCode::ActionFailed,
    }
}

/// What drivers refuse a MAC with.
const MAC_REFUSED: [i32; 4] = [
    errno::EPERM,
    errno::EACCES,
    errno::EAGAIN,
    errno::EADDRNOTAVAIL,
];

fn mac_would_change(world: &World, port: Ifindex, bond: Ifindex) -> bool {
    let mac = |index| world.link(index).and_then(|link| link.mac);
    let facts = world.link(bond).and_then(|link| link.bond.as_ref());
    let shared = facts.is_some_and(|facts| facts.fail_over_mac == FailOverMac::None);
    shared && mac(port) != mac(bond)
}

fn mtu_would_change(world: &World, port: Ifindex, bond: Ifindex) -> bool {
    let mtu = |index| world.link(index).map(|link| link.mtu);
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

/// The device that an action is about.
fn subject(world: &World, kind: &ActionKind) -> Option<IfName> {
    let index = match kind {
        ActionKind::CreateBond { name, .. } => return Some(name.clone()),
        ActionKind::ReadFrames { bond, .. } => *bond,
        kind => *kind.devices().first()?,
    };
    world.link(index).map(|link| link.name.clone())
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
        ActionKind::CheckFree { port, bond } => {
            format!("see whether {} is free for {}", name(port), name(bond))
        }
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
        ActionKind::CheckPath { from, .. } => {
            format!("show that frames of {} pass", name(from))
        }
        ActionKind::ReadTraffic { port, .. } => format!("read what {} has sent", name(port)),
        ActionKind::AskPath { port, .. } => {
            format!("ask neighbours through {}", name(port))
        }
        ActionKind::SetFastPath { bond, fast_path } if fast_path.is_nothing() => {
            format!("detach the fast-path programs of {}", name(bond))
        }
        ActionKind::SetFastPath { bond, .. } => {
            format!("attach the fast-path programs of {}", name(bond))
        }
        ActionKind::ReadFrames { bond, .. } => format!("read the frame counters of {}", name(bond)),
        ActionKind::Observe { source } => format!("read {source:?} anew"),
    }
}
