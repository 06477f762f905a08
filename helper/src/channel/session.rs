//! One peer's conversation, without its transport: bytes in, calls out, replies queued.

use tandem_core::input::CommandId;
use tandem_wire::framing::Decoder;
use tandem_wire::message::{Id, Received, ReplyTo, RequestLine};
use tandem_wire::reply::{ErrorBody, ErrorLine, ReturnLine};

use super::outgoing::Outgoing;

/// Commands of one peer that wait for the machine.
pub(super) const MAX_OPEN_COMMANDS: usize = 8;

/// What a peer has sent and will be sent.
#[derive(Debug)]
pub(super) struct Session {
    decoder: Decoder,
    /// What was read last; its lines are taken one by one as there is room for replies.
    input: Vec<u8>,
    taken: usize,
    open: Vec<OpenCommand>,
    subscribed: bool,
    /// What waits to be written.
    pub(super) out: Outgoing,
}

#[derive(Debug)]
struct OpenCommand {
    id: CommandId,
    reply_to: ReplyTo,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            decoder: Decoder::new(tandem_wire::MAX_REQUEST_BYTES),
            input: Vec::new(),
            taken: 0,
            open: Vec::new(),
            subscribed: false,
            out: Outgoing::default(),
        }
    }

    /// True if the next bytes may be read: the last ones are used up.
    pub(super) fn wants_input(&self) -> bool {
        !self.has_input() && !self.out.is_full()
    }

    /// Takes what was read. Call only while [`Self::wants_input`].
    pub(super) fn take_input(&mut self, bytes: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(bytes);
        self.taken = 0;
    }

    /// The next request that can be carried out; the others are answered at once.
    /// `None` once the input is used up or too much waits to be written.
    pub(super) fn next_call(&mut self) -> Option<Received> {
        while !self.out.is_full() {
            let mut rest = &self.input[self.taken..];
            let line = self.decoder.next_line(&mut rest);
            self.taken = self.input.len() - rest.len();
            match line? {
                Ok(line) => match RequestLine::parse(&line) {
                    Ok(request) => return Some(request),
                    Err(refused) => self.out.push_reply(ErrorLine::from(refused).to_line()),
                },
                Err(error) => self.reply_error(error.into(), None),
            }
        }
        None
    }

    /// What was read last is not used up.
    pub(super) fn has_input(&self) -> bool {
        self.taken < self.input.len()
    }

    /// It wants events.
    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// It wants events from now on, or no more; then those that wait are forgotten.
    pub(super) fn set_subscribed(&mut self, subscribed: bool) {
        self.subscribed = subscribed;
        if !subscribed {
            self.out.clear_events();
        }
    }

    /// Answers with what the command returns.
    pub(super) fn reply<T: serde::Serialize>(&mut self, value: T, to: ReplyTo) {
        self.out.push_reply(ReturnLine::new(value, to).to_line());
    }

    /// Answers with an error.
    pub(super) fn reply_error(&mut self, error: ErrorBody, id: Option<Id>) {
        self.out.push_reply(ErrorLine { error, id }.to_line());
    }

    /// There is room for one more open command.
    pub(super) fn can_open(&self) -> bool {
        self.open.len() < MAX_OPEN_COMMANDS
    }

    /// Notes a command that somebody else will answer.
    pub(super) fn open(&mut self, id: CommandId, reply_to: ReplyTo) {
        self.open.push(OpenCommand { id, reply_to });
    }

    /// The open command of that identity is answered now; `None` if it isn't one of this peer's.
    pub(super) fn close(&mut self, id: CommandId) -> Option<ReplyTo> {
        let at = self.open.iter().position(|command| command.id == id)?;
        Some(self.open.swap_remove(at).reply_to)
    }

    /// Nothing is to be done for a peer that sends no more.
    pub(super) fn is_done(&mut self) -> bool {
        !self.has_input() && self.open.is_empty() && self.out.front().is_empty()
    }

    /// The peer is another one from here on. An answer to `guest-sync-delimited` that waits may be
    /// its own: its bytes can be read before the news that the one before it has left.
    pub(super) fn reset(&mut self) {
        let sync = self.out.take_waiting_sync();
        *self = Self::new();
        if let Some(line) = sync {
            self.out.push_reply(line);
        }
    }
}
