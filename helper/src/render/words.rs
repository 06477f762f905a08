//! Words for people.

use serde::Serialize;
use tandem_core::input::Source;
use tandem_core::policy::Origin;
use tandem_core::status::{
    BondState, Held, PortStatus, ProblemCode, SourceHealth, Traffic, Unproved,
};
use tandem_core::types::Time;
pub(super) use tandem_core::words::{carrier, cause, host_may, warning};

pub(super) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::None => {
            "no bond is configured: write /etc/tandem/tandem.toml, or have the host configure the guest"
        }
        Origin::File => "configured by the guest's files",
        Origin::Host => "configured by the host",
        Origin::Unknown => "configured in a way that only a newer version knows",
    }
}

/// The word, and its colour in ECMA-48.
pub(super) fn state(state: BondState) -> (u8, &'static str) {
    match state {
        BondState::Waiting => (33, "waiting"),
        BondState::Assembling => (33, "assembling"),
        BondState::Accelerated => (32, "accelerated"),
        BondState::Standby => (33, "on standby"),
        BondState::SwitchingOver => (33, "switching over"),
        BondState::Unprotected => (33, "unprotected"),
        BondState::Down => (31, "down"),
        BondState::Blocked => (31, "blocked"),
        BondState::Unknown => (33, "in a state that only a newer version knows"),
    }
}

pub(super) fn traffic(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::None => "no port carries the traffic",
        Traffic::Vf => "the VF carries the traffic",
        Traffic::Standby => "the standby carries the traffic",
        Traffic::Other => "another port carries the traffic",
        Traffic::Unknown => "only a newer version knows who carries the traffic",
    }
}

pub(super) fn port_state(port: &PortStatus) -> &'static str {
    match port.held {
        _ if port.active => match port.unproved {
            None => "carries the traffic",
            Some(Unproved::NobodyKnown) => {
                "carries the traffic; no gateway or neighbour is known who could show that its frames pass"
            }
            Some(Unproved::NobodyAnswers | Unproved::Unknown) => {
                "carries the traffic; nobody answers who could show that its frames pass"
            }
        },
        Some(Held::Holding) => "waiting for a stable carrier (hold-ms)",
        Some(Held::NoCarrier) => "no carrier",
        Some(Held::UnplugPrepared) => "prepared for unplug",
        Some(Held::RemovalExpected) => "about to be unplugged",
        Some(Held::Operator) => "an operator moved the traffic away",
        Some(Held::Refused) => "refused by the kernel; retried later",
        Some(Held::Unarmed) => "waiting for the kernel programs",
        Some(Held::Backup) => "ready to take over",
        Some(Held::Unchecked) => "its path is checked once the standby carries the traffic",
        Some(Held::InUse) => "in use by something else, and left alone",
        Some(Held::PathLost) => {
            "its frames do not pass, though its carrier is there; retried later"
        }
        Some(Held::PathBroken) => "path check failed: its frames do not pass; retried later",
        Some(Held::Unknown) => "not in use, for a reason that only a newer version knows",
        None if !port.enslaved => "not in the bond yet",
        None if !port.carrier => "no carrier",
        None => "ready",
    }
}

pub(super) fn source(source: Source) -> &'static str {
    match source {
        Source::Links => "links",
        Source::Addressing => "addresses",
        Source::Udev => "udev",
        Source::Ebpf => "eBPF",
        Source::Channel => "channel",
        Source::Unknown => "another source",
    }
}

pub(super) fn health(health: &SourceHealth) -> String {
    match health {
        SourceHealth::Working => "working".to_owned(),
        SourceHealth::Partial => "partly working".to_owned(),
        SourceHealth::Missing { reason } => format!("missing: {reason}"),
        SourceHealth::Unknown => "only a newer version knows".to_owned(),
    }
}

/// The code as programs get it.
pub(super) fn code(code: ProblemCode) -> String {
    word(code)
}

fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}

/// How long ago, in one unit.
pub(super) fn age(at: Time, now: Time) -> String {
    let seconds = now.since_ms(at) / 1000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

pub(super) fn joined(parts: impl IntoIterator<Item = String>, between: &str) -> String {
    parts.into_iter().collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubleshooting_explains_every_reason() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/troubleshooting.md");
        let page = std::fs::read_to_string(page).unwrap();
        let mut port = PortStatus {
            name: "eth1".parse().unwrap(),
            ifindex: tandem_core::types::Ifindex(1),
            mac: None,
            pci: None,
            driver: None,
            enslaved: false,
            active: false,
            carrier: true,
            held: None,
            unproved: None,
        };
        for held in [
            Held::Holding,
            Held::NoCarrier,
            Held::UnplugPrepared,
            Held::RemovalExpected,
            Held::Operator,
            Held::Refused,
            Held::InUse,
            Held::Unarmed,
            Held::Backup,
            Held::Unchecked,
            Held::PathBroken,
            Held::PathLost,
        ] {
            port.held = Some(held);
            let row = format!("| {} |", port_state(&port));
            assert!(page.contains(&row), "no row `{row}`");
        }
        port.active = true;
        for why in [Unproved::NobodyKnown, Unproved::NobodyAnswers] {
            port.unproved = Some(why);
            let row = format!("| {} |", port_state(&port));
            assert!(page.contains(&row), "no row `{row}`");
        }
    }
}
