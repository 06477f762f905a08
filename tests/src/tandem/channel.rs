//! A client of Tandem's channel: over the host's end of the virtio-serial port.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tandem_core::Status;
use tandem_wire::reply::StatusReport;

/// How often a status that is waited for is asked for at least.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// After this time without an answer a client asks again.
const SYNC_AGAIN: Duration = Duration::from_secs(5);
/// Events kept until somebody asks for them.
const MAX_EVENTS: usize = 10_000;

/// One connection to the guest's service.
#[derive(Debug)]
pub struct Channel {
    reader: BufReader<UnixStream>,
    partial: Vec<u8>,
    next_id: u64,
    events: VecDeque<(Instant, Value)>,
}

impl Channel {
    /// Takes over a connection and finds the beginning of a line in it.
    pub fn new(stream: UnixStream, limit: Duration) -> Result<Self> {
        let mut channel = Self {
            reader: BufReader::new(stream),
            partial: Vec::new(),
            next_id: 1,
            events: VecDeque::new(),
        };
        channel.synchronise(limit)?;
        Ok(channel)
    }

    /// What QGA clients do after connecting and after every time-out: a sentinel, then an id that comes back.
    pub fn synchronise(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut asked = Vec::new();
        loop {
            let id = self.next_id;
            self.next_id += 1;
            asked.push(json!(id));
            self.reader.get_mut().write_all(&[0xff])?;
            let request = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
            self.send(&request)?;
            let again = deadline.min(Instant::now() + SYNC_AGAIN);
            loop {
                match self.read_line(again) {
                    Ok(message) if asked.contains(&message["return"]) => return Ok(()),
                    Ok(_) => {}
                    Err(_) if (again..deadline).contains(&Instant::now()) => break,
                    Err(error) => {
                        return Err(error).context("the guest's service does not synchronise");
                    }
                }
            }
        }
    }

    /// Sends a command and waits for its answer; an error answer is an error.
    pub fn call(&mut self, command: &str, arguments: Value, limit: Duration) -> Result<Value> {
        let answer = self.raw_call(command, arguments, limit)?;
        if let Some(error) = answer.get("error") {
            bail!(
                "{command}: {}",
                error["desc"].as_str().unwrap_or("error without text")
            );
        }
        Ok(answer["return"].clone())
    }

    /// Sends a command and waits for its answer, whatever that is.
    pub fn raw_call(&mut self, command: &str, arguments: Value, limit: Duration) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({ "execute": command, "arguments": arguments, "id": id }))?;
        let deadline = Instant::now() + limit;
        loop {
            let message = self
                .read_line(deadline)
                .with_context(|| format!("no answer to {command} within {limit:?}"))?;
            if message["id"] == json!(id) {
                return Ok(message);
            }
            self.keep_event(message);
        }
    }

    /// The guest's status and the moment of the guest's clock it was made at.
    pub fn report(&mut self, limit: Duration) -> Result<StatusReport> {
        let report = self.call("tandem-status", json!({}), limit)?;
        serde_json::from_value(report).context("the status is not understood")
    }

    /// The guest's status.
    pub fn status(&mut self, limit: Duration) -> Result<Status> {
        Ok(self.report(limit)?.status)
    }

    /// Keeps the events that come within this time.
    pub fn listen(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            match self.read_line(deadline) {
                Ok(message) => self.keep_event(message),
                Err(_) if Instant::now() >= deadline => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the guest's status is as wanted. Its events wake this up; not every change of a status is an
    /// event, so it also asks anew now and then.
    pub fn await_status(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let deadline = Instant::now() + limit;
        self.call("tandem-subscribe", json!({}), limit)?;
        loop {
            let status = self.status(limit)?;
            if wanted(&status) {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "not {what} within {limit:?}; status: {}",
                serde_json::to_string_pretty(&status)?
            );
            if let Ok(message) = self.read_line(Instant::now() + ASK_INTERVAL) {
                self.keep_event(message);
            }
        }
    }

    /// Events that came since the last call, each with the moment of its arrival.
    pub fn take_events(&mut self) -> Vec<(Instant, Value)> {
        self.events.drain(..).collect()
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader
            .get_mut()
            .write_all(bytes)
            .context("the channel takes no bytes")
    }

    fn send(&mut self, message: &Value) -> Result<()> {
        self.send_bytes(format!("{message}\n").as_bytes())
    }

    fn keep_event(&mut self, message: Value) {
        if message.get("event").is_some() && self.events.len() < MAX_EVENTS {
            self.events.push_back((Instant::now(), message));
        }
    }

    /// The next line that is JSON; other bytes, such as halves of lines, are passed over.
    fn read_line(&mut self, deadline: Instant) -> Result<Value> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "time is up");
            self.reader.get_ref().set_read_timeout(Some(left))?;
            let mut chunk = Vec::new();
            let result = self.reader.read_until(b'\n', &mut chunk);
            self.partial.append(&mut chunk);
            match result {
                Ok(0) => bail!("the channel was closed"),
                Ok(_) if self.partial.ends_with(b"\n") => {
                    let line = std::mem::take(&mut self.partial);
                    let line: Vec<u8> = line.into_iter().filter(|byte| *byte != 0xff).collect();
                    if let Ok(message) = serde_json::from_slice(&line) {
                        return Ok(message);
                    }
                }
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock
                            | std::io::ErrorKind::TimedOut
                            | std::io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error).context("the channel can't be read"),
            }
        }
    }
}
