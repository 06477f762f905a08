//! What outlives the service within one boot of the guest: files in /run/tandem.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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

/// Reads a file; `None` if there is none.
///
/// # Errors
/// It can't be read, is too large, or does not hold what it should.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let context = || format!("can't read {}; remove it to start afresh", path.display());
    let bytes = match read_bounded(path, MAX_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            return Err(anyhow!("larger than {MAX_BYTES} bytes")).with_context(context);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
    };
    serde_json::from_slice(&bytes)
        .with_context(context)
        .map(Some)
}

/// Reads a file that may grow meanwhile; `None` if it has more than `max_bytes`.
pub(crate) fn read_bounded(path: &Path, max_bytes: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= max_bytes);
    Ok(fits.then_some(bytes))
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
    fn no_more_is_read_than_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), Some(b"12345".to_vec()));
        assert_eq!(read_bounded(&path, 4).unwrap(), None);
        // A file without a length, and without an end.
        let endless = Path::new("/dev/zero");
        assert_eq!(read_bounded(endless, 4096).unwrap(), None);
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
