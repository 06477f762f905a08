//! Runs one command of a suite: its output into the log, a bound on its time, and a sign of life meanwhile.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tandem_lab::process::ProcessHandle;

/// The clock on a terminal moves this often.
const TICK: Duration = Duration::from_secs(1);
/// Where nobody watches, a sign of life is printed this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);
/// A command that is told to end gets this long to put its things away.
const GRACE: Duration = Duration::from_secs(30);

/// How a command ended.
#[derive(Debug)]
pub(super) enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was stopped at its deadline.
    TimedOut,
    /// Somebody pressed Ctrl-C, or asked this program to end.
    Interrupted,
}

/// Watches over commands.
#[derive(Debug)]
pub(super) struct Watch {
    interrupted: Arc<AtomicBool>,
    on_terminal: bool,
}

impl Watch {
    /// Takes over Ctrl-C: the first one ends what runs in order, a second one ends this program.
    pub(super) fn new() -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
                .context("cannot watch for Ctrl-C")?;
        }
        Ok(Self {
            interrupted,
            on_terminal: std::io::stderr().is_terminal(),
        })
    }

    /// Whether somebody asked for the end.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Runs `command` with its output into `log` (and its standard output into `stdout`, if given) until it ends,
    /// at the latest at `deadline`. `doing` says in a few words what is going on, for the person who waits.
    pub(super) fn run(
        &self,
        command: &mut Command,
        log: &File,
        stdout: Option<File>,
        deadline: Instant,
        doing: impl Fn() -> String,
    ) -> Result<End> {
        let again = || log.try_clone().context("cannot share a suite's log");
        let stdout = stdout.map_or_else(again, Ok)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(again()?)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let handle = ProcessHandle::of(&child)?;
        let started = Instant::now();
        let mut last_sign = started;
        while !handle.wait_exit(TICK.min(deadline.saturating_duration_since(Instant::now())))? {
            let end = if self.is_interrupted() {
                End::Interrupted
            } else if Instant::now() >= deadline {
                End::TimedOut
            } else {
                self.show(started, &mut last_sign, &doing);
                continue;
            };
            self.clear();
            // A pid is not reused before its child is waited for, so this reaches the right process.
            let pid = Pid::from_child(&child);
            let _ = kill_process(pid, Signal::TERM);
            if !handle.wait_exit(GRACE)? {
                handle.kill();
            }
            child.wait().context("cannot collect a stopped command")?;
            return Ok(end);
        }
        self.clear();
        Ok(End::Exited(
            child
                .wait()
                .context("cannot collect a command's exit status")?,
        ))
    }

    fn show(&self, started: Instant, last_sign: &mut Instant, doing: &impl Fn() -> String) {
        let mut stderr = std::io::stderr();
        // Nobody may be listening; that is no reason to fail.
        if self.on_terminal {
            let _ = write!(
                stderr,
                "\r\x1b[K      {} ({} s)",
                doing(),
                started.elapsed().as_secs()
            );
        } else if last_sign.elapsed() >= SIGN_OF_LIFE {
            *last_sign = Instant::now();
            let _ = writeln!(
                stderr,
                "      {} ({} s)",
                doing(),
                started.elapsed().as_secs()
            );
        }
    }

    fn clear(&self) {
        if self.on_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
