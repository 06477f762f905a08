//! Frames that wait, within their bounds.

use alloc::collections::VecDeque;

use crate::frame::Frame;
use crate::limits::Limits;

/// A frame that waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// Its number on the stream; 0 if it has none.
    pub(crate) number: u64,
    /// Since when, in ms.
    pub(crate) since_ms: u64,
    /// It.
    pub(crate) frame: Frame,
}

/// A queue of frames, and how many bytes they have.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    frames: VecDeque<Waiting>,
    bytes: usize,
}

impl Queue {
    pub(crate) fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.frame.bytes().len();
        self.frames.push_back(waiting);
    }

    /// One more at this place from the front, or at the end if there are fewer.
    pub(crate) fn insert(&mut self, index: usize, number: u64, since_ms: u64, frame: Frame) {
        self.bytes += frame.bytes().len();
        let waiting = Waiting {
            number,
            since_ms,
            frame,
        };
        self.frames.insert(index.min(self.frames.len()), waiting);
    }

    /// Drops so many after the first ones, which stay.
    pub(crate) fn drop_after(&mut self, first: usize, count: usize) {
        let mut before = Self::default();
        for _ in 0..first {
            before.frames.extend(self.pop());
        }
        for _ in 0..count {
            self.pop();
        }
        for waiting in before.frames.into_iter().rev() {
            self.bytes += waiting.frame.bytes().len();
            self.frames.push_front(waiting);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.frames.pop_front()?;
        self.bytes -= waiting.frame.bytes().len();
        Some(waiting)
    }

    /// Moves everything to the end of another queue.
    pub(crate) fn move_to(&mut self, other: &mut Self) {
        other.bytes += self.bytes;
        other.frames.append(&mut self.frames);
        self.bytes = 0;
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Waiting> {
        self.frames.get(index)
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops everything; how many frames that were.
    pub(crate) fn clear(&mut self) -> u64 {
        let count = self.frames.len() as u64;
        *self = Self::default();
        count
    }
}

/// True if one more frame may be kept besides so many frames and bytes.
pub(crate) fn has_room(limits: &Limits, frames: usize, bytes: usize, frame: &Frame) -> bool {
    frames < limits.frames && bytes.saturating_add(frame.bytes().len()) <= limits.bytes
}
