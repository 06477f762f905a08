//! The programs the lab runs on this machine, installed with apt-get when they are missing.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::apt::{PrivateApt, Suite};
use super::cache::Cache;
use super::qemu::{self, Starter};
use super::sources::{self, Release};
use crate::command;

const INSTALL_LIMIT: Duration = Duration::from_secs(1800);
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Something the lab needs on the machine it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostTool {
    /// QEMU for x86-64; where the machine's does not fit, one is unpacked beside it.
    Qemu(Starter),
    /// `ip` and `bridge`.
    Iproute2,
    /// `xz`, which unpacks kernel modules.
    Xz,
    /// `mksquashfs`, for the full guest.
    SquashfsTools,
    /// `mmdebstrap`, for the full guest.
    Mmdebstrap,
    /// `mkfs.ext4`, for a full guest that is booted more than once.
    E2fsprogs,
    /// `pkg-config` and libudev's headers, to build the guest service.
    LibudevDev,
    /// `c++`, to build libFuzzer.
    Cpp,
    /// libvirtd with its QEMU driver, and virsh.
    Libvirt,
    /// `xmllint`, for the schema of the bonds in a domain's XML.
    Xmllint,
    /// `lintian`, which looks at .deb packages.
    Lintian,
    /// `rpm`, which looks at .rpm packages.
    Rpm,
    /// `dnsmasq`, which gives guests their addresses.
    Dnsmasq,
}

impl HostTool {
    /// What the small guest's lab needs.
    pub const SMALL_GUEST: [Self; 3] = [Self::Qemu(Starter::Lab), Self::Iproute2, Self::Xz];
    /// What libvirt hosts need.
    pub const LIBVIRT: [Self; 2] = [Self::Libvirt, Self::Qemu(Starter::Libvirt)];

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Qemu(_) => &[qemu::PACKAGE],
            Self::Iproute2 => &["iproute2"],
            Self::Xz => &["xz-utils"],
            Self::SquashfsTools => &["squashfs-tools"],
            Self::Mmdebstrap => &["mmdebstrap"],
            Self::E2fsprogs => &["e2fsprogs"],
            Self::LibudevDev => &["pkg-config", "libudev-dev"],
            Self::Cpp => &["g++"],
            Self::Xmllint => &["libxml2-utils"],
            Self::Lintian => &["lintian"],
            Self::Rpm => &["rpm"],
            Self::Dnsmasq => &["dnsmasq-base"],
            Self::Libvirt => &[
                "libvirt-daemon",
                "libvirt-daemon-driver-qemu",
                "libvirt-daemon-driver-nodedev",
                "libvirt-clients",
            ],
        }
    }

    /// What it is, for people; with the version, where a version matters and one is there.
    pub fn title(self) -> String {
        let release = |release: Option<String>| release.map_or(String::new(), |text| text + " ");
        match self {
            Self::Qemu(starter) => {
                let release = release(qemu::release(starter));
                format!("QEMU {release}({})", starter.name())
            }
            Self::Libvirt => {
                let found = libvirt_version().ok();
                let found = found.as_deref().and_then(major_minor);
                let release = release(found.map(|(major, minor)| format!("{major}.{minor}")));
                format!("libvirt {release}").trim_end().to_owned()
            }
            Self::Iproute2 => "iproute2".to_owned(),
            Self::Xz => "xz".to_owned(),
            Self::SquashfsTools => "squashfs-tools".to_owned(),
            Self::Mmdebstrap => "mmdebstrap".to_owned(),
            Self::E2fsprogs => "e2fsprogs".to_owned(),
            Self::LibudevDev => "libudev's headers".to_owned(),
            Self::Cpp => "a C++ compiler".to_owned(),
            Self::Xmllint => "xmllint".to_owned(),
            Self::Lintian => "lintian".to_owned(),
            Self::Rpm => "rpm".to_owned(),
            Self::Dnsmasq => "dnsmasq".to_owned(),
        }
    }

    /// Why the tool cannot be used, or nothing if it can.
    pub fn lack(self) -> Option<String> {
        let missing = |programs: &[&'static str]| {
            let missing = command::missing_programs(programs);
            (!missing.is_empty()).then(|| format!("{} is not installed", missing.join(", ")))
        };
        match self {
            Self::Qemu(starter) => qemu::program(starter)
                .err()
                .map(|error| format!("{error:#}")),
            Self::Iproute2 => missing(&["ip", "bridge"]),
            Self::Xz => missing(&["xz"]),
            Self::SquashfsTools => missing(&["mksquashfs"]),
            Self::Mmdebstrap => missing(&["mmdebstrap"]),
            Self::E2fsprogs => missing(&["mkfs.ext4"]),
            Self::Cpp => missing(&["c++"]),
            Self::Xmllint => missing(&["xmllint"]),
            Self::Lintian => missing(&["lintian"]),
            Self::Rpm => missing(&["rpm"]),
            Self::Dnsmasq => missing(&["dnsmasq"]),
            Self::Libvirt => missing(&["libvirtd", "virsh"]).or_else(libvirt_lack),
            Self::LibudevDev => missing(&["pkg-config"]).or_else(|| {
                let known = command::run(
                    Command::new("pkg-config").args(["--exists", "libudev"]),
                    PROBE_LIMIT,
                );
                known
                    .is_err()
                    .then(|| "libudev's development files are not installed".to_owned())
            }),
        }
    }
}

