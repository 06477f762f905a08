//! Answers what can be answered at once and passes on the rest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::value::{RawValue, to_raw_value};
use tandem_core::input::{Command, CommandId, Request};
use tandem_core::policy::Origin;
use tandem_core::status::{CommandError, CommandErrorCode, Event};
use tandem_core::{Policy, Status};
use tandem_wire::event::{EventMessage, Pushed, Timestamp};
use tandem_wire::message::{BondArguments, Call, Id, RequestLine, UnplugArguments};
use tandem_wire::reply::{Empty, ErrorBody, GuestInfo, StatusReport, delimited_sync_line};

use super::ChannelInput;
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
    pub(super) fn serve(&mut self, session: &mut Session) {
        while let Some(RequestLine { call, id }) = session.next_call() {
            self.carry_out(session, call, id);
        }
    }

    fn carry_out(&mut self, session: &mut Session, call: Call, id: Option<Id>) {
        match call {
            Call::GuestPing => session.reply(Empty {}, id),
            Call::GuestSync(sync) => session.reply(sync.id, id),
            Call::GuestSyncDelimited(sync) => {
                session.out.push_reply(delimited_sync_line(sync.id, id));
            }
            Call::GuestInfo => session.reply(GuestInfo::new(VERSION), id),
            Call::TandemStatus => match self.report() {
                Ok(report) => session.reply(report, id),
                Err(error) => session.reply_error(error, id),
            },
            Call::TandemConfigure(policy) => {
                let policy = Policy {
                    origin: Origin::Host,
                    ..policy
                };
                self.pass_on(session, id, |id| ChannelInput::Configure { id, policy });
            }
            Call::TandemSubscribe | Call::TandemUnsubscribe => {
                session.set_subscribed(call == Call::TandemSubscribe);
                session.reply(Empty {}, id);
            }
            Call::TandemPrepareUnplug(UnplugArguments { bond, vf }) => {
                self.command(session, id, Request::PrepareUnplug { bond, vf });
            }
            Call::TandemResume(BondArguments { bond }) => {
                self.command(session, id, Request::Resume { bond });
            }
            Call::TandemAnnounce(BondArguments { bond }) => {
                self.command(session, id, Request::Announce { bond });
            }
            Call::TandemFailover(BondArguments { bond }) => {
                self.command(session, id, Request::Failover { bond });
            }
            Call::TandemFailback(BondArguments { bond }) => {
                self.command(session, id, Request::Failback { bond });
            }
        }
    }

    fn command(&mut self, session: &mut Session, request_id: Option<Id>, request: Request) {
        self.pass_on(session, request_id, |id| {
            ChannelInput::Command(Command { id, request })
        });
    }

    fn pass_on(
        &mut self,
        session: &mut Session,
        request_id: Option<Id>,
        input: impl FnOnce(CommandId) -> ChannelInput,
    ) {
        if !session.can_open() {
            let busy = CommandError {
                code: CommandErrorCode::Busy,
                message: format!(
                    "{MAX_OPEN_COMMANDS} commands of this connection are under way; wait for one of them"
                ),
            };
            return session.reply_error(busy.into(), request_id);
        }
        self.last_id += 1;
        let id = CommandId(self.last_id);
        session.open(id, request_id);
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
