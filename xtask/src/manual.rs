//! `cargo xtask reference` and `cargo xtask man`: what the types say, for people. Another package makes it, which
//! needs what the guest's service needs to be built.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tandem_lab::artifacts::{cache, cargo};
use tandem_lab::command;

use crate::project;

/// Where manual pages and completions are: `man/`, `bash/`, `zsh/`, `fish/`.
const FOLDER: &str = "manual";
const LIMIT: Duration = Duration::from_secs(60);

/// Writes the reference.
///
/// # Errors
/// If it can't be made.
pub(crate) fn reference() -> Result<()> {
    print!("{}", run(&["reference", "docs/reference.md"])?);
    Ok(())
}

/// Writes manual pages and completions, and names them.
///
/// # Errors
/// If they can't be made.
pub(crate) fn man() -> Result<()> {
    let named = man_into(&cache::target_folder().join(FOLDER))?;
    print!("{named}");
    Ok(())
}

/// Writes manual pages and completions into this folder; gives their names, one a line.
///
/// # Errors
/// If they can't be made.
pub(crate) fn man_into(folder: &Path) -> Result<String> {
    run(&["man", &folder.to_string_lossy()])
}

fn run(arguments: &[&str]) -> Result<String> {
    let program = cargo::program_of_workspace("tandem-manual")?;
    let mut manual = project::command(&program.to_string_lossy());
    Ok(command::run(manual.args(arguments), LIMIT)?.stdout)
}
