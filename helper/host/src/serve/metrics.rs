//! What is known, as `OpenMetrics` text.

use std::fmt::Write;

use tandem_core::Policy;
use tandem_core::status::{BondStatus, Traffic};

use super::{Domains, Known};

/// Everything that is told, with its help.
const METRICS: [(&str, &str, &str); 6] = [
    (
        "tandem_guest_answers",
        "gauge",
        "1 if the guest answered when it was last asked.",
    ),
    (
        "tandem_guest_configure_failed",
        "gauge",
        "1 if the guest does not have the bonds of its domain's XML.",
    ),
    (
        "tandem_bond_on_vf",
        "gauge",
        "1 if the VF carries the bond's traffic; 0 is degraded.",
    ),
    (
        "tandem_bond_on_standby",
        "gauge",
        "1 if the standby carries the bond's traffic.",
    ),
    (
        "tandem_bond_problems",
        "gauge",
        "Problems that the guest reports.",
    ),
    (
        "tandem_bond_handoffs",
        "counter",
        "Handoffs since the guest's service started.",
    ),
];

/// The whole file.
pub(super) fn text(domains: &Domains) -> String {
    let mut text = String::new();
    for (name, kind, help) in METRICS {
        // Writing to a String does not fail.
        let _ = writeln!(text, "# TYPE {name} {kind}\n# HELP {name} {help}");
        let sample = if kind == "counter" { "_total" } else { "" };
        for (domain, known) in domains {
            for (labels, value) in samples(name, domain, known) {
                let _ = writeln!(text, "{name}{sample}{{{labels}}} {value}");
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

/// Labels and values of one metric for one domain.
fn samples(name: &str, domain: &str, known: &Known) -> Vec<(String, u64)> {
    let label = format!("domain=\"{}\"", escaped(domain));
    let guest = known
        .report
        .as_ref()
        .and_then(|report| report.guest.as_ref());
    match name {
        "tandem_guest_answers" => return vec![(label, guest.is_some().into())],
        "tandem_guest_configure_failed" => return vec![(label, known.failure.is_some().into())],
        _ => {}
    }
    let bonds = guest.iter().flat_map(|guest| &guest.status.bonds);
    let value = |bond: &BondStatus| match name {
        "tandem_bond_on_vf" => (bond.traffic == Traffic::Vf).into(),
        "tandem_bond_on_standby" => (bond.traffic == Traffic::Standby).into(),
        "tandem_bond_problems" => bond.problems.len() as u64,
        _ => bond.handoff_count,
    };
    // A guest may claim any number of bonds, and one of them twice.
    let mut samples: Vec<(String, u64)> = Vec::new();
    for bond in bonds.take(Policy::MAX_BONDS) {
        let labels = format!("{label},bond=\"{}\"", escaped(bond.name.as_str()));
        if samples.iter().all(|(known, _)| *known != labels) {
            samples.push((labels, value(bond)));
        }
    }
    samples
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
