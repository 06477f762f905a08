//! The virtio-serial port to the host.
//!
//! Facts of `drivers/char/virtio_console.c` (6.12): while nobody on the host has the
//! port open, `read` gives 0, `write` gives `EAGAIN` and `poll` reports a hang-up,
//! all of it lasting. Each change of that, data, room for data and the removal of the
//! port wake its wait queue. So an edge-triggered epoll reports every change once
//! and nothing between. It is a nested one, because tokio takes a hang-up for final.
//! After a removal, `read` and `write` give `ENODEV`.
//!
//! The news that a host has come travels on another queue than its bytes and often
//! arrives after them (measured with QEMU 10). So bytes are taken and answered while
//! the port still looks hung up, and the answer waits there; only the moment in which
//! a host leaves ends its session. A host that leaves and returns within one wake-up
//! is not seen to have left; it resynchronises as after a migration.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::task::{Context, Poll, ready};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;

use super::peer::Transport;
use crate::readable::watch;

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
pub(super) struct AgentPort {
    file: File,
    events: AsyncFd<OwnedFd>,
    readable: bool,
    writable: bool,
    hung_up: bool,
}

impl AgentPort {
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

    /// Nobody on the host has the port open, as far as the guest knows.
    pub(super) fn hung_up(&self) -> bool {
        self.hung_up
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

impl Transport for AgentPort {
    const HOST: bool = true;

    fn refresh(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let was_hung_up = self.hung_up;
        while let Poll::Ready(guard) = self.events.poll_read_ready(cx) {
            // Cleared first: an event that comes after `take_event` sets it again.
            guard?.clear_ready();
            while self.take_event()? {}
        }
        Ok(self.hung_up && !was_hung_up)
    }

    /// Never gives 0 bytes: that nobody is there was in the event already.
    fn poll_read(&mut self, _: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = ready!(attempt(&mut self.readable, || self.file.read(bytes)))?;
        if count == 0 {
            self.readable = false;
            return Poll::Pending;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::dispatcher::Dispatcher;
    use crate::channel::peer::{Peer, Turn};
    use std::future::poll_fn;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use tandem_core::input::Input;
    use tandem_core::policy::HostMay;
    use tandem_core::{Machine, Output, Time};
    use tandem_wire::message::ReplyTo;

    use crate::channel::input::ChannelInput;

    #[test]
    fn a_port_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let folders = PortFolders {
            class: folder.path().join("virtio-ports"),
            devices: folder.path().join("dev"),
        };
        assert_eq!(folders.find("mine"), None);
        for (port, name) in [
            ("vport0p1", "org.qemu.guest_agent.0\n"),
            ("vport1p7", "mine\n"),
        ] {
            let port = folders.class.join(port);
            fs::create_dir_all(&port).unwrap();
            fs::write(port.join("name"), name).unwrap();
        }
        fs::create_dir_all(folders.class.join("vport2p1")).unwrap();
        let path = folders.find("mine").unwrap();
        assert_eq!(path, folders.devices.join("vport1p7"));
        let error = AgentPort::open(&folders, "mine").unwrap_err();
        assert!(matches!(error, PortError::NotThere { .. }), "{error}");
    }

    /// A socket stands in for the port: its hang-up lasts too.
    fn port() -> (Peer<AgentPort>, UnixStream) {
        let (guest, host) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        let port = AgentPort::new(File::from(OwnedFd::from(guest))).unwrap();
        (Peer::new(port), host)
    }

    /// Takes turns as the task is woken, until it has come to this.
    async fn turn_until(peer: &mut Peer<AgentPort>, done: impl Fn(&mut Peer<AgentPort>) -> bool) {
        let mut dispatcher = Dispatcher::default();
        let turns = poll_fn(|cx| {
            while peer.turn(cx, &mut dispatcher).unwrap() == Turn::Again {}
            if done(peer) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let limit = std::time::Duration::from_secs(60);
        let ended = tokio::time::timeout(limit, turns).await;
        ended.expect("it does not come to this");
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test);
    }

    #[test]
    fn a_host_that_leaves_ends_its_session() {
        run(async {
            let (mut peer, mut host) = port();
            host.write_all(b"{\"execute\":\"tandem-subscribe\"}\n{\"execute\":\"gu")
                .unwrap();
            turn_until(&mut peer, |peer| peer.session.is_subscribed()).await;
            let mut reply = [0; 14];
            host.read_exact(&mut reply).unwrap();
            assert_eq!(&reply, b"{\"return\":{}}\n");
            assert!(!peer.transport.hung_up());

            drop(host);
            turn_until(&mut peer, |peer| peer.transport.hung_up()).await;
            assert!(!peer.session.is_subscribed());
        });
    }

    #[test]
    fn a_host_that_may_only_ask_is_refused_a_command_and_told_why() {
        run(async {
            let (mut peer, mut host) = port();
            host.write_all(b"{\"execute\":\"tandem-failover\",\"id\":1}\n")
                .unwrap();
            let mut dispatcher = Dispatcher::default();
            let input = poll_fn(|cx| {
                while peer.turn(cx, &mut dispatcher).unwrap() == Turn::Again {}
                let input = dispatcher.inputs.pop_front();
                input.map_or(Poll::Pending, Poll::Ready)
            });
            let ChannelInput::Input(input) = input.await else {
                panic!("it is passed on as something else");
            };
            let mut machine = Machine::new(Time(0));
            machine.handle(Time(0), Input::HostMay(HostMay::None));
            machine.handle(Time(0), input);
            let outputs = std::iter::from_fn(|| machine.next_output());
            let replies = outputs.filter_map(|output| match output {
                Output::Reply { command, result } => Some((command, result.unwrap_err())),
                _ => None,
            });
            for (command, error) in replies {
                let to = peer.session.close(command).unwrap();
                peer.session.reply_error(error.into(), to.id);
            }
            turn_until(&mut peer, |peer| peer.session.out.front().is_empty()).await;
            let mut reply = [0; 512];
            let count = host.read(&mut reply).unwrap();
            let reply = String::from_utf8_lossy(&reply[..count]).into_owned();
            assert!(reply.contains(r#""code":"not-allowed"}"#), "{reply}");
            assert!(reply.ends_with("\"id\":1}\n"), "{reply}");
        });
    }

    #[test]
    fn bytes_that_overtake_the_news_of_their_host_are_answered() {
        run(async {
            let (mut peer, mut host) = port();
            peer.transport.hung_up = true;
            host.write_all(b"{\"execute\":\"tandem-subscribe\"}\n")
                .unwrap();
            turn_until(&mut peer, |peer| peer.session.is_subscribed()).await;
            let mut reply = [0; 14];
            host.read_exact(&mut reply).unwrap();
            assert_eq!(&reply, b"{\"return\":{}}\n");
        });
    }

    #[test]
    fn what_waits_for_a_host_that_left_is_dropped() {
        run(async {
            let (mut peer, host) = port();
            for _ in 0..100_000 {
                peer.session.reply("never read", ReplyTo::default());
            }
            turn_until(&mut peer, |peer| peer.session.out.is_full()).await;
            // A socket that is closed with unread bytes would report an error, a port doesn't.
            host.shutdown(Shutdown::Both).unwrap();
            turn_until(&mut peer, |peer| peer.transport.hung_up()).await;
            assert!(peer.session.out.front().is_empty());
        });
    }

    #[test]
    fn a_lasting_hang_up_wakes_nobody() {
        run(async {
            let (mut peer, host) = port();
            drop(host);
            turn_until(&mut peer, |peer| peer.transport.hung_up()).await;
            let mut dispatcher = Dispatcher::default();
            let mut polls = 0;
            let turns = poll_fn(|cx| {
                polls += 1;
                assert_eq!(peer.turn(cx, &mut dispatcher).unwrap(), Turn::Idle);
                Poll::<()>::Pending
            });
            let limit = std::time::Duration::from_millis(200);
            assert!(tokio::time::timeout(limit, turns).await.is_err());
            assert!(polls <= 3, "woken {polls} times");
        });
    }
}
