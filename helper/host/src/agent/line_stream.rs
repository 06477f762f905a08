//! Bytes of one connection as lines, with a budget for what is of no use.

use std::future::poll_fn;
use std::io::ErrorKind;

use tandem_wire::framing::{Decoder, FrameError};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::error::AgentError;
use super::open::open;
use crate::hypervisor::ChannelSocket;

/// What a guest may send before something useful comes, in bytes: a few of the longest lines, left
/// over from another client or from before a migration.
pub(super) const MAX_USELESS_BYTES: usize = 8 * tandem_wire::MAX_REPLY_BYTES;

/// A connection to the hypervisor's socket.
#[derive(Debug)]
pub(super) struct LineStream {
    stream: UnixStream,
    decoder: Decoder,
    /// Read and not yet decoded.
    input: Vec<u8>,
    useless_bytes: usize,
    read_bytes: u64,
}

impl LineStream {
    pub(super) async fn open(socket: &ChannelSocket) -> Result<Self, AgentError> {
        Ok(Self {
            stream: open(socket).await?,
            decoder: Decoder::new(tandem_wire::MAX_REPLY_BYTES),
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

    /// The next line, or what is wrong with it. Cancel-safe: half a line is kept.
    pub(super) async fn line(&mut self) -> Result<Result<String, FrameError>, AgentError> {
        loop {
            let mut rest = self.input.as_slice();
            let line = self.decoder.next_line(&mut rest);
            let taken = self.input.len() - rest.len();
            self.input.drain(..taken);
            if self.input.is_empty() {
                // Most guests are silent most of the time: nothing is kept for them meanwhile.
                self.input = Vec::new();
            }
            if let Some(line) = line {
                return Ok(line);
            }
            if self.useless_bytes > MAX_USELESS_BYTES {
                return Err(AgentError::Floods {
                    bytes: MAX_USELESS_BYTES,
                });
            }
            self.read().await?;
        }
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
