//! Answers what can be answered at once and passes on the rest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::value::{RawValue, to_raw_value};
use tandem_core::input::{Command, CommandId, Input};
use tandem_core::policy::Origin;
use tandem_core::status::{CommandError, CommandErrorCode, Event};
use tandem_core::{Policy, Status};
use tandem_wire::event::{EventMessage, Pushed, Timestamp};
use tandem_wire::message::{Call, Received, ReplyTo};
use tandem_wire::reply::{Empty, ErrorBody, GuestInfo, StatusReport, delimited_sync_line};

use super::input::ChannelInput;
use super::session::{MAX_OPEN_COMMANDS, Session};
use crate::observe::clock;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What all connections share.
#[derive(Debug, Default)]
pub(super) struct Dispatcher {
    /// For the service. Bounded by the open commands of all connections.
    pub(super) inputs: VecDeque<ChannelInput>,
    last_id: u64,
    status: Option<Status>,
    /// The status as JSON, made when first asked for.
    status_text: Option<Box<RawValue>>,
}

impl Dispatcher {
    /// Takes a new status, unless it is the one it has.
    pub(super) fn publish(&mut self, status: &Status) {
        if self.status.as_ref().map(|known| known.generation) != Some(status.generation) {
            self.status = Some(status.clone());
            self.status_text = None;
        }
    }

    /// Carries out requests of one connection while there is room for the replies.
    pub(super) fn serve(&mut self, session: &mut Session, by_host: bool) {
        while let Some(Received { call, reply_to }) = session.next_call() {
            self.carry_out(session, call, reply_to, by_host);
        }
    }

    fn carry_out(&mut self, session: &mut Session, call: Call, to: ReplyTo, by_host: bool) {
        match call {
            Call::GuestPing => session.reply(Empty {}, to),
            Call::GuestSync(sync) => session.reply(sync.id, to),
            Call::GuestSyncDelimited(sync) => {
                session.out.push_reply(delimited_sync_line(sync.id, to));
            }
            Call::GuestInfo(asked) => match GuestInfo::answer(VERSION, asked) {
                Ok(info) => session.reply(info, to),
                Err(error) => session.reply_error(error, to.id),
            },
            Call::TandemStatus => match self.report() {
                Ok(report) => session.reply(report, to),
                Err(error) => session.reply_error(error, to.id),
            },
            Call::TandemConfigure(policy) => {
                let policy = Policy {
                    origin: Origin::Host,
                    ..policy
                };
                self.pass_on(session, to, |id| ChannelInput::Configure { id, policy });
            }
            Call::TandemSubscribe | Call::TandemUnsubscribe => {
                session.set_subscribed(call == Call::TandemSubscribe);
                session.reply(Empty {}, to);
            }
            Call::Command(request) => self.pass_on(session, to, |id| {
                ChannelInput::Input(Input::Command(Command {
                    id,
                    request,
                    by_host,
                }))
            }),
        }
    }

    fn pass_on(
        &mut self,
        session: &mut Session,
        reply_to: ReplyTo,
        input: impl FnOnce(CommandId) -> ChannelInput,
    ) {
        if !session.can_open() {
            let busy = CommandError {
                code: CommandErrorCode::Busy,
                message: format!(
                    "{MAX_OPEN_COMMANDS} commands of this connection are under way; wait for one of them"
                ),
            };
            return session.reply_error(busy.into(), reply_to.id);
        }
        self.last_id += 1;
        let id = CommandId(self.last_id);
        session.open(id, reply_to);
        self.inputs.push_back(input(id));
    }

    fn report(&mut self) -> Result<StatusReport<&RawValue>, ErrorBody> {
        let text = match self.status_text.take() {
            Some(text) => text,
            None => to_raw_value(self.status.as_ref().unwrap_or(&Status::default()))
                .map_err(|e| ErrorBody::generic(format!("the status is not JSON: {e}")))?,
        };
        Ok(StatusReport {
            tandem_protocol: tandem_wire::PROTOCOL,
            version: VERSION.to_owned(),
            now: clock::now(),
            status: self.status_text.insert(text),
        })
    }
}

/// An event as a line, for all who want it.
pub(super) fn event_line(event: &Event, timestamp: Timestamp) -> Arc<[u8]> {
    let message = EventMessage {
        event: Pushed::Bond(event.clone()),
        timestamp,
    };
    Arc::from(message.to_line())
}

/// The wall clock, as QMP writes it.
pub(super) fn wall_clock() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        microseconds: since.subsec_micros(),
    }
}
