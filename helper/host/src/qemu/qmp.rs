//! One connection to QEMU's monitor (QEMU, `docs/interop/qmp-spec.rst`): replies are matched by
//! identity, events go their own way, and what is unknown is passed over.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tandem_wire::framing::Decoder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Longest line of QEMU; `query-pci` of a large machine is some 100 KiB.
const MAX_LINE_BYTES: usize = 8 << 20;
/// Commands that wait for their turn or their reply.
const MAX_OPEN: usize = 64;
/// How long QEMU may take to greet and to answer. It answers from its main loop, which a device's
/// reset or a migration's last step may hold up.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// Something happened in QEMU.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QmpEvent {
    pub(super) name: String,
    pub(super) data: Value,
}

/// What comes out of a connection unasked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Unasked {
    Event(QmpEvent),
    /// A line was too long or no JSON, so an event may be missing.
    Lost,
}

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum QmpError {
    #[error("{}: {reason}", path.display())]
    Unreachable {
        path: PathBuf,
        reason: String,
        /// Nobody listens: QEMU has ended.
        ended: bool,
    },
    #[error("no answer to `{command}` within {} s", LIMIT.as_secs())]
    TimedOut { command: String },
    #[error("{desc}")]
    Refused {
        /// QMP's error class.
        class: String,
        desc: String,
    },
}

struct Request {
    command: String,
    arguments: Value,
    reply: oneshot::Sender<Result<Value, QmpError>>,
}

/// The asking end; the connection closes when the last copy is dropped.
#[derive(Debug, Clone)]
pub(super) struct Qmp {
    requests: mpsc::Sender<Request>,
    path: PathBuf,
}

#[derive(Deserialize)]
struct Incoming {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<ErrorBody>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    id: Value,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    class: String,
    #[serde(default)]
    desc: String,
}

impl Qmp {
    /// Connects, is greeted and negotiates. `unasked` is called for each event and never waits.
    pub(super) async fn connect(
        path: &Path,
        unasked: impl Fn(Unasked) + Send + 'static,
    ) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|error| QmpError::Unreachable {
                path: path.to_owned(),
                reason: error.to_string(),
                ended: matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
                ),
            })?;
        let (read, write) = stream.into_split();
        let mut lines = Lines::new(read);
        // QEMU serves one client at a time: the next one waits for its greeting.
        let greeted = timeout(LIMIT, async {
            loop {
                match lines.next().await {
                    None => return Err(closed(path)),
                    Some(Ok(Incoming {
                        greeting: Some(_), ..
                    })) => return Ok(()),
                    Some(_) => {}
                }
            }
        });
        greeted.await.map_err(|_| timed_out("the greeting"))??;
        let (requests, queue) = mpsc::channel(MAX_OPEN);
        tokio::spawn(serve(path.to_owned(), lines, write, queue, unasked));
        let qmp = Self {
            requests,
            path: path.to_owned(),
        };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Executes a command and waits for its result.
    pub(super) async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            command: command.to_owned(),
            arguments,
            reply,
        };
        let asked = timeout(LIMIT, async {
            self.requests
                .send(request)
                .await
                .map_err(|_| closed(&self.path))?;
            answer.await.map_err(|_| closed(&self.path))?
        });
        asked.await.map_err(|_| timed_out(command))?
    }

    /// True once QEMU has hung up.
    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Ends once QEMU has hung up.
    pub(super) async fn closed(&self) {
        self.requests.closed().await;
    }
}

/// Owns the connection until QEMU hangs up or nobody asks any more.
async fn serve(
    path: PathBuf,
    mut lines: Lines<OwnedReadHalf>,
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Request>,
    unasked: impl Fn(Unasked),
) {
    let mut open: HashMap<u64, oneshot::Sender<Result<Value, QmpError>>> = HashMap::new();
    let mut last_id: u64 = 0;
    loop {
        tokio::select! {
            line = lines.next() => match line {
                None => break,
                Some(Ok(incoming)) => take(incoming, &mut open, &unasked),
                Some(Err(())) => unasked(Unasked::Lost),
            },
            request = queue.recv() => {
                let Some(Request { command, arguments, reply }) = request else { return };
                // Nobody waits for these any more.
                open.retain(|_, reply| !reply.is_closed());
                last_id += 1;
                open.insert(last_id, reply);
                let mut line = json!({ "execute": command, "id": last_id });
                if arguments.as_object().is_some_and(|map| !map.is_empty()) {
                    line["arguments"] = arguments;
                }
                if write.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    }
    queue.close();
    for (_, reply) in open {
        // Whoever gave up waiting needs no answer.
        let _ = reply.send(Err(closed(&path)));
    }
}

fn take(
    incoming: Incoming,
    open: &mut HashMap<u64, oneshot::Sender<Result<Value, QmpError>>>,
    unasked: &impl Fn(Unasked),
) {
    if let Some(name) = incoming.event {
        let data = incoming.data;
        return unasked(Unasked::Event(QmpEvent { name, data }));
    }
    let Some(reply) = incoming.id.as_u64().and_then(|id| open.remove(&id)) else {
        return;
    };
    let result = match incoming.error {
        Some(ErrorBody { class, desc }) => Err(QmpError::Refused { class, desc }),
        None => Ok(incoming.value.unwrap_or_default()),
    };
    let _ = reply.send(result);
}

/// Lines of a connection as messages.
struct Lines<R> {
    read: R,
    decoder: Decoder,
    input: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(read: R) -> Self {
        Self {
            read,
            decoder: Decoder::new(MAX_LINE_BYTES),
            input: Vec::new(),
        }
    }

    /// The next message, `Err` for a line that is none, `None` at the end. Cancel-safe.
    async fn next(&mut self) -> Option<Result<Incoming, ()>> {
        loop {
            let line = self.decoder.take_line(&mut self.input);
            if let Some(line) = line {
                let parsed = line.map_err(|_| ());
                return Some(parsed.and_then(|line| serde_json::from_str(&line).map_err(|_| ())));
            }
            let mut bytes = [0; 16 * 1024];
            match self.read.read(&mut bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
            }
        }
    }
}

fn closed(path: &Path) -> QmpError {
    QmpError::Unreachable {
        path: path.to_owned(),
        reason: "QEMU closed the connection".to_owned(),
        ended: false,
    }
}

fn timed_out(command: &str) -> QmpError {
    QmpError::TimedOut {
        command: command.to_owned(),
    }
}

/// What a connection's bytes come to where results of that many commands are waited for, for tests/fuzz.
#[cfg(fuzzing)]
pub(super) fn heard(bytes: &[u8], commands: u64) -> (Vec<Unasked>, Vec<Result<Value, String>>) {
    use std::task::{Context, Poll, Waker};
    let (mut open, waiting): (HashMap<_, _>, Vec<_>) = (1..=commands)
        .map(|id| {
            let (reply, waits) = oneshot::channel();
            ((id, reply), waits)
        })
        .unzip();
    let unasked = std::cell::RefCell::new(Vec::new());
    let note = |one| unasked.borrow_mut().push(one);
    let mut lines = Lines::new(bytes);
    loop {
        let next = std::pin::pin!(lines.next());
        match next.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(incoming))) => take(incoming, &mut open, &note),
            Poll::Ready(Some(Err(()))) => note(Unasked::Lost),
            Poll::Ready(None) | Poll::Pending => break,
        }
    }
    let replies = waiting
        .into_iter()
        .filter_map(|mut reply| reply.try_recv().ok());
    let replies = replies.map(|reply| reply.map_err(|error| error.to_string()));
    (unasked.into_inner(), replies.collect())
}
