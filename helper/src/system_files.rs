//! What a system shows of itself in files: modules, users, units, processes' folders.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::runtime::read_bounded;

/// Where systemd looks for units, the first of a name wins (systemd.unit(5)).
pub(crate) const UNIT_FOLDERS: &[&str] = &[
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];
/// Users beside those of `/etc/passwd`: image-based systems have theirs below `/usr`.
const PASSWD_FILES: &[&str] = &["/etc/passwd", "/usr/lib/passwd"];
/// Users as JSON, one file each (nss-systemd(8)).
const USERDB_FOLDERS: &[&str] = &[
    "/etc/userdb",
    "/run/userdb",
    "/run/host/userdb",
    "/usr/lib/userdb",
];
/// Largest list that is read here, in bytes: `modules.dep` of a distribution's kernel has some 700 KB.
const MAX_LIST_BYTES: u64 = 16 * 1024 * 1024;

/// A system's files; another root serves tests.
#[derive(Debug, Clone)]
pub struct SystemFiles {
    pub(crate) root: PathBuf,
    pub(crate) kernel_release: String,
}

impl SystemFiles {
    /// The system that this is.
    pub fn this() -> Self {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        Self {
            root: PathBuf::from("/"),
            kernel_release: release,
        }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A file's text; empty if it can't be read.
    pub(crate) fn text(&self, path: &str) -> String {
        text_of(&self.path(path))
    }

    /// Whether systemd is the manager here (`sd_booted(3)`).
    pub(crate) fn has_systemd(&self) -> bool {
        self.exists("/run/systemd/system")
    }

    /// The first of these folders' files of this name, masked or not.
    pub(crate) fn first(&self, folders: &[&str], name: &str) -> Option<PathBuf> {
        let mut files = folders.iter().map(|folder| self.path(folder).join(name));
        files.find(|file| file.symlink_metadata().is_ok())
    }

    /// The same. A file that is masked (a link to `/dev/null`) is none.
    pub(crate) fn find(&self, folders: &[&str], name: &str) -> Option<PathBuf> {
        let first = self.first(folders, name);
        first.filter(|file| file.metadata().is_ok_and(|found| found.is_file()))
    }

    /// Whether a unit is started because another wants it: a link in one of the folders `*.wants`, `*.requires`.
    pub(crate) fn is_wanted(&self, unit: &str) -> bool {
        UNIT_FOLDERS.iter().any(|folder| {
            let entries = fs::read_dir(self.path(folder));
            let names = entries
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path());
            let mut wants = names.filter(|path| {
                path.extension()
                    .is_some_and(|kind| kind == "wants" || kind == "requires")
            });
            wants.any(|wants| wants.join(unit).symlink_metadata().is_ok())
        })
    }

    /// This unit runs, by its control group. Files in /run may be of an initrd's.
    pub(crate) fn runs(&self, unit: &str) -> bool {
        self.exists(&format!("/sys/fs/cgroup/system.slice/{unit}"))
    }

    /// A module is loaded, built in or installed for the running kernel. `path` is what follows `kernel/`
    /// in the lists, without the ending of a compressed file.
    pub(crate) fn has_module(&self, name: &str, path: &str) -> bool {
        let folder = format!("/lib/modules/{}", self.kernel_release);
        let listed = |file: &str| {
            let list = self.text(&format!("{folder}/{file}"));
            list.lines().any(|line| line.contains(path))
        };
        self.exists(&format!("/sys/module/{name}"))
            || listed("modules.dep")
            || listed("modules.builtin")
    }

    /// Whether the user is known without asking the network (passwd(5), nss-systemd(8)).
    pub(crate) fn has_user(&self, name: &str) -> bool {
        let in_userdb = |folder: &&str| self.exists(&format!("{folder}/{name}.user"));
        self.user_id(name).is_some() || USERDB_FOLDERS.iter().any(in_userdb)
    }

    /// The number of a user of the passwd files.
    pub(crate) fn user_id(&self, name: &str) -> Option<u32> {
        PASSWD_FILES.iter().find_map(|file| {
            let text = self.text(file);
            let mut fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
            let found = fields.find(|fields| fields.first() == Some(&name))?;
            found.get(2)?.parse().ok()
        })
    }
}

/// A file's text; empty if it can't be read or is too large.
pub(crate) fn text_of(path: &Path) -> String {
    let bytes = read_bounded(path, MAX_LIST_BYTES).ok().flatten();
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

/// A folder that everybody may look into, as systemd makes it.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}
