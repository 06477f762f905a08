//! The lab's cache: entries appear whole or not at all, also when several processes want the same one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// The folder `target/lab` (or `LAB_CACHE`).
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache, creating its folder if need be.
    pub fn open() -> Result<Self> {
        let root = match std::env::var_os("LAB_CACHE") {
            Some(path) => PathBuf::from(path),
            None => target_folder().join("lab"),
        };
        Self::at(&root)
    }

    /// The cache in that folder, creating it if need be.
    pub(crate) fn at(root: &Path) -> Result<Self> {
        fs::create_dir_all(root.join("locks"))
            .with_context(|| format!("cannot create the lab's cache {}", root.display()))?;
        let root = root
            .canonicalize()
            .context("cannot resolve the lab's cache folder")?;
        Ok(Self { root })
    }

    /// The cache's own folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Holds the lock `name` until the result is dropped; other processes wait.
    pub fn lock(&self, name: &str) -> Result<CacheLock> {
        let path = self.root.join("locks").join(name);
        let file = File::create(&path)
            .with_context(|| format!("cannot create the lock file {}", path.display()))?;
        flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(CacheLock { _file: file })
    }

    /// The same without waiting: nothing if somebody else holds it.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<CacheLock>> {
        let path = self.root.join("locks").join(name);
        let file = File::create(&path)
            .with_context(|| format!("cannot create the lock file {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(CacheLock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// The entry `name`, a folder. If it is missing, `fill` makes it in a temporary place first.
    pub fn folder(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let entry = self.root.join(name);
        if entry.exists() {
            return Ok(entry);
        }
        let _lock = self.lock(name)?;
        if entry.exists() {
            return Ok(entry);
        }
        let partial = self.root.join(format!("{name}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial).context("cannot remove a half-made cache entry")?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        fill(&partial).with_context(|| format!("cannot make the lab's `{name}`"))?;
        fs::rename(&partial, &entry)
            .with_context(|| format!("cannot move {} into place", partial.display()))?;
        Ok(entry)
    }
}

/// An exclusive lock on a name in the cache; released on drop.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, or `target/` of this workspace.
pub fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => PathBuf::from(path),
        None => workspace_folder().join("target"),
    }
}

/// The workspace this lab was built in.
pub fn workspace_folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_made_once_and_a_failed_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();

        let failed = cache.folder("thing", |_| anyhow::bail!("no network"));
        assert!(format!("{:#}", failed.unwrap_err()).contains("no network"));
        assert!(!folder.path().join("thing").exists());

        let made = cache
            .folder("thing", |path| Ok(fs::write(path.join("file"), "x")?))
            .unwrap();
        assert_eq!(fs::read_to_string(made.join("file")).unwrap(), "x");
        let again = cache
            .folder("thing", |_| anyhow::bail!("made twice"))
            .unwrap();
        assert_eq!(made, again);
    }
}
