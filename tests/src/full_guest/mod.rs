//! The full guest: Debian 13 with real systemd and udev, Tandem installed as a package would install it.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use tandem_lab::full_guest::{FullGuest, Manager};
//! use tandem_lab::{Lab, Mac, NicModel};
//!
//! let lab = Lab::new("example")?;
//! let host = lab.host("a")?;
//! let vm = FullGuest::new(&lab)
//!     .standby(Mac::test(1))
//!     .vf(NicModel::Igb, Mac::test(2))
//!     .manager(Manager::NetworkManager)
//!     .tandem("[[bond]]\nname = \"bond0\"\n")?
//!     .boot(&host)?;
//! vm.sh("systemctl status tandem.service")?;
//! # Ok(())
//! # }
//! ```

pub mod install;
mod rootfs;
pub mod systemd;

pub use rootfs::Rootfs;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifacts::cargo::{self, Profile};
use crate::artifacts::{self, Kernel};
use crate::initramfs::Initramfs;
use crate::lab::Lab;
use crate::net::Host;
use crate::qemu::{HotPlug, Mac, NicModel, ReadOnlyDrive};
use crate::vm::{GuestImage, Hardware, Vm};

const INIT: &str = include_str!("init.sh");
/// What is below this in the initramfs is copied over the root file system before systemd starts.
const PAYLOAD: &str = "/payload";
/// Modules that bring up the root file system.
const EARLY_MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "squashfs", "overlay"];
const MEMORY_MIB: u32 = 1024;
/// Emulated and on a busy machine; usually the agent answers after 15 s.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

const AGENT_UNIT: &str = "lab-agent.service";
const AGENT_UNIT_TEXT: &str = "[Unit]\nDescription=The lab's agent\nDefaultDependencies=no\n\
    [Service]\nExecStart=/usr/sbin/lab-agent guest\nRestart=always\n";

/// Security modules have no policy in this image, and looking for one takes time.
const KERNEL_PARAMETERS: [&str; 4] = [
    "selinux=0",
    "apparmor=0",
    "audit=0",
    "systemd.show_status=1",
];

/// A network manager that the guest runs beside Tandem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Manager {
    /// NetworkManager, as Debian configures it: it gives every NIC it finds a connection.
    NetworkManager,
    /// systemd-networkd, with whatever `.network` files the test adds.
    Networkd,
}

impl Manager {
    /// Its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::NetworkManager => "NetworkManager.service",
            Self::Networkd => "systemd-networkd.service",
        }
    }

    fn wait_online_unit(self) -> &'static str {
        match self {
            Self::NetworkManager => "NetworkManager-wait-online.service",
            Self::Networkd => "systemd-networkd-wait-online.service",
        }
    }
}

#[derive(Debug, Clone)]
struct File {
    data: Vec<u8>,
    executable: bool,
}

/// Describes a full guest; `boot` makes it.
#[derive(Debug, Clone)]
pub struct FullGuest<'lab> {
    lab: &'lab Lab,
    hardware: Hardware,
    files: BTreeMap<String, File>,
    links: BTreeMap<String, String>,
    kernel_parameters: Vec<String>,
}

impl<'lab> FullGuest<'lab> {
    /// A guest without NICs and without a network manager.
    pub fn new(lab: &'lab Lab) -> Self {
        let hardware = Hardware {
            memory_mib: MEMORY_MIB,
            ..Hardware::default()
        };
        Self {
            lab,
            hardware,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            kernel_parameters: KERNEL_PARAMETERS.map(str::to_owned).to_vec(),
        }
    }

    /// Adds a virtio NIC that stays, with the id `standby` (then `standby2`, …).
    pub fn standby(mut self, mac: Mac) -> Self {
        self.hardware.add_standby(mac);
        self
    }

    /// Adds a NIC that can leave, with the id `vf` (then `vf2`, …).
    pub fn vf(mut self, model: NicModel, mac: Mac) -> Self {
        self.hardware.add_vf(model, mac);
        self
    }

    /// How hot-plug is signalled; unless called, over ACPI.
    pub fn hot_plug(mut self, hot_plug: HotPlug) -> Self {
        self.hardware.hot_plug = hot_plug;
        self
    }

