//! What is known, as `OpenMetrics` text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use tandem_core::status::{BondStatus, Gap, Switchover, Traffic};
use tandem_core::types::IfName;

use super::carries::{Carries, CarrySums};
use super::registry::{CAUSES, KnownDomain, Registry};
use crate::control::{CarryEnd, CarryFigures};
use crate::report::{ChannelUse, word};

/// The label of all that the guest names and the domain's XML does not: the guest decides of no series.
const OTHER: &str = "other";

/// What is told of each domain, or of each of its bonds.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    of: Of,
}

/// Only what the older text format has too: `node_exporter`'s collector of text files reads that one, and
/// drops a file with a type that it does not know (`expfmt.TextParser` of Prometheus).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }

    /// What a sample's name has beyond its family's.
    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
        }
    }
}

enum Of {
    /// Value of a domain, if it has one.
    Domain(fn(&KnownDomain) -> Option<u64>),
    /// The same, with more labels.
    DomainInfo(fn(&KnownDomain) -> Option<String>),
    /// Value of a bond.
    Bond(fn(&BondStatus) -> u64),
    /// Value of a bond's last switchover that has it.
    Last(fn(&Switchover) -> Option<u64>),
    /// Switchovers by cause.
    ByCause,
    /// Whether the hypervisor shows the VF of a bond of the domain's XML.
    HasVf,
    /// Of all carries that ended alike.
    Carries(fn(&CarrySums) -> u64),
    /// Of the last carry, if it has it.
    LastCarry(fn(&CarryFigures) -> Option<u64>),
}

/// One in seconds is given microseconds.
const fn gauge(name: &'static str, help: &'static str, of: Of) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
        of,
    }
}

const fn counter(name: &'static str, help: &'static str, of: Of) -> Family {
    Family {
        kind: Kind::Counter,
        ..gauge(name, help, of)
    }
}

const FAMILIES: [Family; 26] = [
    gauge(
        "tandem_guest_answers",
        "1 if the guest answered when it was last asked.",
        Of::Domain(|known| Some(known.report.guest.is_some().into())),
    ),
    gauge(
        "tandem_guest_subscribed",
        "1 if serve is subscribed to the guest's events; 0 if its channel is down or lent to another tool.",
        Of::Domain(|known| Some((known.report.channel == ChannelUse::Subscribed).into())),
    ),
    gauge(
        "tandem_guest_configure_failed",
        "1 if the guest does not have the bonds of its domain's XML, or, being older, not every key of them.",
        Of::Domain(|known| Some(known.report.configure_error.is_some().into())),
    ),
    gauge(
        "tandem_guest_info",
        "Always 1; a label has the version of the guest's service.",
        Of::DomainInfo(|known| {
            let version = &known.report.guest.as_ref()?.version;
            let mut labels = known.versions.iter().map(String::as_str);
            let label = labels.find(|label| label == version).unwrap_or(OTHER);
            Some(format!("version=\"{label}\""))
        }),
    ),
    gauge(
        "tandem_domain_degraded",
        "1 if the domain runs without one of its devices after an evacuation.",
        Of::Domain(|known| {
            let evacuation = known.report.evacuation.as_ref();
            Some(evacuation.is_some_and(|it| it.degraded).into())
        }),
    ),
    gauge(
        "tandem_domain_devices_missing",
        "Devices of no bond that an evacuation let go and could not give back.",
        Of::Domain(|known| {
            let evacuation = known.report.evacuation.as_ref();
            Some(evacuation.map_or(0, |it| it.lacking).into())
        }),
    ),
    gauge(
        "tandem_domain_evacuating",
        "1 if an evacuation of the domain has begun and not ended.",
        Of::Domain(|known| {
            let evacuation = known.report.evacuation.as_ref();
            Some(evacuation.is_some_and(|it| !it.degraded).into())
        }),
    ),
    counter(
        "tandem_domain_replug_attempts",
        "Attempts of serve to plug in the VF of a domain that arrived without it.",
        Of::Domain(|known| Some(known.attempts.into())),
    ),
    gauge(
        "tandem_bond_vf_attached",
        "1 if the domain has the VF of this bond of its XML, as the hypervisor shows it.",
        Of::HasVf,
    ),
    gauge(
        "tandem_bond_on_vf",
        "1 if the VF carries the bond's traffic; 0 is degraded.",
        Of::Bond(|bond| (bond.traffic == Traffic::Vf).into()),
    ),
    gauge(
        "tandem_bond_on_standby",
        "1 if the standby carries the bond's traffic.",
        Of::Bond(|bond| (bond.traffic == Traffic::Standby).into()),
    ),
    gauge(
        "tandem_bond_problems",
        "Problems that the guest reports.",
        Of::Bond(|bond| bond.problems.len() as u64),
    ),
    counter(
        "tandem_bond_switchovers",
        "Switchovers since the guest's service started.",
        Of::Bond(|bond| bond.switchover_count),
    ),
    counter(
        "tandem_bond_switchovers_seen",
        "Switchovers that were reported to serve since it started, by cause.",
        Of::ByCause,
    ),
    gauge(
        "tandem_bond_last_switchover_receive_gap_seconds",
        "Time without frames received in the last measured switchover.",
        Of::Last(|switchover| switchover.gap?.receive_us),
    ),
    gauge(
        "tandem_bond_last_switchover_transmit_gap_seconds",
        "Time without frames sent in the last measured switchover.",
        Of::Last(|switchover| switchover.gap?.transmit_us),
    ),
    gauge(
        "tandem_bond_last_switchover_lead_seconds",
        "From the first warning until the VF's driver began to stop, in the last switchover that had one.",
        Of::Last(|switchover| switchover.lead_us),
    ),
    gauge(
        "tandem_bond_last_switchover_drain_seconds",
        "From the last measured switchover to the last frame received on the old port.",
        Of::Last(|switchover| switchover.gap?.drain_us),
    ),
    gauge(
        "tandem_bond_last_switchover_late_frames",
        "Frames received on the old port after the last measured switchover.",
        Of::Last(|switchover| switchover.gap.map(|Gap { late_frames, .. }| late_frames)),
    ),
    counter(
        "tandem_carries",
        "Carries that have ended on this host, as their migrate told serve since it started, by how they ended.",
        Of::Carries(|sums| sums.carries),
    ),
    counter(
        "tandem_carry_frames_held",
        "Frames that these carries have held, on both hosts.",
        Of::Carries(|sums| sums.held),
    ),
    counter(
        "tandem_carry_frames_carried",
        "Frames that they have carried to the other host.",
        Of::Carries(|sums| sums.carried),
    ),
    counter(
        "tandem_carry_frames_lost",
        "Frames that they have lost.",
        Of::Carries(|sums| sums.lost),
    ),
    gauge(
        "tandem_carry_last_pause_seconds",
        "From the guest's stop until it was seen to run, in the last carry.",
        Of::LastCarry(|last| last.pause_ms.map(us)),
    ),
    gauge(
        "tandem_carry_last_latest_frame_seconds",
        "The longest that a carried frame waited on both hosts, in the last carry.",
        Of::LastCarry(|last| Some(us(last.latest_ms))),
    ),
    gauge(
        "tandem_carry_last_memory_bytes",
        "The most memory for frames on one host, in the last carry.",
        Of::LastCarry(|last| Some(last.most_bytes)),
    ),
];