/// The first libvirt that knows the `igb` NIC, as (major, minor).
const MIN_LIBVIRT: (u32, u32) = (9, 3);

/// Domains, and the devices that may be passed through.
const LIBVIRT_DRIVERS: [&str; 2] = ["qemu", "nodedev"];

fn libvirt_lack() -> Option<String> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];
    for driver in LIBVIRT_DRIVERS {
        let mut files = folders
            .map(|folder| format!("{folder}/libvirt/connection-driver/libvirt_driver_{driver}.so"))
            .into_iter();
        if !files.any(|file| std::path::Path::new(&file).is_file()) {
            return Some(format!("libvirt's driver {driver} is not installed"));
        }
    }
    match libvirt_version() {
        Ok(word) if major_minor(&word).is_some_and(|version| version >= MIN_LIBVIRT) => None,
        Ok(word) => Some(format!(
            "libvirt {word} knows no `igb` NIC (it needs 9.3 or later)"
        )),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// As `libvirtd --version` ends.
fn libvirt_version() -> Result<String> {
    let told = command::run(Command::new("libvirtd").arg("--version"), PROBE_LIMIT)?.stdout;
    Ok(told
        .split_whitespace()
        .last()
        .unwrap_or_default()
        .to_owned())
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Makes sure that the tools are there: installs what is missing when this is root on Debian, else fails
/// naming what to install.
pub fn ensure(tools: &[HostTool]) -> Result<()> {
    if lacks(tools).is_empty() {
        return Ok(());
    }
    let cache = Cache::open()?;
    let _lock = cache.lock("host-tools")?;
    // Another process may have installed them while this one waited for the lock.
    let lacks_now = lacks(tools);
    if lacks_now.is_empty() {
        return Ok(());
    }
    let reasons: Vec<_> = lacks_now
        .iter()
        .map(|(_, reason)| reason.as_str())
        .collect();
    let packages: BTreeSet<_> = lacks_now
        .iter()
        .flat_map(|(tool, _)| tool.packages())
        .copied()
        .collect();
    let packages = Vec::from_iter(packages).join(" ");
    let remedy = format!(
        "{}. As root on Debian the lab installs by itself; otherwise install the equivalent of: {}",
        reasons.join("; "),
        packages
    );
    if !rustix::process::geteuid().is_root() {
        bail!("{remedy}");
    }
    let source = sources::debian_source().with_context(|| remedy.clone())?;
    install(&cache, &source.suites, &lacks_now).context(remedy)?;
    match lacks(tools).first() {
        None => Ok(()),
        Some((_, reason)) => bail!("after installing {packages}: {reason}"),
    }
}

fn lacks(tools: &[HostTool]) -> Vec<(HostTool, String)> {
    tools
        .iter()
        .filter_map(|tool| Some((*tool, tool.lack()?)))
        .collect()
}

fn install(cache: &Cache, machine_suites: &[String], lacks: &[(HostTool, String)]) -> Result<()> {
    let release = Release::of_this_machine()?;
    let backports = Suite::BookwormBackports.name();
    let on_bookworm = release.codename == Suite::Bookworm.name();
    let mut suites: Vec<&str> = machine_suites.iter().map(String::as_str).collect();
    if on_bookworm && !suites.contains(&backports) {
        suites.push(backports);
    }
    let apt = PrivateApt::of_suites(cache, "host", &suites)?;
    // QEMU is not installed: mmdebstrap brings the one that fits, and unpacks it.
    let installed: BTreeSet<&str> = lacks
        .iter()
        .flat_map(|(tool, _)| match tool {
            HostTool::Qemu(_) => HostTool::Mmdebstrap.packages(),
            tool => tool.packages(),
        })
        .copied()
        .collect();
    // Only libvirt comes from backports: the rest shall not replace libraries of this machine.
    let newer = HostTool::Libvirt.packages();
    let (newer, others): (Vec<&str>, Vec<&str>) = installed
        .into_iter()
        .partition(|package| newer.contains(package));
    let newer_options: &[&str] = if on_bookworm { &["-t", backports] } else { &[] };
    for (packages, options) in [(others, &[][..]), (newer, newer_options)] {
        if packages.is_empty() {
            continue;
        }
        let mut install = apt.command("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive");
        install.args([
            "-q",
            "-y",
            "--no-install-recommends",
            "-o",
            "DPkg::Lock::Timeout=600",
        ]);
        install.args(options).arg("install").args(&packages);
        let what = format!("installing {} (once)", packages.join(" "));
        command::step(&what, None, || command::run(&mut install, INSTALL_LIMIT))?;
    }
    for (tool, _) in lacks {
        if let HostTool::Qemu(starter) = tool {
            qemu::fetch(cache, *starter)?;
        }
    }
    Ok(())
}
