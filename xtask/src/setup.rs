//! Makes a machine ready: `pkg-config` and libudev's headers for the guest service, QEMU and its company for the lab.

use anyhow::Result;
use tandem_lab::Kernel;
use tandem_lab::artifacts;
use tandem_lab::artifacts::host_tools::{self, HostTool};
use tandem_lab::artifacts::qemu::Starter;
use tandem_lab::full_guest::Rootfs;

/// What building and testing need.
const TOOLS: [HostTool; 12] = [
    HostTool::LibudevDev,
    HostTool::Cpp,
    HostTool::Qemu(Starter::Lab),
    HostTool::Iproute2,
    HostTool::Xz,
    HostTool::SquashfsTools,
    HostTool::Mmdebstrap,
    HostTool::E2fsprogs,
    HostTool::Libvirt,
    HostTool::Qemu(Starter::Libvirt),
    HostTool::Xmllint,
    HostTool::Dnsmasq,
];

/// What `cargo xtask setup` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Also fetch what the lab's guests boot from
    #[arg(long)]
    guests: bool,
}

/// Installs what is missing, in one go; fetches what guests boot from, if that is asked for.
pub(crate) fn run_with(options: &Options) -> Result<()> {
    run()?;
    if options.guests {
        for kernel in Kernel::ALL {
            println!("{kernel}: {}", kernel.files()?.release);
        }
        artifacts::busybox()?;
        Rootfs::of(&Kernel::from_environment()?.files()?)?;
    }
    Ok(())
}

/// Installs what is missing, in one go.
pub(crate) fn run() -> Result<()> {
    for tool in TOOLS {
        match tool.lack() {
            None => println!("{}: ok", tool.title()),
            Some(lack) => println!("{}: {lack}", tool.title()),
        }
    }
    host_tools::ensure(&TOOLS)
}
