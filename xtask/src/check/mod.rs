//! Checks of the project itself, which compile nothing of it. Each prints what it looked at, and fails naming
//! every place that breaks the rule.

mod acyclic;
mod addresses;
mod advisories;
mod architecture;
mod boundaries;
mod cycles;
mod deny;
mod purity;
mod readme;
mod size;

use anyhow::{Result, bail};
use clap::ValueEnum;

/// A check by its name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// No source file over 500 lines without a reason
    Size,
    /// No path of one machine and no package registry's address in the project
    Addresses,
    /// `tandem-core`, `tandem-wire` and `tandem-carry` are `no_std`, and depend on what is allowed and nothing else
    Purity,
    /// No file of core, wire, carry, guest or host imports another in a circle
    Acyclic,
    /// The same, by a public tool that is built first
    Cycles,
    /// Only `act/` changes the kernel, only `run.rs` drives the machine
    Boundaries,
    /// What README.md and docs/ show is run, their links lead somewhere, their lists are complete
    Readme,
    /// Everything that ARCHITECTURE.md names is there
    Architecture,
    /// Advisories, licences, bans and sources of the dependencies, by cargo-deny
    Deny,
}

/// Runs one check.
pub(crate) fn run(check: Check) -> Result<()> {
    let report = match check {
        Check::Size => size::check()?,
        Check::Addresses => addresses::check()?,
        Check::Purity => purity::check()?,
        Check::Readme => readme::check()?,
        Check::Architecture => architecture::check()?,
        Check::Acyclic => acyclic::check()?,
        Check::Boundaries => boundaries::check()?,
        Check::Cycles => return cycles::check(),
        Check::Deny => return deny::check(),
    };
    println!("looked at {}", report.looked_at);
    for finding in &report.findings {
        println!("{finding}");
    }
    match report.findings.len() {
        0 => Ok(()),
        count => bail!("{count} findings"),
    }
}

/// What a check saw.
#[derive(Debug)]
struct Report {
    /// How much was looked at, in words.
    looked_at: String,
    /// One line for each place that breaks the rule.
    findings: Vec<String>,
}
