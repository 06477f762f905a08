//! Small files beside the QMP socket: whole or not there, and durable once written.

use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Qemu;

/// Ending of the file with `<bonds>`.
pub(super) const BONDS: &str = ".bonds.xml";
/// Ending of the file with the record of progress.
pub(super) const PROGRESS: &str = ".progress";

impl Qemu {
    pub(super) fn bonds_file(&self) -> PathBuf {
        beside(&self.socket, BONDS)
    }

    pub(super) fn progress_file(&self) -> PathBuf {
        beside(&self.socket, PROGRESS)
    }
}

/// The file of that ending beside a socket.
pub(super) fn beside(socket: &Path, ending: &str) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The text of a file, if it is there.
pub(super) fn read(path: &Path, max_bytes: usize) -> Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = String::new();
    file.take(max_bytes as u64 + 1).read_to_string(&mut text)?;
    if text.len() > max_bytes {
        let reason = format!("{} is longer than {max_bytes} bytes", path.display());
        return Err(Error::other(reason));
    }
    Ok(Some(text))
}

/// Writes a file in one step, or removes it.
pub(super) fn write(path: &Path, text: Option<&str>) -> Result<()> {
    match text {
        Some(text) => {
            let new = beside(path, ".new");
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)?;
        }
        None => match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed?,
        },
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
