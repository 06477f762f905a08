//! Small files beside the QMP socket: whole or not there, and durable once written.

use std::io::Result;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::files::{self, Lasts, Readers};

/// Ending of the file with `<bonds>`.
pub(super) const BONDS: &str = ".bonds.xml";
/// Ending of the file with the record of progress.
pub(super) const PROGRESS: &str = ".progress";

/// Ending of the file with the claim on the domain. There is one at most: who writes it has this machine's lock,
/// and no other machine can.
pub(super) const CLAIM: &str = ".claim";

/// The process that listens on a socket, even if it serves another client now: this one does not wait for its turn.
pub(super) fn listener(path: &Path) -> Result<i32> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&stream, &SocketAddrUnix::new(path)?)?;
    Ok(rustix::net::sockopt::socket_peercred(&stream)?
        .pid
        .as_raw_pid())
}

/// The file of that ending beside a socket.
pub(super) fn beside(socket: &Path, ending: &str) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The text of a file, if it is there.
pub(super) fn read(path: &Path, max_bytes: usize) -> Result<Option<String>> {
    files::read(path, max_bytes)
}

/// Writes a file in one step, or removes it; durable when it returns.
pub(super) fn write(path: &Path, text: Option<&str>) -> Result<()> {
    match text {
        Some(text) => files::replace(path, text, Readers::Owner, Lasts::Yes),
        None => files::remove(path),
    }
}
