//! Requests and their replies, and what the guest says unasked.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tandem_core::Policy;
use tandem_core::input::Request;
use tandem_core::status::Answer;
use tandem_core::types::{IfName, Mac};
use tandem_wire::event::{EventMessage, Pushed};
use tandem_wire::framing::SENTINEL;
use tandem_wire::from_guest::{FromGuest, content};
use tandem_wire::message::{Call, Id, InfoArguments, ReplyTo, RequestLine, SyncArguments};
use tandem_wire::reply::{Configured, Empty, GuestInfo, StatusReport};
use tandem_wire::{PROTOCOLS, Protocols};
use tokio::time::{Instant, timeout_at};

use super::error::AgentError;
use super::line_stream::LineStream;
use crate::hypervisor::ChannelSocket;
use crate::words::printable;

/// Events that wait for their reader; the oldest go beyond that, which is told.
const MAX_EVENTS: usize = 256;
/// Bytes of the lines of those events; as above.
const MAX_EVENT_BYTES: usize = 256 * 1024;

/// After this time without an answer a common start is asked for again, within [`ChannelLimits::sync`].
const SYNC_AGAIN: Duration = Duration::from_secs(2);

/// How long a guest may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelLimits {
    /// To connect and to find a common start.
    pub sync: Duration,
    /// For a question.
    pub question: Duration,
    /// For a command that moves the traffic; the guest's own limit is 10 s.
    pub command: Duration,
}

impl Default for ChannelLimits {
    fn default() -> Self {
        Self {
            // The service may hold the channel for a few questions; others wait for their turn.
            sync: Duration::from_secs(12),
            question: Duration::from_secs(5),
            command: Duration::from_secs(15),
        }
    }
}

/// What a guest said unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Something happened.
    Event(Box<EventMessage>),
    /// Something happened that this version has no words for.
    Unknown {
        /// Its name.
        name: String,
    },
    /// Events may be missing: ask for the status.
    Lost,
}

/// A connection to one guest.
#[derive(Debug)]
pub struct Agent {
    lines: LineStream,
    limits: ChannelLimits,
    /// Requests and replies are in step.
    in_step: bool,
    last_id: u64,
    /// With the length of each one's line.
    events: VecDeque<(usize, Heard)>,
    event_bytes: usize,
    events_lost: bool,
}

impl Agent {
    /// Connects and finds a common start with the guest.
    ///
    /// # Errors
    /// If the socket can't be opened or is not the domain's, or the guest does not answer.
    pub async fn connect(
        socket: &ChannelSocket,
        limits: ChannelLimits,
    ) -> Result<Self, AgentError> {
        let deadline = Instant::now() + limits.sync;
        let lines = timeout_at(deadline, LineStream::open(socket)).await;
        let mut agent = Self {
            lines: lines.map_err(|_| silent("connect", limits.sync))??,
            limits,
            in_step: false,
            // Replies to a former client must not fit.
            last_id: fresh_number(),
            events: VecDeque::new(),
            event_bytes: 0,
            events_lost: false,
        };
        agent.synchronise().await?;
        Ok(agent)
    }

    /// Asks for versions and commands.
    ///
    /// # Errors
    /// As [`Agent::call`], and if the guest speaks other messages.
    pub async fn info(&mut self) -> Result<GuestInfo, AgentError> {
        self.info_as(PROTOCOLS).await
    }

    /// As a host that speaks these versions of the messages. The guest's answer says which one is spoken.
    pub(super) async fn info_as(&mut self, own: Protocols) -> Result<GuestInfo, AgentError> {
        let limit = self.limits.question;
        // A guest that knows of no ranges takes no arguments.
        let plain = Call::GuestInfo(InfoArguments::default());
        let info: GuestInfo = self.call(plain, limit).await?;
        let highest = info.highest_common(own)?;
        if highest == info.tandem_protocol {
            return Ok(info);
        }
        let call = Call::GuestInfo(InfoArguments {
            protocols: Some(own),
        });
        let command = call.name();
        let info: GuestInfo = self.call(call, limit).await?;
        if info.tandem_protocol == highest {
            return Ok(info);
        }
        let reason = format!(
            "asked for version {highest} of the messages, it says {}",
            info.tandem_protocol
        );
        Err(AgentError::NotUnderstood { command, reason })
    }

    /// Asks for everything known.
    ///
    /// # Errors
    /// As [`Agent::call`].
    pub async fn status(&mut self) -> Result<StatusReport, AgentError> {
        self.call(Call::TandemStatus, self.limits.question).await
    }

