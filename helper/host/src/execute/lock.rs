//! One evacuation of a domain at a time on this machine. A lock that is held is the only sign that a process
//! of this machine lives and drives one: numbers of processes are used again.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::words::printable;

/// Where the files are: gone after a reboot, which ends all processes too.
pub fn default_folder() -> PathBuf {
    PathBuf::from("/run/tandem-host")
}

/// Why a lock is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by another tandem-host on this machine ({}); wait for it, or end it", printable(what), path.display())]
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
    /// Ends with it.
    _file: File,
    path: PathBuf,
}

/// Tries at a lock at which others only look, each for a moment.
const TRIES: u32 = 100;

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
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file, path }),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) => {}
            }
            // One that can be shared is only looked at, see `is_held`.
            match file.try_lock_shared() {
                Ok(()) => file.unlock().map_err(failed)?,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) => break,
            }
            std::thread::yield_now();
        }
        Err(LockError::Taken {
            what: format!("{kind} {name}"),
            path,
        })
    }

    /// A process of this machine, this one too, has the lock now.
    pub fn is_held(folder: &Path, kind: &str, name: &str) -> bool {
        let file = File::open(file_of(folder, kind, name));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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
        assert!(Lock::take(folder.path(), "domain", "../a b").is_ok());
    }

    #[test]
    fn who_looks_whether_it_is_held_keeps_nobody_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let is_held = || Lock::is_held(folder.path(), "domain", "g1");
        assert!(!is_held(), "there is no file yet");
        let lock = Lock::take(folder.path(), "domain", "g1").unwrap();
        assert!(is_held());
        drop(lock);
        assert!(!is_held());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        is_held();
                    }
                });
            }
            for _ in 0..2_000 {
                Lock::take(folder.path(), "domain", "g1").unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
