//! Where the system shows itself.

use std::fs;
use std::net::IpAddr;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use rustix::thread::CapabilitySet;
use tandem_core::link::Link;
use tandem_core::types::Ifindex;
use tandem_wire::Call;
use tandem_wire::reply::StatusReport;

use crate::client::{Client, ClientError};
use crate::ebpf::Support;
use crate::nics::UnitState;
use crate::observe::once;
use crate::runtime::SOCKET_PATH;
use crate::surroundings::Concern;
use crate::system_files::SystemFiles;

/// How long the service may take to say what is wrong.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// Where the system shows itself; another root serves tests.
#[derive(Debug, Clone)]
pub struct System {
    pub(super) files: SystemFiles,
    /// What this process may do.
    pub(super) capabilities: CapabilitySet,
    pub(super) ebpf: Support,
    /// How systemd finds the service's unit; nothing without systemd.
    pub(super) unit: Option<UnitState>,
    /// All interfaces, or why they can't be read.
    pub(super) links: Result<Vec<Link>, String>,
    /// Addresses without an end, with their interfaces.
    pub(super) permanent: Vec<(Ifindex, IpAddr)>,
    /// The problems that the running service tells of, by bond; or why it was not asked.
    pub(super) told: Result<Vec<Concern>, String>,
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
        let files = SystemFiles::this();
        Ok(Self {
            unit: files.has_systemd().then(UnitState::ask).flatten(),
            files,
            capabilities: rustix::thread::capabilities(None)?.effective,
            ebpf: Support::probe(),
            links: once::links().map_err(|error| error.to_string()),
            permanent: once::permanent_addresses().unwrap_or_default(),
            told: ask().map_err(|error| error.to_string()),
        })
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

    /// The service has kernel programs loaded (`bpf_prog_new_fd`, kernel/bpf/syscall.c, 6.12). Then it has given
    /// up the capabilities to load more.
    pub(super) fn service_has_programs(&self) -> bool {
        self.service()
            .is_some_and(|pid| self.has_open(pid, Path::new("anon_inode:bpf-prog")))
    }

    fn has_open(&self, pid: u32, file: &Path) -> bool {
        let descriptors = fs::read_dir(self.path(&format!("/proc/{pid}/fd")));
        let mut descriptors = descriptors.into_iter().flatten().flatten();
        descriptors.any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == file))
    }

    /// Processes that have this file open, with their names.
    pub(super) fn users_of(&self, file: &Path) -> Vec<(u32, String)> {
        let users = self.processes().filter(|pid| self.has_open(*pid, file));
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
}

/// The problems that the service tells of.
fn ask() -> Result<Vec<Concern>, ClientError> {
    let mut client = Client::connect(SOCKET_PATH.as_ref())?;
    let report: StatusReport = client.call(Call::TandemStatus, STATUS_LIMIT)?;
    let bonds = report.status.bonds.into_iter();
    let concerns = bonds.flat_map(|bond| {
        let name = bond.name;
        let problems = bond.problems.into_iter();
        problems.map(move |problem| Concern {
            bond: name.clone(),
            problem,
        })
    });
    Ok(concerns.collect())
}

impl Deref for System {
    type Target = SystemFiles;

    fn deref(&self) -> &SystemFiles {
        &self.files
    }
}
