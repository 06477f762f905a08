//! The lab's side of its agent: commands, files and probes in a guest, or in a network namespace.

pub mod proto;
mod transport;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::qemu::Console;
use proto::{DATA_LIMIT_BYTES, Exit, Hex, Op, Outcome, Reply};
use transport::Transport;

/// What a command may take unless the caller says otherwise. Guests are slow under emulation.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// What the channel may take on top of a command's own time: a migration can lie in between.
const CHANNEL_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at a log.
const LOG_STEP: Duration = Duration::from_millis(200);

/// What a command left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// Whether more than 256 KiB came on either and the rest was dropped.
    pub truncated: bool,
}

impl Output {
    /// Whether it ended with status 0.
    pub fn success(&self) -> bool {
        self.exit == Exit::Status(0)
    }

    /// Standard output as text, without white space at its end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text, without white space at its end.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}

/// A program that runs on by itself where the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Background {
    /// Its process id there.
    pub pid: u32,
}

/// A connection to an agent. Clones share it; it outlives a migration of the guest.
#[derive(Debug, Clone)]
pub struct Agent {
    transport: Transport,
}

impl Agent {
    /// The agent in a guest, over the host's end of its virtio-serial port; with the guest's console, a
    /// failure tells what happened to the guest.
    pub(crate) fn in_guest(stream: UnixStream, console: Option<Console>) -> Result<Self> {
        let transport = Transport::new();
        transport.attach_socket(stream, console)?;
        Ok(Self { transport })
    }

    /// The agent that is this child process, spoken to over its standard input and output.
    pub(crate) fn of_child(child: &mut Child) -> Result<Self> {
        let input = child
            .stdin
            .take()
            .context("the agent's standard input is not piped")?;
        let output = child
            .stdout
            .take()
            .context("the agent's standard output is not piped")?;
        let transport = Transport::new();
        transport.attach(Box::new(input), Box::new(output), None);
        Ok(Self { transport })
    }

    /// Holds requests back from here on, until [`Self::resume`]: a migration is under way.
    pub(crate) fn pause(&self) {
        self.transport.pause();
    }

    /// Goes on over a new connection, sending again whatever has no answer yet.
    pub(crate) fn resume(&self, stream: UnixStream, console: Option<Console>) -> Result<()> {
        self.transport.attach_socket(stream, console)
    }

    /// Goes on over the connection that was there before [`Self::pause`].
    pub(crate) fn unpause(&self) {
        self.transport.unpause();
    }

    /// Sends a request and waits for its answer, `limit` at most.
    pub fn call(&self, op: Op, limit: Duration) -> Result<Reply> {
        let title = op.title();
        match self
            .transport
            .call(op, limit)
            .with_context(|| title.clone())?
        {
            Outcome::Done(reply) => Ok(reply),
            Outcome::Failed(error) => Err(anyhow!(error).context(title)),
        }
    }

    /// Whether the agent answers within `limit`.
    pub fn ping(&self, limit: Duration) -> Result<()> {
        self.call(Op::Ping, limit).map(|_| ())
    }

    /// Runs a program to its end and gives what it left, whatever its exit status.
    pub fn run(&self, argv: &[&str], limit: Duration) -> Result<Output> {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        let limit_ms = milliseconds(limit);
        match self.call(Op::Run { argv, limit_ms }, limit + CHANNEL_LIMIT)? {
            Reply::Ran(result) => Ok(Output {
                exit: result.exit,
                stdout: result.stdout.0,
                stderr: result.stderr.0,
                truncated: result.truncated,
            }),
            other => unexpected(&other),
        }
    }

    /// Runs a shell command that must succeed within [`COMMAND_LIMIT`], and gives its standard output.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.run(&["sh", "-c", script], COMMAND_LIMIT)?;
        if !output.success() {
            bail!(
                "`{script}` failed ({:?}):\n{}\n{}",
                output.exit,
                output.text(),
                output.error_text()
            );
        }
        if output.truncated {
            bail!("`{script}` printed more than the lab takes: write to a file and read that");
        }
        Ok(output.text())
    }

    /// Starts a program that runs on by itself; both its outputs go to the file `log`.
    pub fn spawn(&self, argv: &[&str], env: &[(&str, &str)], log: &str) -> Result<Background> {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        match self.call(
            Op::Spawn {
                argv,
                log: log.to_owned(),
                env,
            },
            CHANNEL_LIMIT,
        )? {
            Reply::Spawned { pid } => Ok(Background { pid }),
            other => unexpected(&other),
        }
    }

    /// Waits for a program that was started; nothing if it still runs after `limit`.
    pub fn wait(&self, program: Background, limit: Duration) -> Result<Option<Exit>> {
        let op = Op::Wait {
            pid: program.pid,
            limit_ms: milliseconds(limit),
        };
        match self.call(op, limit + CHANNEL_LIMIT)? {
            Reply::Ended(exit) => Ok(exit),
            other => unexpected(&other),
        }
    }

    /// Sends a signal, by number, to a program that was started.
    pub fn signal(&self, program: Background, signal: i32) -> Result<()> {
        self.call(
            Op::Signal {
                pid: program.pid,
                signal,
            },
            CHANNEL_LIMIT,
        )
        .map(|_| ())
    }

    /// Writes a file.
    pub fn write_file(&self, path: &str, data: &[u8], executable: bool) -> Result<()> {
        let mut offset = 0;
        loop {
            let end = data.len().min(offset + DATA_LIMIT_BYTES);
            let op = Op::WriteFile {
                path: path.to_owned(),
                offset: offset as u64,
                data: Hex(data[offset..end].to_vec()),
                executable,
            };
            self.call(op, CHANNEL_LIMIT)?;
            offset = end;
            if offset == data.len() {
                return Ok(());
            }
        }
    }

    /// Copies a file of this machine.
    pub fn push_file(&self, host_path: &Path, path: &str, executable: bool) -> Result<()> {
        let data = std::fs::read(host_path)
            .with_context(|| format!("cannot read {}", host_path.display()))?;
        self.write_file(path, &data, executable)
    }

    /// The complete lines of a program's log.
    pub fn lines(&self, log: &str) -> Result<Vec<String>> {
        let text = String::from_utf8_lossy(&self.read_file(log)?).into_owned();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        Ok(complete.lines().map(str::to_owned).collect())
    }

    /// Waits until what is looked for is among them.
    pub fn await_lines<T>(
        &self,
        log: &str,
        what: &str,
        limit: Duration,
        find: impl Fn(&[String]) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let lines = self.lines(log)?;
            if let Some(found) = find(&lines) {
                return Ok(found);
            }
            ensure!(
                Instant::now() < deadline,
                "{what} did not come; {log} says:\n{}",
                lines.join("\n")
            );
            std::thread::sleep(LOG_STEP);
        }
    }

    /// Reads a file.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let op = Op::ReadFile {
                path: path.to_owned(),
                offset: bytes.len() as u64,
            };
            match self.call(op, CHANNEL_LIMIT)? {
                Reply::Data { data, end } => {
                    bytes.extend(data.0);
                    if end {
                        return Ok(bytes);
                    }
                }
                other => return unexpected(&other),
            }
        }
    }
}

pub(crate) fn unexpected<T>(reply: &Reply) -> Result<T> {
    let shown: String = format!("{reply:?}").chars().take(200).collect();
    bail!("the agent gave an answer of another kind: {shown}")
}

pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
