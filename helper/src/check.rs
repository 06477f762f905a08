//! `tandem check`: what Tandem needs, whether it is here, and what follows where it is not.

mod kernel;
mod network;
mod setup;
mod system;
#[cfg(test)]
mod tests;
mod verdict;

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::config;

pub use system::System;
pub use verdict::{Finding, Level, Verdict};

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The worst of all levels.
    pub level: Level,
    /// One by one.
    pub findings: Vec<Finding>,
}

/// Looks at everything. Changes nothing.
pub fn check(system: &System, config_path: &Path) -> Report {
    let config = config::load(config_path);
    let looked_at = [
        (
            "configuration",
            setup::configuration(system, config_path, &config),
        ),
        ("NICs", setup::nics(system, &config)),
        ("kernel", kernel::version(system)),
        ("bonding driver", kernel::bonding(system)),
        ("network capabilities", kernel::network_capabilities(system)),
        ("eBPF monitor", kernel::ebpf(system)),
        ("fast-path programs", kernel::switchover(system)),
        ("udev", setup::udev(system)),
        ("user", setup::user(system)),
        ("service", setup::service(system)),
        ("given back", setup::given_back(system)),
        ("addressing", setup::addressing(system, &config)),
        ("host channel", setup::host_channel(system)),
    ];
    let looked_at = looked_at.into_iter();
    let mut findings: Vec<_> = looked_at.map(|(name, verdict)| verdict.of(name)).collect();
    findings.extend(network::findings(system, &config));
    let level = findings
        .iter()
        .map(|finding| finding.verdict.level)
        .max()
        .unwrap_or(Level::Ok);
    Report { level, findings }
}

/// The report for people.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for Finding { name, verdict } in &report.findings {
        let mark = match verdict.level {
            Level::Ok => "ok      ",
            Level::Degraded => "degraded",
            Level::Fatal => "FATAL   ",
        };
        let _ = writeln!(text, "{mark}  {name}: {}", verdict.detail);
        if verdict.level != Level::Ok {
            let _ = writeln!(text, "          consequence: {}", verdict.consequence);
            let _ = writeln!(text, "          remedy: {}", verdict.remedy);
        }
    }
    text
}
