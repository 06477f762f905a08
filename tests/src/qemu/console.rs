//! Watches a guest's console: keeps the log, and ends the guest when its kernel is in trouble.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags};

use crate::process::{self, ProcessHandle};

/// Lines kept for reports.
const TAIL_LINES: usize = 60;
/// Lines kept for searching.
const KEPT_LINES: usize = 20_000;
/// A line longer than this is cut there, in bytes.
const LINE_LIMIT_BYTES: usize = 4096;
/// After the first sign of trouble the console is read on for this long, for the trace that follows.
const TRACE_TIME: Duration = Duration::from_secs(2);

/// What a kernel prints when it is in trouble (kernel/panic.c, arch/x86/kernel/dumpstack.c,
/// `kernel/rcu/tree_stall.h`, `kernel/hung_task.c`, `kernel/watchdog.c`; Linux 6.12).
const TROUBLE: [(&str, &str); 10] = [
    ("Kernel panic - not syncing", "kernel panic"),
    ("Oops: ", "kernel oops"),
    ("] BUG: ", "kernel bug"),
    ("kernel BUG at", "kernel bug"),
    ("BUG: soft lockup", "soft lockup"),
    ("general protection fault", "kernel fault"),
    ("detected stalls on CPUs", "RCU stall"),
    ("self-detected stall on CPU", "RCU stall"),
    (" blocked for more than ", "hung task"),
    ("lab-agent ended", "the lab's agent in the guest ended"),
];

/// Why a guest is over. The text ends with the console's last lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestFailure {
    /// The guest's kernel reported trouble.
    #[error("{what} in the guest: {line}\n{tail}")]
    Kernel {
        /// Which kind.
        what: &'static str,
        /// The line that told.
        line: String,
        /// The console's end.
        tail: String,
    },
    /// QEMU ended by itself.
    #[error("QEMU ended by itself ({status}): {errors}\n{tail}")]
    QemuEnded {
        /// Its exit status.
        status: String,
        /// What it wrote to its standard error.
        errors: String,
        /// The console's end.
        tail: String,
    },
    /// The guest printed nothing for too long while it should have been booting.
    #[error("the guest was silent for {seconds} s while booting\n{tail}")]
    Silent {
        /// How long, in seconds.
        seconds: u64,
        /// The console's end.
        tail: String,
    },
}

#[derive(Debug)]
struct State {
    lines: VecDeque<String>,
    dropped: usize,
    last_output: Instant,
    failure: Option<GuestFailure>,
    ended: bool,
    end_expected: bool,
}

/// A guest's console and the state of its QEMU.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Arc<(Mutex<State>, Condvar)>,
    log: PathBuf,
}

impl Console {
    /// Takes over a QEMU process whose standard output is the guest's console. The log goes to `log`.
    pub(crate) fn watch(mut child: Child, log: &Path) -> Result<Self> {
        let stdout = child
            .stdout
            .take()
            .context("QEMU's standard output is not piped")?;
        let stderr = child
            .stderr
            .take()
            .context("QEMU's standard error is not piped")?;
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let handle = ProcessHandle::of(&child)?;
        let state = State {
            lines: VecDeque::new(),
            dropped: 0,
            last_output: Instant::now(),
            failure: None,
            ended: false,
            end_expected: false,
        };
        let console = Self {
            shared: Arc::new((Mutex::new(state), Condvar::new())),
            log: log.to_path_buf(),
        };
        let watcher = console.clone();
        std::thread::spawn(move || {
            let errors = std::thread::spawn(move || read_errors(stderr));
            watcher.read(stdout, file, &handle);
            handle.kill();
            let status = child
                .wait()
                .map_or_else(|error| error.to_string(), |s| s.to_string());
            let errors = errors.join().unwrap_or_default();
            watcher.process_ended(status, errors);
        });
        Ok(console)
    }

    /// The file with the whole console.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The console's last lines.
    pub fn tail(&self) -> String {
        tail(&self.lock())
    }

