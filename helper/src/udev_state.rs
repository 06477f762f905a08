//! What udev has handled by now, as its files say.

use std::path::PathBuf;

use tandem_core::link::Link;

use crate::system_files::SystemFiles;

/// udev's database: a file for each device it has handled (systemd, `sd-device`, 257).
const DATABASE: &str = "/run/udev/data";
/// Is there while udev has events to handle (`udev_queue_get_queue_is_empty`, src/libudev/libudev-queue.c, systemd 257).
const QUEUE: &str = "/run/udev/queue";

/// udevd runs (systemd 257).
pub(crate) fn is_running(files: &SystemFiles) -> bool {
    files.exists("/run/udev/control")
}

/// A link's entry in udev's database.
pub(crate) fn entry_of(files: &SystemFiles, link: &Link) -> PathBuf {
    files.path(&format!("{DATABASE}/n{}", link.ifindex))
}

/// udev has handled this link: it has its name and its marks.
pub(crate) fn has_handled(files: &SystemFiles, link: &Link) -> bool {
    entry_of(files, link).exists()
}

/// udev has events to handle: at boot it loads the NICs' drivers.
pub(crate) fn is_at_work(files: &SystemFiles) -> bool {
    files.exists(QUEUE)
}
