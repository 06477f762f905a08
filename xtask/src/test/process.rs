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

/// A command that ended.
#[derive(Debug)]
pub(super) struct Ran {
    /// How.
    pub(super) end: End,
    /// The processors' time that it and those it waited for took.
    pub(super) cpu: Duration,
}

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
    ) -> Result<Ran> {
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
            let cpu = cpu(child.id());
            child.wait().context("cannot collect a stopped command")?;
            return Ok(Ran { end, cpu });
        }
        self.clear();
        let cpu = cpu(child.id());
        let status = child.wait();
        Ok(Ran {
            end: End::Exited(status.context("cannot collect a command's exit status")?),
            cpu,
        })
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

/// What a process that ended and was not waited for yet took, with its children: user and system time, in ticks of
/// 1/100 s (`proc_pid_stat(5)`, fields 14 to 17). Nothing if it cannot be told.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    Duration::from_millis(10 * ticks(&stat))
}

fn ticks(stat: &str) -> u64 {
    // The second field, the name, may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = fields.split_whitespace().skip(11).take(4);
    times.filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_and_its_children_are_read() {
        let stat = "7 (a ) b) Z 1 7 7 0 -1 4194560 1 2 3 4 100 20 3000 4 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), 3124);
        assert_eq!(ticks(""), 0);
    }
}
