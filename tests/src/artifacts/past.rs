//! The programs of an earlier commit, for tests in which two versions meet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cache::{self, Cache};
use crate::command;

/// Reading a commit takes no longer.
const READ_LIMIT: Duration = Duration::from_secs(120);
/// Building two programs takes no longer.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// What was built of an earlier commit.
#[derive(Debug, Clone)]
pub struct PastPrograms {
    /// The guest's service.
    pub guest: PathBuf,
    /// `tandem-host`.
    pub host: PathBuf,
}

/// The programs of that commit of this repository, built once and kept in the lab's cache.
///
/// # Errors
/// The commit is not in this clone (a shallow one has too few), or it can't be built.
pub fn programs_of(commit: &str) -> Result<PastPrograms> {
    let folder = Cache::open()?.folder(&format!("programs-of-{commit}"), |folder| {
        build(commit, folder, "debug", &["tandem", "tandem-host"])
    })?;
    Ok(PastPrograms {
        guest: folder.join("tandem"),
        host: folder.join("tandem-host"),
    })
}

/// The guest's service of that commit as it was shipped, built once and kept in the lab's cache.
///
/// # Errors
/// As for [`programs_of`].
pub fn guest_as_shipped(commit: &str) -> Result<PathBuf> {
    let mut name = Command::new("git");
    name.current_dir(cache::workspace_folder());
    name.args(["rev-parse", "--verify", "--short"]);
    name.arg(format!("{commit}^{{commit}}"));
    let said = command::run(&mut name, READ_LIMIT)?.stdout;
    let commit = said.trim();
    let name = format!("guest-of-{commit}");
    let folder = Cache::open()?.folder(&name, |folder| {
        build(commit, folder, "release", &["tandem"])
    })?;
    Ok(folder.join("tandem"))
}

fn build(commit: &str, folder: &Path, profile: &str, programs: &[&str]) -> Result<()> {
    let (source, target) = (folder.join("source"), folder.join("target"));
    fs::create_dir_all(&source).context("cannot create the sources' folder")?;
    let archive = folder.join("source.tar");
    let mut read = Command::new("git");
    read.current_dir(cache::workspace_folder());
    read.args(["archive", "--format=tar", "--output"]);
    read.arg(&archive).arg(commit);
    command::run(&mut read, READ_LIMIT)
        .with_context(|| format!("commit {commit} is not in this clone; a full clone has it"))?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xf").arg(&archive).arg("-C").arg(&source);
    command::run(&mut unpack, READ_LIMIT)?;

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(&source);
    build.args(["build", "--locked", "--workspace"]);
    build.args(programs.iter().flat_map(|program| ["--bin", program]));
    if profile == "release" {
        build.arg("--release");
    }
    build.arg("--target-dir").arg(&target);
    command::step(&format!("building the programs of {commit}"), None, || {
        command::run_shown(&mut build, BUILD_LIMIT)
    })?;
    for program in programs {
        let built = target.join(profile).join(program);
        ensure!(built.is_file(), "commit {commit} has no program {program}");
        fs::rename(built, folder.join(program)).context("cannot keep the program")?;
    }
    fs::remove_file(&archive).context("cannot remove the archive")?;
    for rest in [&source, &target] {
        fs::remove_dir_all(rest).context("cannot remove what it was built from")?;
    }
    Ok(())
}
