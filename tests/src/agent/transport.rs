//! Carries requests to an agent and its answers back, over a connection that a migration replaces.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::proto::{Lines, Op, Outcome, Request, Response, to_line};
use crate::qemu::Console;

/// An agent that takes no bytes for this long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// A request without an answer, or an answer nobody has fetched.
#[derive(Debug)]
struct Pending {
    line: Vec<u8>,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Paused,
    Closed,
}

#[derive(Debug)]
struct State {
    pending: BTreeMap<u64, Pending>,
    next_id: u64,
    /// Counts connections, so that the end of an old one is not taken for the end of the new one.
    connection: u64,
    phase: Phase,
    console: Option<Console>,
}

#[derive(Clone)]
pub(super) struct Transport {
    shared: Arc<(Mutex<State>, Condvar)>,
    /// Apart from the state, so that a write that blocks does not keep answers from being filed.
    writer: Arc<Mutex<Option<Box<dyn Write + Send>>>>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("state", &self.shared.0)
            .finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) fn new() -> Self {
        let state = State {
            pending: BTreeMap::new(),
            next_id: 1,
            connection: 0,
            phase: Phase::Closed,
            console: None,
        };
        Self {
            shared: Arc::new((Mutex::new(state), Condvar::new())),
            writer: Arc::default(),
        }
    }

    pub(super) fn attach_socket(&self, stream: UnixStream, console: Option<Console>) -> Result<()> {
        stream
            .set_write_timeout(Some(WRITE_LIMIT))
            .context("cannot bound writes to the agent")?;
        let reader = stream
            .try_clone()
            .context("cannot share the agent's socket")?;
        self.attach(Box::new(stream), Box::new(reader), console);
        Ok(())
    }

    /// Uses this connection from now on and sends again whatever has no answer.
    pub(super) fn attach(
        &self,
        writer: Box<dyn Write + Send>,
        reader: Box<dyn Read + Send>,
        console: Option<Console>,
    ) {
        let mut state = self.lock();
        state.connection += 1;
        state.phase = Phase::Open;
        state.console = console;
        let connection = state.connection;
        drop(state);
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        let transport = self.clone();
        std::thread::spawn(move || transport.read(reader, connection));
        self.send_unanswered();
    }

    pub(super) fn pause(&self) {
        self.lock().phase = Phase::Paused;
    }

    pub(super) fn unpause(&self) {
        self.lock().phase = Phase::Open;
        self.send_unanswered();
    }

    pub(super) fn call(&self, op: Op, limit: Duration) -> Result<Outcome> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let line = to_line(&Request { id, op }).context("cannot write a request to the agent")?;
        let open = state.phase == Phase::Open;
        state.pending.insert(
            id,
            Pending {
                line: line.clone(),
                outcome: None,
            },
        );
        drop(state);
        if open {
            self.write(&line);
        }
        let answer = self.wait(id, deadline, limit);
        self.lock().pending.remove(&id);
        answer
    }

    fn wait(&self, id: u64, deadline: Instant, limit: Duration) -> Result<Outcome> {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state
                .pending
                .get_mut(&id)
                .and_then(|pending| pending.outcome.take())
            {
                return Ok(outcome);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.phase == Phase::Closed || left.is_zero() {
                let (closed, console) = (state.phase == Phase::Closed, state.console.clone());
                drop(state);
                if let Some(console) = console {
                    // The console knows better why the guest went.
                    if closed {
                        console.wait_end(Duration::from_secs(5));
                    }
                    console.check()?;
                    if !closed {
                        bail!("no answer within {} s\n{}", limit.as_secs(), console.tail());
                    }
                }
                let what = if closed {
                    "the connection ended".to_owned()
                } else {
                    format!("no answer within {} s", limit.as_secs())
                };
                bail!("the lab's agent: {what}");
            }
            let waited = self.shared.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn send_unanswered(&self) {
        let lines: Vec<Vec<u8>> = self
            .lock()
            .pending
            .values()
            .filter(|pending| pending.outcome.is_none())
            .map(|pending| pending.line.clone())
            .collect();
        for line in lines {
            self.write(&line);
        }
    }

    /// Writes a line. A failure shows as the end of the connection, which the reader reports.
    fn write(&self, line: &[u8]) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.as_mut() {
            let _ = writer.write_all(line).and_then(|()| writer.flush());
        }
    }

    fn read(&self, mut reader: Box<dyn Read + Send>, connection: u64) {
        let mut lines = Lines::default();
        let mut bytes = vec![0; 64 << 10];
        loop {
            match reader.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => lines.push(&bytes[..count], |line| self.file(line)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let mut state = self.lock();
        if state.connection == connection && state.phase == Phase::Open {
            state.phase = Phase::Closed;
        }
        drop(state);
        self.shared.1.notify_all();
    }

    fn file(&self, line: &[u8]) {
        let Ok(response) = serde_json::from_slice::<Response>(line) else {
            return;
        };
        if let Some(pending) = self.lock().pending.get_mut(&response.id) {
            pending.outcome = Some(response.outcome);
        }
        self.shared.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
