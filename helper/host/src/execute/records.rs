//! This host's own records of evacuations: the only ones whose URIs and devices are acted on. They outlive
//! a reboot, and nobody but root, or whoever runs this program, can have written them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::lock::file_of;
use crate::evacuate::{ProgressError, Record};
use crate::trust::{FileError, check_folder, read_own};

/// Where they are.
pub fn default_records_folder() -> PathBuf {
    PathBuf::from("/var/lib/tandem-host")
}

/// Why a record can't be kept, or is not acted on.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// Folder or file is not to be trusted, or can't be read.
    #[error("the records of this host: {0}")]
    File(#[from] FileError),
    /// The record is none.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ProgressError,
    },
    /// It can't be written.
    #[error("no record can be kept in {}: {source}; make room, run this command as root, or name another --records-dir", path.display())]
    NotKept {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl RecordsError {
    /// A newer program wrote the record.
    pub fn is_newer(&self) -> bool {
        let Self::Content { source, .. } = self else {
            return false;
        };
        matches!(source, ProgressError::Newer(_))
    }
}

/// The folder, one file a domain. Whoever writes has the domain's lock.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Makes the folder if it is missing.
    ///
    /// # Errors
    /// If it can't be made, is somebody else's, or may be written by others.
    pub fn open(folder: &Path) -> Result<Self, RecordsError> {
        let mut folders = DirBuilder::new();
        folders.recursive(true).mode(0o700);
        let made = folders.create(folder);
        made.map_err(|source| RecordsError::NotKept {
            path: folder.to_owned(),
            source,
        })?;
        check_folder(folder)?;
        let folder = folder.to_owned();
        Ok(Self { folder })
    }

    /// The record of a domain, if there is one.
    ///
    /// # Errors
    /// If it can't be read, or somebody else can have written it, or it is of another domain.
    pub fn read(&self, domain: &str) -> Result<Option<Record>, RecordsError> {
        check_folder(&self.folder)?;
        let path = self.file(domain);
        let Some(text) = read_own(&path, Record::MAX_BYTES)? else {
            return Ok(None);
        };
        let record = Record::parse_for(&text, domain);
        let record = record.map_err(|source| RecordsError::Content { path, source })?;
        Ok(Some(record))
    }

    /// Keeps a record: whole or not at all, and durable.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn keep(&self, record: &Record) -> Result<(), RecordsError> {
        check_folder(&self.folder)?;
        let path = self.file(&record.spec.domain);
        let new = self.write(&path, &record.to_text());
        let kept = new.and_then(|new| fs::rename(new, &path));
        told(path, kept.and_then(|()| self.sync()))
    }

    /// Whether a record of this size could be kept; nothing is.
    ///
    /// # Errors
    /// If it could not, or a record is there that can't be read: a newer program may have written it.
    pub fn rehearse(&self, record: &Record) -> Result<(), RecordsError> {
        self.read(&record.spec.domain)?;
        let path = self.file(&record.spec.domain);
        let new = self.write(&path, &record.to_text());
        told(path, new.and_then(fs::remove_file))
    }

    /// Forgets a domain's record.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn forget(&self, domain: &str) -> Result<(), RecordsError> {
        let path = self.file(domain);
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        told(path, removed.and_then(|()| self.sync()))
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, domain: &str) -> PathBuf {
        let mut path = file_of(&self.folder, "domain", domain).into_os_string();
        path.push(".json");
        path.into()
    }

    /// A file beside it, on the disk.
    fn write(&self, path: &Path, text: &str) -> std::io::Result<PathBuf> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        // A link that was put there is not followed.
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all());
        if let Err(error) = written {
            // What is left of it would fill the disk further.
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        Ok(new)
    }

    fn sync(&self) -> std::io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

fn told(path: PathBuf, result: std::io::Result<()>) -> Result<(), RecordsError> {
    result.map_err(|source| RecordsError::NotKept { path, source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use serde_json::json;

    use super::*;
    use crate::evacuate::Progress;

    fn record(domain: &str) -> Record {
        let progress = json!({"version": Progress::VERSION, "evacuation": "e", "domain": domain, "owner": null,
            "beat": 1, "stage": "claimed", "migration-begun": false});
        let spec = json!({"domain": domain, "source-uri": "qemu:///system",
            "destination-uri": "qemu+ssh://b/system", "bond": null, "source-vf": null, "destination-vf": null,
            "agent": "never", "reaches-destination-agent": false, "configure": true, "yes-degraded": false});
        let record = json!({"progress": progress, "spec": spec});
        serde_json::from_value(record).unwrap()
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn a_record_is_kept_whole_and_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("records");
        let records = Records::open(&folder).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(records.read("g1").unwrap(), None);
        records.rehearse(&record("g1")).unwrap();
        assert!(files(&folder).is_empty());
        // What a writer left that was killed, or somebody put there, is replaced and not followed.
        let aim = parent.path().join("aim");
        fs::write(&aim, "as it was").unwrap();
        symlink(&aim, folder.join("domain-g1.json.new")).unwrap();
        records.keep(&record("g1")).unwrap();
        assert_eq!(fs::read_to_string(&aim).unwrap(), "as it was");
        assert_eq!(files(&folder), ["domain-g1.json"]);
        assert_eq!(mode(&folder.join("domain-g1.json")), 0o600);
        assert_eq!(records.read("g1").unwrap(), Some(record("g1")));
        records.forget("g1").unwrap();
        records.forget("g1").unwrap();
        assert_eq!(records.read("g1").unwrap(), None);
    }

    #[test]
    fn nothing_is_taken_from_a_folder_or_file_that_others_may_write() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("records");
        let records = Records::open(&folder).unwrap();
        records.keep(&record("g1")).unwrap();
        let file = folder.join("domain-g1.json");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(matches!(records.read("g1"), Err(RecordsError::File(_))));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(records.read("g1"), Err(RecordsError::File(_))));
        assert!(records.keep(&record("g1")).is_err());
        assert!(Records::open(&folder).is_err());
        let link = parent.path().join("link");
        symlink(&folder, &link).unwrap();
        assert!(Records::open(&link).is_err());
    }

    #[test]
    fn a_newer_record_is_refused_and_stays_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let records = Records::open(&parent.path().join("records")).unwrap();
        let version = Progress::VERSION + 1;
        let progress = json!({ "version": version, "what": "else" });
        let newer = json!({ "progress": progress, "spec": 7, "new": 1 }).to_string();
        let file = records.file("g1");
        fs::write(&file, &newer).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        for error in [
            records.read("g1").unwrap_err(),
            records.rehearse(&record("g1")).unwrap_err(),
        ] {
            assert!(error.is_newer(), "{error}");
            let told = format!("version {version}");
            assert!(error.to_string().contains(&told), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), newer);
    }

    #[test]
    fn a_record_of_another_domain_or_of_bytes_is_none() {
        let parent = tempfile::tempdir().unwrap();
        let records = Records::open(&parent.path().join("records")).unwrap();
        let file = records.file("g1");
        let mut mixed = record("g1");
        mixed.spec.domain = "g2".to_owned();
        let long = "x".repeat(Record::MAX_BYTES + 1);
        for text in [
            record("g2").to_text(),
            mixed.to_text(),
            "{".to_owned(),
            long,
        ] {
            fs::write(&file, &text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(records.read("g1").is_err(), "{text:.80}");
        }
    }
}