/// A family of metrics, for the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, without the samples' `_total`.
    pub name: &'static str,
    /// `gauge` or `counter`.
    pub kind: &'static str,
    /// Labels of its samples.
    pub labels: &'static str,
    /// What it tells.
    pub help: &'static str,
}

/// All families, in the text's order.
pub fn metrics() -> [Metric; FAMILIES.len()] {
    FAMILIES.map(|family| Metric {
        name: family.name,
        kind: family.kind.as_str(),
        labels: family.of.labels(),
        help: family.help,
    })
}

impl Of {
    fn labels(&self) -> &'static str {
        match self {
            Self::Domain(_) => "domain",
            Self::DomainInfo(_) => "domain, version",
            Self::Bond(_) | Self::HasVf => "domain, bond",
            Self::Last(_) => "domain, bond, cause, to",
            Self::ByCause => "domain, bond, cause",
            Self::Carries(_) | Self::LastCarry(_) => "end",
        }
    }
}

/// The whole text.
pub(super) fn text(registry: &Registry) -> String {
    let mut text = String::new();
    let carries = registry.carries();
    for family in &FAMILIES {
        // Writing to a String does not fail.
        let _ = writeln!(text, "# TYPE {} {}", family.name, family.kind.as_str());
        if family.is_in_seconds() {
            let _ = writeln!(text, "# UNIT {} seconds", family.name);
        }
        let _ = writeln!(text, "# HELP {} {}", family.name, family.help);
        registry.each(|domain, known| family.samples(domain, known, &mut text));
        family.samples_of_carries(&carries, &mut text);
    }
    text.push_str("# EOF\n");
    text
}

impl Family {
    fn is_in_seconds(&self) -> bool {
        self.name.ends_with("_seconds")
    }

    fn sample(&self, labels: &str, value: u64, text: &mut String) {
        let suffix = self.kind.suffix();
        let value = match self.is_in_seconds() {
            true => format!("{}.{:06}", value / 1_000_000, value % 1_000_000),
            false => value.to_string(),
        };
        let _ = writeln!(text, "{}{suffix}{{{labels}}} {value}", self.name);
    }

