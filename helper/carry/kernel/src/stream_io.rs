//! This half's end of the stream: two file descriptors that never block.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, ioctl_fionbio, read, write};
use tandem_carry::{Decoder, Message};

/// What waits to be written at most, in bytes, before no more messages are fetched.
const WRITE_BYTES: usize = 256 * 1024;
const READ_BYTES: usize = 64 * 1024;
/// Bytes that are read in one turn at most, so that the hold is not kept waiting.
const TURN_READS: usize = 8;

/// Both directions of the stream.
#[derive(Debug)]
pub struct StreamIo {
    input: OwnedFd,
    output: Option<OwnedFd>,
    decoder: Decoder,
    to_write: Vec<u8>,
    written: usize,
    ended: bool,
}

impl StreamIo {
    /// Over these: the standard streams of a process, or both ends of a socket.
    ///
    /// # Errors
    /// If they cannot be made not to block.
    pub fn new(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        ioctl_fionbio(&input, true)?;
        ioctl_fionbio(&output, true)?;
        Ok(Self {
            input,
            output: Some(output),
            decoder: Decoder::new(),
            to_write: Vec::new(),
            written: 0,
            ended: false,
        })
    }

    /// What has come; `false` once nothing will.
    pub(crate) fn receive(&mut self, mut hear: impl FnMut(Message)) -> bool {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..TURN_READS {
            if self.ended {
                break;
            }
            let bytes = match read(&self.input, &mut buffer) {
                Ok(bytes) => bytes,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(_) => 0,
            };
            self.ended = bytes == 0;
            let mut rest = &buffer[..bytes];
            while !rest.is_empty() {
                match self.decoder.next_message(&mut rest) {
                    Ok(Some(message)) => hear(message),
                    Ok(None) => {}
                    Err(_) => self.ended = true,
                }
            }
        }
        !self.ended
    }

    /// Writes what there is, as far as the stream takes it. `false` once it takes nothing any more.
    pub(crate) fn send(&mut self, mut next: impl FnMut() -> Option<Message>) -> bool {
        loop {
            let Some(output) = &self.output else {
                self.to_write.clear();
                self.written = 0;
                return false;
            };
            while self.to_write.len() - self.written < WRITE_BYTES
                && let Some(message) = next()
            {
                message.write(&mut self.to_write);
            }
            if self.written == self.to_write.len() {
                self.to_write.clear();
                self.written = 0;
                return true;
            }
            match write(output, &self.to_write[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.output = None,
            }
        }
        self.to_write.drain(..self.written);
        self.written = 0;
        true
    }

    /// The other half is to see the end. Not before everything is written.
    pub(crate) fn close(&mut self) {
        if self.to_write.is_empty() {
            self.output = None;
        }
    }

    /// Nothing more is written.
    pub(crate) const fn is_closed(&self) -> bool {
        self.output.is_none()
    }

    /// To wait for: what can be read, and what can be written if something waits for that.
    pub(crate) fn waits(&self) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        let reads = (!self.ended).then(|| self.input.as_fd());
        let writes = self.output.as_ref().filter(|_| !self.to_write.is_empty());
        (reads, writes.map(AsFd::as_fd))
    }
}
