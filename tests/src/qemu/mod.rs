//! QEMU: the machine's description, the running process, its console and its control connection.

pub mod accel;
pub mod console;
mod hot_plug;
mod migrate;
pub mod nic;
pub mod qmp;
mod spec;
mod state;

pub use console::{Console, GuestFailure};
pub use migrate::{DOWNTIME_LIMIT_MS, MigrationReport};
pub use nic::{Mac, Nic, NicModel, Slot, test_mac};
pub use qmp::{Qmp, QmpError, QmpEvent};
pub use spec::{
    Accelerator, Drive, HotPlug, Listener, MachineSpec, VirtioPort, named_with_control,
};

use std::collections::BTreeMap;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;
use serde_json::json;

use crate::artifacts::qemu::{self, Starter};
use crate::process::{self, ProcessHandle};

/// QEMU connects to the lab's sockets before it does anything slow.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
const QUIT_LIMIT: Duration = Duration::from_secs(10);

/// Whether a QEMU runs a guest from its start or receives a running one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Boots.
    Boot,
    /// Waits for [`Qemu::migrate_to`] of another.
    Incoming,
}

/// A running QEMU. It is killed on drop, and when the lab dies.
#[derive(Debug)]
pub struct Qemu {
    qmp: Qmp,
    console: Console,
    handle: ProcessHandle,
    pid: u32,
    folder: PathBuf,
}

impl Qemu {
    /// Starts QEMU in the network namespace given (or the lab's own). Its sockets and its console log
    /// lie in `folder`, which must have a short path. The ports the lab listens on come back connected,
    /// in order.
    pub fn start(
        spec: &MachineSpec,
        folder: &Path,
        netns: Option<&str>,
        start: Start,
    ) -> Result<(Self, Vec<UnixStream>)> {
        let qmp_socket = folder.join("qmp");
        let qmp_listener = listen(&qmp_socket)?;
        let listeners: Vec<UnixListener> = spec
            .ports
            .iter()
            .filter(|port| port.listener == Listener::Lab)
            .map(|port| listen(&port.socket))
            .collect::<Result<_>>()?;

        let arguments = spec.arguments(&qmp_socket, start == Start::Incoming);
        let program = qemu::program(Starter::Lab)?;
        let mut command;
        if let Some(netns) = netns {
            command = Command::new("ip");
            command.args(["netns", "exec", netns]).arg(program);
        } else {
            command = Command::new(program);
        }
        command.args(arguments);
        let child = process::spawn_bound(command)?;
        let handle = ProcessHandle::of(&child)?;
        let pid = child.id();
        let console = Console::watch(child, &folder.join("console.log"))?;

        let connect = |listener: &UnixListener| accept(listener, &handle, &console);
        // QEMU connects its sockets in the order of its arguments, and waits for none.
        let stream = connect(&qmp_listener)?;
        let ports = listeners.iter().map(connect).collect::<Result<_>>()?;
        let qmp = Qmp::start(stream, console.clone())?;
        Ok((
            Self {
                qmp,
                console,
                handle,
                pid,
                folder: folder.to_path_buf(),
            },
            ports,
        ))
    }

    /// The control connection.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The guest's console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The folder of its sockets.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its process.
    pub fn process(&self) -> Result<Pid> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.context("QEMU has no process")
    }

    /// How long each of its threads, by its id, has waited for a processor of this machine: time that the guest lost
    /// to whatever else the machine does.
    pub fn waited_for_processor(&self) -> Result<BTreeMap<String, Duration>> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid));
        let tasks = tasks.context("QEMU has no threads")?;
        // A thread that ends meanwhile waits no longer.
        let waited = tasks.flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            // Time run, time waited, both in ns (Documentation/scheduler/sched-stats.rst, 6.12).
            let waited = text.split_whitespace().nth(1)?.parse().ok()?;
            let id = task.file_name().to_string_lossy().into_owned();
            Some((id, Duration::from_nanos(waited)))
        });
        Ok(waited.collect())
    }

    /// Ends QEMU, the guest with it, and waits until its taps are free.
    pub fn quit(self) -> Result<()> {
        self.console.expect_end();
        // QEMU may close the connection before it answers.
        let _ = self.qmp.execute("quit", json!({}));
        if !self.console.wait_end(QUIT_LIMIT) {
            self.handle.kill();
            bail!(
                "QEMU did not end within {} s of `quit`",
                QUIT_LIMIT.as_secs()
            );
        }
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.console.expect_end();
        self.handle.kill();
        self.console.wait_end(QUIT_LIMIT);
    }
}

fn listen(socket: &Path) -> Result<UnixListener> {
    UnixListener::bind(socket)
        .with_context(|| format!("cannot listen on the unix socket {}", socket.display()))
}

fn accept(
    listener: &UnixListener,
    handle: &ProcessHandle,
    console: &Console,
) -> Result<UnixStream> {
    let mut fds = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(handle.as_fd(), PollFlags::IN),
    ];
    let in_time = process::poll_until(&mut fds, Instant::now() + CONNECT_LIMIT)?;
    if fds[0].revents().contains(PollFlags::IN) {
        return Ok(listener
            .accept()
            .context("cannot accept QEMU's connection")?
            .0);
    }
    console.wait_end(QUIT_LIMIT);
    console.check()?;
    bail!(
        "QEMU did not connect to the lab's sockets (in time: {in_time})\n{}",
        console.tail()
    )
}
