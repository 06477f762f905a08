//! One direction of the stream between the halves.

use std::collections::VecDeque;

use tandem_carry::{Decoder, Message};

#[derive(Debug, Default)]
pub(crate) struct Pipe {
    under_way: VecDeque<(u64, Vec<u8>)>,
    decoder: Decoder,
    closed: bool,
    end_told: bool,
}

/// What comes out of a pipe.
#[derive(Debug)]
pub(crate) enum Out {
    Message(Message),
    End,
}

impl Pipe {
    pub(crate) fn send(&mut self, due_ms: u64, message: &Message) {
        if !self.closed {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            // Cut anywhere.
            let half = bytes.split_off(bytes.len() / 2);
            self.under_way.push_back((due_ms, bytes));
            self.under_way.push_back((due_ms, half));
        }
    }

    /// What was sent before still comes.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// What was sent before is lost. How many pieces of messages that were.
    pub(crate) fn cut(&mut self) -> u64 {
        self.closed = true;
        let lost = self.under_way.len() as u64;
        self.under_way.clear();
        lost
    }

    pub(crate) fn receive(&mut self, now_ms: u64) -> Vec<Out> {
        let mut out = Vec::new();
        while self
            .under_way
            .front()
            .is_some_and(|(due, _)| *due <= now_ms)
        {
            let (_, bytes) = self.under_way.pop_front().expect("there is one");
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                match self.decoder.next_message(&mut bytes) {
                    Ok(message) => out.extend(message.map(Out::Message)),
                    Err(_) => self.closed = true,
                }
            }
        }
        if self.closed && self.under_way.is_empty() && !self.end_told {
            self.end_told = true;
            out.push(Out::End);
        }
        out
    }
}
