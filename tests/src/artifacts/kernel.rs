//! Guest kernels: Debian's packages, unpacked and never installed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use super::apt::{PrivateApt, Suite};

/// Which Linux the guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kernel {
    /// 6.1, of Debian 12.
    V6_1,
    /// 6.12, of Debian 13: what the lab uses unless told otherwise.
    #[default]
    V6_12,
    /// 7.3, of Debian 13's backports.
    V7_3,
}

impl Kernel {
    /// All kernels the lab knows.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_3];

    /// The kernel named by the environment (`LAB_KERNEL_VERSION=6.1`, `6.12` or `7.3`), or the default.
    pub fn from_environment() -> Result<Self> {
        let Ok(wanted) = std::env::var("LAB_KERNEL_VERSION") else {
            return Ok(Self::default());
        };
        wanted
            .parse()
            .with_context(|| format!("LAB_KERNEL_VERSION={wanted}"))
    }

    /// The version's first two numbers.
    pub fn version(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_3 => "7.3",
        }
    }

    fn suite(self) -> Suite {
        match self {
            Self::V6_1 => Suite::Bookworm,
            Self::V6_12 => Suite::Trixie,
            Self::V7_3 => Suite::TrixieBackports,
        }
    }

    /// The kernel's files, fetched if need be. `LAB_KERNEL` and `LAB_MODULES` together override all versions.
    pub fn files(self) -> Result<KernelFiles> {
        match (
            std::env::var_os("LAB_KERNEL"),
            std::env::var_os("LAB_MODULES"),
        ) {
            (Some(image), Some(modules)) => {
                return KernelFiles::named(image.into(), modules.into());
            }
            (None, None) => {}
            _ => bail!("LAB_KERNEL and LAB_MODULES belong together: set both or neither"),
        }
        let name = format!("kernel-{}", self.version());
        let folder = super::unpacked(&name, self.suite(), image_packages)?;
        KernelFiles::find(&folder)
    }
}

impl FromStr for Kernel {
    type Err = anyhow::Error;

    /// The version's first two numbers, such as `6.12`.
    fn from_str(wanted: &str) -> Result<Self> {
        let mut known = Self::ALL.into_iter();
        known
            .find(|kernel| kernel.version() == wanted)
            .context("the lab knows 6.1, 6.12 and 7.3")
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {}", self.version())
    }
}

/// The packages with image and modules that the meta package `linux-image-amd64` leads to.
fn image_packages(apt: &PrivateApt) -> Result<Vec<String>> {
    // Of 7.3, the list of what is built in lies in linux-base-RELEASE.
    const PREFIXES: [&str; 4] = [
        "linux-image-",
        "linux-binary-",
        "linux-modules-",
        "linux-base-",
    ];
    let mut found: Vec<String> = Vec::new();
    let mut open = vec!["linux-image-amd64".to_owned()];
    while let Some(package) = open.pop() {
        for next in apt.depends(&package)? {
            if PREFIXES.iter().any(|prefix| next.starts_with(prefix)) && !found.contains(&next) {
                found.push(next.clone());
                open.push(next);
            }
        }
    }
    if found.is_empty() {
        bail!("linux-image-amd64 leads to no kernel package");
    }
    Ok(found)
}

/// An unpacked kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFiles {
    /// The bootable image.
    pub image: PathBuf,
    /// The folder of its modules, `…/lib/modules/RELEASE`.
    pub modules: PathBuf,
    /// The kernel's full release, such as `6.12.1-amd64`.
    pub release: String,
}

impl KernelFiles {
    fn named(image: PathBuf, modules: PathBuf) -> Result<Self> {
        let release = modules
            .file_name()
            .and_then(|name| name.to_str())
            .context("LAB_MODULES must name the folder lib/modules/RELEASE of the kernel")?
            .to_owned();
        for path in [&image, &modules] {
            if !path.exists() {
                bail!(
                    "{} (of LAB_KERNEL and LAB_MODULES) does not exist",
                    path.display()
                );
            }
        }
        Ok(Self {
            image,
            modules,
            release,
        })
    }

    fn find(root: &Path) -> Result<Self> {
        for parent in ["usr/lib/modules", "lib/modules"] {
            let Ok(mut entries) = fs::read_dir(root.join(parent)) else {
                continue;
            };
            let Some(Ok(entry)) = entries.next() else {
                continue;
            };
            let release = entry.file_name().to_string_lossy().into_owned();
            let modules = entry.path();
            let image = [
                root.join(format!("boot/vmlinuz-{release}")),
                modules.join("vmlinuz"),
            ]
            .into_iter()
            .find(|path| path.is_file())
            .with_context(|| format!("no kernel image for {release} under {}", root.display()))?;
            return Ok(Self {
                image,
                modules,
                release,
            });
        }
        bail!("no kernel modules under {}", root.display())
    }
}
