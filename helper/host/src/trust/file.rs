//! Files and folders that only their owner may write, and that owner is root or this program's user.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Why a file or folder is not trusted, or can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It belongs to somebody else.
    #[error("{} belongs to user {uid}, who is neither root nor this program's user; `chown root` it, once you \
             know what is in it", path.display())]
    Stranger {
        /// What.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Others may write it.
    #[error("{} may be written by others; `chmod go-w` it, once you know what is in it", path.display())]
    Open {
        /// What.
        path: PathBuf,
    },
    /// It is something else, such as a link.
    #[error("{} is no {wanted}", path.display())]
    Kind {
        /// What.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// It is too long.
    #[error("{} is longer than {most} bytes", path.display())]
    TooLong {
        /// What.
        path: PathBuf,
        /// The bound.
        most: usize,
    },
    /// The system refused.
    #[error("{} can't be used: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Whose it is, and who else may write it.
fn check(path: &Path, facts: &Metadata) -> Result<(), FileError> {
    let path = || path.to_owned();
    let uid = facts.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(FileError::Stranger { path: path(), uid });
    }
    if facts.mode() & 0o022 != 0 {
        return Err(FileError::Open { path: path() });
    }
    Ok(())
}

/// A folder in which nobody else can put anything.
///
/// # Errors
/// If it is a link, somebody else's, or may be written by others.
pub fn check_folder(path: &Path) -> Result<(), FileError> {
    let facts = std::fs::symlink_metadata(path).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })?;
    if !facts.is_dir() {
        let (path, wanted) = (path.to_owned(), "folder");
        return Err(FileError::Kind { path, wanted });
    }
    check(path, &facts)
}

/// The text of a file that nobody else can have written, if it is there.
///
/// # Errors
/// If it is a link or no file, somebody else's, may be written by others, or is too long.
pub fn read_own(path: &Path, most: usize) -> Result<Option<String>, FileError> {
    let failed = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    // A pipe would keep whoever opens it waiting.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file: File = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        let (path, wanted) = (path.to_owned(), "file");
        return Err(FileError::Kind { path, wanted });
    }
    check(path, &facts)?;
    let mut text = String::new();
    let whole = file.take(most as u64 + 1).read_to_string(&mut text);
    whole.map_err(failed)?;
    if text.len() > most {
        let path = path.to_owned();
        return Err(FileError::TooLong { path, most });
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    #[test]
    fn only_what_nobody_else_can_write_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(matches!(read_own(&path, 9), Ok(None)));
        write(&path, "text").unwrap();
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_own(&path, 9).unwrap().as_deref(), Some("text"));
        assert!(matches!(read_own(&path, 3), Err(FileError::TooLong { .. })));
        for mode in [0o664, 0o646] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read_own(&path, 9), Err(FileError::Open { .. })));
        }
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(read_own(&link, 9).is_err());
        assert!(matches!(
            read_own(folder.path(), 9),
            Err(FileError::Kind { .. })
        ));
        assert!(check_folder(folder.path()).is_ok());
        assert!(matches!(check_folder(&path), Err(FileError::Kind { .. })));
        set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let open = check_folder(folder.path());
        assert!(matches!(open, Err(FileError::Open { .. })));
        if rustix::process::geteuid().is_root() {
            set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(65_534), None).unwrap();
            let strange = read_own(&path, 9);
            assert!(matches!(strange, Err(FileError::Stranger { .. })));
            chown(folder.path(), Some(65_534), None).unwrap();
            let strange = check_folder(folder.path());
            assert!(matches!(strange, Err(FileError::Stranger { .. })));
        }
    }
}
