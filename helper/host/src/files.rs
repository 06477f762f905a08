//! Files that this program writes in folders of others: as root, beside a QEMU's socket or for a collector
//! of metrics. Whoever else may write there must not choose what is written to, or read.

use std::fs::File;
use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Where the socket of `serve` and the locks are: gone after a reboot, which ends all processes too.
pub(crate) fn default_folder() -> PathBuf {
    PathBuf::from("/run/tandem-host")
}

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Only its owner.
    Owner,
    /// Everybody.
    All,
}

/// Whether a file is there after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// It is written anew soon anyway.
    No,
    /// It is on the disk when this returns.
    Yes,
}

/// Writes a file in one step: a reader sees the old one or the new one. The name with `.new` is used
/// meanwhile, and what has that name, such as a link that leads elsewhere, is removed and not written to.
///
/// # Errors
/// If others may write the folder, and the system's.
pub(crate) fn replace(path: &Path, text: &str, readers: Readers, lasts: Lasts) -> Result<()> {
    let folder = folder_of(path)?;
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mut new = name.to_owned();
    new.push(".new");
    match unlinkat(&folder, &new, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let owner = Mode::RUSR | Mode::WUSR;
    let file = openat(&folder, &new, flags, owner)?;
    if readers == Readers::All {
        // Whatever the umask is.
        fchmod(&file, owner | Mode::RGRP | Mode::ROTH)?;
    }
    let mut file = File::from(file);
    file.write_all(text.as_bytes())?;
    if lasts == Lasts::Yes {
        file.sync_all()?;
    }
    renameat(&folder, &new, &folder, name)?;
    if lasts == Lasts::Yes {
        File::from(folder).sync_all()?;
    }
    Ok(())
}

/// Removes a file, for good; one that is not there is no error.
///
/// # Errors
/// The system's.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        removed => removed?,
    }
    File::open(parent(path))?.sync_all()
}

/// The text of a file, if it is there. A link, a pipe or a device of that name is not read.
///
/// # Errors
/// If it is none, too long, no text, and the system's.
pub(crate) fn read(path: &Path, max_bytes: usize) -> Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(odd(path, "is a link; put the file itself there")),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(odd(path, "is no regular file; remove it"));
    }
    let mut text = String::new();
    file.take(max_bytes as u64 + 1).read_to_string(&mut text)?;
    if text.len() > max_bytes {
        return Err(odd(path, &format!("is longer than {max_bytes} bytes")));
    }
    Ok(Some(text))
}

/// Opens the folder of a file that is to be written.
fn folder_of(path: &Path) -> Result<OwnedFd> {
    let path = parent(path);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty())?;
    let mode = fstat(&folder)?.st_mode;
    let (others, sticky) = (0o022, 0o1000);
    if mode & others != 0 && mode & sticky == 0 {
        let mode = mode & 0o7777;
        let what = format!(
            "has the mode {mode:o}: others may write there, and so change what is read; take that from them \
             (`chmod go-w`), or name another folder"
        );
        return Err(odd(path, &what));
    }
    Ok(folder)
}

fn parent(path: &Path) -> &Path {
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn odd(path: &Path, what: &str) -> Error {
    Error::other(format!("{} {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_link_of_that_name_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "of somebody else").unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
        let path = folder.path().join("t.prom");
        symlink(&other, folder.path().join("t.prom.new")).unwrap();
        replace(&path, "metrics", Readers::All, Lasts::No).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "metrics");
        assert!(!path.is_symlink());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o644);
        assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else");
        assert_eq!(mode(&other), 0o600);
        // The name itself is replaced, and not what it leads to.
        fs::remove_file(&path).unwrap();
        symlink(&other, &path).unwrap();
        replace(&path, "record", Readers::Owner, Lasts::Yes).unwrap();
        assert!(!path.is_symlink());
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else");
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.prom");
        let mut written = Vec::new();
        for mode in [0o700, 0o755, 0o775, 0o777, 0o1777] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            match replace(&path, "text", Readers::All, Lasts::No) {
                Ok(()) => written.push(mode),
                Err(error) => assert!(error.to_string().contains("chmod go-w"), "{error}"),
            }
        }
        assert_eq!(written, [0o700, 0o755, 0o1777]);
    }

    #[test]
    fn only_a_short_regular_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        assert_eq!(read(&path, 4).unwrap(), None);
        fs::write(&path, "text").unwrap();
        assert_eq!(read(&path, 4).unwrap().as_deref(), Some("text"));
        assert!(read(&path, 3).is_err());
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        let error = read(&link, 4).unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        let error = read(&pipe, 4).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
