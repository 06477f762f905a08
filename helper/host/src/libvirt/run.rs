//! Runs `virsh`: arguments as they are, bounded in time and output.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::hypervisor::HostError;

/// Longest standard output that is taken, in bytes; lists of ten thousand domains are shorter.
pub(super) const MAX_OUTPUT_BYTES: u64 = 4 << 20;
/// Longest standard error that is kept, in bytes; the rest is read and forgotten.
pub(super) const MAX_ERROR_BYTES: u64 = 64 * 1024;

/// How to reach one libvirt.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) program: PathBuf,
    pub(super) uri: String,
    pub(super) limit: Duration,
}

/// What becomes of a command that nobody waits for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDrop {
    Killed,
    /// It goes on to its end.
    LivesOn,
}

/// A command under way, and all that it started: `virsh` has an `ssh` for a remote libvirt.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    /// To be ended when this is dropped.
    group: Option<Pid>,
}

impl Running {
    fn of(child: Child, on_drop: OnDrop) -> Self {
        let leader = child.id().and_then(|pid| pid.try_into().ok());
        let group = leader.and_then(Pid::from_raw);
        Self {
            child,
            group: group.filter(|_| on_drop == OnDrop::Killed),
        }
    }

    /// It has ended, and nobody has its output any more: its group's number may be another's by now.
    fn ended(&mut self) {
        self.group = None;
    }

    /// Kills it with all that it started, and waits for its end.
    pub(super) async fn kill(mut self) -> std::io::Result<()> {
        let leader = self.child.id().and_then(|pid| pid.try_into().ok());
        self.group = leader.and_then(Pid::from_raw);
        self.end_group();
        self.child.wait().await?;
        Ok(())
    }

    /// Waits until it has ended; at most for `limit`, then it is killed.
    pub(super) async fn wait(mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let status = ended.ok()?.ok()?;
        self.ended();
        Some(status)
    }

    fn end_group(&mut self) {
        if let Some(group) = self.group.take() {
            // It has just ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end_group();
    }
}

/// What a finished command said.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Connection {
    /// Runs a command to its end, at most for the limit, with `input` as its standard input.
    pub(super) async fn run(
        &self,
        arguments: &[&str],
        input: Option<&str>,
    ) -> Result<Finished, HostError> {
        let mut child = self.spawn(arguments, input.is_some(), OnDrop::Killed)?;
        let talk = talk(&mut child, input);
        match tokio::time::timeout(self.limit, talk).await {
            Ok(Ok(finished)) => Ok(finished),
            Ok(Err(error)) => Err(self.broken(arguments, &error)),
            // Dropping it kills it.
            Err(_) => Err(self.timed_out(arguments)),
        }
    }

    pub(super) fn timed_out(&self, arguments: &[&str]) -> HostError {
        HostError::TimedOut {
            host: self.uri.clone(),
            what: what(arguments),
            limit: self.limit,
        }
    }

    /// Starts a command whose end somebody else waits for; without one, a `virsh` that reads commands.
    pub(super) fn spawn(
        &self,
        arguments: &[&str],
        input: bool,
        on_drop: OnDrop,
    ) -> Result<Running, HostError> {
        let stdin = if input { Stdio::piped() } else { Stdio::null() };
        let mut command = Command::new(&self.program);
        command
            .args([OsStr::new("-c"), OsStr::new(&self.uri)])
            .args(arguments)
            .env("LC_ALL", "C")
            .env_remove("LANGUAGE")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(on_drop == OnDrop::Killed)
            // Ctrl-C on the terminal is for tandem-host to act on, not for virsh.
            .process_group(0);
        if arguments.is_empty() {
            // What it reads is for nobody's keys and screen.
            command.arg("--quiet");
            command.env("INPUTRC", "/dev/null").env("TERM", "dumb");
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_for_virsh(name)) {
            command.env_remove(name);
        }
        if on_drop == OnDrop::Killed {
            end_with_us(&mut command);
        }
        let child = command.spawn();
        child
            .map(|child| Running::of(child, on_drop))
            .map_err(|error| self.broken(arguments, &error))
    }

    /// virsh itself can't be run or talked to.
    fn broken(&self, arguments: &[&str], error: &std::io::Error) -> HostError {
        let program = self.program.display();
        let reason = if error.kind() == std::io::ErrorKind::NotFound {
            format!("there is no `{program}`; install libvirt's clients")
        } else {
            format!("`{program}` for `{}`: {error}", what(arguments))
        };
        HostError::Unreachable {
            host: self.uri.clone(),
            reason,
        }
    }
}

/// Has the kernel kill what is started when this process ends, however it ends (`PR_SET_PDEATHSIG`, prctl(2)): a virsh
/// that listens would otherwise hold its connection to libvirt until the next event. The kernel goes by the thread that
/// started it; here one thread does all.
#[expect(
    unsafe_code,
    reason = "a process says so of itself only, between fork and exec"
)]
fn end_with_us(command: &mut Command) {
    let us = Some(getpid());
    let end_with_us = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Whose end came before that sends no signal.
        match getppid() == us {
            true => Ok(()),
            false => Err(std::io::ErrorKind::Interrupted.into()),
        }
    };
    // SAFETY: it makes two system calls, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(end_with_us) };
}

/// Settings of virsh and of libvirt's library, which would change what is printed and where logs go. Where
/// credentials are (`LIBVIRT_AUTH_FILE`) is the operator's to say.
fn is_for_virsh(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    (name.starts_with("LIBVIRT_") || name.starts_with("VIRSH_")) && name != "LIBVIRT_AUTH_FILE"
}

/// Feeds a process, reads what it says, and waits for its end.
pub(super) async fn talk(running: &mut Running, input: Option<&str>) -> std::io::Result<Finished> {
    let child = &mut running.child;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A process that does not want its input says so by its exit status.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let read = async {
        tokio::try_join!(
            bounded(stdout, MAX_OUTPUT_BYTES, Excess::Fails),
            bounded(stderr, MAX_ERROR_BYTES, Excess::Forgotten),
        )
    };
    let ((), output, status) = tokio::join!(write, read, child.wait());
    let (stdout, stderr) = output?;
    let status = status?;
    running.ended();
    Ok(Finished {
        success: status.success(),
        stdout,
        stderr,
    })
}

/// What becomes of output beyond the bound.
enum Excess {
    Fails,
    Forgotten,
}

async fn bounded(
    pipe: Option<impl AsyncRead + Unpin>,
    max_bytes: u64,
    excess: Excess,
) -> std::io::Result<String> {
    let Some(mut pipe) = pipe else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    (&mut pipe).take(max_bytes).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 == max_bytes {
        let more = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
        if more > 0 && matches!(excess, Excess::Fails) {
            let reason = format!("it printed more than {max_bytes} bytes");
            return Err(std::io::Error::other(reason));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The command as an error names it: without XML and other long values.
fn what(arguments: &[&str]) -> String {
    let command = arguments.first().copied().unwrap_or_default();
    format!("virsh {command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_credentials_are_taken_from_the_environment() {
        for name in [
            "LIBVIRT_DEBUG",
            "LIBVIRT_LOG_OUTPUTS",
            "LIBVIRT_DEFAULT_URI",
            "VIRSH_DEBUG",
        ] {
            assert!(is_for_virsh(&name.into()), "{name}");
        }
        for name in [
            "LIBVIRT_AUTH_FILE",
            "PATH",
            "HOME",
            "LC_ALL",
            "SSH_AUTH_SOCK",
        ] {
            assert!(!is_for_virsh(&name.into()), "{name}");
        }
    }
}
