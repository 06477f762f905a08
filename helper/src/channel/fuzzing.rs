//! One peer's conversation over bytes that it chooses, for tests/fuzz: all of the channel but its transports.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};

use tandem_core::Status;
use tandem_core::input::CommandId;
use tandem_core::status::{Answer, CommandError, Event};
use tandem_wire::event::Timestamp;
use tandem_wire::message::ReplyTo;
use tandem_wire::reply::{ConfigureError, Configured};

use super::dispatcher::{Dispatcher, event_line};
use super::input::ChannelInput;
use super::peer::{Peer, Transport, Turn};
use super::session::Session;

/// The host's end, and the guest's behind it.
#[derive(Debug)]
pub struct Conversation {
    peer: Peer<Bytes>,
    dispatcher: Dispatcher,
}

/// Bytes on their way, both ways.
#[derive(Debug, Default)]
struct Bytes {
    sent: VecDeque<u8>,
    room: usize,
    taken: Vec<u8>,
}

impl Transport for Bytes {
    const HOST: bool = true;

    fn poll_read(&mut self, _: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(self.sent.len());
        if count == 0 {
            return Poll::Pending;
        }
        for (to, from) in bytes.iter_mut().zip(self.sent.drain(..count)) {
            *to = from;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Poll::Pending;
        }
        self.room -= count;
        self.taken.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }
}

impl Default for Conversation {
    fn default() -> Self {
        Self {
            peer: Peer::new(Bytes::default()),
            dispatcher: Dispatcher::default(),
        }
    }
}

impl Conversation {
    /// The host sends that.
    pub fn send(&mut self, bytes: &[u8]) {
        self.peer.transport.sent.extend(bytes);
    }

    /// The host takes so many bytes more.
    pub fn make_room(&mut self, bytes: usize) {
        self.peer.transport.room += bytes;
    }

    /// One turn: true if there is more to do at once.
    pub fn turn(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let turn = self.peer.turn(&mut context, &mut self.dispatcher);
        matches!(turn, Ok(Turn::Again))
    }

    /// The next thing that the host wants of the service.
    pub fn next_input(&mut self) -> Option<ChannelInput> {
        self.dispatcher.inputs.pop_front()
    }

    /// What the host has taken since the last call.
    pub fn taken(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.peer.transport.taken)
    }

    /// Bytes that the host sent, and that were not read yet.
    pub fn unread_bytes(&self) -> usize {
        self.peer.transport.sent.len()
    }

    /// As [`super::Channel::publish`].
    pub fn publish(&mut self, status: &Status) {
        self.dispatcher.publish(status);
    }

    /// As [`super::Channel::reply`].
    pub fn reply(&mut self, id: CommandId, result: Result<Answer, CommandError>) {
        self.answer(id, |session, to| match result {
            Ok(answer) => session.reply(answer, to),
            Err(error) => session.reply_error(error.into(), to.id),
        });
    }

    /// As [`super::Channel::configured`].
    pub fn configured(&mut self, id: CommandId, result: Result<Configured, ConfigureError>) {
        self.answer(id, |session, to| match result {
            Ok(configured) => session.reply(configured, to),
            Err(error) => session.reply_error(error.into(), to.id),
        });
    }

    /// As [`super::Channel::notify`].
    pub fn notify(&mut self, event: &Event) {
        if self.peer.session.is_subscribed() {
            let now = Timestamp::default();
            self.peer
                .session
                .out
                .push_event(event_line(event, now), now);
        }
    }

    fn answer(&mut self, id: CommandId, reply: impl FnOnce(&mut Session, ReplyTo)) {
        if let Some(to) = self.peer.session.close(id) {
            reply(&mut self.peer.session, to);
        }
    }
}
