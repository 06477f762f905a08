//! A socket that only listens to notifications.

use std::io;

use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

use super::filter::Filter;
use crate::observe::readable::Readable;

/// Notifications are smaller: a link's is 1.5 KiB, without VFs.
const BUFFER_BYTES: usize = 16 * 1024;
/// Datagrams read in one go, so that a storm can't keep the service from its other work.
const BATCH: usize = 256;

/// A listening socket and the filter in front of it.
#[derive(Debug)]
pub(crate) struct Watch {
    socket: Readable<Socket>,
    buffer: Vec<u8>,
}

impl Watch {
    /// Listens to groups of a netlink protocol, in the calling thread's network
    /// namespace. The filter is there before the first message.
    pub(crate) fn open(
        protocol: isize,
        groups: &[u32],
        filter: &Filter,
        receive_buffer_bytes: usize,
    ) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        filter.attach(&socket)?;
        // Beyond net.core.rmem_max where CAP_NET_ADMIN allows it.
        if set_socket_recv_buffer_size_force(&socket, receive_buffer_bytes).is_err() {
            set_socket_recv_buffer_size(&socket, receive_buffer_bytes)?;
        }
        let mut mask = 0;
        for group in groups {
            mask |= 1_u32 << (group - 1);
        }
        socket.bind(&SocketAddr::new(0, mask))?;
        Ok(Self {
            socket: Readable::new(socket)?,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        })
    }

    /// Replaces the filter.
    pub(crate) fn set_filter(&self, filter: &Filter) -> io::Result<()> {
        filter.attach(self.socket.get())
    }

    /// Waits until there is something to read. Safe to cancel.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Passes on what the kernel has sent, up to [`BATCH`] datagrams. True if the
    /// receive buffer overran and notifications were lost: all that remained of
    /// the queue was then passed on, or follows.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        let mut lost = false;
        for _ in 0..BATCH {
            self.buffer.clear();
            let buffer = &mut self.buffer;
            let received = self
                .socket
                .try_read(|socket| socket.recv_from(buffer, libc::MSG_DONTWAIT));
            match received {
                Ok((_, sender)) if sender.port_number() == 0 => each(&self.buffer),
                // Only the kernel is believed.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }
}
