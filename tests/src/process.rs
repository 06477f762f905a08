//! Child processes: waiting with a deadline by process file descriptor, and children that die with the lab.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Waits for `child` to end. At `limit` it is killed and `None` comes back.
pub fn wait_deadline(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let handle = ProcessHandle::of(child)?;
    if handle.wait_exit(limit)? {
        return Ok(Some(
            child
                .wait()
                .context("cannot collect a child's exit status")?,
        ));
    }
    handle.kill();
    child.wait().context("cannot collect a killed child")?;
    Ok(None)
}

/// A process held by file descriptor, so that a reused process id is never signalled.
#[derive(Debug)]
pub struct ProcessHandle {
    fd: OwnedFd,
}

impl ProcessHandle {
    /// The handle of a child that has not been waited for.
    pub fn of(child: &Child) -> Result<Self> {
        Self::of_pid(child.id())
    }

    /// The handle of the process with this id.
    pub fn of_pid(pid: u32) -> Result<Self> {
        let raw = i32::try_from(pid).context("a process id out of range")?;
        let pid = Pid::from_raw(raw).context("process id 0")?;
        let fd = pidfd_open(pid, PidfdFlags::empty())
            .with_context(|| format!("cannot open process {raw} by descriptor"))?;
        Ok(Self { fd })
    }

    /// Whether the process ended within `limit`.
    pub fn wait_exit(&self, limit: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll_until(&mut fds, Instant::now() + limit)
    }

    /// Kills the process; one that is already gone is fine.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.fd, Signal::KILL);
    }

    /// Holds the process up until [`Self::go_on`].
    pub fn hold_up(&self) -> Result<()> {
        pidfd_send_signal(&self.fd, Signal::STOP).context("cannot hold a process up")
    }

    /// Lets a process go on.
    pub fn go_on(&self) -> Result<()> {
        pidfd_send_signal(&self.fd, Signal::CONT).context("cannot let a process go on")
    }

    /// The descriptor: readable once the process has ended.
    pub fn as_fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// Polls until one of `fds` is ready (`true`) or `deadline` passed (`false`).
pub fn poll_until(fds: &mut [PollFd<'_>], deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll failed"),
        }
    }
}

/// A process of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// Its command line.
    pub words: Vec<String>,
}

/// The processes of this machine that are meant, as they are now.
pub fn find_processes(is_meant: impl Fn(&Process) -> bool) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("/proc")? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let Ok(pid) = name.parse() else { continue };
        // One that ends meanwhile is none.
        let words = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let Some(parent) = parent.and_then(|pid| pid.trim().parse().ok()) else {
            continue;
        };
        let words = words.split(|byte| *byte == 0);
        let words = words.map(|word| String::from_utf8_lossy(word).into_owned());
        let process = Process {
            pid,
            parent,
            words: words.collect(),
        };
        if is_meant(&process) {
            found.push(process);
        }
    }
    Ok(found)
}

type SpawnJob = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts `command` so that the kernel kills it when the lab dies, however the lab dies.
///
/// The kernel ties `PR_SET_PDEATHSIG` to the thread that forked, and test threads end early;
/// so one thread that lives as long as the process does all the forking.
pub fn spawn_bound(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<SpawnJob>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<SpawnJob>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let name = command.get_program().to_string_lossy().into_owned();
    let (sender, receiver) = mpsc::channel();
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]);
    bound.arg(command.get_program()).args(command.get_args());
    let set = |(name, value): (&OsStr, Option<&OsStr>)| Some((name.to_owned(), value?.to_owned()));
    bound.envs(command.get_envs().filter_map(set));
    spawner
        .send((with_stdio(bound), sender))
        .map_err(|_| anyhow!("the lab's spawner thread is gone"))?;
    receiver
        .recv()
        .map_err(|_| anyhow!("the lab's spawner thread is gone"))?
        .with_context(|| format!("cannot start `{name}` (through setpriv, of util-linux)"))
}

fn with_stdio(mut command: Command) -> Command {
    use std::process::Stdio;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
