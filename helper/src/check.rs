//! `tandem check`: what Tandem needs, whether it is here, and what follows where it is not.

mod kernel;
mod network;
mod setup;
mod system;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::config;

pub use system::System;

/// How bad a lack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// Tandem works, with less.
    Degraded,
    /// Tandem can't do its work.
    Fatal,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub level: Level,
    /// What was found.
    pub detail: String,
    /// What follows from it; empty if nothing is wrong.
    pub consequence: &'static str,
    /// What to do; empty if nothing is wrong.
    pub remedy: &'static str,
}

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
    let mut findings = vec![
        setup::configuration(system, config_path, &config),
        setup::nics(system, &config),
        kernel::version(system),
        kernel::bonding(system),
        kernel::network_capabilities(system),
        kernel::ebpf(system),
        kernel::switchover(system),
        setup::udev(system),
        setup::user(system),
        setup::service(system),
        setup::given_back(system),
        setup::addressing(system, &config),
        setup::host_channel(system),
    ];
    findings.extend(network::findings(system, &config));
    let level = findings
        .iter()
        .map(|finding| finding.level)
        .max()
        .unwrap_or(Level::Ok);
    Report { level, findings }
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            detail: detail.into(),
            consequence: "",
            remedy: "",
        }
    }

    fn degraded(
        name: &'static str,
        detail: impl Into<String>,
        consequence: &'static str,
        remedy: &'static str,
    ) -> Self {
        Self {
            name,
            level: Level::Degraded,
            detail: detail.into(),
            consequence,
            remedy,
        }
    }

    fn fatal(
        name: &'static str,
        detail: impl Into<String>,
        consequence: &'static str,
        remedy: &'static str,
    ) -> Self {
        Self {
            level: Level::Fatal,
            ..Self::degraded(name, detail, consequence, remedy)
        }
    }
}

/// The report for people.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let mark = match finding.level {
            Level::Ok => "ok      ",
            Level::Degraded => "degraded",
            Level::Fatal => "FATAL   ",
        };
        let _ = writeln!(text, "{mark}  {}: {}", finding.name, finding.detail);
        if finding.level != Level::Ok {
            let _ = writeln!(text, "          consequence: {}", finding.consequence);
            let _ = writeln!(text, "          remedy: {}", finding.remedy);
        }
    }
    text
}
