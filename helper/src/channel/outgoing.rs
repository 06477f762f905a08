//! What waits to be written to one peer, with a bound.

use std::collections::VecDeque;
use std::sync::Arc;

use tandem_wire::event::{EventMessage, Pushed, Timestamp};
use tandem_wire::framing::SENTINEL;

/// Events that wait for one peer; beyond it the oldest are dropped and counted.
pub(super) const MAX_EVENTS: usize = 64;

/// From this many bytes of waiting replies on, the peer is not read from.
pub(super) const FULL_BYTES: usize = 64 * 1024;

/// Lines that wait to be written. Replies go before events.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    replies: VecDeque<Vec<u8>>,
    reply_bytes: usize,
    events: VecDeque<Arc<[u8]>>,
    lost: Option<Lost>,
    /// The line being written, and how much of it is.
    current: Vec<u8>,
    written: usize,
}

#[derive(Debug, Clone, Copy)]
struct Lost {
    count: u64,
    last: Timestamp,
}

impl Outgoing {
    /// Always taken: a reply is only made while [`Self::is_full`] is false, or for
    /// one of the few open commands.
    pub(super) fn push_reply(&mut self, line: Vec<u8>) {
        self.reply_bytes += line.len();
        self.replies.push_back(line);
    }

    /// Takes an event and drops the oldest one if there are too many.
    pub(super) fn push_event(&mut self, line: Arc<[u8]>, at: Timestamp) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            let count = self.lost.map_or(0, |lost| lost.count) + 1;
            self.lost = Some(Lost { count, last: at });
        }
        self.events.push_back(line);
    }

    /// Forgets events, not replies.
    pub(super) fn clear_events(&mut self) {
        self.events.clear();
        self.lost = None;
    }

    /// Takes the last answer to `guest-sync-delimited` of which nothing is written yet.
    pub(super) fn take_waiting_sync(&mut self) -> Option<Vec<u8>> {
        let current = std::mem::take(&mut self.current);
        let untouched = (std::mem::take(&mut self.written) == 0).then_some(current);
        let waiting = untouched.into_iter().chain(self.replies.drain(..));
        let sync = waiting.rev().find(|line| line.first() == Some(&SENTINEL));
        self.reply_bytes = 0;
        sync
    }

    /// No further request shall be read.
    pub(super) fn is_full(&self) -> bool {
        self.reply_bytes >= FULL_BYTES
    }

    /// The bytes to write next; empty if there are none.
    pub(super) fn front(&mut self) -> &[u8] {
        if self.written == self.current.len() {
            self.current = self.next_line().unwrap_or_default();
            self.written = 0;
        }
        &self.current[self.written..]
    }

    /// That many bytes of [`Self::front`] are written.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.written = (self.written + bytes).min(self.current.len());
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        if let Some(line) = self.replies.pop_front() {
            self.reply_bytes -= line.len();
            return Some(line);
        }
        if let Some(Lost { count, last }) = self.lost.take() {
            let message = EventMessage {
                event: Pushed::EventsLost { count },
                timestamp: last,
            };
            return Some(message.to_line());
        }
        self.events.pop_front().map(|line| line.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    use tandem_wire::message::ReplyTo;

    const AT: Timestamp = Timestamp {
        seconds: 7,
        microseconds: 0,
    };

    fn drain(out: &mut Outgoing, step: usize) -> String {
        let mut text = Vec::new();
        loop {
            let front = out.front();
            if front.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            let bytes = front.len().min(step);
            text.extend_from_slice(&front[..bytes]);
            out.advance(bytes);
        }
    }

    #[test]
    fn partial_writes_keep_lines_whole() {
        for step in 1..10 {
            let mut out = Outgoing::default();
            out.push_event(Arc::from(&b"event\n"[..]), AT);
            out.push_reply(b"first\n".to_vec());
            out.push_reply(b"second\n".to_vec());
            assert_eq!(drain(&mut out, step), "first\nsecond\nevent\n");
        }
    }

    #[test]
    fn a_line_under_way_is_finished_before_a_later_reply() {
        let mut out = Outgoing::default();
        out.push_event(Arc::from(&b"event\n"[..]), AT);
        assert_eq!(out.front(), b"event\n");
        out.advance(2);
        out.push_reply(b"reply\n".to_vec());
        assert_eq!(drain(&mut out, 100), "ent\nreply\n");
    }

    #[test]
    fn the_oldest_events_are_dropped_and_counted() {
        let mut out = Outgoing::default();
        for number in 0..MAX_EVENTS + 3 {
            out.push_event(Arc::from(format!("{number}\n").as_bytes()), AT);
        }
        let mut expected = String::from(
            r#"{"event":"events-lost","timestamp":{"seconds":7,"microseconds":0},"data":{"count":3}}"#,
        );
        expected.push('\n');
        for number in 3..MAX_EVENTS + 3 {
            writeln!(expected, "{number}").unwrap();
        }
        assert_eq!(drain(&mut out, 4096), expected);
    }

    #[test]
    fn is_full_counts_replies_until_they_are_under_way() {
        let mut out = Outgoing::default();
        out.push_reply(vec![b'x'; FULL_BYTES - 1]);
        assert!(!out.is_full());
        out.push_reply(vec![b'y'; 1]);
        assert!(out.is_full());
        assert_eq!(out.front().len(), FULL_BYTES - 1);
        assert!(!out.is_full());
    }

    #[test]
    fn of_what_waits_only_the_last_answer_to_a_sync_is_left_for_the_next_peer() {
        let sync = |number| tandem_wire::reply::delimited_sync_line(number, ReplyTo::default());
        let mut out = Outgoing::default();
        assert_eq!(out.take_waiting_sync(), None);
        out.push_reply(b"old\n".to_vec());
        out.push_reply(sync(1));
        out.push_reply(sync(2));
        out.push_reply(b"old\n".to_vec());
        assert_eq!(out.take_waiting_sync(), Some(sync(2)));
        assert!(out.front().is_empty());
        out.push_reply(sync(3));
        assert_eq!(out.front(), sync(3));
        assert_eq!(out.take_waiting_sync(), Some(sync(3)));
        out.push_reply(sync(4));
        out.front();
        out.advance(1);
        assert_eq!(out.take_waiting_sync(), None);
    }
}
