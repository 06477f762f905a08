//! The unix socket for the local command line. Only root can open it.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, stat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};

/// Waiting connections; the kernel refuses more.
const BACKLOG: i32 = 16;

/// Wait after the system had no room for another connection.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// The socket can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket could not be made.
    #[error("socket {}: {problem}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What happened and what to do.
        problem: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// A socket in the file system, removed with this value.
#[derive(Debug)]
pub(super) struct Listener {
    path: PathBuf,
    listener: UnixListener,
    retry: Option<Pin<Box<Sleep>>>,
}

impl Listener {
    /// Makes the socket with mode 0600. One that a dead service left is replaced.
    pub(super) fn bind(path: &Path) -> Result<Self, ChannelError> {
        let error = |problem: &str, source: io::Error| ChannelError::Socket {
            path: path.to_owned(),
            problem: problem.to_owned(),
            source,
        };
        remove_stale(path)?;
        let bound = bind(path).and_then(|listener| {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        });
        let listener = bound.map_err(|source| {
            error(
                "can't be made; its folder must exist and be writable",
                source,
            )
        })?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            retry: None,
        })
    }

    /// The next connection. If the system has no room for one, tries again later.
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<UnixStream> {
        loop {
            if let Some(retry) = &mut self.retry {
                match retry.as_mut().poll(cx) {
                    Poll::Ready(()) => self.retry = None,
                    Poll::Pending => return Poll::Pending,
                }
            }
            match self.listener.poll_accept(cx) {
                Poll::Ready(Ok((stream, _))) => return Poll::Ready(stream),
                Poll::Ready(Err(error)) => {
                    tracing::warn!(%error, path = %self.path.display(), "a local connection can't be accepted");
                    self.retry = Some(Box::pin(sleep(ACCEPT_RETRY)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the socket is gone already");
        }
    }
}

/// The kernel gives the file the socket's own mode (`unix_bind_bsd`,
/// `net/unix/af_unix.c`, 6.12), so it never has a wider one.
fn bind(path: &Path) -> io::Result<StdListener> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(StdListener::from(socket))
}

/// Removes a socket that nobody listens on, and nothing else.
fn remove_stale(path: &Path) -> Result<(), ChannelError> {
    let error = |problem: &str, source: io::Error| ChannelError::Socket {
        path: path.to_owned(),
        problem: problem.to_owned(),
        source,
    };
    let kind = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(error("can't be looked at", e)),
    };
    if !kind.is_socket() {
        let source = io::ErrorKind::AlreadyExists.into();
        return Err(error("something else has this name; move it away", source));
    }
    match connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|e| error("a dead service left it and it can't be removed", e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => {
            let source = io::ErrorKind::AddrInUse.into();
            Err(error(
                "another tandem service listens on it; stop that one first",
                source,
            ))
        }
    }
}

/// Connects to a service's socket without waiting. The stream is nonblocking.
///
/// Root asks too, and the service's user owns the folder: so only a socket is taken, never what a link leads to, and
/// only one that this user, root or whom the folder belongs to made. Who made one is who owns it (`unix_bind_bsd`,
/// `net/unix/af_unix.c`, 6.12); a second name could be given to another's.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` if no service runs, `WouldBlock` if one has too
/// many connections waiting, `PermissionDenied` for all but root, another one if it is no such socket.
pub fn connect(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty())?;
    let of_file = fstat(&file)?;
    if FileType::from_raw_mode(of_file.st_mode) != FileType::Socket {
        return Err(io::Error::other("it is no socket"));
    }
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let of_folder = stat(parent.unwrap_or(Path::new(".")))?;
    let owners = [0, geteuid().as_raw(), of_folder.st_uid];
    if of_file.st_nlink != 1 || !owners.contains(&of_file.st_uid) {
        return Err(io::Error::other(
            "another user made it, or it has a second name",
        ));
    }
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // What was looked at, and not what has its name by now.
    let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::net::connect(&socket, &SocketAddrUnix::new(opened)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_a_second_name_or_a_file_is_not_connected_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let _listener = StdListener::bind(path("socket")).unwrap();
        connect(&path("socket")).unwrap();
        std::os::unix::fs::symlink(path("socket"), path("link")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        for name in ["link", "file"] {
            let error = connect(&path(name)).unwrap_err();
            assert_eq!(error.to_string(), "it is no socket", "{name}");
        }
        std::fs::hard_link(path("socket"), path("second")).unwrap();
        for name in ["socket", "second"] {
            assert!(connect(&path(name)).is_err(), "{name}");
        }
        let missing = connect(&path("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
