//! cargo-deny: the one on `PATH` if it is the wanted version, else one built under `target/tools`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tandem_lab::artifacts::cache;
use tandem_lab::command;

use crate::project;

/// The cargo-deny that understands deny.toml.
const VERSION: &str = "0.20.2";
const VERSION_LIMIT: Duration = Duration::from_secs(10);
const CHECK_LIMIT: Duration = Duration::from_secs(300);
const INSTALL_LIMIT: Duration = Duration::from_secs(1200);

pub(super) fn check() -> Result<()> {
    let program = tool()?;
    println!("advisories are left out: their database is a git repository that CI cannot reach");
    let mut check = project::command(program.to_str().context("cargo-deny's path is not UTF-8")?);
    check.args([
        "--all-features",
        "check",
        "--hide-inclusion-graph",
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

fn tool() -> Result<PathBuf> {
    let root = cache::target_folder().join("tools");
    let own = root.join("bin/cargo-deny");
    if let Some(there) = command::find_program("cargo-deny")
        .into_iter()
        .chain([own.clone()])
        .find(is_wanted)
    {
        return Ok(there);
    }
    println!("installing cargo-deny {VERSION} (once)");
    // Without optimisation, checks and unwinding it is built in a third of the time, and still checks in seconds.
    let mut install = project::cargo();
    install
        .args([
            "install",
            "--locked",
            "--debug",
            "--quiet",
            "cargo-deny",
            "--version",
            VERSION,
            "--root",
        ])
        .arg(&root)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false")
        .env("CARGO_PROFILE_DEV_PANIC", "abort")
        .env("CARGO_TARGET_DIR", root.join("build"));
    command::run(&mut install, INSTALL_LIMIT)?;
    std::fs::remove_dir_all(root.join("build"))
        .context("cannot remove what cargo-deny was built from")?;
    if !is_wanted(&own) {
        bail!(
            "cargo installed cargo-deny {VERSION}, but {} does not say so",
            own.display()
        );
    }
    Ok(own)
}

fn is_wanted(program: &PathBuf) -> bool {
    let mut version = std::process::Command::new(program);
    version.arg(OsString::from("--version"));
    command::run(&mut version, VERSION_LIMIT)
        .is_ok_and(|said| said.stdout.trim() == format!("cargo-deny {VERSION}"))
}
