//! The service's client: asks over the local socket and waits no longer than it is told to.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tandem_wire::event::{EventMessage, Pushed};
use tandem_wire::framing::{Decoder, FrameError};
use tandem_wire::from_guest::{FromGuest, ReplyError, content};
use tandem_wire::message::{Call, Id, RequestLine};
use tandem_wire::reply::{Empty, ErrorBody};
use tandem_wire::words::shortened;

use crate::channel;

/// Longest text in what the service says, in characters.
const MAX_TEXT: usize = 4_000;

/// Events that came while a reply was waited for; the oldest go beyond that.
const MAX_EVENTS: usize = 1024;

/// Why the service could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("tandem is not running: nobody listens on {}; start it with `systemctl start tandem`", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket belongs to root.
    #[error("no permission to open {}; run this command as root", path.display())]
    NotAllowed {
        /// The socket.
        path: PathBuf,
    },
    /// The socket can't be used.
    #[error("{} can't be used: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// No answer within the limit.
    #[error("tandem did not answer within {} s; look at its log: `journalctl -u tandem`", limit.as_secs_f32())]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The service hung up, as when it is stopped.
    #[error("tandem closed the connection before it answered")]
    Closed,
    /// The service refused; its own words.
    #[error("{0}")]
    Refused(ErrorBody),
    /// The service answered something that this version doesn't understand.
    #[error("{0}; is the service of another version than this command? restart it")]
    NotUnderstood(ReplyError),
    /// The service sent a line that is none.
    #[error("what tandem sent is damaged: {0}")]
    Damaged(FrameError),
}

/// A connection to the service.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: UnixStream,
    decoder: Decoder,
    /// Read and not yet decoded.
    input: Vec<u8>,
    events: VecDeque<EventMessage>,
    /// Events that were dropped since the last one was handed out.
    lost: u64,
    last_id: u64,
}

impl Client {
    /// Connects; doesn't wait.
    ///
    /// # Errors
    /// If no service runs, or its socket can't be opened.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let connected = channel::connect(&path).and_then(|stream| {
            stream.set_nonblocking(false)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => Ok(Self {
                path,
                stream,
                decoder: Decoder::new(tandem_wire::MAX_REPLY_BYTES),
                input: Vec::new(),
                events: VecDeque::new(),
                lost: 0,
                last_id: 0,
            }),
            Err(e) => Err(match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning { path }
                }
                io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path },
                _ => ClientError::Socket { path, source: e },
            }),
        }
    }

    /// Asks and waits for the answer, at most `limit`.
    ///
    /// # Errors
    /// If the service refuses, hangs up, doesn't answer in time or not with a `T`.
    pub fn call<T: DeserializeOwned>(
        &mut self,
        call: Call,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let deadline = Some(Deadline::after(limit));
        let command = call.name();
        self.last_id += 1;
        let id = Some(Id::from(self.last_id));
        let request = RequestLine {
            call,
            id: id.clone(),
        };
        self.send(&request.to_line(), deadline)?;
        loop {
            match self.receive(deadline)? {
                FromGuest::Return { value, id: of, .. } if of == id => {
                    return content(command, &value).map_err(ClientError::NotUnderstood);
                }
                FromGuest::Error { error, id: of } if of == id || of.is_none() => {
                    return Err(ClientError::Refused(error));
                }
                FromGuest::Event(event) => self.keep(event),
                // Replies to earlier calls that were given up, and unknown events.
                _ => {}
            }
        }
    }

    /// Asks for events from now on.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn subscribe(&mut self, limit: Duration) -> Result<(), ClientError> {
        self.call(Call::TandemSubscribe, limit).map(|Empty {}| ())
    }

    /// Waits for the next event, however long it takes.
    ///
    /// # Errors
    /// If the service hangs up.
    pub fn next_event(&mut self) -> Result<EventMessage, ClientError> {
        loop {
            if let Some(event) = self.next_kept() {
                return Ok(event);
            }
            if let FromGuest::Event(event) = self.receive(None)? {
                return Ok(event);
            }
        }
    }

    fn keep(&mut self, event: EventMessage) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.lost += 1;
        }
        self.events.push_back(event);
    }

    /// The oldest event that is kept; before it, how many older ones were not.
    fn next_kept(&mut self) -> Option<EventMessage> {
        let timestamp = self.events.front()?.timestamp;
        match std::mem::take(&mut self.lost) {
            0 => self.events.pop_front(),
            count => Some(EventMessage {
                event: Pushed::EventsLost { count },
                timestamp,
            }),
        }
    }

    fn send(&mut self, mut bytes: &[u8], deadline: Option<Deadline>) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            let left = deadline.map(Deadline::left).transpose()?;
            let set = self.stream.set_write_timeout(left);
            match set.and_then(|()| self.stream.write(bytes)) {
                Ok(count) => bytes = &bytes[count..],
                // A service that refuses the connection says why before it hangs up.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(e) => self.may_go_on(e)?,
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Option<Deadline>) -> Result<FromGuest, ClientError> {
        loop {
            let line = self.decoder.take_line(&mut self.input);
            if let Some(line) = line {
                let line = line.map_err(ClientError::Damaged)?;
                return FromGuest::parse(&harmless(&line)).map_err(ClientError::NotUnderstood);
            }
            let mut bytes = [0; 4096];
            let left = deadline.map(Deadline::left).transpose()?;
            let set = self.stream.set_read_timeout(left);
            match set.and_then(|()| self.stream.read(&mut bytes)) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ClientError::Closed);
                }
                Err(e) => self.may_go_on(e)?,
            }
        }
    }

    /// What was interrupted can be tried again, and what took too long is past its deadline then.
    fn may_go_on(&self, error: io::Error) -> Result<(), ClientError> {
        match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(()),
            _ => Err(ClientError::Socket {
                path: self.path.clone(),
                source: error,
            }),
        }
    }
}

