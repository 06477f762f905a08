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
/// Has cargo name what it has built.
const MESSAGES: &str = "--message-format=json-render-diagnostics";

/// How a program is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// What is shipped: use it to measure.
    Release,
}

/// Cargo's JSON messages of builds that are done, one file after another, separated by colons: what they name is not
/// built again. `cargo xtask test` sets it.
pub const BUILT_VARIABLE: &str = "LAB_BUILT";

/// What is wanted of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Program,
    Example,
    UnitTests,
}

/// Builds the program `binary` of the package with cargo (once per process) and gives its path.
pub fn program(package: &str, binary: &str, profile: Profile) -> Result<PathBuf> {
    build(package, Kind::Program, binary, profile)
}

/// Builds a quick program as one of the whole workspace, as all tests are built: what it has in common with them is
/// not built twice.
pub fn program_of_workspace(binary: &str) -> Result<PathBuf> {
    if let Some(path) = built_before(Kind::Program, binary, Profile::Dev) {
        return Ok(path);
    }
    let mut build = cargo(&["build", "--bin", binary]);
    build.args(["--workspace", "--features", "tandem-wire/schema", MESSAGES]);
    let what = format!("building {binary}");
    let output = command::step(&what, None, || command::run_shown(&mut build, BUILD_LIMIT))?;
    executable(&output, Kind::Program, binary, Profile::Dev)
        .with_context(|| format!("cargo named no program `{binary}`"))
}

/// Builds the example of the package with cargo (once per process) and gives its path.
pub fn example(package: &str, example: &str, profile: Profile) -> Result<PathBuf> {
    build(package, Kind::Example, example, profile)
}

/// Builds the unit tests of the package's library with cargo and gives their program's path.
pub fn unit_tests(package: &str, library: &str) -> Result<PathBuf> {
    build(package, Kind::UnitTests, library, Profile::Dev)
}

fn build(package: &str, kind: Kind, name: &str, profile: Profile) -> Result<PathBuf> {
    type Key = (String, Kind, String, Profile);
    static BUILT: Mutex<Option<HashMap<Key, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_with(HashMap::new);
    let key = (package.to_owned(), kind, name.to_owned(), profile);
    if let Some(path) = built.get(&key) {
        return Ok(path.clone());
    }
    let path = match built_before(kind, name, profile) {
        Some(path) => path,
        None => build_now(package, kind, name, profile)?,
    };
    built.insert(key, path.clone());
    Ok(path)
}

/// From a build that somebody else has done.
fn built_before(kind: Kind, name: &str, profile: Profile) -> Option<PathBuf> {
    let files = std::env::var_os(BUILT_VARIABLE)?;
    std::env::split_paths(&files)
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .find_map(|messages| executable(&messages, kind, name, profile))
        .filter(|path| path.is_file())
}

fn build_now(package: &str, kind: Kind, name: &str, profile: Profile) -> Result<PathBuf> {
    let mut build = match kind {
        Kind::Program => cargo(&["build", "--bin", name]),
        Kind::Example => cargo(&["build", "--example", name]),
        Kind::UnitTests => cargo(&["test", "--lib", "--no-run"]),
    };
    build.args(["--package", package, MESSAGES]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    let what = match kind {
        Kind::Program | Kind::Example => format!("building {name}"),
        Kind::UnitTests => format!("building the tests of {name}"),
    };
    let output = command::step(&what, None, || command::run_shown(&mut build, BUILD_LIMIT))?;
    executable(&output, kind, name, profile)
        .with_context(|| format!("cargo built {package} but named no program `{name}`"))
}

pub(super) fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(cache::workspace_folder()).args(arguments);
    cargo
}

fn executable(messages: &str, kind: Kind, name: &str, profile: Profile) -> Option<PathBuf> {
    let wanted = match kind {
        Kind::Program => "bin",
        Kind::Example => "example",
        Kind::UnitTests => "lib",
    };
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| {
            let (target, built) = (&message["target"], &message["profile"]);
            target["name"] == name
                && target["kind"][0] == wanted
                && built["test"] == (kind == Kind::UnitTests)
                && built["debug_assertions"] == (profile == Profile::Dev)
        })
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_from_its_tests_and_from_the_other_profile() {
        let line = |kind: &str, test: bool, debug: bool, path: &str| {
            format!(
                r#"{{"target":{{"name":"x","kind":["{kind}"]}},"profile":{{"test":{test},"debug_assertions":{debug}}},"executable":"{path}"}}"#
            )
        };
        let messages = [
            line("bin", true, true, "/tests-of-bin"),
            line("bin", false, false, "/release"),
            line("bin", false, true, "/dev"),
            line("lib", true, true, "/tests"),
            "not JSON".to_owned(),
        ]
        .join("\n");
        let found = |kind, profile| executable(&messages, kind, "x", profile);
        let path = |path: &str| Some(PathBuf::from(path));
        assert_eq!(found(Kind::Program, Profile::Dev), path("/dev"));
        assert_eq!(found(Kind::Program, Profile::Release), path("/release"));
        assert_eq!(found(Kind::UnitTests, Profile::Dev), path("/tests"));
        assert_eq!(found(Kind::Example, Profile::Dev), None);
    }
}
