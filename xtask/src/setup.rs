//! Makes a machine ready: `pkg-config` and libudev's headers for the guest service, QEMU and its company for the lab.

use anyhow::Result;
use tandem_lab::artifacts::host_tools::{self, HostTool};
use tandem_lab::artifacts::qemu::Starter;

/// What building and testing need.
const TOOLS: [HostTool; 10] = [
    HostTool::LibudevDev,
    HostTool::Qemu(Starter::Lab),
    HostTool::Iproute2,
    HostTool::Xz,
    HostTool::SquashfsTools,
    HostTool::Mmdebstrap,
    HostTool::E2fsprogs,
    HostTool::Libvirt,
    HostTool::Qemu(Starter::Libvirt),
    HostTool::Xmllint,
];

/// Installs what is missing, in one go.
pub(crate) fn run() -> Result<()> {
    for tool in TOOLS {
        match tool.lack() {
            None => println!("{tool:?}: there"),
            Some(lack) => println!("{tool:?}: {lack}"),
        }
    }
    host_tools::ensure(&TOOLS)
}
