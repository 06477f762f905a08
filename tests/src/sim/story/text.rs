//! What happens, in words.

use tandem_core::action::{ActionKind, Asking, BondOptions};
use tandem_core::input::Request;
use tandem_core::link::Address;
use tandem_core::status::{Event, Switchover};
use tandem_core::{Ifindex, Output};

use super::Step;
use crate::sim::Stage;

/// What a step of the script does.
pub(super) fn step_text(step: &Step) -> String {
    match step {
        Step::Plug { nic, mac, .. } => format!("{nic:?} with MAC {mac} is plugged in"),
        Step::Unplug(name) => format!("{name} is plugged out"),
        Step::Cable { nic, plugged: true } => format!("{nic} gets its cable"),
        Step::Cable { nic, .. } => format!("{nic} loses its cable"),
        Step::Configure {
            link, addresses, ..
        } => format!("{link} gets {}", addresses_text(addresses)),
        Step::Rename { from, to } => format!("{from} is renamed {to}"),
        Step::Warn { stage, nic } => format!("the kernel warns: {nic}: {stage:?}"),
        Step::Ask(request) => format!("asked: {}", request_text(request)),
        Step::Start(_) => "the service starts".into(),
        Step::Restart => "the service starts again".into(),
        Step::Kill => "the service is killed".into(),
        Step::Reload(_) => "the service reads its configuration again".into(),
        Step::ClockJump { forward_ms } => format!("the clock jumps by {forward_ms} ms"),
        Step::Bonding(true) => "the bonding driver is installed".into(),
        Step::Bonding(false) => "the bonding driver is missing".into(),
        Step::MakeBond { name, .. } => format!("another manager makes {name}"),
        Step::AddSoftware(name) => format!("somebody adds an interface {name}"),
        Step::Steal(name) => format!("another manager takes {name} out of its bond"),
        Step::LayOn { nic, name, kind } => format!("somebody puts the {kind} {name} on {nic}"),
        Step::Clear(nic) => format!("somebody removes what lies on {nic}"),
        Step::Occupy { nic, busy: true } => {
            format!("a container gets a macvlan on {nic}, out of sight")
        }
        Step::Occupy { nic, .. } => format!("the container with a macvlan on {nic} ends"),
        Step::SetMtu { link, mtu } => format!("somebody gives {link} the MTU {mtu}"),
        Step::IgnoreWrites(true) => "the kernel begins to ignore what it acknowledges".into(),
        Step::IgnoreWrites(false) => "the kernel does again what it acknowledges".into(),
        Step::Path {
            nic,
            out: true,
            back: true,
        } => format!("frames of {nic} pass again"),
        Step::Path { nic, out, back } => {
            let is = |passing: bool| if passing { "passes" } else { "is lost" };
            format!(
                "what {nic} sends {}, what is sent to it {}",
                is(*out),
                is(*back)
            )
        }
        Step::Macs {
            nic,
            learnt,
            guarded,
        } => {
            let learns = if *learnt { "learns" } else { "does not learn" };
            let guard = if *guarded {
                "no MAC but the bond's"
            } else {
                "any MAC"
            };
            format!("the network {learns} that a MAC moves to {nic}, which may send with {guard}")
        }
        Step::Flow { sent_per_s } => {
            format!("the guest sends {sent_per_s} frames a second")
        }
        Step::Wait => "time has passed".into(),
    }
}

fn request_text(request: &Request) -> &'static str {
    match request {
        Request::Failover { .. } => "failover",
        Request::Failback { .. } => "failback",
        Request::PrepareUnplug { .. } => "prepare unplug",
        Request::Resume { .. } => "resume",
        Request::Announce { .. } => "announce",
    }
}

fn addresses_text(addresses: &[Address]) -> String {
    let texts: Vec<String> = addresses
        .iter()
        .map(|one| format!("{}/{}", one.ip, one.prefix))
        .collect();
    texts.join(", ")
}

/// What the machine does, says or answers.
pub(super) fn output_text(stage: &Stage, output: &Output) -> String {
    match output {
        Output::Act(action) => action_text(stage, &action.kind),
        Output::Reply {
            result: Ok(answer), ..
        } => {
            let ready = if answer.ready { "ready" } else { "not ready" };
            let released = match answer.released {
                Some(mac) => format!(", released {mac}"),
                None => String::new(),
            };
            let done = answer.done.join("; ");
            format!(
                "reply  {ready}, traffic {:?}{released} [{done}]",
                answer.traffic
            )
        }
        Output::Reply {
            result: Err(error), ..
        } => format!("reply  {:?}: {error}", error.code),
        Output::Notify(event) => format!(" tell  {}", event_text(event)),
    }
}

