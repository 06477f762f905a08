//! The reference, the manual pages and the shell completions, made from the types: the command lines' own
//! definitions, the JSON schemas of configuration and channel, the tables of exit codes, metrics and remedies.
//! `cargo xtask reference` and `cargo xtask man` run it.

mod commands;
mod files;
mod keys;
mod man;
mod markdown;
#[cfg(test)]
mod pages;
mod reference;
mod schema;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// What the types say, for people.
#[derive(Debug, Parser)]
#[command(name = "tandem-manual")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Write the reference to this file
    Reference {
        /// docs/reference.md, usually
        file: PathBuf,
    },
    /// Write manual pages and shell completions into this folder
    Man {
        /// It is made if it is missing; what else is in it stays
        folder: PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Reference { file } => write(&file, reference::text()?.as_bytes()),
        Task::Man { folder } => files::all()?.into_iter().try_for_each(|made| {
            let path = folder.join(&made.path);
            let parent = path.parent().unwrap_or(&folder);
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
            println!("{}", path.display());
            write(&path, &made.data)
        }),
    }
}

fn write(path: &Path, data: &[u8]) -> Result<()> {
    std::fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))
}
