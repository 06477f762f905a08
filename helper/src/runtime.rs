//! What outlives the service within one boot of the guest: files in /run/tandem.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The folder; systemd makes it (`RuntimeDirectory=tandem`).
pub const FOLDER: &str = "/run/tandem";

/// Holds of `tandem_core::Machine::holds`.
pub const HOLDS_PATH: &str = "/run/tandem/holds.json";

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a file; `None` if there is none.
///
/// # Errors
/// It can't be read, is too large, or does not hold what it should.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let context = || format!("can't read {}; remove it to start afresh", path.display());
    match std::fs::metadata(path) {
        Ok(metadata) => {
            ensure!(
                metadata.len() <= MAX_BYTES,
                "{} is larger than {MAX_BYTES} bytes",
                path.display()
            );
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
    }
    let bytes = std::fs::read(path).with_context(context)?;
    serde_json::from_slice(&bytes)
        .with_context(context)
        .map(Some)
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// The folder is missing or not writable.
pub fn store<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let context = || format!("can't write {}", path.display());
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
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

#[cfg(test)]
mod tests {
    use super::*;

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
