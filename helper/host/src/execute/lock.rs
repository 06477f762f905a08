//! One evacuation of a domain at a time on this machine, and a copy of its record that a
//! recovery finds if the domain's own got lost.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::evacuate::Progress;
use crate::hypervisor::MAX_PROGRESS_BYTES;

/// Where the files are: gone after a reboot, which ends all processes too.
pub fn default_folder() -> PathBuf {
    PathBuf::from("/run/tandem-host")
}

/// Why a lock is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{what} is in use by another tandem-host on this machine ({}); wait for it, or end it", path.display())]
    Taken {
        /// What is locked.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// The file can't be used.
    #[error("the lock file {} can't be used: {source}; run this command as root, or name another --state-dir", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// A lock that ends with this process, however it ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// Longest name of a file before its hash, in bytes; file systems take 255.
const MAX_NAME_BYTES: usize = 180;

/// The file for a domain or VF. Other characters than these are written as numbers. A long name is cut
/// and told from others by a hash of the whole.
pub fn file_of(folder: &Path, kind: &str, name: &str) -> PathBuf {
    let mut file = format!("{kind}-");
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => file.push(char::from(byte)),
            _ => file.push_str(&format!("_{byte:02x}")),
        }
    }
    if file.len() > MAX_NAME_BYTES {
        file.truncate(MAX_NAME_BYTES);
        file.push_str(&format!(".{:016x}", hash(name)));
    }
    folder.join(file)
}

/// FNV-1a, 64 bits: the same in every version of this program.
fn hash(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

impl Lock {
    /// Takes the lock, or says who has it; never waits.
    ///
    /// # Errors
    /// If another process has it, or the file can't be made.
    pub fn take(folder: &Path, kind: &str, name: &str) -> Result<Self, LockError> {
        let path = file_of(folder, kind, name);
        let failed = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        // Whoever can open the file can hold the lock, and so block evacuations.
        let mut folders = DirBuilder::new();
        folders.recursive(true).mode(0o700);
        folders.create(folder).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken {
                what: format!("{kind} {name}"),
                path,
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The record that a process left here.
    pub fn record(&self) -> Option<Progress> {
        let mut text = String::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).ok()?;
        let limit = MAX_PROGRESS_BYTES as u64 + 1;
        file.take(limit).read_to_string(&mut text).ok()?;
        Progress::parse(text.lines().next()?).ok()
    }

    /// Keeps a record, or none.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn keep(&self, record: Option<&str>) -> Result<(), LockError> {
        let write = || {
            let mut file = &self.file;
            let text = record
                .map(|record| format!("{record}\n"))
                .unwrap_or_default();
            // The first line counts: what a longer record left behind it, should this process be
            // killed before the cut, is none.
            file.seek(SeekFrom::Start(0))?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)
        };
        write().map_err(|source| LockError::Io {
            path: self.path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_have_locks_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let long = "ä".repeat(120);
        let _first = Lock::take(folder.path(), "domain", &format!("{long}1")).unwrap();
        let _second = Lock::take(folder.path(), "domain", &format!("{long}2")).unwrap();
    }

    #[test]
    fn a_lock_is_had_once_and_names_stay_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path(), "domain", "../a b").unwrap();
        assert!(first.path.starts_with(folder.path()));
        assert_eq!(first.path.parent(), Some(folder.path()));
        let second = Lock::take(folder.path(), "domain", "../a b");
        assert!(matches!(second, Err(LockError::Taken { .. })));
        drop(first);
        let third = Lock::take(folder.path(), "domain", "../a b").unwrap();
        assert_eq!(third.record(), None);
    }
}