    /// Leaves Tandem's channel out.
    pub fn without_channel(mut self) -> Self {
        self.hardware.channel = false;
        self
    }

    /// Adds a file with this text.
    pub fn text(mut self, path: &str, text: &str) -> Self {
        self.add(path, text.as_bytes().to_vec(), false);
        self
    }

    /// Adds a kernel parameter.
    pub fn kernel_parameter(mut self, parameter: &str) -> Self {
        self.kernel_parameters.push(parameter.to_owned());
        self
    }

    /// Has systemd start a unit at boot as a `Wants=` of another.
    pub fn wanted_by(mut self, unit: &str, target: &str) -> Self {
        let path = format!("/etc/systemd/system/{target}.wants/{unit}");
        self.links
            .insert(path, format!("/usr/lib/systemd/system/{unit}"));
        self
    }

    /// Runs a network manager. Its own idea of "online" is what `network-online.target` waits for, and the
    /// guest's boot asks for that target, as a server with network file systems does.
    pub fn manager(self, manager: Manager) -> Self {
        self.wanted_by(manager.unit(), "multi-user.target")
            .wanted_by(manager.wait_online_unit(), "network-online.target")
            .wanted_by("network-online.target", "multi-user.target")
    }

    /// Installs Tandem: the release binary, its unit, rules and user, and this configuration.
    pub fn tandem(mut self, config: &str) -> Result<Self> {
        for installed in install::files()? {
            self.add(&installed.path, installed.data, installed.executable);
        }
        Ok(self
            .text(crate::tandem::CONFIG, config)
            .wanted_by("tandem.service", "multi-user.target"))
    }

    /// No target starts Tandem: udev's rule does, when the channel's port or one of its NICs appears.
    pub fn not_enabled(mut self) -> Self {
        self.links
            .retain(|path, _| !path.ends_with("/tandem.service"));
        self
    }

    /// Builds the guest and boots it on a host: comes back when the lab's agent answers, which is before
    /// systemd has started everything (see [`systemd::wait_started`]).
    pub fn boot(self, host: &Host) -> Result<Vm> {
        let kernel = Kernel::from_environment()?.files()?;
        let rootfs = Rootfs::of(&kernel)?;

        let mut initramfs = Initramfs::new();
        initramfs.program(&artifacts::busybox()?, "/bin/busybox")?;
        initramfs.executable("/init", INIT);
        initramfs.modules(&kernel, &EARLY_MODULES.map(str::to_owned))?;
        for folder in ["/proc", "/sys", "/dev"] {
            initramfs.folder(folder);
        }
        let guest = self.with_agent()?;
        for (path, file) in guest.files {
            let path = format!("{PAYLOAD}{path}");
            if file.executable {
                initramfs.executable(&path, file.data);
            } else {
                initramfs.file(&path, file.data);
            }
        }
        for (path, target) in &guest.links {
            initramfs.link(&format!("{PAYLOAD}{path}"), target);
        }
        let path = guest.lab.inner().new_folder("image")?.join("initramfs");
        initramfs.write(&path)?;
        let image = GuestImage {
            kernel: kernel.image,
            initramfs: path,
            kernel_parameters: guest.kernel_parameters,
            drives: vec![ReadOnlyDrive {
                image: rootfs.image(),
            }],
            boot_limit: BOOT_LIMIT,
            silence_limit: SILENCE_LIMIT,
        };
        Vm::boot(guest.lab, host, &image, &guest.hardware)
    }

    fn with_agent(mut self) -> Result<Self> {
        let agent = cargo::program("tandem-lab", "lab-agent", Profile::Dev)?;
        let data =
            std::fs::read(&agent).with_context(|| format!("cannot read {}", agent.display()))?;
        self.add("/usr/sbin/lab-agent", data, true);
        Ok(self
            .text(
                &format!("/usr/lib/systemd/system/{AGENT_UNIT}"),
                AGENT_UNIT_TEXT,
            )
            .wanted_by(AGENT_UNIT, "sysinit.target"))
    }

    fn add(&mut self, path: &str, data: Vec<u8>, executable: bool) {
        self.files
            .insert(path.to_owned(), File { data, executable });
    }
}