    /// As [`Agent::status`], with the length of what the guest sent, in bytes.
    ///
    /// # Errors
    /// As [`Agent::call`].
    pub async fn sized_status(&mut self) -> Result<(StatusReport, usize), AgentError> {
        let text: Box<RawValue> = self.call(Call::TandemStatus, self.limits.question).await?;
        let report = content(Call::TandemStatus.name(), &text);
        let report = report.map_err(|error| AgentError::NotUnderstood {
            command: Call::TandemStatus.name(),
            reason: error.to_string(),
        })?;
        Ok((report, text.get().len()))
    }

    /// Hands the guest its bonds; the same twice changes nothing. Besides, in words what an older guest does
    /// not know of them, if anything.
    ///
    /// # Errors
    /// As [`Agent::call`]; the refusal's code tells whether the guest's administrator does not want it.
    pub async fn configure(
        &mut self,
        policy: Policy,
    ) -> Result<(Configured, Option<String>), AgentError> {
        let call = Call::TandemConfigure(policy);
        let (configured, ignored) = self.asked(call, self.limits.question).await?;
        let keys: Vec<String> = ignored.iter().take(ReplyTo::MAX_IGNORED).cloned().collect();
        let lacks = (!keys.is_empty()).then(|| {
            let keys = printable(&keys.join(", "));
            format!("update tandem in the guest: it is older, and goes on without {keys}")
        });
        Ok((configured, lacks))
    }

    /// Moves the traffic to the standby and releases the VF.
    ///
    /// # Errors
    /// As [`Agent::call`].
    pub async fn prepare_unplug(
        &mut self,
        bond: Option<IfName>,
        vf: Option<Mac>,
    ) -> Result<Answer, AgentError> {
        let call = Call::Command(Request::PrepareUnplug { bond, vf });
        self.call(call, self.limits.command).await
    }

    /// Takes a VF again.
    ///
    /// # Errors
    /// As [`Agent::call`].
    pub async fn resume(&mut self, bond: Option<IfName>) -> Result<Answer, AgentError> {
        let call = Call::Command(Request::Resume { bond });
        self.call(call, self.limits.command).await
    }

    /// Tells the network again where the bond is.
    ///
    /// # Errors
    /// As [`Agent::call`].
    pub async fn announce(&mut self, bond: Option<IfName>) -> Result<Answer, AgentError> {
        let call = Call::Command(Request::Announce { bond });
        self.call(call, self.limits.command).await
    }

    /// Asks for events from now on, on this connection.
    ///
    /// # Errors
    /// As [`Agent::call`].
    pub async fn subscribe(&mut self) -> Result<(), AgentError> {
        let Empty {} = self
            .call(Call::TandemSubscribe, self.limits.question)
            .await?;
        Ok(())
    }

