//! Where the system shows itself.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;
use tandem_core::link::Link;

use crate::ebpf::Support;
use crate::observe::once;

/// Where the system shows itself; another root serves tests.
#[derive(Debug, Clone)]
pub struct System {
    pub(super) root: PathBuf,
    /// What this process may do.
    pub(super) capabilities: CapabilitySet,
    pub(super) ebpf: Support,
    pub(super) kernel_release: String,
    /// All interfaces, or why they can't be read.
    pub(super) links: Result<Vec<Link>, String>,
}

/// Who has which capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// Who, in words that follow "of".
    pub(super) who: String,
    pub(super) capabilities: CapabilitySet,
}

impl System {
    /// The system and the process that this is.
    ///
    /// # Errors
    /// The kernel doesn't tell the process its capabilities.
    pub fn this() -> std::io::Result<Self> {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            root: PathBuf::from("/"),
            capabilities: rustix::thread::capabilities(None)?.effective,
            ebpf: Support::probe(),
            kernel_release: release,
            links: once::links().map_err(|error| error.to_string()),
        })
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The first of these folders that has this file. A file that is masked (a link to `/dev/null`) is none.
    pub(super) fn find(&self, folders: &[&str], name: &str) -> Option<PathBuf> {
        let files = folders.iter().map(|folder| self.path(folder).join(name));
        // The first one counts, also where it masks the others.
        let first = files
            .into_iter()
            .find(|file| file.symlink_metadata().is_ok());
        first.filter(|file| file.metadata().is_ok_and(|found| found.is_file()))
    }

    /// A module is loaded, built in or installed for the running kernel. `path` is what follows `kernel/`
    /// in the lists, without the ending of a compressed file.
    pub(super) fn has_module(&self, name: &str, path: &str) -> bool {
        let folder = self.path(&format!("/lib/modules/{}", self.kernel_release));
        let listed = |file: &str| {
            fs::read_to_string(folder.join(file))
                .is_ok_and(|list| list.lines().any(|line| line.contains(path)))
        };
        self.exists(&format!("/sys/module/{name}"))
            || listed("modules.dep")
            || listed("modules.builtin")
    }

    /// Major and minor number of the running kernel.
    pub(super) fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.kernel_release.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// The capabilities that count: those of the service, where it runs, else those of this process.
    pub(super) fn holder(&self) -> Holder {
        let Some(pid) = self.service() else {
            return Holder {
                who: "this process (the service does not run)".to_owned(),
                capabilities: self.capabilities,
            };
        };
        let text = fs::read_to_string(self.path(&format!("/proc/{pid}/status")));
        let effective = text.ok().and_then(|text| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(value.trim(), 16).ok()
        });
        Holder {
            who: format!("the running service (process {pid})"),
            capabilities: effective.map_or(self.capabilities, CapabilitySet::from_bits_truncate),
        }
    }

    /// The process of the service: `tandem run`.
    fn service(&self) -> Option<u32> {
        self.processes().find(|pid| {
            let arguments = fs::read(self.path(&format!("/proc/{pid}/cmdline")));
            let arguments = arguments.unwrap_or_default();
            let mut words = arguments.split(|byte| *byte == 0);
            let program = words.next().unwrap_or_default();
            program.rsplit(|byte| *byte == b'/').next() == Some(b"tandem".as_slice())
                && words.next() == Some(b"run".as_slice())
        })
    }

    /// Processes that have this file open, with their names.
    pub(super) fn users_of(&self, file: &Path) -> Vec<(u32, String)> {
        let has_open = |pid: &u32| {
            let descriptors = fs::read_dir(self.path(&format!("/proc/{pid}/fd")));
            let mut descriptors = descriptors.into_iter().flatten().flatten();
            descriptors.any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == file))
        };
        let users = self.processes().filter(has_open);
        let name = |pid: u32| {
            let name = fs::read_to_string(self.path(&format!("/proc/{pid}/comm")));
            (pid, name.unwrap_or_default().trim().to_owned())
        };
        users.map(name).collect()
    }

    fn processes(&self) -> impl Iterator<Item = u32> {
        let entries = fs::read_dir(self.path("/proc"));
        let entries = entries.into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    /// The number of a user of `/etc/passwd` (passwd(5)).
    pub(super) fn user_id(&self, name: &str) -> Option<u32> {
        let text = fs::read_to_string(self.path("/etc/passwd")).ok()?;
        let mut fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = fields.find(|fields| fields.first() == Some(&name))?;
        found.get(2)?.parse().ok()
    }
}
