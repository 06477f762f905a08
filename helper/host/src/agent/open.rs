//! Opens a guest's socket, and nothing that only has its name.
//!
//! A domain's XML is written by whoever may edit that one domain, and this process may open every socket
//! of the machine. So of a path from there only this is trusted: it leads, without a link, to a socket
//! below the folder where libvirt makes channels; and the process that listens on it is the domain's own
//! QEMU. Which process that is the kernel says: the credentials of a listening socket are those of the
//! last `listen(2)` on it (`unix_listen`, `net/unix/af_unix.c`, Linux 6.12), and QEMU calls that on a
//! socket that it got from libvirt too (`socket_listen`, `util/qemu-sockets.c`, QEMU 4.2 and later).
//! What a QEMU does that was taken over, libvirt's confinement has to hold: it may change its own command
//! line, and on some distributions it owns the folder of the file with its number.

use std::fs::File;
use std::io::{Error, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::process::geteuid;
use tokio::net::UnixStream;

use super::error::AgentError;
use crate::hypervisor::{ChannelSocket, DomainSocket, NamedBy};

/// So much of a command line is looked at, in bytes; libvirt puts the UUID near its beginning.
const MAX_COMMAND_LINE_BYTES: u64 = 256 * 1024;
/// A number and a line's end.
const MAX_PID_FILE_BYTES: u64 = 32;

/// Connects to the socket.
///
/// # Errors
/// If that can't be done, or it is not the domain's.
pub(super) async fn open(socket: &ChannelSocket) -> Result<UnixStream, AgentError> {
    let path = socket.path.as_path();
    let failed = |cause| AgentError::Socket {
        path: path.to_owned(),
        cause,
    };
    let foreign = |reason| AgentError::Foreign {
        path: path.to_owned(),
        reason,
    };
    let domain = match &socket.named_by {
        NamedBy::Operator => return UnixStream::connect(path).await.map_err(failed),
        NamedBy::Domain(domain) => domain.clone(),
    };
    let file = below(&domain.folder, path).map_err(failed)?;
    if !is_socket(&file) {
        return Err(foreign("it is no socket".to_owned()));
    }
    // What was looked at, and not what has its name by now.
    let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
    let stream = UnixStream::connect(opened).await.map_err(failed)?;
    let pid = stream.peer_cred().map_err(failed)?.pid();
    let pid = pid.filter(|pid| *pid > 0).ok_or_else(|| {
        let reason = "the process that listens on it can't be seen from here; run tandem-host where its QEMU runs";
        foreign(reason.to_owned())
    })?;
    // To read the command line of a process that hangs may take long.
    let known = tokio::task::spawn_blocking(move || is_qemu_of(pid, &domain)).await;
    known
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(foreign)?;
    Ok(stream)
}

/// The file itself, without following any link below the folder.
fn below(folder: &Path, path: &Path) -> std::io::Result<OwnedFd> {
    let inside = path.strip_prefix(folder).map_err(Error::other)?;
    let folder = openat(
        CWD,
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let links = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // With NOFOLLOW a link at the end would be opened itself.
    let file = OFlags::PATH | OFlags::CLOEXEC;
    Ok(openat2(folder, inside, file, Mode::empty(), links)?)
}

fn is_socket(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

/// Whether that process is the domain's QEMU; if not, which one it is.
fn is_qemu_of(pid: i32, domain: &DomainSocket) -> Result<(), String> {
    let kept = domain.pid_file.as_deref().and_then(|path| {
        let text = read_own(path, MAX_PID_FILE_BYTES).ok()?;
        String::from_utf8(text).ok()?.trim().parse::<i32>().ok()
    });
    match kept {
        Some(kept) if kept == pid => return Ok(()),
        Some(kept) => {
            return Err(format!(
                "process {pid} listens on it, and the domain's QEMU is {kept}; another domain's XML may name it too"
            ));
        }
        None => {}
    }
    let path = format!("/proc/{pid}/cmdline");
    let line = read(Path::new(&path), MAX_COMMAND_LINE_BYTES).map_err(|error| {
        format!("process {pid} listens on it, and {path} can't be read: {error}")
    })?;
    // The first one is libvirt's own.
    let uuid = line
        .split(|byte| *byte == 0)
        .skip_while(|word| *word != b"-uuid")
        .nth(1);
    if uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(domain.uuid.as_bytes())) {
        return Ok(());
    }
    Err(format!(
        "process {pid} listens on it, which is not the QEMU of the domain with the UUID {}; look at the <channel> \
         of its XML",
        domain.uuid
    ))
}

/// A file that root or this user made, and nobody else.
fn read_own(path: &Path, max_bytes: u64) -> std::io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let owner = fstat(&file)?.st_uid;
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(Error::from(std::io::ErrorKind::PermissionDenied));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read(path: &Path, max_bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::{Child, Command, Stdio};

    use super::*;

    const UUID: &str = "d96edc6f-10d8-4982-9c52-a32c1e3e9de5";

    /// A socket in `folder` of channels that this process listens on.
    fn socket(folder: &Path, uuid: &str, pid: Option<u32>) -> (ChannelSocket, UnixListener) {
        let path = folder.join("4-g1/agent");
        std::fs::create_dir_all(folder.join("4-g1")).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let pid_file = pid.map(|pid| {
            let file = folder.join("g1.pid");
            std::fs::write(&file, format!("{pid}\n")).unwrap();
            file
        });
        let domain = DomainSocket {
            folder: folder.to_owned(),
            uuid: uuid.to_owned(),
            pid_file,
        };
        let named_by = NamedBy::Domain(domain);
        (ChannelSocket { path, named_by }, listener)
    }

    async fn reason(socket: &ChannelSocket) -> String {
        match open(socket).await {
            Err(AgentError::Foreign { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    /// A process that has these words on its command line and does nothing.
    struct Sleeps(Child);

    impl Drop for Sleeps {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn qemu(words: &[&str]) -> Sleeps {
        // The shell says when it runs, so that the command line is no longer this program's.
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo; read end", "qemu", "-name", "guest=g1"]);
        let child = shell
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut line = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        Sleeps(child)
    }

    #[tokio::test]
    async fn the_socket_of_the_domain_s_own_qemu_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, _listener) = socket(folder.path(), UUID, Some(std::process::id()));
        open(&socket).await.unwrap();
    }

    #[tokio::test]
    async fn the_socket_of_another_process_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, _listener) = socket(folder.path(), UUID, Some(1));
        let reason = reason(&socket).await;
        assert!(reason.contains("the domain's QEMU is 1"), "{reason}");
    }

    #[tokio::test]
    async fn a_process_without_the_domain_s_uuid_is_not_its_qemu() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, _listener) = socket(folder.path(), UUID, None);
        // It is this test that listens.
        let reason = reason(&socket).await;
        assert!(reason.contains("not the QEMU of the domain"), "{reason}");
    }

    #[test]
    fn a_qemu_is_known_by_the_first_uuid_of_its_command_line() {
        let other = "00000000-10d8-4982-9c52-a32c1e3e9de5";
        let domain = DomainSocket {
            folder: "/".into(),
            uuid: UUID.to_owned(),
            pid_file: Some("/nonexistent/g1.pid".into()),
        };
        let is_own = |words: &[&str]| {
            let qemu = qemu(words);
            is_qemu_of(qemu.0.id().try_into().unwrap(), &domain)
        };
        is_own(&["-uuid", UUID]).unwrap();
        is_own(&["-uuid", &UUID.to_uppercase(), "-S"]).unwrap();
        for words in [
            &["-S"][..],
            &["-uuid"],
            &["-uuid", other],
            &["-uuid", other, "-uuid", UUID],
            &[UUID],
        ] {
            assert!(is_own(words).is_err(), "{words:?}");
        }
    }

    #[tokio::test]
    async fn links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let channels = folder.path().join("channels");
        let (real, _listener) = socket(&channels, UUID, Some(std::process::id()));
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let _other = UnixListener::bind(outside.join("agent")).unwrap();
        symlink(&outside, channels.join("5-g1")).unwrap();
        symlink(outside.join("agent"), channels.join("4-g1/link")).unwrap();
        symlink("agent", channels.join("4-g1/same")).unwrap();
        std::fs::write(channels.join("4-g1/file"), "").unwrap();
        for inside in ["5-g1/agent", "4-g1/link", "4-g1/same", "../outside/agent"] {
            let path = channels.join(inside);
            let socket = ChannelSocket {
                path,
                ..real.clone()
            };
            let error = open(&socket).await.unwrap_err();
            assert!(
                matches!(error, AgentError::Socket { .. }),
                "{inside}: {error}"
            );
        }
        let file = ChannelSocket {
            path: channels.join("4-g1/file"),
            ..real
        };
        assert_eq!(reason(&file).await, "it is no socket");
    }
}
