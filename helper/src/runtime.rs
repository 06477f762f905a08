//! What outlives the service within one boot of the guest: files in /run/tandem.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

macro_rules! in_folder {
    ($name:literal) => {
        concat!("/run/tandem", $name)
    };
}

/// The folder; systemd makes it (`RuntimeDirectory=tandem`).
pub const FOLDER: &str = in_folder!("");

/// Holds of `tandem_core::Machine::holds`.
pub const HOLDS_PATH: &str = in_folder!("/holds.json");

/// The bonds that the host provided.
pub const HOST_POLICY_PATH: &str = in_folder!("/host-policy.json");

/// The service's socket.
pub const SOCKET_PATH: &str = in_folder!("/tandem.sock");

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a file; `None` if there is none. The folder may belong to another user, who must not lead root
/// elsewhere or have it wait: a link, a pipe or a device is an error.
///
/// # Errors
/// It is no file, can't be read, is too large, or does not hold what it should.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let context = || format!("can't read {}; remove it to start afresh", path.display());
    let bytes = match read(path, libc::O_NOFOLLOW, MAX_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            return Err(anyhow!("larger than {MAX_BYTES} bytes")).with_context(context);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
    };
    serde_json::from_slice(&bytes)
        .with_context(context)
        .map(Some)
}

/// Reads a file, through links too, that may grow meanwhile; `None` if it has more than `max_bytes`.
pub(crate) fn read_bounded(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    read(path, 0, max_bytes)
}

fn read(path: &Path, flags: libc::c_int, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    // Opening a pipe that nobody writes to would wait for ever.
    let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    bounded(file, max_bytes)
}

fn bounded(file: File, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= max_bytes);
    Ok(fits.then_some(bytes))
}

/// What takes a file's place once it is whole: each process has its own.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    path.with_extension(format!("new-{}", std::process::id()))
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// The folder is missing or not writable.
pub fn store<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let context = || format!("can't write {}", path.display());
    let temporary = temporary(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&temporary)
        .with_context(context)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)
        .with_context(context)?;
    std::fs::rename(&temporary, path).with_context(context)
}

/// As [`store`], by root for the service, which is another user: it may read it whatever this process's umask is.
///
/// # Errors
/// As [`store`].
pub(crate) fn store_for_service<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    store(path, value)?;
    let readable = Permissions::from_mode(0o644);
    std::fs::set_permissions(path, readable)
        .with_context(|| format!("can't make {} readable", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), Some(b"12345".to_vec()));
        assert_eq!(read_bounded(&path, 4).unwrap(), None);
        // A file without a length, and without an end.
        let endless = File::open("/dev/zero").unwrap();
        assert_eq!(bounded(endless, 4096).unwrap(), None);
        assert!(read_bounded(Path::new("/dev/zero"), 4096).is_err());
    }

    #[test]
    fn neither_a_link_nor_a_pipe_is_followed_in_anothers_folder() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target.json");
        store(&target, &vec![1]).unwrap();
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(load::<Vec<u32>>(&link).is_err());
        // The administrator's own files may be links.
        assert!(read_bounded(&link, 100).unwrap().is_some());

        let pipe = folder.path().join("pipe.json");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let error = load::<Vec<u32>>(&pipe).unwrap_err();
        assert!(
            format!("{error:#}").contains("no regular file"),
            "{error:#}"
        );
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("holds.json");
        assert_eq!(load::<Vec<u32>>(&path).unwrap(), None);
        store(&path, &vec![1, 2]).unwrap();
        assert_eq!(load(&path).unwrap(), Some(vec![1, 2]));
        std::fs::write(&path, "[1,").unwrap();
        assert!(
            load::<Vec<u32>>(&path)
                .unwrap_err()
                .to_string()
                .contains("holds.json")
        );
    }
}
