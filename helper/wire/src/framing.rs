//! Lines out of a stream of bytes that may break off, be cut, or be garbage.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use serde::Serialize;

/// Byte that can't occur in UTF-8. A receiver forgets what it has of a line when
/// it meets one, so a sender starts afresh with it after a time-out or a migration.
pub const SENTINEL: u8 = 0xff;

/// A line that can't be used. The decoder goes on with the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Reported once a line, as soon as it has grown too long.
    #[error("the line is longer than {max_bytes} bytes; it was discarded up to its end")]
    TooLong {
        /// The bound in bytes.
        max_bytes: usize,
    },
    /// The line holds bytes that are not text.
    #[error("the line is not UTF-8")]
    NotUtf8,
}

/// Cuts bytes into lines. Holds at most one line of the bound's length.
#[derive(Debug)]
pub struct Decoder {
    max_bytes: usize,
    line: Vec<u8>,
    /// The rest of a line that was too long is passed over.
    skipping: bool,
}

impl Decoder {
    /// A decoder for lines of at most `max_bytes`, the line feed not counted.
    pub const fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            line: Vec::new(),
            skipping: false,
        }
    }

    /// Takes bytes from the front of `input` up to the end of the next line that is
    /// not blank, and returns it without its end (LF or CR LF). `None` once all
    /// bytes are taken; half a line is kept for the next call.
    pub fn next_line(&mut self, input: &mut &[u8]) -> Option<Result<String, FrameError>> {
        while let Some((part, stop)) = take_part(input) {
            if !self.skipping {
                if self.line.len() + part.len() > self.max_bytes {
                    self.discard();
                    self.skipping = stop.is_none();
                    return Some(Err(FrameError::TooLong {
                        max_bytes: self.max_bytes,
                    }));
                }
                self.line.extend_from_slice(part);
            }
            match stop {
                None => {}
                Some(SENTINEL) => self.reset(),
                Some(_) if mem::take(&mut self.skipping) => {}
                Some(_) => match self.finish() {
                    Ok(line) if line.trim_ascii().is_empty() => {}
                    line => return Some(line),
                },
            }
        }
        None
    }

    /// The same with bytes that are kept: those that it takes leave `input`.
    pub fn take_line(&mut self, input: &mut Vec<u8>) -> Option<Result<String, FrameError>> {
        let mut rest = input.as_slice();
        let line = self.next_line(&mut rest);
        let taken = input.len() - rest.len();
        input.drain(..taken);
        line
    }

    /// Forgets half a line, as after a disconnect.
    pub fn reset(&mut self) {
        self.discard();
        self.skipping = false;
    }

    /// True between lines: nothing of a line is held or being passed over.
    pub fn is_idle(&self) -> bool {
        self.line.is_empty() && !self.skipping
    }

    /// How many bytes of half a line are held.
    pub fn held_bytes(&self) -> usize {
        self.line.len()
    }

    /// Forgets half a line, and passes over the rest of it.
    pub fn pass_over(&mut self) {
        self.skipping |= !self.line.is_empty();
        self.discard();
    }

    fn discard(&mut self) {
        self.line = Vec::new();
    }

    fn finish(&mut self) -> Result<String, FrameError> {
        let mut line = mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|_| FrameError::NotUtf8)
    }
}

/// Serialises a message and ends the line.
pub(crate) fn line_of(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(message)
        .expect("messages have text keys only, which is all that JSON asks");
    bytes.push(b'\n');
    bytes
}

/// Takes what stands before the next end of line or sentinel, and that byte.
fn take_part<'a>(input: &mut &'a [u8]) -> Option<(&'a [u8], Option<u8>)> {
    if input.is_empty() {
        return None;
    }
    let stop = input
        .iter()
        .position(|byte| *byte == b'\n' || *byte == SENTINEL);
    let (part, rest) = input.split_at(stop.unwrap_or(input.len()));
    let (stop, rest) = match rest.split_first() {
        Some((byte, rest)) => (Some(*byte), rest),
        None => (None, rest),
    };
    *input = rest;
    Some((part, stop))
}