    /// The lines so far that contain `text`.
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        self.lock()
            .lines
            .iter()
            .filter(|line| line.contains(text))
            .cloned()
            .collect()
    }

    /// How long the guest has printed nothing.
    pub fn silence(&self) -> Duration {
        self.lock().last_output.elapsed()
    }

    /// Fails if the guest is over for a reason that was not asked for.
    pub fn check(&self) -> Result<(), GuestFailure> {
        self.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// Waits for a line that contains `text`, also among those already printed.
    pub fn wait_line(&self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        let mut next = 0;
        loop {
            let start = next.max(state.dropped) - state.dropped;
            if let Some(line) = state
                .lines
                .iter()
                .skip(start)
                .find(|line| line.contains(text))
            {
                return Ok(line.clone());
            }
            next = state.dropped + state.lines.len();
            if let Some(failure) = &state.failure {
                return Err(failure.clone().into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                let end = if state.ended {
                    "before QEMU ended"
                } else {
                    "in time"
                };
                anyhow::bail!("the console did not show `{text}` {end}\n{}", tail(&state));
            }
            let waited = self.shared.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// From here on the end of QEMU is no failure.
    pub(crate) fn expect_end(&self) {
        self.lock().end_expected = true;
    }

    /// Waits until QEMU has ended; `false` if it has not within `limit`.
    pub(crate) fn wait_end(&self, limit: Duration) -> bool {
        let (_, changed) = &*self.shared;
        let waited = changed.wait_timeout_while(self.lock(), limit, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Records that the guest was silent for too long.
    pub(crate) fn fail_silent(&self, silence: Duration) -> GuestFailure {
        let mut state = self.lock();
        let failure = GuestFailure::Silent {
            seconds: silence.as_secs(),
            tail: tail(&state),
        };
        state.failure.get_or_insert(failure).clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until the console ends, or until the trace after a sign of trouble is complete.
    fn read(&self, mut stdout: ChildStdout, mut log: File, handle: &ProcessHandle) {
        let mut bytes = [0; 4096];
        let mut line = Vec::new();
        let mut trouble: Option<(&'static str, String, Instant)> = None;
        loop {
            if let Some((what, text, since)) = &trouble {
                let mut fds = [PollFd::new(&stdout, PollFlags::IN)];
                let more = process::poll_until(&mut fds, *since + TRACE_TIME).unwrap_or(false);
                if !more || since.elapsed() >= TRACE_TIME {
                    self.fail_kernel(what, text);
                    return;
                }
            }
            // QEMU holds the other end, so the end of the pipe is the end of QEMU.
            let count = match stdout.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            // A full disk must not stop the watch.
            let _ = log.write_all(&bytes[..count]);
            self.lock().last_output = Instant::now();
            for byte in &bytes[..count] {
                if *byte != b'\n' && line.len() < LINE_LIMIT_BYTES {
                    line.push(*byte);
                    continue;
                }
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches('\r')
                    .to_owned();
                line.clear();
                if trouble.is_none() && !self.lock().end_expected {
                    trouble =
                        sign_of_trouble(&text).map(|what| (what, text.clone(), Instant::now()));
                }
                self.add_line(text);
            }
        }
        if let Some((what, text, _)) = trouble {
            self.fail_kernel(what, &text);
        }
        // The guest's console may close a moment before the process is gone.
        let _ = handle.wait_exit(Duration::from_secs(5));
    }

    fn add_line(&self, text: String) {
        let mut state = self.lock();
        if state.lines.len() == KEPT_LINES {
            state.lines.pop_front();
            state.dropped += 1;
        }
        state.lines.push_back(text);
        drop(state);
        self.shared.1.notify_all();
    }

    fn fail_kernel(&self, what: &'static str, line: &str) {
        let mut state = self.lock();
        let failure = GuestFailure::Kernel {
            what,
            line: line.to_owned(),
            tail: tail(&state),
        };
        state.failure.get_or_insert(failure);
        drop(state);
        self.shared.1.notify_all();
    }

    fn process_ended(&self, status: String, errors: String) {
        let mut state = self.lock();
        state.ended = true;
        if !state.end_expected {
            let failure = GuestFailure::QemuEnded {
                status,
                errors,
                tail: tail(&state),
            };
            state.failure.get_or_insert(failure);
        }
        drop(state);
        self.shared.1.notify_all();
    }
}

fn tail(state: &State) -> String {
    let skip = state.lines.len().saturating_sub(TAIL_LINES);
    let lines: Vec<&str> = state.lines.iter().skip(skip).map(String::as_str).collect();
    format!(
        "--- the console's last {} lines ---\n{}\n--- end ---",
        lines.len(),
        lines.join("\n")
    )
}

fn sign_of_trouble(line: &str) -> Option<&'static str> {
    TROUBLE
        .iter()
        .find(|(text, _)| line.contains(text))
        .map(|(_, what)| *what)
}

fn read_errors(stderr: ChildStderr) -> String {
    const LIMIT_BYTES: u64 = 64 << 10;
    let mut bytes = Vec::new();
    let mut limited = stderr.take(LIMIT_BYTES);
    // What came before an error is still worth showing; the rest is read so that QEMU never blocks.
    let _ = limited.read_to_end(&mut bytes);
    let _ = std::io::copy(&mut limited.into_inner(), &mut std::io::sink());
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn console_of(script: &str) -> (Console, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let child = process::spawn_bound(command).unwrap();
        let console = Console::watch(child, &folder.path().join("log")).unwrap();
        (console, folder)
    }

    #[test]
    fn a_panic_ends_the_guest_and_names_the_line() {
        let (console, _folder) = console_of(
            "echo booting; echo 'Kernel panic - not syncing: x'; echo trace; exec sleep 60",
        );
        assert!(console.wait_end(Duration::from_secs(20)));
        let failure = console.check().unwrap_err();
        let GuestFailure::Kernel { what, line, tail } = failure else {
            panic!("{failure}")
        };
        assert_eq!(
            (what, line.as_str()),
            ("kernel panic", "Kernel panic - not syncing: x")
        );
        assert!(tail.contains("trace"));
    }

    #[test]
    fn an_early_end_is_a_failure_with_what_qemu_said() {
        let (console, _folder) = console_of("echo hello; echo 'no such device' >&2; exit 3");
        let error = console
            .wait_line("never", Duration::from_secs(20))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no such device") && error.contains("hello"),
            "{error}"
        );
    }

    #[test]
    fn an_expected_end_is_none() {
        let (console, folder) = console_of("echo hello; read line");
        assert_eq!(
            console.wait_line("hel", Duration::from_secs(20)).unwrap(),
            "hello"
        );
        console.expect_end();
        drop(folder);
        assert!(console.check().is_ok());
    }

    /// Lines as Linux prints them, and what they are a sign of.
    #[test]
    fn trouble_is_told_from_what_a_kernel_prints_in_good_health() {
        let lines = [
            (
                "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs",
                Some("kernel panic"),
            ),
            (
                "[   10.0] Oops: 0000 [#1] PREEMPT SMP NOPTI",
                Some("kernel oops"),
            ),
            (
                "[   10.0] BUG: kernel NULL pointer dereference, address: 0",
                Some("kernel bug"),
            ),
            (
                "[   10.0] kernel BUG at net/core/dev.c:10000!",
                Some("kernel bug"),
            ),
            (
                "[   48.0] watchdog: BUG: soft lockup - CPU#1 stuck for 26s!",
                Some("soft lockup"),
            ),
            (
                "[   61.5] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
                Some("RCU stall"),
            ),
            (
                "[   61.5] rcu: INFO: rcu_sched self-detected stall on CPU",
                Some("RCU stall"),
            ),
            (
                "[  122.0] INFO: task tandem:99 blocked for more than 120 seconds.",
                Some("hung task"),
            ),
            ("[    0.1] rcu: Hierarchical RCU implementation.", None),
            (
                "[    0.2] NMI watchdog: Perf NMI watchdog permanently disabled",
                None,
            ),
            (
                "[    5.0] bond0: (slave eth0): making interface the new active one",
                None,
            ),
        ];
        for (line, what) in lines {
            assert_eq!(sign_of_trouble(line), what, "{line}");
        }
    }
}
