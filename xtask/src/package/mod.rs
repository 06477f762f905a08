//! `cargo xtask package`: what a distribution installs, as .deb and .rpm.
//!
//! Which files a package has, and where, stands once: in its Cargo.toml, for cargo-deb. The .rpm has the same.

mod contents;
mod deb;
mod generated;
mod rpm;
mod third_party;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use tandem_lab::artifacts::cache;
use tandem_lab::artifacts::cargo::{self, Profile};
use tandem_lab::artifacts::host_tools::{self, HostTool};

/// Where the packages are, below cargo's folder.
const FOLDER: &str = "packages";

/// What `cargo xtask package` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which; without, all
    #[arg(value_enum, value_name = "PACKAGE")]
    packages: Vec<Package>,
    /// Only as .deb
    #[arg(long, conflicts_with = "rpm")]
    deb: bool,
    /// Only as .rpm
    #[arg(long)]
    rpm: bool,
    /// Look at what was built, by lintian and rpm
    #[arg(long)]
    check: bool,
    /// Take a dev build of tandem-host: built sooner, and larger; not for a host
    #[arg(long)]
    debug_host: bool,
}

/// A package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Package {
    /// For guests
    Tandem,
    /// For their hosts
    TandemHost,
}

impl Package {
    /// Of the package and of its program.
    fn name(self) -> &'static str {
        match self {
            Self::Tandem => "tandem",
            Self::TandemHost => "tandem-host",
        }
    }

    /// Cargo's package.
    fn crate_name(self) -> &'static str {
        match self {
            Self::Tandem => "tandem-guest",
            Self::TandemHost => "tandem-host",
        }
    }
}

/// A package as it is built.
#[derive(Debug, Clone)]
struct Build {
    package: Package,
    profile: Profile,
}

impl Build {
    /// Cargo's name of the profile.
    fn profile_name(&self) -> &'static str {
        match self.profile {
            Profile::Release => "release",
            Profile::Dev => "dev",
        }
    }
}

/// Builds what was asked for, names each file with its size, and looks at it if that was asked for too.
///
/// # Errors
/// Something can't be built, or is not as it should be.
pub(crate) fn run(options: &Options) -> Result<()> {
    let packages = match options.packages.as_slice() {
        [] => Package::value_variants(),
        some => some,
    };
    let mut tools = vec![HostTool::LibudevDev, HostTool::Xz];
    if options.check && !options.rpm {
        tools.push(HostTool::Lintian);
    }
    if options.check && !options.deb {
        tools.push(HostTool::Rpm);
    }
    host_tools::ensure(&tools)?;
    let folder = cache::target_folder().join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for &package in packages {
        let is_debug = options.debug_host && package == Package::TandemHost;
        let build = Build {
            package,
            profile: if is_debug {
                Profile::Dev
            } else {
                Profile::Release
            },
        };
        let program = cargo::program(package.crate_name(), package.name(), build.profile)?;
        let built = program.parent().context("a program without a folder")?;
        generated::write(package, &built.join("packaging"))?;
        if !options.rpm {
            let file = deb::build(&build, &folder)?;
            tell(&file)?;
            if options.check {
                deb::check(&file)?;
            }
        }
        if !options.deb {
            let file = rpm::build(&build, built, &folder)?;
            tell(&file)?;
            if options.check {
                rpm::check(&build, built, &file)?;
            }
        }
    }
    Ok(())
}

fn tell(file: &Path) -> Result<()> {
    let bytes = fs::metadata(file)
        .with_context(|| format!("{} was not built", file.display()))?
        .len();
    let top = cache::workspace_folder();
    let shown = file.strip_prefix(&top).unwrap_or(file).display();
    println!("{shown}: {} KiB", bytes.div_ceil(1024));
    Ok(())
}

/// Removes what an earlier version left: `packages/NAME_*.deb` names one file.
fn remove_older(folder: &Path, is_older: impl Fn(&str) -> bool) -> Result<()> {
    for path in listed(folder, is_older)? {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// The one file in the folder that is meant.
fn only(folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let mut found = listed(folder, is_it)?.into_iter();
    found
        .next()
        .with_context(|| format!("nothing was built into {}", folder.display()))
}

fn listed(folder: &Path, is_meant: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let meant = entries
        .iter()
        .filter(|entry| entry.file_name().to_str().is_some_and(&is_meant));
    Ok(meant.map(fs::DirEntry::path).collect())
}
