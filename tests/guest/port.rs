//! The agent's connection to the lab.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags};
use tandem_lab::agent::proto::{Lines, PORT_NAME};
use tandem_lab::process::poll_until;

use crate::requests::Requests;

/// The port may appear after the agent starts.
const PORT_LIMIT: Duration = Duration::from_secs(60);
/// While no host is there, a port reads as ended and polls as ready: look again this often.
const NO_HOST_PAUSE: Duration = Duration::from_millis(50);
/// A host that takes no bytes for this long loses the answer; it asks again after it is back.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Serves the lab over its virtio-serial port, for ever.
pub(crate) fn serve_guest() -> Result<()> {
    let port = open_port()?;
    let writer = port.try_clone().context("cannot share the port")?;
    let requests = Arc::new(Requests::new(move |line: &[u8]| write_port(&writer, line)));
    let mut lines = Lines::default();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let mut fds = [PollFd::new(&port, PollFlags::IN)];
        poll_until(&mut fds, Instant::now() + Duration::from_secs(3600))?;
        match (&port).read(&mut bytes) {
            // drivers/char/virtio_console.c (6.12): 0 while the host is not connected.
            Ok(0) => std::thread::sleep(NO_HOST_PAUSE),
            Ok(count) => lines.push(&bytes[..count], |line| requests.take(line)),
            Err(error) if retryable(&error) => {}
            Err(error) => return Err(error).context("cannot read the lab's port"),
        }
    }
}

/// Serves the lab over standard input and output, until the input ends.
pub(crate) fn serve_stdio() -> Result<()> {
    let requests = Arc::new(Requests::new(|line: &[u8]| {
        let mut output = io::stdout().lock();
        output.write_all(line).and_then(|()| output.flush())
    }));
    let mut input = io::stdin().lock();
    let mut lines = Lines::default();
    let mut bytes = vec![0; 64 << 10];
    loop {
        match input.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => lines.push(&bytes[..count], |line| requests.take(line)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read the lab's requests"),
        }
    }
}

fn open_port() -> Result<File> {
    let deadline = Instant::now() + PORT_LIMIT;
    loop {
        if let Some(path) = find_port() {
            return OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()));
        }
        if Instant::now() >= deadline {
            anyhow::bail!("no virtio-serial port is named {PORT_NAME}");
        }
        // Nothing announces the port where no udev runs.
        std::thread::sleep(NO_HOST_PAUSE);
    }
}

/// /dev/vportNpM of the port with the lab's name. Without udev there is no link by name.
fn find_port() -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Some(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    None
}

fn write_port(mut port: &File, line: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + WRITE_LIMIT;
    let mut rest = line;
    while !rest.is_empty() {
        match port.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if retryable(&error) => {
                let fd = port.as_fd();
                let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
                let ready = poll_until(&mut fds, deadline).map_err(io::Error::other)?;
                if !ready || Instant::now() >= deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                if fds[0].revents().contains(PollFlags::HUP) {
                    std::thread::sleep(NO_HOST_PAUSE);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn retryable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}
