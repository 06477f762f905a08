//! `RustSec`'s advisories, from the copy that the project keeps: CI reaches no git repository.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Lays the copy out as the git repository that cargo-deny reads, and says how many advisories of which day it has, and
/// how long ago that was: no age is an error, or CI would fail by itself one day.
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
    let at = git(&folder, &["log", "-1", "--format=%ct"])?;
    let at = at.trim().parse().context("when the copy was made")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(told(advisories, at, now))
}

/// Moments in s since 1970.
fn told(advisories: usize, at: u64, now: u64) -> String {
    let days = now.saturating_sub(at) / (24 * 3600);
    format!(
        "{advisories} advisories, as of {DAY}, {days} days ago; what came later is not looked for: \
         xtask/advisories/README.md"
    )
}

fn advisories_in(crates: &Path) -> Result<usize> {
    let mut count = 0;
    for of_crate in fs::read_dir(crates).with_context(|| format!("{COPY} has no crates"))? {
        count += fs::read_dir(of_crate?.path())?.count();
    }
    Ok(count)
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(folder)
        .args(["-c", "user.name=RustSec", "-c", "user.email=", "-c"])
        .args(["commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .env("GIT_AUTHOR_DATE", DAY)
        .env("GIT_COMMITTER_DATE", DAY);
    Ok(command::run(&mut git, LIMIT)?.stdout)
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn the_age_is_told_in_days() {
        let at = 1_787_293_720;
        let of = |now| told(1_198, at, now);
        assert!(of(at + 24 * 3600 * 101 + 5).contains(", 101 days ago;"));
        assert!(of(at - 1).contains(", 0 days ago;"));
    }
}