    fn samples(&self, domain: &str, known: &KnownDomain, text: &mut String) {
        let domain = format!("domain=\"{}\"", escaped(domain));
        let mut sample = |labels: &str, value| {
            self.sample(&format!("{domain}{labels}"), value, text);
        };
        match &self.of {
            Of::Domain(value) => {
                if let Some(value) = value(known) {
                    sample("", value);
                }
            }
            Of::DomainInfo(labels) => {
                if let Some(labels) = labels(known) {
                    sample(&format!(",{labels}"), 1);
                }
            }
            Of::Bond(value) => {
                for (labels, bonds) in bonds(known) {
                    let sum = bonds.iter().map(|bond| value(bond));
                    let sum = sum.fold(0_u64, u64::saturating_add);
                    sample(&labels, sum);
                }
            }
            Of::Last(value) => {
                for (labels, bonds) in bonds(known) {
                    if let Some((why, value)) = largest(&bonds, *value) {
                        sample(&format!("{labels}{why}"), value);
                    }
                }
            }
            Of::Carries(_) | Of::LastCarry(_) => {}
            Of::HasVf => {
                for bond in &known.report.bonds {
                    let label = format!(",bond=\"{}\"", escaped(&bond.name));
                    sample(&label, bond.vf.is_some().into());
                }
            }
            Of::ByCause => {
                let mut counts: BTreeMap<String, [u64; CAUSES.len()]> = BTreeMap::new();
                for (name, counted) in &known.switchovers {
                    let sums = counts.entry(label(known, name)).or_default();
                    for (sum, count) in sums.iter_mut().zip(counted.by_cause) {
                        *sum = sum.saturating_add(count);
                    }
                }
                for (label, counts) in counts {
                    for (cause, count) in CAUSES.iter().zip(counts) {
                        let labels = format!("{label},cause=\"{}\"", word(cause));
                        sample(&labels, count);
                    }
                }
            }
        }
    }

    /// Of this host, and of no domain: a guest that was carried runs elsewhere.
    fn samples_of_carries(&self, carries: &Carries, text: &mut String) {
        let mut sample = |end: &CarryEnd, value| {
            self.sample(&format!("end=\"{}\"", word(end)), value, text);
        };
        match self.of {
            Of::Carries(value) => {
                for (end, sums) in carries.by_end() {
                    sample(&end, value(sums));
                }
            }
            Of::LastCarry(value) => {
                if let Some(last) = &carries.last
                    && let Some(value) = value(last)
                {
                    sample(&last.end, value);
                }
            }
            _ => {}
        }
    }
}

/// Labels, each with its bonds: one, or all others. A guest may claim one of them twice; the first counts.
fn bonds(known: &KnownDomain) -> Vec<(String, Vec<&BondStatus>)> {
    let guest = known.report.guest.iter();
    let mut names = BTreeSet::new();
    let mut bonds: Vec<(String, Vec<&BondStatus>)> = Vec::new();
    for bond in guest.flat_map(|guest| &guest.status.bonds) {
        if !names.insert(&bond.name) {
            continue;
        }
        let label = label(known, &bond.name);
        match bonds.iter_mut().find(|(known, _)| *known == label) {
            Some((_, others)) => others.push(bond),
            None => bonds.push((label, vec![bond])),
        }
    }
    bonds
}

/// A bond of the domain's XML by its name, and any other as one of the others.
fn label(known: &KnownDomain, bond: &IfName) -> String {
    let mut own = known.report.bonds.iter().map(|bond| bond.name.as_str());
    let name = own.find(|name| *name == bond.as_str()).unwrap_or(OTHER);
    format!(",bond=\"{}\"", escaped(name))
}

/// The largest of what [`last`] gives.
fn largest(bonds: &[&BondStatus], value: fn(&Switchover) -> Option<u64>) -> Option<(String, u64)> {
    let values = bonds.iter().filter_map(|bond| last(bond, value));
    values.max_by_key(|(_, value)| *value)
}

/// The last switchover for which there is a value: why it happened, and the value.
fn last(bond: &BondStatus, value: fn(&Switchover) -> Option<u64>) -> Option<(String, u64)> {
    let mut switchovers = bond.switchovers.iter().rev();
    switchovers.find_map(|switchover| {
        let why = format!(
            ",cause=\"{}\",to=\"{}\"",
            word(&switchover.cause),
            word(&switchover.to)
        );
        value(switchover).map(|value| (why, value))
    })
}

fn us(ms: u64) -> u64 {
    ms.saturating_mul(1000)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            other => escaped.push(other),
        }
    }
    escaped
}
