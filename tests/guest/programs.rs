//! Programs the lab asks for: run to their end, or started and left running.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tandem_lab::agent::proto::{DATA_LIMIT_BYTES, Exit, Hex, RunResult};
use tandem_lab::command::Capture;
use tandem_lab::process::ProcessHandle;

/// Programs that run on by themselves at the same time.
const BACKGROUND_LIMIT: usize = 64;

/// Runs a program to its end. At `limit` it and its children are killed.
pub(crate) fn run(argv: &[String], limit: Duration) -> Result<RunResult> {
    let mut child = command(argv)?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", argv.join(" ")))?;
    let stdout = child
        .stdout
        .take()
        .map(|pipe| Capture::of(pipe, DATA_LIMIT_BYTES));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| Capture::of(pipe, DATA_LIMIT_BYTES));

    let in_time = ProcessHandle::of(&child)?.wait_exit(limit)?;
    if !in_time {
        kill_group(child.id());
    }
    let status = child.wait().context("cannot wait for the program")?;
    let finish = |capture: Option<Capture>| capture.map(Capture::finish).unwrap_or_default();
    let (stdout, stdout_cut) = finish(stdout);
    let (stderr, stderr_cut) = finish(stderr);
    let exit = if in_time {
        exit_of(status)
    } else {
        Exit::TimedOut
    };
    let truncated = stdout_cut || stderr_cut;
    Ok(RunResult {
        exit,
        stdout: Hex(stdout),
        stderr: Hex(stderr),
        truncated,
    })
}

/// Programs left running.
#[derive(Default)]
pub(crate) struct Programs {
    running: Mutex<BTreeMap<u32, Arc<Mutex<Child>>>>,
}

impl Programs {
    pub(crate) fn spawn(
        &self,
        argv: &[String],
        log: &str,
        env: &[(String, String)],
    ) -> Result<u32> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.len() >= BACKGROUND_LIMIT {
            bail!("more than {BACKGROUND_LIMIT} programs were started and not waited for");
        }
        let log = File::create(log).with_context(|| format!("cannot create {log}"))?;
        let errors = log.try_clone().context("cannot share the log")?;
        let child = command(argv)?
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdout(log)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", argv.join(" ")))?;
        let pid = child.id();
        running.insert(pid, Arc::new(Mutex::new(child)));
        Ok(pid)
    }

    pub(crate) fn wait(&self, pid: u32, limit: Duration) -> Result<Option<Exit>> {
        let child = self.find(pid)?;
        let handle = ProcessHandle::of_pid(pid)?;
        if !handle.wait_exit(limit)? {
            return Ok(None);
        }
        let status = child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .wait()
            .context("cannot wait for the program")?;
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&pid);
        Ok(Some(exit_of(status)))
    }

    pub(crate) fn signal(&self, pid: u32, signal: i32) -> Result<()> {
        self.find(pid)?;
        let signal = Signal::from_named_raw(signal).context("no such signal")?;
        let pid = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("no such process")?;
        kill_process(pid, signal).context("cannot send the signal")
    }

    fn find(&self, pid: u32) -> Result<Arc<Mutex<Child>>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .get(&pid)
            .cloned()
            .with_context(|| format!("no program {pid} was started here"))
    }
}

fn command(argv: &[String]) -> Result<Command> {
    let (program, arguments) = argv.split_first().context("no program was named")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .process_group(0);
    Ok(command)
}

fn kill_group(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The group may have ended in the meantime.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    }
}
