//! Programs of this workspace that go into a guest.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::cache;
use crate::command;

const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// How a program is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// What is shipped: use it to measure.
    Release,
}

/// Builds the program `binary` of the package with cargo (once per process) and gives its path.
pub fn program(package: &str, binary: &str, profile: Profile) -> Result<PathBuf> {
    build(package, "--bin", binary, profile)
}

/// Builds the example of the package with cargo (once per process) and gives its path.
pub fn example(package: &str, example: &str, profile: Profile) -> Result<PathBuf> {
    build(package, "--example", example, profile)
}

/// Builds the unit tests of the package's library with cargo and gives their program's path.
pub fn unit_tests(package: &str, library: &str) -> Result<PathBuf> {
    command::progress(&format!("building the tests of {library}"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(cache::workspace_folder()).args([
        "test",
        "--package",
        package,
        "--lib",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    let output = command::run(&mut build, BUILD_LIMIT)?.stdout;
    executable(&output, library)
        .with_context(|| format!("cargo built {package} but named no tests of `{library}`"))
}

fn build(package: &str, kind: &'static str, binary: &str, profile: Profile) -> Result<PathBuf> {
    type Key = (String, &'static str, String, Profile);
    static BUILT: Mutex<Option<HashMap<Key, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_with(HashMap::new);
    let key = (package.to_owned(), kind, binary.to_owned(), profile);
    if let Some(path) = built.get(&key) {
        return Ok(path.clone());
    }
    command::progress(&format!("building {binary}"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(cache::workspace_folder()).args([
        "build",
        "--package",
        package,
        kind,
        binary,
        "--message-format=json-render-diagnostics",
    ]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    let output = command::run(&mut build, BUILD_LIMIT)?.stdout;
    let path = executable(&output, binary)
        .with_context(|| format!("cargo built {package} but named no program `{binary}`"))?;
    built.insert(key, path.clone());
    Ok(path)
}

fn executable(messages: &str, binary: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == binary)
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
}
