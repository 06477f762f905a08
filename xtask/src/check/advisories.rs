//! `RustSec`'s advisories, from the copy that the project keeps: CI reaches no git repository.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tandem_lab::artifacts::cache;
use tandem_lab::command;

/// The copy; `xtask/advisories/README.md` says how it is renewed.
const COPY: &str = "xtask/advisories/rustsec-advisory-db.tar.xz";
/// deny.toml's `db-path`, and in it the name that cargo-deny gives `RustSec`'s database.
const DATABASE: &str = "target/advisories/advisory-db-3157b0e258782691";
/// The day of the copy. cargo-deny takes a database's age from its last commit.
const DAY: &str = "2026-08-21T08:28:40+02:00";
/// A copy with fewer advisories is not whole: there were 1,198 on that day.
const LEAST: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(60);

/// Lays the copy out as the git repository that cargo-deny reads, and says how many advisories of which day it has.
///
/// # Errors
/// The copy is damaged, or `tar`, `xz` or `git` is missing.
pub(super) fn lay_out() -> Result<String> {
    let top = cache::workspace_folder();
    let folder = top.join(DATABASE);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove the old {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut unpack = Command::new("tar");
    unpack
        .arg("-xJf")
        .arg(top.join(COPY))
        .arg("-C")
        .arg(&folder);
    command::run(&mut unpack, LIMIT)?;
    let advisories = advisories_in(&folder.join("crates"))?;
    ensure!(
        advisories >= LEAST,
        "{COPY} has {advisories} advisories, at least {LEAST} are expected"
    );
    git(&folder, &["init", "--quiet"])?;
    git(&folder, &["add", "--all"])?;
    git(&folder, &["commit", "--quiet", "--message", "as copied"])?;
    Ok(format!("{advisories} advisories, as of {DAY}"))
}

fn advisories_in(crates: &Path) -> Result<usize> {
    let mut count = 0;
    for of_crate in fs::read_dir(crates).with_context(|| format!("{COPY} has no crates"))? {
        count += fs::read_dir(of_crate?.path())?.count();
    }
    Ok(count)
}

fn git(folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(folder)
        .args(["-c", "user.name=RustSec", "-c", "user.email=", "-c"])
        .args(["commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .env("GIT_AUTHOR_DATE", DAY)
        .env("GIT_COMMITTER_DATE", DAY);
    command::run(&mut git, LIMIT).map(|_| ())
}
