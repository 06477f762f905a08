//! The .deb: cargo-deb builds it, lintian looks at it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use tandem_lab::command;

use super::{Build, only, remove_older};
use crate::cargo_tool::CargoTool;
use crate::project;

/// Packing is left to the machine's `xz`.
const TOOL: CargoTool = CargoTool {
    name: "cargo-deb",
    version: "3.8.0",
    options: &["--no-default-features"],
    wheel: None,
};
const BUILD_LIMIT: Duration = Duration::from_secs(300);
const CHECK_LIMIT: Duration = Duration::from_secs(300);

pub(super) fn build(build: &Build, folder: &Path) -> Result<PathBuf> {
    let name = format!("{}_", build.package.name());
    let is_ours = |file: &str| file.starts_with(&name) && file.ends_with(".deb");
    remove_older(folder, is_ours)?;
    let mut pack = project::command(&TOOL.program()?.to_string_lossy());
    pack.args([
        "--no-build",
        "--quiet",
        "--locked",
        "--strip",
        "--compress-system",
    ])
    .args(["--package", build.package.crate_name()])
    .args(["--profile", build.profile_name()])
    .arg("--output")
    .arg(folder);
    let said = command::run(&mut pack, BUILD_LIMIT)?;
    eprint!("{}", said.stderr);
    only(folder, is_ours)
}

/// No error and no warning that is not overridden with its reason, in `packaging/lintian/`.
pub(super) fn check(file: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian
        .args(["--fail-on", "error,warning", "--info", "--allow-root"])
        .args(["--tag-display-limit", "0"])
        .arg(file);
    let said = command::run_any(&mut lintian, CHECK_LIMIT)?;
    print!("{}", said.stdout);
    if !said.status.success() {
        bail!(
            "lintian found something in {}:\n{}",
            file.display(),
            said.stderr
        );
    }
    println!("lintian finds nothing in it");
    Ok(())
}
