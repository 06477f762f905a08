//! The QEMU that runs the guests: this machine's, or Debian 13's, unpacked beside it and not installed.
//!
//! Under emulation with several CPUs, QEMU before 10.0.4 uses a memory map that it has freed already
//! when a PCI device comes or goes at the wrong moment, and aborts in `iotlb_to_section`
//! (`system/physmem.c`; mended by QEMU's commit 2865bf1c5795).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::apt::{PrivateApt, Suite};
use super::cache::Cache;
use crate::command;

const PROGRAM: &str = "qemu-system-x86_64";
/// Debian's package of it.
pub(super) const PACKAGE: &str = "qemu-system-x86";
/// The first version that does not abort, as (major, minor, micro).
const MIN_VERSION: (u32, u32, u32) = (10, 0, 4);
/// Has a version that is new enough.
const SUITE: Suite = Suite::Trixie;
const ENTRY: &str = "qemu-trixie";
/// The start script's name in the cache's entry.
const START: &str = "qemu";
const UNPACK_LIMIT: Duration = Duration::from_secs(900);
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// The program that runs x86-64 guests: `LAB_QEMU`, this machine's, or the one in the cache.
///
/// # Errors
/// If there is none that the lab can use; says why.
pub fn program() -> Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = FOUND.get() {
        return Ok(path.clone());
    }
    let path = find()?;
    Ok(FOUND.get_or_init(|| path).clone())
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LAB_QEMU") {
        return Ok(path.into());
    }
    let Some(own_lack) = lack_of_the_machines_own() else {
        return command::find_program(PROGRAM).context("QEMU was there a moment ago");
    };
    let fetched = Cache::open()?.root().join(ENTRY).join(START);
    if fetched.is_file() {
        return Ok(fetched);
    }
    bail!(own_lack)
}

fn lack_of_the_machines_own() -> Option<String> {
    if command::find_program(PROGRAM).is_none() {
        return Some(format!("{PROGRAM} is not installed"));
    }
    let told = match command::run(Command::new(PROGRAM).arg("--version"), PROBE_LIMIT) {
        Ok(finished) => finished.stdout,
        Err(error) => return Some(format!("{error:#}")),
    };
    match version(&told) {
        Some(version) if version >= MIN_VERSION => None,
        _ => Some(format!(
            "the installed QEMU is too old for guests whose devices come and go (it needs 10.0.4): {}",
            told.lines().next().unwrap_or_default()
        )),
    }
}

/// Unpacks Debian 13's QEMU and the libraries it needs into the cache.
pub(super) fn fetch(cache: &Cache) -> Result<()> {
    cache
        .folder(ENTRY, |folder| {
            let apt = PrivateApt::of_suite(cache, SUITE)?;
            command::progress(&format!("unpacking QEMU from {SUITE} (once)"));
            let root = folder.join("root");
            let mut unpack = Command::new("mmdebstrap");
            unpack
                .args(["--quiet", "--variant=extract", "--format=directory"])
                .arg(format!("--include={PACKAGE}"))
                .arg("--aptopt=APT::Install-Recommends \"false\"")
                .arg("--aptopt=Acquire::Languages \"none\"")
                .arg("--aptopt=Acquire::Retries \"3\"")
                .arg(SUITE.name())
                .arg(&root)
                .arg(apt.sources_file());
            command::run(&mut unpack, UNPACK_LIMIT)?;
            // The entry is moved into place when it is whole: the script finds its files by its own place.
            let script = folder.join(START);
            fs::write(&script, start_script()).context("cannot write QEMU's start script")?;
            fs::set_permissions(&script, Permissions::from_mode(0o755))
                .context("cannot make QEMU's start script a program")?;
            works(&script)
        })
        .map(drop)
}

/// Runs QEMU with the libraries it was built for, which are not those of this machine.
fn start_script() -> String {
    let libraries = "$root/usr/lib/x86_64-linux-gnu";
    format!(
        "#!/bin/sh\nroot=${{0%/*}}/root\n\
         QEMU_MODULE_DIR={libraries}/qemu exec {libraries}/ld-linux-x86-64.so.2 --library-path {libraries} \\\n  \
         $root/usr/bin/{PROGRAM} -L $root/usr/share/qemu -L $root/usr/share/seabios \"$@\"\n"
    )
}

fn works(program: &Path) -> Result<()> {
    let told = command::run(Command::new(program).arg("--version"), PROBE_LIMIT)?.stdout;
    match version(&told) {
        Some(version) if version >= MIN_VERSION => Ok(()),
        _ => bail!("{SUITE} has an older QEMU than 10.0.4: {told}"),
    }
}

/// The version in what `--version` prints: "QEMU emulator version 10.0.13 (…)".
fn version(told: &str) -> Option<(u32, u32, u32)> {
    let word = told.split_whitespace().nth(3)?;
    let mut numbers = word.split('.').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let debian = "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nCopyright";
        assert!(version(debian).unwrap() >= MIN_VERSION);
        assert!(version("QEMU emulator version 10.0.2 (x)").unwrap() < MIN_VERSION);
        assert!(version("QEMU emulator version 11.1.3").unwrap() >= MIN_VERSION);
        assert_eq!(version("QEMU emulator version ten"), None);
        assert_eq!(version(""), None);
    }
}
