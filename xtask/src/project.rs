//! The project's folder, its files, and cargo run in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tandem_lab::artifacts::cache;
use tandem_lab::command;

/// Asking git or cargo what the project consists of takes at most this long.
const QUERY_LIMIT: Duration = Duration::from_secs(120);

/// A command that runs in the project's top folder.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(cache::workspace_folder());
    command
}

/// The cargo this task was started by, in the project's top folder.
pub(crate) fn cargo() -> Command {
    command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
}

/// This program itself, as another process: `cargo xtask ARGUMENTS`.
pub(crate) fn xtask(arguments: &[&str]) -> Result<Command> {
    let mut command =
        Command::new(std::env::current_exe().context("cannot tell where xtask itself is")?);
    command
        .current_dir(cache::workspace_folder())
        .args(arguments);
    Ok(command)
}

/// The files that are, or would be, under version control, relative to the top folder.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let mut list = command("git");
    list.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ]);
    let listed = command::run(&mut list, QUERY_LIMIT)?.stdout;
    let top = cache::workspace_folder();
    Ok(listed
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .filter(|path| top.join(path).is_file())
        .collect())
}

/// The files that are wanted and are text, with their text.
pub(crate) fn texts(wanted: impl Fn(&Path) -> bool) -> Result<Vec<(PathBuf, String)>> {
    let wanted = files()?.into_iter().filter(|file| wanted(file));
    let with_text = wanted.map(|file| Ok(text(&file)?.map(|text| (file, text))));
    with_text.filter_map(Result::transpose).collect()
}

/// The text of a project's file, or nothing if it is not UTF-8.
pub(crate) fn text(file: &Path) -> Result<Option<String>> {
    let path = cache::workspace_folder().join(file);
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8(bytes).ok())
}

/// What `cargo metadata` says of the workspace's own packages.
pub(crate) fn metadata() -> Result<Value> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let said = command::run(&mut metadata, QUERY_LIMIT)?.stdout;
    serde_json::from_str(&said).context("cargo metadata did not print JSON")
}
