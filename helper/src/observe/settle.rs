//! New links wait until udev has finished with them.
//!
//! udev renames a new interface, and kernels before 6.2 refuse that once it is up
//! (`dev_change_name`, `net/core/dev.c`, 6.1), so a link that is taken into a bond
//! too early keeps a name that nobody expects. A new link is therefore not
//! reported before it is in udev's database, or for at most [`PATIENCE`].
//! The monitor for it is open only while a link waits: an open one would wake the
//! service for each unrelated interface.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tandem_core::link::{Link, LinkKind};
use tandem_core::types::Ifindex;
use tokio::time::Instant;
use udev::MonitorSocket;

use super::udev::{drain_monitor, is_running, monitor};
use crate::readable::Readable;

/// Longest wait for udev: where udevd hangs, the guest gets its VF all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// Links that wait for udev.
pub(super) struct Settling {
    udev_run: PathBuf,
    waiting: BTreeMap<Ifindex, Instant>,
    monitor: Option<Readable<MonitorSocket>>,
}

impl std::fmt::Debug for Settling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settling")
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl Settling {
    /// `udev_run` is udev's runtime folder.
    pub(super) fn new(udev_run: PathBuf) -> Self {
        Self {
            udev_run,
            waiting: BTreeMap::new(),
            monitor: None,
        }
    }

    /// True if this link, not reported so far, has to wait. [`Settling::readable`]
    /// or [`Settling::deadline`] then tell when to read it again.
    pub(super) fn has_to_wait(&mut self, link: &Link, now: Instant) -> bool {
        let waits = self.is_waited_for(link, now);
        if !waits {
            self.forget(link.ifindex);
        }
        waits
    }

    fn is_waited_for(&mut self, link: &Link, now: Instant) -> bool {
        let in_use = link.admin_up || link.controller.is_some();
        if link.kind != LinkKind::Physical || in_use || self.is_finished(link.ifindex) {
            return false;
        }
        let deadline = *self.waiting.entry(link.ifindex).or_insert(now + PATIENCE);
        if deadline <= now {
            tracing::warn!(
                link = %link.name,
                "udev did not finish with the new interface in time; going on without it"
            );
            return false;
        }
        if self.monitor.is_some() {
            return true;
        }
        match monitor(&["net"]) {
            Ok(monitor) => self.monitor = Some(monitor),
            Err(error) => {
                tracing::warn!(link = %link.name, %error, "cannot wait for udev");
                return false;
            }
        }
        // It may have finished just before the monitor listened.
        !self.is_finished(link.ifindex)
    }

    /// A link is gone, or need not wait any longer.
    pub(super) fn forget(&mut self, link: Ifindex) {
        self.waiting.remove(&link);
        if self.waiting.is_empty() {
            self.monitor = None;
        }
    }

    /// When the patience with the first link ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().min().copied()
    }

    /// Links whose time is up.
    pub(super) fn overdue(&self, now: Instant) -> impl Iterator<Item = Ifindex> {
        self.waiting
            .iter()
            .filter(move |(_, deadline)| **deadline <= now)
            .map(|(link, _)| *link)
    }

    /// Waits for an event of udev. Safe to cancel.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match &self.monitor {
            Some(monitor) => monitor.readable().await,
            None => std::future::pending().await,
        }
    }

    /// Reads the events there are and returns the links to read again: all that
    /// wait, so that a lost event does no harm.
    pub(super) fn drain(&mut self) -> io::Result<Vec<Ifindex>> {
        if let Some(monitor) = &mut self.monitor {
            drain_monitor(monitor, |_| ())?;
        }
        Ok(self.waiting.keys().copied().collect())
    }

    /// Without udevd there is nobody to wait for. The database entry is written
    /// after the rename (`event_execute_rules`, systemd 252).
    fn is_finished(&self, link: Ifindex) -> bool {
        !is_running(&self.udev_run) || self.udev_run.join(format!("data/n{link}")).exists()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn link(kind: LinkKind) -> Link {
        Link::named(Ifindex(7), "eth0".parse().unwrap(), kind)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn waits_only_for_what_udev_will_still_touch() {
        let run = tempfile::tempdir().unwrap();
        let mut settling = Settling::new(run.path().to_owned());
        let new = link(LinkKind::Physical);
        let now = Instant::now();
        assert!(!settling.has_to_wait(&new, now), "no udevd");

        fs::write(run.path().join("control"), "").unwrap();
        assert!(!settling.has_to_wait(&link(LinkKind::Bond), now));
        let mut in_use = new.clone();
        in_use.admin_up = true;
        assert!(!settling.has_to_wait(&in_use, now));

        assert!(settling.has_to_wait(&new, now));
        assert_eq!(settling.deadline(), Some(now + PATIENCE));
        assert_eq!(settling.overdue(now).count(), 0);
        assert_eq!(settling.drain().unwrap(), [new.ifindex]);

        fs::create_dir(run.path().join("data")).unwrap();
        fs::write(run.path().join("data/n7"), "I:1\n").unwrap();
        assert!(!settling.has_to_wait(&new, now));
        assert_eq!(settling.deadline(), None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn patience_ends() {
        let run = tempfile::tempdir().unwrap();
        fs::write(run.path().join("control"), "").unwrap();
        let mut settling = Settling::new(run.path().to_owned());
        let new = link(LinkKind::Physical);
        let now = Instant::now();
        assert!(settling.has_to_wait(&new, now));
        let later = now + PATIENCE;
        assert_eq!(settling.overdue(later).collect::<Vec<_>>(), [new.ifindex]);
        assert!(!settling.has_to_wait(&new, later));
        assert_eq!(settling.deadline(), None);
    }
}
