//! `cargo xtask reference` and `cargo xtask man`: what the types say, for people. Another package makes it, which
//! needs what the guest's service needs to be built.

use anyhow::{Context, Result, ensure};
use tandem_lab::artifacts::cache;

use crate::project;

/// Where manual pages and completions are, for packages: `man/`, `bash/`, `zsh/`, `fish/`.
const FOLDER: &str = "manual";

/// Writes the reference.
///
/// # Errors
/// If it can't be made.
pub(crate) fn reference() -> Result<()> {
    run(&["reference", "docs/reference.md"])
}

/// Writes manual pages and completions, and names them.
///
/// # Errors
/// If they can't be made.
pub(crate) fn man() -> Result<()> {
    let folder = cache::target_folder().join(FOLDER);
    run(&["man", &folder.to_string_lossy()])
}

fn run(arguments: &[&str]) -> Result<()> {
    let mut cargo = project::cargo();
    cargo.args(["run", "--quiet", "--package", "tandem-manual", "--"]);
    let status = cargo
        .args(arguments)
        .status()
        .context("cargo can't be run")?;
    ensure!(status.success(), "tandem-manual: {status}");
    Ok(())
}
