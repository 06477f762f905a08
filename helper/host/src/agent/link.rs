//! Bytes of one connection as lines, with a budget for what is of no use.

use std::path::Path;

use tandem_wire::framing::{Decoder, FrameError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::AgentError;

/// What a guest may send before something useful comes, in bytes: a few of the longest lines, left
/// over from another client or from before a migration.
pub(super) const MAX_USELESS_BYTES: usize = 8 * tandem_wire::MAX_REPLY_BYTES;

/// A connection to the hypervisor's socket.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    decoder: Decoder,
    /// Read and not yet decoded.
    input: Vec<u8>,
    useless_bytes: usize,
}

impl Link {
    pub(super) async fn open(path: &Path) -> Result<Self, AgentError> {
        let stream = UnixStream::connect(path).await;
        let stream = stream.map_err(|cause| AgentError::Socket {
            path: path.to_owned(),
            cause,
        })?;
        Ok(Self {
            stream,
            decoder: Decoder::new(tandem_wire::MAX_REPLY_BYTES),
            input: Vec::new(),
            useless_bytes: 0,
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
            if let Some(line) = line {
                return Ok(line);
            }
            if self.useless_bytes > MAX_USELESS_BYTES {
                return Err(AgentError::Floods {
                    bytes: MAX_USELESS_BYTES,
                });
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return Err(AgentError::Closed),
                Ok(count) => {
                    self.useless_bytes = self.useless_bytes.saturating_add(count);
                    self.input.extend_from_slice(&bytes[..count]);
                }
            }
        }
    }

    /// Something came that was waited for.
    pub(super) fn useful(&mut self) {
        self.useless_bytes = 0;
    }
}
