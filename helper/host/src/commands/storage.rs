//! Disks that libvirt would refuse to leave behind (`qemuMigrationSrcIsSafe`, `src/qemu/qemu_migration.c`, libvirt
//! 11.3), which it tells only once the VFs have gone. Of its other rule, a cache mode that is neither `none` nor
//! `directsync`, it makes no use with a QEMU that drops its caches by itself, as all do since 4.0.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::evacuate::{Cause, CauseCode, Spec};
use crate::hypervisor::{DomainFacts, FileDisk, Look, MigrateOptions, is_local_uri};
use crate::words::printable;

/// What a file system may take to say what it is.
const STATFS_LIMIT: Duration = Duration::from_secs(5);
/// Numbers of file systems that no other host has (`include/uapi/linux/magic.h`, Linux 6.12; ZFS by its own sources).
/// libvirt takes all for local that it does not know as shared, so one that is missing here is left to it.
const LOCAL: [(u32, &str); 7] = [
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlay"),
    (0xF2F5_2010, "f2fs"),
    (0x2FC1_2FC1, "zfs"),
];

/// A disk that stays behind.
struct Left {
    disk: FileDisk,
    /// It came from a pool. libvirt asks for its file system only where it is a file, and not for a block device of a
    /// pool of those.
    is_volume: bool,
}

/// What stands in the way; nothing where this program is not on the machine of the disks.
pub(super) async fn not_shared(
    source: &dyn Look,
    spec: &Spec,
    facts: &DomainFacts,
    options: &MigrateOptions,
) -> Option<Cause> {
    if options.is_unsafe || !is_local_uri(&spec.source_uri) {
        return None;
    }
    let is_left = |target: &str| !is_copied(options, target);
    let files = facts.disks.iter().filter(|disk| is_left(&disk.target));
    let files = files.map(|disk| Left {
        disk: disk.clone(),
        is_volume: false,
    });
    let mut left: Vec<Left> = files.collect();
    for volume in facts.volumes.iter().filter(|disk| is_left(&disk.target)) {
        // One whose path is not told is left to libvirt.
        if let Ok(path) = source.volume_path(volume).await {
            let target = volume.target.clone();
            left.push(Left {
                disk: FileDisk { target, path },
                is_volume: true,
            });
        }
    }
    let (disk, kind) = first_local(left)?;
    let message = format!(
        "disk {} of domain {} is {} on a file system of this host alone ({kind}), and libvirt migrates only with \
         --copy-storage-all or --copy-storage-inc, or with --unsafe if the destination has the same file by other means",
        printable(&disk.target),
        printable(&spec.domain),
        printable(&disk.path.to_string_lossy())
    );
    Some(Cause::new(CauseCode::DiskNotShared, message))
}

/// The content of the disk of that name is to come along.
pub(super) fn is_copied(options: &MigrateOptions, target: &str) -> bool {
    let named = options.disks.as_deref();
    let is_named = named.is_none_or(|names| names.split(',').any(|name| name == target));
    options.storage.is_some() && is_named
}

/// The first disk that no other host has. Of a file system that does not answer nothing is known.
fn first_local(disks: Vec<Left>) -> Option<(FileDisk, &'static str)> {
    let (sender, found) = mpsc::channel();
    // It may hang for good in the kernel, over an NFS server that is gone.
    std::thread::spawn(move || {
        let found = disks.into_iter().find_map(|Left { disk, is_volume }| {
            if is_volume && !disk.path.is_file() {
                return None;
            }
            let kind = local_kind(&disk.path)?;
            Some((disk, kind))
        });
        // Nobody waits any more.
        let _ = sender.send(found);
    });
    found.recv_timeout(STATFS_LIMIT).ok().flatten()
}

fn local_kind(path: &Path) -> Option<&'static str> {
    let number = u32::try_from(rustix::fs::statfs(path).ok()?.f_type).ok()?;
    let known = LOCAL.iter().find(|(local, _)| *local == number);
    known.map(|(_, name)| *name)
}
