//! Programs of the system that are asked or told something: systemctl, networkctl, nmcli. None holds Tandem up.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long one may take. An emulated guest's nmcli takes some seconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// What is read of what it says, in bytes: as much as a pipe holds (pipe(7)), so that none waits for a reader.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// What one said before it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) success: bool,
    /// With which it ended; nothing if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// Runs one; an error says that it failed, and what it said.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let said = ask(program, arguments)?;
    if said.success {
        return Ok(());
    }
    let errors = said.errors.trim();
    Err(format!("{program} {}: {errors}", arguments.join(" ")))
}

/// Runs one to its end; an error says that it can't be run, or was killed because it took too long.
pub(crate) fn ask(program: &str, arguments: &[&str]) -> Result<Said, String> {
    ask_within(LIMIT, program, arguments)
}

/// `ActiveState` of a unit; empty if systemd does not answer.
pub(crate) fn state_of(unit: &str) -> String {
    let arguments = ["show", "--property=ActiveState", "--value", "--", unit];
    let said = ask("systemctl", &arguments);
    said.map(|said| said.output.trim().to_owned())
        .unwrap_or_default()
}

/// The same with a limit of its own.
pub(crate) fn ask_within(
    limit: Duration,
    program: &str,
    arguments: &[&str],
) -> Result<Said, String> {
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let has_ended = ends_within(&child, limit);
    if !matches!(has_ended, Ok(true)) {
        // It may have ended just now; that is no harm.
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    if !has_ended.map_err(|errno| failed(errno.into()))? {
        let (words, seconds) = (arguments.join(" "), limit.as_secs());
        return Err(format!("{program} {words}: not done in {seconds} s"));
    }
    Ok(Said {
        success: status.success(),
        code: status.code(),
        output: child.stdout.take().map(text_in).unwrap_or_default(),
        errors: child.stderr.take().map(text_in).unwrap_or_default(),
    })
}

/// Whether it ends in time.
fn ends_within(child: &Child, limit: Duration) -> Result<bool, Errno> {
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// What is in the pipe now: what the program started may still hold its other end.
fn text_in(mut pipe: impl Read + AsFd) -> String {
    let mut bytes = Vec::new();
    if rustix::io::ioctl_fionbio(&pipe, true).is_ok() {
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut part) {
            bytes.extend_from_slice(&part[..length]);
            if bytes.len() >= MAX_OUTPUT_BYTES {
                break;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_told() {
        let said = ask("sh", &["-c", "echo out; echo wrong >&2; exit 3"]).unwrap();
        assert_eq!(
            (said.success, &*said.output, &*said.errors),
            (false, "out\n", "wrong\n")
        );
        assert_eq!(
            run("sh", &["-c", "echo wrong >&2; exit 3"]),
            Err("sh -c echo wrong >&2; exit 3: wrong".to_owned())
        );
        assert_eq!(run("true", &[]), Ok(()));
        assert!(run("/no/such/program", &[]).is_err());
    }

    #[test]
    fn one_that_does_not_end_is_ended() {
        let error = ask_within(Duration::from_millis(50), "sleep", &["1000"]).unwrap_err();
        assert!(error.contains("sleep 1000: not done in"), "{error}");
    }

    #[test]
    fn what_a_program_leaves_behind_is_not_waited_for() {
        let said = ask("sh", &["-c", "sleep 1000 & echo $!"]).unwrap();
        let left: i32 = said.output.trim().parse().unwrap();
        let left = Pid::from_raw(left).unwrap();
        rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
    }
}