fn action_text(stage: &Stage, kind: &ActionKind) -> String {
    let name = |index: &Ifindex| match stage.kernel.dump_link(*index) {
        Some(link) => link.name.to_string(),
        None => format!("interface {index}"),
    };
    match kind {
        ActionKind::CreateBond { name, mac, .. } => match mac {
            Some(mac) => format!("   do  create {name} with MAC {mac}"),
            None => format!("   do  create {name}"),
        },
        ActionKind::SetBondOptions { bond, options } => {
            format!("   do  {}: {}", name(bond), options_text(options))
        }
        ActionKind::SetAdminUp { link, up } => {
            format!("   do  {} {}", name(link), if *up { "up" } else { "down" })
        }
        ActionKind::SetMtu { link, mtu } => format!("   do  {} mtu {mtu}", name(link)),
        ActionKind::SetMac { link, mac } => format!("   do  {} MAC {mac}", name(link)),
        ActionKind::CheckFree { port, bond } => {
            format!(
                "   do  ask whether {} is free for {}",
                name(port),
                name(bond)
            )
        }
        ActionKind::Enslave { port, bond } => format!("   do  {} into {}", name(port), name(bond)),
        ActionKind::Release { port, bond } => {
            format!("   do  {} out of {}", name(port), name(bond))
        }
        ActionKind::SetPrimary { bond, port } => {
            format!("   do  {}: primary {}", name(bond), name(port))
        }
        ActionKind::MoveAddressing { from, to } => {
            format!("   do  move addresses of {} to {}", name(from), name(to))
        }
        ActionKind::AddAddressing {
            link, addresses, ..
        } => format!("   do  add {} to {}", addresses_text(addresses), name(link)),
        ActionKind::FlushAddressing { link } => format!("   do  flush {}", name(link)),
        ActionKind::Announce { bond, port } => {
            format!("   do  announce {} through {}", name(bond), name(port))
        }
        ActionKind::CheckPath { from, to, .. } => {
            format!(
                "   do  check the path of {} while {} carries the traffic",
                name(from),
                name(to)
            )
        }
        ActionKind::ReadTraffic { port, .. } => {
            format!("   do  read what {} has sent", name(port))
        }
        ActionKind::AskPath {
            port, other, how, ..
        } => {
            let what = match how {
                Asking::OnTrial => "try out: ask",
                Asking::Fully => "ask",
                Asking::Briefly => "briefly ask",
            };
            let (port, other) = (name(port), name(other));
            format!("   do  {what} neighbours through {port}, then {other}")
        }
        ActionKind::SetFastPath { bond, fast_path } if fast_path.is_nothing() => {
            format!("   do  {}: nothing more to count", name(bond))
        }
        ActionKind::SetFastPath { bond, fast_path } => {
            let ports: Vec<_> = fast_path.ports.iter().map(&name).collect();
            let armed = if fast_path.armed_vf.is_some() {
                ", fast path armed"
            } else {
                ""
            };
            format!("   do  {}: count on {}{armed}", name(bond), ports.join(" "))
        }
        ActionKind::ReadFrames { bond, .. } => format!("   do  {}: read the counters", name(bond)),
        ActionKind::Observe { source } => format!("   do  read {source:?}"),
    }
}

fn options_text(options: &BondOptions) -> String {
    match options.all_ports_active {
        Some(true) => "accept frames on all ports".into(),
        Some(false) => "accept frames on the active port only".into(),
        None => "set options".into(),
    }
}

fn event_text(event: &Event) -> String {
    match event {
        Event::StateChanged {
            bond,
            state,
            reason,
            ..
        } => format!("{bond} {state:?}: {reason}"),
        Event::SwitchedOver { switchover, .. } => switchover_text(switchover),
        Event::SwitchoverMeasured { switchover, .. } => {
            format!(
                "switchover {} measured: {:?}",
                switchover.number, switchover.gap
            )
        }
        Event::RemovalExpected { vf, stage, .. } => format!("{vf} will be removed: {stage:?}"),
        Event::VfRemoved { mac, lead_us, .. } => {
            let mac = mac.map_or_else(|| "?".into(), |mac| mac.to_string());
            match lead_us {
                Some(us) => format!(
                    "VF {mac} is gone: its driver began to stop {} ms after the warning",
                    us / 1000
                ),
                None => format!("VF {mac} is gone"),
            }
        }
        Event::ProblemRaised { problem, .. } | Event::GeneralProblemRaised { problem } => {
            format!(
                "problem {:?}: {}; {}",
                problem.code, problem.message, problem.remedy
            )
        }
        Event::ProblemCleared { code, .. } | Event::GeneralProblemCleared { code } => {
            format!("problem {code:?} is over")
        }
    }
}

fn switchover_text(switchover: &Switchover) -> String {
    let Switchover {
        number,
        from,
        to,
        cause,
        took_us,
        ..
    } = switchover;
    let by = match took_us {
        Some(us) => format!("after {} ms", us / 1000),
        None => "by the kernel itself".into(),
    };
    format!("switchover {number}: {from:?} to {to:?}, {cause:?}, {by}")
}
