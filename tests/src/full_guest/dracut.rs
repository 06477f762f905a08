//! The initramfs that dracut makes in the guest's own tree, with what the package brings for it, in place of the lab's.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{FullGuest, PAYLOAD, Rootfs};
use crate::artifacts::KernelFiles;
use crate::command;
use crate::initramfs::Initramfs;

/// A module of dracut that gives the real root: the image below, a layer over it, and what the test brings along.
const MODULE: &str = "/usr/lib/dracut/modules.d/99lab";
const MODULE_SETUP: &str = include_str!("dracut/module-setup.sh");
const ROOT_HOOK: &str = include_str!("dracut/root.sh");
const MOUNT_HOOK: &str = include_str!("dracut/mount.sh");
const DRACUT_LIMIT: Duration = Duration::from_secs(400);

/// Runs dracut in a copy of the tree, in mounts of its own that end with it.
const SCRIPT: &str = "set -e
mount -t tmpfs tmpfs \"$WORK\"
mkdir \"$WORK/upper\" \"$WORK/work\" \"$WORK/root\"
mount -t overlay -o \"lowerdir=$TREE,upperdir=$WORK/upper,workdir=$WORK/work\" overlay \"$WORK/root\"
cp -a \"$PAYLOAD/.\" \"$WORK/root/\"
for folder in proc sys dev; do mount --rbind /$folder \"$WORK/root/$folder\"; done
chroot \"$WORK/root\" dracut --force --no-hostonly --no-compress --kver \"$RELEASE\" \
  --add \"lab network $NETWORK\" --omit \"$OMITTED\" --add-drivers \"$DRIVERS\" /initramfs
cp \"$WORK/root/initramfs\" \"$MADE\"";

/// What configures the network in dracut's initramfs (`rd.neednet=1 ip=dhcp`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyNetwork {
    /// systemd-networkd.
    Networkd,
    /// NetworkManager.
    NetworkManager,
}

impl EarlyNetwork {
    /// dracut's module for it, and for the other.
    fn modules(self) -> (&'static str, &'static str) {
        match self {
            Self::Networkd => ("systemd-networkd", "network-manager"),
            Self::NetworkManager => ("network-manager", "systemd-networkd"),
        }
    }
}

/// Writes the initramfs, and gives its path.
pub(super) fn write(
    guest: &FullGuest<'_>,
    network: EarlyNetwork,
    kernel: &KernelFiles,
    rootfs: &Rootfs,
) -> Result<PathBuf> {
    let folder = guest.lab.inner().new_folder("dracut")?;
    let payload = folder.join("payload");
    for (path, file) in &guest.files {
        put(&payload, path, &file.data, file.executable)?;
    }
    for (name, text) in [
        ("module-setup.sh", MODULE_SETUP),
        ("root.sh", ROOT_HOOK),
        ("mount.sh", MOUNT_HOOK),
    ] {
        put(&payload, &format!("{MODULE}/{name}"), text.as_bytes(), true)?;
    }
    for (path, target) in &guest.links {
        let link = payload.join(path.trim_start_matches('/'));
        fs::create_dir_all(link.parent().context("a link has no folder")?)?;
        symlink(target, link).with_context(|| format!("cannot make {path}"))?;
    }
    let (work, made) = (folder.join("work"), folder.join("made"));
    fs::create_dir(&work)?;
    let (wanted, omitted) = network.modules();
    let mut dracut = Command::new("unshare");
    dracut.args(["--mount", "sh", "-c", SCRIPT]);
    dracut.env("WORK", &work).env("MADE", &made);
    dracut
        .env("TREE", rootfs.tree())
        .env("PAYLOAD", &payload)
        .env("RELEASE", &kernel.release)
        .env("NETWORK", wanted)
        .env("OMITTED", omitted)
        .env("DRIVERS", super::rootfs::DRACUT_MODULES.join(" "));
    let what = format!("making an initramfs with dracut and {wanted}");
    command::step(&what, Some(&made), || {
        command::run(&mut dracut, DRACUT_LIMIT)
    })?;
    // The kernel unpacks one after the other: the second is what the test brings along.
    let path = folder.join("initramfs");
    let mut image = fs::read(&made).context("dracut made nothing")?;
    image.resize(image.len().next_multiple_of(4), 0);
    let second = folder.join("second");
    brought_along(guest).write(&second)?;
    image.extend(fs::read(second)?);
    fs::write(&path, image).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn brought_along(guest: &FullGuest<'_>) -> Initramfs {
    let mut initramfs = Initramfs::new();
    super::add_payload(guest, &mut initramfs);
    initramfs.folder(PAYLOAD);
    initramfs
}

fn put(folder: &Path, path: &str, data: &[u8], executable: bool) -> Result<()> {
    let path = folder.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().context("a file has no folder")?)?;
    fs::write(&path, data).with_context(|| format!("cannot write {}", path.display()))?;
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(())
}
