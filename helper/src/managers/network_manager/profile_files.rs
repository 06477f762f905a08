//! The files of the bonds' profiles, and the lock of who writes them.

use std::fs::{self, TryLockError};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::keyfile::PREFIX;
use crate::system_files::{SystemFiles, make_folder};

/// Where profiles are that are gone at the next boot.
pub(super) const FOLDER: &str = "/run/NetworkManager/system-connections";
pub(super) const ENDING: &str = ".nmconnection";
/// The name of the standby's profile without the bond ends so.
pub(super) const IN_NEED: &str = "-in-need";

/// Who has this writes a few files meanwhile, and waits for nobody.
pub(super) const LOCK_PATH: &str = "/run/tandem-nics/network-manager.lock";
const LOCK_LIMIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The file of a bond's own profile.
pub(super) fn path_of_bond(bond: &str) -> String {
    let [file, _, _] = file_names(bond);
    format!("{FOLDER}/{file}")
}

/// The files of a bond's profiles: its own, the standby's, and that of the standby without the bond.
pub(super) fn file_names(bond: &str) -> [String; 3] {
    ["", "-standby", IN_NEED].map(|what| format!("{PREFIX}{bond}{what}{ENDING}"))
}

/// The service's start, the NICs' watch and what follows a change may all be at the bonds. Locked until it is closed.
pub(in crate::managers) fn lock(files: &SystemFiles) -> Result<fs::File> {
    let path = files.path(LOCK_PATH);
    lock_file(&path).with_context(|| format!("can't lock {}", path.display()))
}

fn lock_file(path: &Path) -> std::io::Result<fs::File> {
    make_folder(path.parent().unwrap_or(Path::new("/")))?;
    let mut options = fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    // Who can open it can lock it, whatever it may do with it (flock(2)). An earlier version let everybody.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                // The kernel tells nobody who has a limit that a lock is free.
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
