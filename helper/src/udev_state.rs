//! What udev has handled by now, as its files say.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tandem_core::link::Link;

use crate::system_files::SystemFiles;

/// udev's database: a file for each device it has handled (systemd, `sd-device`, 257).
const DATABASE: &str = "/run/udev/data";
/// Is there while udev has events to handle (`udev_queue_get_queue_is_empty`, src/libudev/libudev-queue.c, systemd 257).
const QUEUE: &str = "/run/udev/queue";

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

/// udev's events, each once it has handled it.
pub(crate) struct Handled(udev::MonitorSocket);

impl Handled {
    pub(crate) fn listen() -> io::Result<Self> {
        udev::MonitorBuilder::new()?.listen().map(Self)
    }

    /// Waits for one, at most `limit`, and takes all there are.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for _ in self.0.iter() {}
        Ok(())
    }
}
