//! Everything the lab needs and does not build: kernels, busybox, host tools.
//!
//! All of it comes from the Debian archive the machine already trusts, is checked by apt against the
//! archive's signature, and is kept under `target/lab/`.

pub mod apt;
pub mod cache;
pub mod cargo;
pub mod host_tools;
pub mod kernel;
pub mod packages;
pub mod past;
pub mod qemu;
pub mod sources;

pub use apt::Suite;
pub use cache::Cache;
pub use host_tools::HostTool;
pub use kernel::{Kernel, KernelFiles};

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Unpacking one package takes at most this long.
const UNPACK_LIMIT: Duration = Duration::from_secs(300);

/// The statically linked busybox of the small guest: `LAB_BUSYBOX`, or Debian's `busybox-static`.
pub fn busybox() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LAB_BUSYBOX") {
        return Ok(path.into());
    }
    let folder = unpacked("busybox-static", Suite::Trixie, |_| {
        Ok(vec!["busybox-static".into()])
    })?;
    ["usr/bin/busybox", "bin/busybox"]
        .iter()
        .map(|path| folder.join(path))
        .find(|path| path.is_file())
        .context("Debian's busybox-static holds no busybox")
}

/// The folder under the cache that holds the unpacked packages `choose` names, fetched from `suite`
/// when it is not there yet. Nothing is installed.
pub fn unpacked(
    name: &str,
    suite: Suite,
    choose: impl FnOnce(&apt::PrivateApt) -> Result<Vec<String>>,
) -> Result<PathBuf> {
    let cache = Cache::open()?;
    cache.folder(name, |folder| {
        let apt = apt::PrivateApt::of_suite(&cache, suite)?;
        let packages = choose(&apt)?;
        let what = format!("fetching {} from {suite} (once)", packages.join(", "));
        crate::command::step(&what, Some(folder), || {
            for archive in apt.download(&packages, &folder.join("debs"))? {
                let mut unpack = std::process::Command::new("dpkg-deb");
                unpack.arg("-x").arg(&archive).arg(folder);
                crate::command::run(&mut unpack, UNPACK_LIMIT)?;
            }
            Ok(())
        })?;
        std::fs::remove_dir_all(folder.join("debs")).context("cannot remove fetched packages")
    })
}
