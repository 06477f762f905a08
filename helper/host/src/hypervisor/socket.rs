//! Where a guest's channel is, and why that is believed.

use std::path::{Path, PathBuf};

/// The unix socket on which the hypervisor takes clients of a guest's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSocket {
    /// Its path.
    pub path: PathBuf,
    /// Who says that the guest is behind it.
    pub named_by: NamedBy,
}

/// Who named a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedBy {
    /// The operator, or who wrote this program's tests: it is opened as it is.
    Operator,
    /// A domain's XML. Who may write that may not have the rights of this process, so nothing is opened
    /// but a socket below a folder of channels that the domain's own QEMU listens on.
    Domain(DomainSocket),
}

/// What a socket that a domain's XML names has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSocket {
    /// The folder of channels below which it is; no link leads out of there.
    pub folder: PathBuf,
    /// The domain's UUID: its QEMU has it on its command line.
    pub uuid: String,
    /// Where libvirt keeps the number of the domain's QEMU. Where the file is, it decides.
    pub pid_file: Option<PathBuf>,
}

impl ChannelSocket {
    /// A socket that the operator named.
    pub fn named(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            named_by: NamedBy::Operator,
        }
    }
}
