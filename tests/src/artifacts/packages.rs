//! The .deb packages that `cargo xtask package` builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cache;
use super::cargo;
use crate::command;

const BUILD_LIMIT: Duration = Duration::from_secs(1800);
const PACK_LIMIT: Duration = Duration::from_secs(120);
/// What makes a version higher than any that is built (deb-version(7)).
const NEWER: &str = "1:";

/// Builds the package `tandem`, or `tandem-host` from a dev build, and gives the file.
///
/// # Errors
/// It can't be built.
pub fn deb(name: &str) -> Result<PathBuf> {
    let mut package = cargo::cargo(&["run", "--quiet", "--package", "xtask", "--", "package"]);
    package.args([name, "--deb", "--debug-host"]);
    let what = format!("building the package {name}");
    command::step(&what, None, || command::run(&mut package, BUILD_LIMIT))?;
    let folder = cache::target_folder().join("packages");
    let begin = format!("{name}_");
    let entries = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut files = entries.iter().map(fs::DirEntry::path).filter(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&begin) && file.ends_with(".deb")
    });
    let file = files
        .next()
        .with_context(|| format!("no package {name} was built"))?;
    Ok(file)
}

/// The same package with a higher version, in this folder.
///
/// # Errors
/// It can't be packed anew.
pub fn newer(deb: &Path, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("tree");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--raw-extract").arg(deb).arg(&tree);
    command::run(&mut unpack, PACK_LIMIT)?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).context("a package without a control file")?;
    let lines = text
        .lines()
        .map(|line| match line.strip_prefix("Version: ") {
            Some(version) => format!("Version: {NEWER}{version}\n"),
            None => format!("{line}\n"),
        });
    let newer: String = lines.collect();
    ensure!(newer.contains(NEWER), "a package without a version");
    fs::write(&control, newer).context("cannot write a control file")?;
    let file = folder.join("newer.deb");
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "-Zgzip", "-z1", "--build"]);
    command::run(pack.arg(&tree).arg(&file), PACK_LIMIT)?;
    fs::remove_dir_all(&tree).context("cannot remove an unpacked package")?;
    Ok(file)
}
