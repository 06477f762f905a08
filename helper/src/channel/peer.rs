//! One connection: a transport and the session on it. Never blocks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use super::dispatcher::Dispatcher;
use super::session::Session;

/// Read in one turn; the same peer's next bytes have to wait for the others' turns.
const READ_BYTES: usize = 4096;

/// Carries the bytes of one connection. A turn is `refresh`, then any number of
/// reads and writes; after a `Pending` of one of them, the task is woken when it
/// can go on.
pub(super) trait Transport {
    /// The host is at the other end, and not somebody in the guest.
    const HOST: bool;

    /// Learns what can be done in this turn. True if the other end has left since
    /// the last one, and whoever comes next is somebody else.
    fn refresh(&mut self, _: &mut Context<'_>) -> io::Result<bool> {
        Ok(false)
    }

    /// Reads; 0 bytes if the other end sends no more.
    fn poll_read(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes; never 0 bytes.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

impl Transport for UnixStream {
    const HOST: bool = false;

    fn poll_read(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(bytes);
        ready!(AsyncRead::poll_read(Pin::new(self), cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(AsyncWrite::poll_write(Pin::new(self), cx, bytes))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => Poll::Ready(Ok(count)),
        }
    }
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is nothing to do until the task is woken.
    Idle,
    /// There is more to do at once.
    Again,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Peer<T> {
    /// Carries the bytes.
    pub(super) transport: T,
    /// What they say.
    pub(super) session: Session,
    /// The other end sends no more.
    ended: bool,
}

impl<T: Transport> Peer<T> {
    pub(super) fn new(transport: T) -> Self {
        Self {
            transport,
            session: Session::new(),
            ended: false,
        }
    }

    /// The other end sends no more, and everything it asked for is answered.
    pub(super) fn is_done(&mut self) -> bool {
        self.ended && self.session.is_done()
    }

    /// Reads once, has the requests served and writes what the other end takes.
    pub(super) fn turn(
        &mut self,
        cx: &mut Context<'_>,
        dispatcher: &mut Dispatcher,
    ) -> io::Result<Turn> {
        if self.transport.refresh(cx)? {
            self.session.reset();
        }
        self.flush(cx)?;
        let waits_for_input = self.read(cx)?.is_pending();
        dispatcher.serve(&mut self.session, T::HOST);
        self.flush(cx)?;
        let can_read = !self.ended && !waits_for_input;
        Ok(
            if !self.session.out.is_full() && (can_read || self.session.has_input()) {
                Turn::Again
            } else {
                Turn::Idle
            },
        )
    }

    /// Writes what waits, as far as the other end takes it now.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let bytes = self.session.out.front();
            if bytes.is_empty() {
                return Ok(());
            }
            match self.transport.poll_write(cx, bytes) {
                Poll::Ready(written) => self.session.out.advance(written?),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Reads once, if the session has room.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        if self.ended || !self.session.wants_input() {
            return Ok(Poll::Ready(()));
        }
        let mut bytes = [0; READ_BYTES];
        let Poll::Ready(count) = self.transport.poll_read(cx, &mut bytes) else {
            return Ok(Poll::Pending);
        };
        match count? {
            0 => self.ended = true,
            count => self.session.take_input(&bytes[..count]),
        }
        Ok(Poll::Ready(()))
    }
}
