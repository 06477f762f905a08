//! The asking end.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tandem_wire::framing::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::message::{ControlReply, ControlRequest, MAX_REPLY_BYTES};

/// `serve` takes a request within this, or something is wrong with it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why `serve` did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error(
        "no `tandem-host serve` listens on {}; start it (`systemctl start tandem-host`), or name its socket by --serve-socket",
        path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is there and can't be used.
    #[error("the socket of `tandem-host serve`, {}, can't be used: {cause}; run this command as root", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// It hung up.
    #[error("`tandem-host serve` hung up; has it ended (`systemctl status tandem-host`)?")]
    Closed,
    /// It takes too long.
    #[error("`tandem-host serve` did not answer within {} s", limit.as_secs_f32())]
    Silent {
        /// The limit.
        limit: Duration,
    },
    /// It refused.
    #[error("`tandem-host serve`: {message}")]
    Refused {
        /// Its words.
        message: String,
    },
    /// It said something that this version has no words for.
    #[error(
        "the answer of `tandem-host serve` can't be understood: {reason}; are both of one version?"
    )]
    NotUnderstood {
        /// What is wrong.
        reason: String,
    },
}

/// A connection on which `serve` answers.
#[derive(Debug)]
pub struct Watching {
    stream: UnixStream,
    decoder: Decoder,
    input: Vec<u8>,
}

impl Watching {
    /// Connects and asks.
    ///
    /// # Errors
    /// If nobody listens, or not to us.
    pub async fn ask(path: &Path, request: &ControlRequest) -> Result<Self, ControlError> {
        let asked = async {
            let mut stream = UnixStream::connect(path).await?;
            let mut line = serde_json::to_vec(request)?;
            line.push(b'\n');
            stream.write_all(&line).await?;
            Ok(stream)
        };
        let asked = timeout(PATIENCE, asked).await;
        let stream = asked.map_err(|_| ControlError::Silent { limit: PATIENCE })?;
        let path = path.to_owned();
        let stream = stream.map_err(|cause: std::io::Error| match cause.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ControlError::NotRunning { path },
            _ => ControlError::Socket { path, cause },
        })?;
        Ok(Self {
            stream,
            decoder: Decoder::new(MAX_REPLY_BYTES),
            input: Vec::new(),
        })
    }

    /// Waits for the next line. Cancel-safe.
    ///
    /// # Errors
    /// If `serve` hung up, refused, or is of another version.
    pub async fn next(&mut self) -> Result<ControlReply, ControlError> {
        loop {
            let line = self.decoder.take_line(&mut self.input);
            let not_understood = |reason: String| ControlError::NotUnderstood { reason };
            if let Some(line) = line {
                let line = line.map_err(|error| not_understood(error.to_string()))?;
                let reply = serde_json::from_str(&line);
                return match reply.map_err(|error| not_understood(error.to_string()))? {
                    ControlReply::Error { message } => Err(ControlError::Refused { message }),
                    reply => Ok(reply),
                };
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return Err(ControlError::Closed),
                Ok(_) => {}
            }
        }
    }

    /// As [`Watching::next`], within a limit.
    ///
    /// # Errors
    /// As there, and if it takes longer.
    pub async fn next_within(&mut self, limit: Duration) -> Result<ControlReply, ControlError> {
        let reply = timeout(limit, self.next()).await;
        reply.map_err(|_| ControlError::Silent { limit })?
    }

    /// `serve` has hung up, or said something where nothing is expected.
    pub(super) fn is_over(&self) -> bool {
        let mut byte = [0];
        let read = self.stream.try_read(&mut byte);
        !matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}
