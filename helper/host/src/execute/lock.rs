//! One evacuation of a domain at a time on this machine. A lock that is held is the only sign that a process
//! of this machine lives and drives one: numbers of processes are used again.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError, metadata, remove_file};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::words::printable;

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

/// A lock that ends with this process, however it ends. Its file goes with it, so that there are no more files
/// than evacuations; only a process that is killed leaves one, to the next that takes the lock.
#[derive(Debug)]
pub struct Lock {
    /// Ends with it.
    file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held: whoever has opened it by now sees that it has gone, see `is_named`.
        if is_named(&self.file, &self.path) {
            let _ = remove_file(&self.path);
        }
    }
}

/// Tries at a lock at which others only look, each for a moment.
const TRIES: u32 = 100_000;

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
        for _ in 0..TRIES {
            let file = options.open(&path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) if is_named(&file, &path) => return Ok(Self { file, path }),
                Ok(()) => continue,
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
        let path = file_of(folder, kind, name);
        for _ in 0..TRIES {
            let Ok(file) = File::open(&path) else {
                return false;
            };
            match file.try_lock_shared() {
                Err(TryLockError::WouldBlock) => return true,
                // Its holder removed it meanwhile, and somebody else may have the next one.
                Ok(()) if !is_named(&file, &path) => {}
                Ok(()) | Err(TryLockError::Error(_)) => return false,
            }
        }
        true
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The path still names this open file, and no other. Two processes could have a lock each otherwise, on the file
/// that was and on the one that is.
fn is_named(file: &File, path: &Path) -> bool {
    let number = |found: std::io::Result<Metadata>| found.map(|found| (found.dev(), found.ino()));
    matches!((number(file.metadata()), number(metadata(path))), (Ok(open), Ok(named)) if open == named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = || std::fs::read_dir(folder.path()).unwrap().count();
        for name in ["g1", "g2", "g3"] {
            let lock = Lock::take(folder.path(), "domain", name).unwrap();
            assert_eq!(files(), 1);
            drop(lock);
            assert_eq!(files(), 0, "after that of {name}");
        }
        // One that a killed process left is taken like any other.
        File::create(file_of(folder.path(), "vf", "a")).unwrap();
        drop(Lock::take(folder.path(), "vf", "a").unwrap());
        assert_eq!(files(), 0);
    }

    /// The file goes and comes with each turn, and yet there is one holder at a time.
    #[test]
    fn of_many_that_take_turns_one_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let holders = std::sync::atomic::AtomicU32::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        let turns = || {
            (0..3_000)
                .filter_map(|_| Lock::take(folder.path(), "domain", "g1").ok())
                .map(|_lock| {
                    let others = holders.fetch_add(1, order);
                    std::thread::yield_now();
                    holders.fetch_sub(1, order);
                    assert_eq!(others, 0, "it is held twice");
                })
                .count()
        };
        let had = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(turns)).collect();
            let had = threads.into_iter().map(|thread| thread.join().unwrap());
            had.sum::<usize>()
        });
        assert!(had > 0, "nobody ever had it");
    }

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
            let take = |_| Lock::take(folder.path(), "domain", "g1").map(drop);
            let taken = (0..2_000).try_for_each(take);
            // Whatever came of it: the threads would wait for ever.
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            taken.unwrap();
        });
    }
}
