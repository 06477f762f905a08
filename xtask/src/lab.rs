//! `cargo xtask lab FILE`: carries a situation out.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tandem_lab::situation::Situation;

use crate::setup;

/// What `cargo xtask lab` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Texts such as those in tests/situations, described in README.md there
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Read them only
    #[arg(long)]
    check: bool,
}

/// Reads all texts, then runs one after the other.
///
/// # Errors
/// A text is no situation, or one does not end as it is written.
pub(crate) fn run(options: &Options) -> Result<()> {
    let files = options.files.iter();
    let situations: Vec<_> = files
        .map(|file| Situation::read(file))
        .collect::<Result<_>>()?;
    if options.check {
        return Ok(());
    }
    setup::run()?;
    for situation in &situations {
        situation.run()?;
        println!("{}: as written", situation.name());
    }
    Ok(())
}