    /// Asks anything and waits at most `limit`. After a failure the next call finds a common start
    /// with the guest again.
    ///
    /// # Errors
    /// If the guest refuses, does not answer in time, or not with a `T`.
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        call: Call,
        limit: Duration,
    ) -> Result<T, AgentError> {
        Ok(self.asked(call, limit).await?.0)
    }

    /// As [`Agent::call`], with the keys of the request that the guest passed over.
    async fn asked<T: DeserializeOwned>(
        &mut self,
        call: Call,
        limit: Duration,
    ) -> Result<(T, Vec<String>), AgentError> {
        if !self.in_step {
            self.synchronise().await?;
        }
        let command = call.name();
        let deadline = Instant::now() + limit;
        // Until the reply has come: a caller may stop waiting at any moment.
        self.in_step = false;
        let asked = timeout_at(deadline, self.exchange(call)).await;
        let value = asked.map_err(|_| silent(command, limit))?;
        self.in_step = matches!(value, Ok(_) | Err(AgentError::Refused { .. }));
        let (value, ignored) = value?;
        let content = content(command, &value).map_err(|error| AgentError::NotUnderstood {
            command,
            reason: error.to_string(),
        })?;
        Ok((content, ignored))
    }

    /// Waits for what the guest says unasked, however long it takes. Cancel-safe.
    ///
    /// # Errors
    /// If the channel is closed, or flooded.
    pub async fn next_event(&mut self) -> Result<Heard, AgentError> {
        loop {
            if std::mem::take(&mut self.events_lost) {
                return Ok(Heard::Lost);
            }
            if let Some((bytes, heard)) = self.events.pop_front() {
                self.event_bytes -= bytes;
                return Ok(heard);
            }
            // A reply nobody waits for any more is passed over.
            self.message().await?;
        }
    }

    /// Waits until the guest has said anything unasked since the last call of this, however long
    /// it takes, and forgets what: whoever asks for the status afterwards misses nothing. Cancel-safe.
    ///
    /// # Errors
    /// As [`Agent::next_event`].
    pub async fn heard(&mut self) -> Result<(), AgentError> {
        self.next_event().await?;
        self.forget_events();
        Ok(())
    }

    /// Forgets the events that wait for their reader.
    pub fn forget_events(&mut self) {
        self.events = VecDeque::new();
        self.event_bytes = 0;
        self.events_lost = false;
    }

    /// All bytes that the guest sent on this connection.
    pub fn read_bytes(&self) -> u64 {
        self.lines.read_bytes()
    }

    async fn synchronise(&mut self) -> Result<(), AgentError> {
        let command = "guest-sync-delimited";
        let limit = self.limits.sync;
        let deadline = Instant::now() + limit;
        let reply = timeout_at(deadline, self.exchange_sync()).await;
        reply.map_err(|_| silent(command, limit))??;
        self.in_step = true;
        Ok(())
    }

    /// Asks anew while nothing comes: the guest may learn that the client before has left only after
    /// it read this one's request, and then forgets it with that client's (`helper`'s `channel/virtio.rs`).
    async fn exchange_sync(&mut self) -> Result<(), AgentError> {
        let mut numbers = Vec::new();
        loop {
            let number = i64::try_from(fresh_number() >> 1).unwrap_or(1);
            numbers.push(number);
            let call = Call::GuestSyncDelimited(SyncArguments { id: number });
            let mut bytes = vec![SENTINEL];
            bytes.extend(RequestLine { call, id: None }.to_line());
            self.lines.send(&bytes).await?;
            let answered = self.answer_to_sync(&numbers);
            if let Ok(answered) = timeout_at(Instant::now() + SYNC_AGAIN, answered).await {
                return answered;
            }
        }
    }

    /// Waits for the answer to one of these. Cancel-safe.
    async fn answer_to_sync(&mut self, numbers: &[i64]) -> Result<(), AgentError> {
        loop {
            // Whatever does not fit is left over from before.
            if let Some(FromGuest::Return { value, .. }) = self.message().await?
                && value
                    .get()
                    .parse()
                    .is_ok_and(|number| numbers.contains(&number))
            {
                self.lines.useful();
                return Ok(());
            }
        }
    }

    async fn exchange(&mut self, call: Call) -> Result<(Box<RawValue>, Vec<String>), AgentError> {
        let command = call.name();
        self.last_id = self.last_id.wrapping_add(1);
        let id = Some(Id::from(self.last_id));
        let request = RequestLine {
            call,
            id: id.clone(),
        };
        self.lines.send(&request.to_line()).await?;
        loop {
            match self.message().await? {
                Some(FromGuest::Return {
                    value,
                    id: of,
                    ignored,
                }) if of == id => {
                    self.lines.useful();
                    return Ok((value, ignored));
                }
                Some(FromGuest::Error { error, id: of }) if of == id => {
                    self.lines.useful();
                    return Err(AgentError::Refused {
                        command,
                        refusal: error,
                    });
                }
                _ => {}
            }
        }
    }

    /// The next line that is a reply; events are kept, what can't be read is passed over.
    async fn message(&mut self) -> Result<Option<FromGuest>, AgentError> {
        let Some(line) = self.lines.line().await? else {
            self.events_lost = true;
            return Ok(None);
        };
        match FromGuest::parse(&line) {
            Ok(FromGuest::Event(message)) => {
                let lost = matches!(message.event, Pushed::EventsLost { .. });
                let heard = if lost {
                    Heard::Lost
                } else {
                    Heard::Event(Box::new(message))
                };
                self.keep(line.len(), heard);
                Ok(None)
            }
            Ok(FromGuest::UnknownEvent { name }) => {
                self.keep(line.len(), Heard::Unknown { name });
                Ok(None)
            }
            Ok(reply) => Ok(Some(reply)),
            Err(_) => Ok(None),
        }
    }

    fn keep(&mut self, bytes: usize, heard: Heard) {
        // Events of a call that is waited for don't count as of use: a flood of them ends the call.
        if self.in_step {
            self.lines.useful();
        }
        self.events.push_back((bytes, heard));
        self.event_bytes += bytes;
        while self.events.len() > MAX_EVENTS || self.event_bytes > MAX_EVENT_BYTES {
            let Some((bytes, _)) = self.events.pop_front() else {
                break;
            };
            self.event_bytes -= bytes;
            self.events_lost = true;
        }
    }
}

fn silent(command: &'static str, limit: Duration) -> AgentError {
    AgentError::Silent { command, limit }
}

/// A number that no former client of the same channel used, most likely.
fn fresh_number() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.as_ref().map_or(0, |since| since.subsec_nanos().into());
    let seconds = now.map_or(0, |since| since.as_secs());
    (seconds << 30) ^ nanos ^ (u64::from(std::process::id()) << 12)
}
