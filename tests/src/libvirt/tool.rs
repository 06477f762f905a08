//! Runs `tandem-host` as an operator does.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::daemon::LibvirtHost;
use crate::artifacts::cargo::{self, Profile};
use crate::command::{self, Capture, Finished};
use crate::process::{self, ProcessHandle};

/// Of each of its outputs so much is kept, in bytes.
const OUTPUT_LIMIT_BYTES: usize = 1 << 20;
/// A few virsh on a busy machine.
const OPERATE_LIMIT: Duration = Duration::from_secs(60);

/// What a run of `tandem-host` left.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said besides.
    pub stderr: String,
}

impl Ran {
    /// Its output as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {self:?}"))
    }
}

impl From<Finished> for Ran {
    fn from(finished: Finished) -> Self {
        Self {
            code: finished.status.code(),
            stdout: finished.stdout,
            stderr: finished.stderr,
        }
    }
}

/// `tandem-host` with these arguments, to its end.
pub fn tandem_host(arguments: &[&str], limit: Duration) -> Result<Ran> {
    tandem_host_of(&program()?, arguments, limit)
}

/// That `tandem-host`, of another version perhaps, with these arguments, to its end.
pub fn tandem_host_of(program: &Path, arguments: &[&str], limit: Duration) -> Result<Ran> {
    Ok(command::run_any(Command::new(program).args(arguments), limit)?.into())
}

/// This version's `tandem-host`.
pub fn program() -> Result<PathBuf> {
    cargo::program("tandem-host", "tandem-host", Profile::Dev)
}

/// A `tandem-host` under way. It is killed when the lab dies.
#[derive(Debug)]
pub struct Running {
    child: Child,
    handle: ProcessHandle,
    stdout: Capture,
    stderr: Capture,
}

impl Running {
    /// Starts it with these arguments.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Ok(Self::start_told(arguments)?.0)
    }

    /// Starts it with these arguments; its lines of progress come as they are written, until it ends.
    pub fn start_told(arguments: &[&str]) -> Result<(Self, mpsc::Receiver<String>)> {
        Self::start_command(command_of(arguments)?)
    }

    /// As [`Self::start_told`], and it logs what it does too.
    pub fn start_logged(arguments: &[&str]) -> Result<(Self, mpsc::Receiver<String>)> {
        let mut command = command_of(arguments)?;
        command.env("RUST_LOG", "info");
        Self::start_command(command)
    }

    /// Starts a program that becomes `tandem-host`, as [`Self::start_told`].
    pub(crate) fn start_command(command: Command) -> Result<(Self, mpsc::Receiver<String>)> {
        let mut child = process::spawn_bound(command)?;
        let handle = ProcessHandle::of(&child)?;
        let stdout = child.stdout.take().context("its output is not piped")?;
        let stderr = child.stderr.take().context("its errors are not piped")?;
        let (sender, lines) = mpsc::channel();
        let (stderr, copy) = std::io::pipe()
            .map(|(reader, writer)| (Capture::of(reader, OUTPUT_LIMIT_BYTES), (stderr, writer)))?;
        std::thread::spawn(move || {
            let (stderr, mut kept) = copy;
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Nobody may want to know at once.
                let _ = writeln!(kept, "{line}");
                let _ = sender.send(line);
            }
        });
        let running = Self {
            child,
            handle,
            stdout: Capture::of(stdout, OUTPUT_LIMIT_BYTES),
            stderr,
        };
        Ok((running, lines))
    }

    /// Ctrl-C, or `kill -9`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, signal).context("cannot signal tandem-host")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&self) -> Result<bool> {
        Ok(!self.handle.wait_exit(Duration::ZERO)?)
    }

    /// Waits for its end.
    pub fn wait(mut self, limit: Duration) -> Result<Ran> {
        let status = process::wait_deadline(&mut self.child, limit)?;
        let text = |capture: Capture| String::from_utf8_lossy(&capture.finish().0).into_owned();
        let ran = Ran {
            code: status.and_then(|status| status.code()),
            stdout: text(self.stdout),
            stderr: text(self.stderr),
        };
        ensure!(
            status.is_some(),
            "tandem-host goes on for more than {limit:?}: {ran:?}"
        );
        Ok(ran)
    }
}

/// `tandem-host serve` for that host, and what it logs. Its metrics go to [`LibvirtHost::metrics`], and its
/// records are its own: to it, the other host is another machine.
pub fn serve(host: &LibvirtHost) -> Result<(Running, mpsc::Receiver<String>)> {
    let folder = |name: &str| host.folder().join(name).display().to_string();
    let (state, records, allowed) = (
        host.state_folder(),
        folder("records"),
        folder("replug.toml"),
    );
    Running::start_logged(&[
        "serve",
        "-c",
        &host.uri(),
        "--state-dir",
        &state,
        "--records-dir",
        &records,
        "--replug-file",
        &allowed,
        "--serve-socket",
        &host.serve_socket(),
        "--channel-folder",
        &host.channel_folder(),
        "--metrics",
        &host.metrics().to_string_lossy(),
    ])
}

/// `tandem-host` with a command about the guests of one host, to its success; what it printed.
pub fn operate(host: &LibvirtHost, words: &[&str]) -> Result<String> {
    let (uri, socket, folder) = (host.uri(), host.serve_socket(), host.channel_folder());
    let there = [
        "-c",
        &uri,
        "--serve-socket",
        &socket,
        "--channel-folder",
        &folder,
    ];
    let ran = tandem_host(&[words, &there].concat(), OPERATE_LIMIT)?;
    ensure!(ran.code == Some(0), "tandem-host {words:?}: {ran:?}");
    Ok(ran.stdout)
}

/// The phase that a line of progress tells of: `   12.3 s  unplug`, and more words while memory is copied.
pub fn phase_of(line: &str) -> Option<&str> {
    line.split_once(" s  ")?.1.split_whitespace().next()
}

/// Reads lines of progress until one tells of this phase.
pub fn await_phase(lines: &mpsc::Receiver<String>, phase: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut said = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = lines
            .recv_timeout(left)
            .with_context(|| format!("tandem-host did not come to {phase}: {said:#?}"))?;
        if phase_of(&line) == Some(phase) {
            return Ok(());
        }
        said.push(line);
    }
}

fn command_of(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program()?);
    command.args(arguments);
    Ok(command)
}

/// Writes a file that an argument names, and gives its path.
pub fn file(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_string_lossy().into_owned())
}
