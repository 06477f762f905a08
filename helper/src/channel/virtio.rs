//! The virtio-serial port to the host.
//!
//! Facts of `drivers/char/virtio_console.c` (6.12): while nobody on the host has the
//! port open, `read` gives 0, `write` gives `EAGAIN` and `poll` reports a hang-up,
//! all of it lasting. Each change of that, data, room for data and the removal of the
//! port wake its wait queue. So an edge-triggered epoll reports every change once
//! and nothing between. It is a nested one, because tokio takes a hang-up for final.
//! After a removal, `read` and `write` give `ENODEV`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::task::{Context, Poll, ready};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::OFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::peer::Transport;

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    /// The VM has none of that name.
    #[error(
        "the VM has no virtio-serial port `{name}`: the host can't be told anything and can't ask; give the VM a channel of that name"
    )]
    NotThere {
        /// The port's name.
        name: String,
    },
    /// Another program has it open.
    #[error("{} is in use by another program; stop that one", path.display())]
    InUse {
        /// The device.
        path: PathBuf,
    },
    /// It can't be opened.
    #[error("{} can't be opened: {source}", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The folders in which the kernel shows its ports.
#[derive(Debug, Clone)]
pub(super) struct PortFolders {
    /// `/sys/class/virtio-ports`.
    pub(super) class: PathBuf,
    /// `/dev`.
    pub(super) devices: PathBuf,
}

impl Default for PortFolders {
    fn default() -> Self {
        Self {
            class: PathBuf::from("/sys/class/virtio-ports"),
            devices: PathBuf::from("/dev"),
        }
    }
}

impl PortFolders {
    /// The device of the port of that name.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.class).ok()?;
        let entry = entries.flatten().find(|entry| {
            let shown = fs::read_to_string(entry.path().join("name"));
            shown.is_ok_and(|shown| shown.trim_end() == name)
        })?;
        Some(self.devices.join(entry.file_name()))
    }
}

/// An open port.
#[derive(Debug)]
pub(super) struct Port {
    file: File,
    events: AsyncFd<OwnedFd>,
    readable: bool,
    writable: bool,
    hung_up: bool,
}

impl Port {
    /// Opens the port of that name, and so tells the host that somebody is there.
    pub(super) fn open(folders: &PortFolders, name: &str) -> Result<Self, PortError> {
        let path = folders.find(name).ok_or_else(|| PortError::NotThere {
            name: name.to_owned(),
        })?;
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&path);
        match opened.and_then(Self::new) {
            Ok(port) => Ok(port),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(PortError::NotThere {
                name: name.to_owned(),
            }),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(PortError::InUse { path }),
            Err(source) => Err(PortError::Open { path, source }),
        }
    }

    /// Takes an open, nonblocking file.
    fn new(file: File) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &file,
            EventData::new_u64(0),
            EventFlags::IN | EventFlags::OUT | EventFlags::ET,
        )?;
        let mut port = Self {
            file,
            events: watch(epoll)?,
            readable: false,
            writable: false,
            hung_up: false,
        };
        port.take_event()?;
        Ok(port)
    }

    /// Reads and notes one event; false if there was none.
    fn take_event(&mut self) -> io::Result<bool> {
        let mut events = Vec::with_capacity(1);
        let now = rustix::event::Timespec::default();
        epoll::wait(
            self.events.get_ref(),
            spare_capacity(&mut events),
            Some(&now),
        )?;
        let Some(event) = events.first() else {
            return Ok(false);
        };
        let flags = event.flags;
        self.hung_up = flags.contains(EventFlags::HUP);
        self.readable |= flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
        self.writable |= flags.intersects(EventFlags::OUT | EventFlags::ERR);
        Ok(true)
    }
}

#[expect(
    unsafe_code,
    reason = "tokio asks for a promise that the descriptor stays the same"
)]
fn watch(epoll: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, never changes, and belongs to the `AsyncFd` from here on.
    let watched = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) };
    Ok(watched?)
}

/// Reads or writes if the last event said so; notes when it can't be done any more.
fn attempt(
    possible: &mut bool,
    mut operation: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    while *possible {
        match operation() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => *possible = false,
            result => return Poll::Ready(result),
        }
    }
    Poll::Pending
}

impl Transport for Port {
    fn refresh(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Poll::Ready(guard) = self.events.poll_read_ready(cx) {
            // Cleared first: an event that comes after `take_event` sets it again.
            guard?.clear_ready();
            while self.take_event()? {}
        }
        Ok(())
    }

    fn hung_up(&self) -> bool {
        self.hung_up
    }

    fn poll_read(&mut self, _: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = ready!(attempt(&mut self.readable, || self.file.read(bytes)))?;
        if count == 0 {
            self.readable = false;
            self.hung_up = true;
        }
        Poll::Ready(Ok(count))
    }

    /// A full queue can also show as 0 bytes written (`__send_to_port`).
    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(attempt(&mut self.writable, || self.file.write(bytes)))?;
        if count == 0 {
            self.writable = false;
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }
}
