//! The QEMU that runs the guests: this machine's, or one of Debian 13, unpacked beside it and not installed.
//!
//! Under emulation with several CPUs, QEMU before 11.0 looks a section of its memory map up by the number that
//! the section had in an older map, when a CPU does MMIO while another one changes the map: a PCI device comes
//! or goes, or a guest boots (`iotlb_to_section` in `system/physmem.c`, since commit 2865bf1c5795; up to 10.0.3
//! the map could be freed already). It aborts if there is no such number; otherwise the access goes to another
//! device, and an interrupt's end or a queue's kick is lost. Commit 854cd16e318e (11.0) keeps the section itself.
//!
//! libvirt 11.3, which Debian has, cannot migrate with QEMU 11.1, which knows `detach` of `migrate` no more. So
//! its domains have QEMU 10.0 and a single CPU.

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
/// The start script's name in the cache's entry.
const START: &str = "qemu";
const UNPACK_LIMIT: Duration = Duration::from_secs(900);
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// As (major, minor, micro).
type Version = (u32, u32, u32);

/// Who starts QEMU: each needs other versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Starter {
    /// The lab itself.
    Lab,
    /// libvirt.
    Libvirt,
}

impl Starter {
    fn takes(self, version: Version) -> bool {
        match self {
            Self::Lab => version >= (11, 0, 0),
            Self::Libvirt => ((10, 0, 4)..(11, 0, 0)).contains(&version),
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Libvirt => "libvirt",
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Lab => "11.0 or later",
            Self::Libvirt => "10.0.4 or later, but not 11",
        }
    }

    /// Names a QEMU to be used instead.
    fn variable(self) -> &'static str {
        match self {
            Self::Lab => "LAB_QEMU",
            Self::Libvirt => "LAB_LIBVIRT_QEMU",
        }
    }

    /// Has a version that fits.
    fn suite(self) -> Suite {
        match self {
            Self::Lab => Suite::TrixieBackports,
            Self::Libvirt => Suite::Trixie,
        }
    }

    /// The name of the cache's entry.
    fn entry(self) -> String {
        format!("qemu-{}", self.suite().name())
    }
}

/// The program that runs x86-64 guests: the one that the variable names, this machine's, or the one in the
/// cache.
///
/// # Errors
/// If there is none that can be used; says why.
pub fn program(starter: Starter) -> Result<PathBuf> {
    static FOUND: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
    let found = &FOUND[starter as usize];
    if let Some(path) = found.get() {
        return Ok(path.clone());
    }
    let path = find(starter)?;
    Ok(found.get_or_init(|| path).clone())
}

/// What is there, for people: such as `11.1`.
pub(super) fn release(starter: Starter) -> Option<String> {
    let program = program(starter).ok()?;
    let told = command::run(Command::new(program).arg("--version"), PROBE_LIMIT).ok()?;
    let (major, minor, _) = version(&told.stdout)?;
    Some(format!("{major}.{minor}"))
}

fn find(starter: Starter) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(starter.variable()) {
        return Ok(path.into());
    }
    let Some(own_lack) = lack_of_the_machines_own(starter) else {
        return command::find_program(PROGRAM).context("QEMU was there a moment ago");
    };
    let fetched = Cache::open()?.root().join(starter.entry()).join(START);
    if fetched.is_file() {
        return Ok(fetched);
    }
    bail!("{own_lack}; `cargo xtask setup` fetches one")
}

fn lack_of_the_machines_own(starter: Starter) -> Option<String> {
    if command::find_program(PROGRAM).is_none() {
        return Some(format!("{PROGRAM} is not installed"));
    }
    fits(Path::new(PROGRAM), starter)
        .err()
        .map(|error| format!("the installed QEMU: {error:#}"))
}

/// Unpacks that QEMU and the libraries it needs into the cache; mmdebstrap is installed.
pub(super) fn fetch(cache: &Cache, starter: Starter) -> Result<()> {
    cache
        .folder(&starter.entry(), |folder| {
            let (base, suite) = (Suite::Trixie.name(), starter.suite().name());
            let mut suites = vec![base, suite];
            suites.dedup();
            let apt = PrivateApt::of_suites(cache, &suites.join("-"), &suites)?;
            let root = folder.join("root");
            let mut unpack = Command::new("mmdebstrap");
            unpack
                .args(["--quiet", "--variant=extract", "--format=directory"])
                .arg(format!("--include={PACKAGE}"))
                .arg(format!("--aptopt=APT::Default-Release \"{suite}\""))
                .arg("--aptopt=APT::Install-Recommends \"false\"")
                .arg("--aptopt=Acquire::Languages \"none\"")
                .arg("--aptopt=Acquire::Retries \"3\"")
                .arg(base)
                .arg(&root)
                .arg(apt.sources_file());
            let what = format!(
                "fetching and unpacking QEMU from {} (once)",
                starter.suite()
            );
            command::step(&what, Some(&root), || {
                command::run(&mut unpack, UNPACK_LIMIT)
            })?;
            // The entry is moved into place when it is whole: the script finds its files by its own place.
            let script = folder.join(START);
            fs::write(&script, start_script()).context("cannot write QEMU's start script")?;
            fs::set_permissions(&script, Permissions::from_mode(0o755))
                .context("cannot make QEMU's start script a program")?;
            fits(&script, starter).with_context(|| format!("QEMU of {}", starter.suite()))
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

/// Fails if a QEMU does not run, or has a version that is of no use here.
fn fits(program: &Path, starter: Starter) -> Result<()> {
    let told = command::run(Command::new(program).arg("--version"), PROBE_LIMIT)?.stdout;
    match version(&told) {
        Some(version) if starter.takes(version) => Ok(()),
        _ => bail!(
            "it does not fit, the {} needs {}: {}",
            starter.name(),
            starter.wanted(),
            told.lines().next().unwrap_or_default()
        ),
    }
}

/// The version in what `--version` prints: "QEMU emulator version 11.1.3 (…)".
fn version(told: &str) -> Option<Version> {
    let word = told.split_whitespace().nth(3)?;
    let mut numbers = word.split('.').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let lab = |told| version(told).is_some_and(|version| Starter::Lab.takes(version));
        let libvirt = |told| version(told).is_some_and(|version| Starter::Libvirt.takes(version));
        let newer = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\nCopyright";
        assert!(lab(newer) && !libvirt(newer));
        let older = "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nCopyright";
        assert!(!lab(older) && libvirt(older));
        assert!(lab("QEMU emulator version 11.0.0"));
        assert!(!libvirt("QEMU emulator version 10.0.2 (x)"));
        assert_eq!(version("QEMU emulator version ten"), None);
        assert_eq!(version(""), None);
    }
}
