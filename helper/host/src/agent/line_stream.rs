//! Bytes of one connection as lines, with a budget for what is of no use.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::time::Duration;

use tandem_wire::framing::Decoder;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::begun::{Begun, Budget};
use super::error::AgentError;
use super::open::open;
use crate::hypervisor::ChannelSocket;

/// What a guest may send before something useful comes, in bytes: a few of the longest lines, left
/// over from another client or from before a migration.
pub(super) const MAX_USELESS_BYTES: usize = 8 * tandem_wire::MAX_REPLY_BYTES;
/// A line is whole so soon after its beginning: a guest writes one at once, unless it is paused.
const LINE: Duration = Duration::from_secs(10);
/// What all guests together may have begun: a hundred of the longest lines.
static BUDGET: Budget = Budget::new(100 * tandem_wire::MAX_REPLY_BYTES);

/// A connection to the hypervisor's socket.
#[derive(Debug)]
pub(super) struct LineStream {
    stream: UnixStream,
    decoder: Decoder,
    /// What the decoder holds, and since when.
    begun: Begun,
    began: Option<Instant>,
    /// Read and not yet decoded.
    input: Vec<u8>,
    useless_bytes: usize,
    read_bytes: u64,
}

impl LineStream {
    pub(super) async fn open(socket: &ChannelSocket) -> Result<Self, AgentError> {
        Self::within(socket, &BUDGET).await
    }

    async fn within(socket: &ChannelSocket, budget: &'static Budget) -> Result<Self, AgentError> {
        Ok(Self {
            stream: open(socket).await?,
            decoder: Decoder::new(tandem_wire::MAX_REPLY_BYTES),
            begun: Begun::new(budget),
            began: None,
            input: Vec::new(),
            useless_bytes: 0,
            read_bytes: 0,
        })
    }

    /// Sends all of it. The hypervisor takes nothing while the guest reads nothing.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), AgentError> {
        self.stream
            .write_all(bytes)
            .await
            .map_err(|_| AgentError::Closed)
    }

    /// The next line; `None` if that can't be used: it is no text or too long, does not come to its end, or other guests have
    /// begun too much. Cancel-safe: half a line is kept.
    pub(super) async fn line(&mut self) -> Result<Option<String>, AgentError> {
        loop {
            let line = self.decoder.take_line(&mut self.input);
            if self.input.is_empty() {
                // Most guests are silent most of the time: nothing is kept for them meanwhile.
                self.input = Vec::new();
            }
            if let Some(line) = line {
                self.began = None;
                self.begun.hold(0);
                return Ok(line.ok());
            }
            let held = self.decoder.held_bytes();
            if !self.begun.hold(held) {
                return Ok(self.give_line_up());
            }
            let began = (held > 0).then(|| self.began.unwrap_or_else(Instant::now));
            self.began = began;
            if self.useless_bytes > MAX_USELESS_BYTES {
                return Err(AgentError::Floods {
                    bytes: MAX_USELESS_BYTES,
                });
            }
            let read = self.read();
            match began {
                None => read.await?,
                Some(began) => match timeout_at(began + LINE, read).await {
                    Ok(read) => read?,
                    Err(_) => return Ok(self.give_line_up()),
                },
            }
        }
    }

    fn give_line_up(&mut self) -> Option<String> {
        self.decoder.pass_over();
        self.begun.hold(0);
        self.began = None;
        None
    }

    /// Waits for bytes and takes them. The buffer does not outlive the reading, so that a wait
    /// costs no memory.
    async fn read(&mut self) -> Result<(), AgentError> {
        loop {
            let ready = poll_fn(|context| self.stream.poll_read_ready(context)).await;
            ready.map_err(|_| AgentError::Closed)?;
            let mut bytes = [0; 16 * 1024];
            match self.stream.try_read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Err(AgentError::Closed),
                Ok(count) => {
                    self.useless_bytes = self.useless_bytes.saturating_add(count);
                    self.read_bytes = self.read_bytes.saturating_add(count as u64);
                    self.input.extend_from_slice(&bytes[..count]);
                    return Ok(());
                }
            }
        }
    }

    /// All bytes that the guest sent on this connection.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Something came that was waited for.
    pub(super) fn useful(&mut self) {
        self.useless_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// A stream, and the guest's end of it.
    async fn connected(budget: &'static Budget) -> (LineStream, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = ChannelSocket::named(&path);
        let (lines, guest) = tokio::join!(LineStream::within(&socket, budget), listener.accept());
        (lines.unwrap(), guest.unwrap().0)
    }

    /// Each begins a line of nearly the longest length, and says nothing more.
    #[tokio::test]
    async fn what_many_guests_begin_and_do_not_end_is_bounded() {
        const MOST: usize = 2 * tandem_wire::MAX_REPLY_BYTES;
        static SMALL: Budget = Budget::new(MOST);
        let mut held = Vec::new();
        let mut given_up = 0;
        for _ in 0..8 {
            let (mut lines, mut guest) = connected(&SMALL).await;
            let write = async {
                let bytes = vec![b'x'; tandem_wire::MAX_REPLY_BYTES - 1];
                guest.write_all(&bytes).await.unwrap();
                drop(guest);
            };
            let read = async {
                loop {
                    match lines.line().await {
                        Ok(line) => {
                            assert_eq!(line, None);
                            given_up += 1;
                        }
                        Err(error) => break assert!(matches!(error, AgentError::Closed)),
                    }
                }
            };
            tokio::join!(write, read);
            held.push(lines);
        }
        let bytes: usize = held.iter().map(|lines| lines.decoder.held_bytes()).sum();
        assert!(bytes <= MOST + held.len() * Begun::FREE, "{bytes}");
        assert!(given_up >= 5, "{given_up}");
        // One that says little is heard all the same.
        let (mut lines, mut guest) = connected(&SMALL).await;
        guest.write_all(b"short\n").await.unwrap();
        assert_eq!(lines.line().await.unwrap().as_deref(), Some("short"));
        drop(held);
        assert_eq!(SMALL.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_does_not_end_is_passed_over() {
        let (mut lines, mut guest) = connected(&BUDGET).await;
        guest.write_all(b"half a li").await.unwrap();
        let began = Instant::now();
        assert_eq!(lines.line().await.unwrap(), None);
        assert!((LINE..LINE * 2).contains(&began.elapsed()));
        assert_eq!(lines.decoder.held_bytes(), 0);
        guest.write_all(b"ne\nwhole\n").await.unwrap();
        assert_eq!(lines.line().await.unwrap().as_deref(), Some("whole"));
    }
}
