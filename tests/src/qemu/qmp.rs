//! A small client of QEMU's machine protocol, QMP (docs/interop/qmp-spec.rst, QEMU 10.0).
//!
//! Replies are matched by id, events wait in a bounded queue, and what this client does not know is
//! passed over.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::console::Console;

/// The longest line taken from QEMU, in bytes.
const LINE_LIMIT_BYTES: u64 = 1 << 20;
/// Events kept until somebody waits for them; the oldest go first.
const EVENT_LIMIT: usize = 1024;
/// Answers kept that nobody waits for any more.
const REPLY_LIMIT: usize = 64;
/// How long QEMU may take to answer a command.
const REPLY_LIMIT_TIME: Duration = Duration::from_secs(60);

/// Why a command or a wait failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU refused the command.
    #[error("QEMU refused `{command}`: {description} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// QMP's error class.
        class: String,
        /// QEMU's explanation.
        description: String,
    },
    /// Nothing came within the time allowed.
    #[error("QEMU did not send {what} within {seconds} s")]
    Late {
        /// What was waited for.
        what: String,
        /// The time allowed, in seconds.
        seconds: u64,
    },
    /// The connection is over.
    #[error("the QMP connection ended while waiting for {what}")]
    Closed {
        /// What was waited for.
        what: String,
    },
    /// The command could not be sent.
    #[error("cannot send `{command}` to QEMU")]
    Send {
        /// The command.
        command: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// An event of QEMU.
#[derive(Debug, Clone, PartialEq)]
pub struct QmpEvent {
    /// Its name, such as `DEVICE_DELETED`.
    pub name: String,
    /// Its data; null if it has none.
    pub data: Value,
    /// When the lab received it.
    pub received: Instant,
}

#[derive(Debug, Default)]
struct Inbox {
    replies: VecDeque<(u64, Value)>,
    events: VecDeque<QmpEvent>,
    next_id: u64,
    closed: bool,
}

/// A connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    inbox: Arc<(Mutex<Inbox>, Condvar)>,
    console: Console,
}

impl Qmp {
    /// Takes over a fresh connection: waits for the greeting and leaves negotiation mode.
    pub(crate) fn start(stream: UnixStream, console: Console) -> Result<Self> {
        stream
            .set_write_timeout(Some(REPLY_LIMIT_TIME))
            .context("cannot bound writes to QMP")?;
        let reader = stream.try_clone().context("cannot share the QMP socket")?;
        let inbox = Arc::new((Mutex::new(Inbox::default()), Condvar::new()));
        let shared = Arc::clone(&inbox);
        std::thread::spawn(move || read(reader, &shared));
        let qmp = Self {
            stream,
            inbox,
            console,
        };
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and gives what it returns.
    pub fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let (id, deadline) = (self.take_id(), Instant::now() + REPLY_LIMIT_TIME);
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        if let Err(source) = (&self.stream).write_all(line.as_bytes()) {
            self.console.check()?;
            return Err(QmpError::Send {
                command: command.to_owned(),
                source,
            }
            .into());
        }
        let what = format!("the answer to `{command}`");
        let reply = self.wait(&what, deadline, REPLY_LIMIT_TIME, |inbox| {
            let at = inbox
                .replies
                .iter()
                .position(|(reply_id, _)| *reply_id == id)?;
            inbox.replies.remove(at).map(|(_, reply)| reply)
        })?;
        let Some(error) = reply.get("error") else {
            return Ok(reply.get("return").cloned().unwrap_or(Value::Null));
        };
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        let (class, description) = (text("class"), text("desc"));
        Err(QmpError::Refused {
            command: command.to_owned(),
            class,
            description,
        }
        .into())
    }

    /// Waits for the first event that `wanted` accepts, also among those that came already. Events
    /// before it stay in the queue.
    pub fn wait_event(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&QmpEvent) -> bool,
    ) -> Result<QmpEvent> {
        self.wait(what, Instant::now() + limit, limit, |inbox| {
            let at = inbox.events.iter().position(&wanted)?;
            inbox.events.remove(at)
        })
    }

    /// Forgets the events that came so far, so that the next wait sees only new ones.
    pub fn clear_events(&self) {
        self.lock().events.clear();
    }

    fn wait<T>(
        &self,
        what: &str,
        deadline: Instant,
        limit: Duration,
        mut take: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<T> {
        let mut inbox = self.lock();
        loop {
            if let Some(found) = take(&mut inbox) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if inbox.closed {
                drop(inbox);
                // The console knows better why QEMU went.
                self.console.wait_end(Duration::from_secs(5));
                self.console.check()?;
                return Err(QmpError::Closed {
                    what: what.to_owned(),
                }
                .into());
            }
            if left.is_zero() {
                let seconds = limit.as_secs();
                return Err(QmpError::Late {
                    what: what.to_owned(),
                    seconds,
                }
                .into());
            }
            let waited = self.inbox.1.wait_timeout(inbox, left);
            inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn take_id(&self) -> u64 {
        let mut inbox = self.lock();
        inbox.next_id += 1;
        inbox.next_id
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // Ends the reader's thread; a socket already closed is fine.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn read(stream: UnixStream, inbox: &(Mutex<Inbox>, Condvar)) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader)
            .take(LINE_LIMIT_BYTES)
            .read_until(b'\n', &mut line);
        let whole = matches!(read, Ok(count) if count > 0) && line.ends_with(b"\n");
        let mut guard = inbox.0.lock().unwrap_or_else(PoisonError::into_inner);
        if whole {
            file_line(&line, &mut guard);
        } else {
            guard.closed = true;
        }
        drop(guard);
        inbox.1.notify_all();
        if !whole {
            return;
        }
    }
}

fn file_line(line: &[u8], inbox: &mut Inbox) {
    let Ok(message) = serde_json::from_slice::<Value>(line) else {
        return;
    };
    if let Some(name) = message["event"].as_str() {
        if inbox.events.len() == EVENT_LIMIT {
            inbox.events.pop_front();
        }
        let data = message["data"].clone();
        inbox.events.push_back(QmpEvent {
            name: name.to_owned(),
            data,
            received: Instant::now(),
        });
    } else if let Some(id) = message["id"].as_u64() {
        if inbox.replies.len() == REPLY_LIMIT {
            inbox.replies.pop_front();
        }
        inbox.replies.push_back((id, message));
    }
}
