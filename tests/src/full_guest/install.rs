//! What of Tandem a package installs, and where. The guest gets the same files in the same places.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::artifacts::cache;
use crate::tandem;

/// A file as it is installed.
#[derive(Debug, Clone)]
pub(super) struct Installed {
    /// Its path in the guest.
    pub(super) path: String,
    /// Its bytes.
    pub(super) data: Vec<u8>,
    /// Whether it may be executed.
    pub(super) executable: bool,
}

/// Source in the workspace, and path of the installed file.
pub const FILES: &[(&str, &str)] = &[
    (
        "helper/systemd/tandem.service",
        "/usr/lib/systemd/system/tandem.service",
    ),
    (
        "helper/systemd/tandem-nics.service",
        "/usr/lib/systemd/system/tandem-nics.service",
    ),
    (
        "helper/systemd/tandem-refresh.path",
        "/usr/lib/systemd/system/tandem-refresh.path",
    ),
    (
        "helper/systemd/tandem-refresh.service",
        "/usr/lib/systemd/system/tandem-refresh.service",
    ),
    (
        "helper/systemd/networking.conf",
        "/usr/lib/systemd/system/networking.service.d/tandem.conf",
    ),
    (
        "helper/systemd/dhcpcd.conf",
        "/usr/lib/systemd/system/dhcpcd.service.d/tandem.conf",
    ),
    (
        "helper/systemd/tandem.sysusers.conf",
        "/usr/lib/sysusers.d/tandem.conf",
    ),
    (
        "udev-rules/10-tandem-unmanaged.rules",
        "/usr/lib/udev/rules.d/10-tandem-unmanaged.rules",
    ),
    (
        "udev-rules/60-tandem.rules",
        "/usr/lib/udev/rules.d/60-tandem.rules",
    ),
    (
        "udev-rules/01-tandem-unmanaged.network",
        "/usr/lib/systemd/network/01-tandem-unmanaged.network",
    ),
];

/// What the package has for dracut.
pub const DRACUT_FILES: &[(&str, &str)] = &[(
    "packaging/dracut/module-setup.sh",
    "/usr/lib/dracut/modules.d/35tandem/module-setup.sh",
)];

/// The path in the workspace of an installed file's source.
pub fn source(relative: &str) -> PathBuf {
    cache::workspace_folder().join(relative)
}

/// All files, the release binary first.
pub(super) fn files() -> Result<Vec<Installed>> {
    let read = |path: PathBuf| {
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut files = vec![Installed {
        path: tandem::PROGRAM.to_owned(),
        data: read(tandem::binary()?)?,
        executable: true,
    }];
    for (from, to) in FILES {
        files.push(Installed {
            path: (*to).to_owned(),
            data: read(source(from))?,
            executable: false,
        });
    }
    Ok(files)
}