/// The same line with texts that harm no terminal and no log: root reads what a service says that is another user, and
/// reads bytes of the host. One that is no JSON stays as it is, and is refused.
fn harmless(line: &str) -> String {
    serde_json::from_str(line).map_or_else(
        |_| line.to_owned(),
        |mut value: Value| {
            make_harmless(&mut value);
            value.to_string()
        },
    )
}

/// Goes no deeper than the parser did.
fn make_harmless(value: &mut Value) {
    match value {
        Value::String(text) => *text = shortened(text, MAX_TEXT),
        Value::Array(values) => values.iter_mut().for_each(make_harmless),
        Value::Object(entries) => entries.values_mut().for_each(make_harmless),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    limit: Duration,
    until: Instant,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self {
            limit,
            until: Instant::now() + limit,
        }
    }

    /// What is left, which is more than nothing.
    fn left(self) -> Result<Duration, ClientError> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ClientError::TimedOut { limit: self.limit }),
            left => Ok(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::status::{Event, ProblemCode};
    use tandem_wire::event::Timestamp;

    fn client(stream: UnixStream) -> Client {
        Client {
            path: PathBuf::new(),
            stream,
            decoder: Decoder::new(tandem_wire::MAX_REPLY_BYTES),
            input: Vec::new(),
            events: VecDeque::new(),
            lost: 0,
            last_id: 0,
        }
    }

    #[test]
    fn what_the_service_says_harms_no_terminal() {
        let (stream, mut service) = UnixStream::pair().unwrap();
        let long = "x".repeat(MAX_TEXT + 1);
        let said = [
            r#"{"return":{"a":[{"b":"\u001b[2Jc\u202ed\u009be"}],"long":"LONG","number":18446744073709551615},"id":1}"#,
            r#"{"error":{"class":"GenericError","desc":"no\u001b]0;title\u0007"},"id":2}"#,
            r#"{"event":"bond-state-of-tomorrow","timestamp":{"seconds":0,"microseconds":0},"data":{}}"#,
        ];
        let said = said.join("\n").replace("LONG", &long) + "\n";
        service.write_all(said.as_bytes()).unwrap();
        let mut client = client(stream);
        let limit = Duration::from_secs(5);
        let told: Value = client.call(Call::TandemStatus, limit).unwrap();
        assert_eq!(told["a"][0]["b"], " [2Jc d e");
        assert_eq!(told["long"].as_str().unwrap().len(), MAX_TEXT);
        assert_eq!(told["number"], u64::MAX);
        let refused = client.call::<Value>(Call::TandemStatus, limit);
        assert_eq!(refused.unwrap_err().to_string(), "no ]0;title ");
    }

    #[test]
    fn events_that_did_not_fit_are_counted_before_those_that_did() {
        let (stream, _service) = UnixStream::pair().unwrap();
        let mut client = client(stream);
        let event = |number: usize| EventMessage {
            event: Pushed::Bond(Event::ProblemCleared {
                bond: format!("bond{number}").parse().unwrap(),
                code: ProblemCode::Flapping,
            }),
            timestamp: Timestamp::default(),
        };
        for number in 0..MAX_EVENTS + 3 {
            client.keep(event(number));
        }
        let lost = client.next_event().unwrap().event;
        assert_eq!(lost, Pushed::EventsLost { count: 3 });
        assert_eq!(client.next_event().unwrap(), event(3));
        assert_eq!(client.next_event().unwrap(), event(4));
    }
}
