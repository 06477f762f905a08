//! The full guest: Debian 13 with real systemd and udev, Tandem installed as a package would install it.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use tandem_lab::full_guest::{FullGuest, Manager};
//! use tandem_lab::{Lab, NicModel, test_mac};
//!
//! let lab = Lab::new("example")?;
//! let host = lab.host("a")?;
//! let vm = FullGuest::new(&lab)
//!     .standby(test_mac(1))
//!     .vf(NicModel::Igb, test_mac(2))
//!     .manager(Manager::NetworkManager)
//!     .tandem("[[bond]]\nname = \"bond0\"\n")?
//!     .boot(&host)?;
//! vm.sh("systemctl status tandem.service")?;
//! # Ok(())
//! # }
//! ```

mod dracut;
pub mod exposure;
pub mod install;
pub mod machine;
mod rootfs;
pub mod systemd;

pub use dracut::EarlyNetwork;
pub use rootfs::{Flavor, Rootfs};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifacts::cargo::{self, Profile};
use crate::artifacts::host_tools::{self, HostTool};
use crate::artifacts::{self, Kernel, KernelFiles, Suite};
use crate::command;
use crate::initramfs::Initramfs;
use crate::lab::Lab;
use crate::net::Host;
use crate::qemu::{Drive, HotPlug, Mac, NicModel};
use crate::vm::{GuestImage, Hardware, Vm};

const INIT: &str = include_str!("init.sh");
/// What is below this in the initramfs is copied over the root file system before systemd starts.
const PAYLOAD: &str = "/payload";
/// Modules that bring up the root file system.
const EARLY_MODULES: [&str; 5] = ["virtio_pci", "virtio_blk", "squashfs", "overlay", "ext4"];
/// For an initramfs that asks for an address over the standby.
const NETWORK_MODULE: &str = "virtio_net";
/// Room for what a guest writes in its life.
const DISK_BYTES: u64 = 512 * 1024 * 1024;
const MKFS_LIMIT: Duration = Duration::from_secs(60);
const MEMORY_MIB: u32 = 1024;
/// Emulated and on a busy machine; usually the agent answers after 15 s.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// What systemd calls the channel's port.
const PORT_UNIT: &str = "dev-virtio\\x2dports-org.tandem.agent.0.device";
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
    /// ifupdown with dhclient, and whatever stanzas the test adds.
    Ifupdown,
    /// dhcpcd as a service of its own, with Debian's file; of the stock image.
    Dhcpcd,
}

impl Manager {
    /// Its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::NetworkManager => "NetworkManager.service",
            Self::Networkd => "systemd-networkd.service",
            Self::Ifupdown => "networking.service",
            Self::Dhcpcd => "dhcpcd.service",
        }
    }

    fn wait_online_unit(self) -> Option<&'static str> {
        match self {
            Self::NetworkManager => Some("NetworkManager-wait-online.service"),
            Self::Networkd => Some("systemd-networkd-wait-online.service"),
            Self::Ifupdown => Some("ifupdown-wait-online.service"),
            Self::Dhcpcd => None,
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
    disk: Option<Disk>,
    flavor: Flavor,
    initramfs_asks: bool,
    dracut: Option<EarlyNetwork>,
}

/// What a full guest writes, kept from one boot to the next.
#[derive(Debug, Clone)]
pub struct Disk {
    image: PathBuf,
}

impl Disk {
    /// An empty one. A guest's files are put on it at its first boot.
    pub fn new(lab: &Lab) -> Result<Self> {
        host_tools::ensure(&[HostTool::E2fsprogs])?;
        let image = lab.inner().new_folder("disk")?.join("image");
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(DISK_BYTES))
            .with_context(|| format!("cannot make {}", image.display()))?;
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F"]).arg(&image);
        command::run(&mut mkfs, MKFS_LIMIT)?;
        Ok(Self { image })
    }
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
            disk: None,
            flavor: Flavor::default(),
            initramfs_asks: false,
            dracut: None,
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

    /// Adds a file of this machine.
    pub fn copy(mut self, from: &Path, path: &str) -> Result<Self> {
        let data =
            std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(path, data, false);
        Ok(self)
    }

    /// Keeps what is written on a disk. Later boots from it find what the first one left; files that are
    /// added here are put there at the first one only.
    pub fn disk(mut self, disk: &Disk) -> Self {
        self.disk = Some(disk.clone());
        self
    }

    /// Boots this image.
    pub fn flavor(mut self, flavor: Flavor) -> Self {
        self.flavor = flavor;
        self
    }

    /// Its initramfs asks a DHCP server over the standby and configures it for good, by klibc's ipconfig, as Debian's
    /// does where the kernel is told `ip=dhcp`.
    pub fn initramfs_asks(mut self) -> Self {
        self.initramfs_asks = true;
        self
    }

    /// dracut made its initramfs, in which the standby's network is asked for.
    pub fn dracut(mut self, network: EarlyNetwork) -> Result<Self> {
        self.dracut = Some(network);
        for (from, to) in install::DRACUT_FILES {
            self = self.copy(&install::source(from), to)?;
        }
        Ok(self
            .flavor(Flavor::Dracut)
            .kernel_parameter("rd.neednet=1")
            .kernel_parameter("ip=dhcp"))
    }

    /// A system whose first boot is past: systemd makes no user at a boot (`ConditionNeedsUpdate=`,
    /// systemd.unit(5)), as on any machine that has been running for a while.
    pub fn settled(self) -> Self {
        self.text("/etc/.updated", "")
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
        let guest = self
            .wanted_by(manager.unit(), "multi-user.target")
            .wanted_by("network-online.target", "multi-user.target");
        match manager.wait_online_unit() {
            Some(unit) => guest.wanted_by(unit, "network-online.target"),
            None => guest,
        }
    }

    /// Installs Tandem: the release binary, its unit, rules and user, and this configuration.
    pub fn tandem(mut self, config: &str) -> Result<Self> {
        for installed in install::files()? {
            self.add(&installed.path, installed.data, installed.executable);
        }
        Ok(self
            .text(crate::tandem::CONFIG, config)
            .wanted_by("tandem.service", "multi-user.target")
            .wanted_by("tandem.service", PORT_UNIT))
    }

    /// Nothing starts Tandem.
    pub fn not_enabled(mut self) -> Self {
        self.links
            .retain(|path, _| !path.ends_with("/tandem.service"));
        self
    }

    /// No target starts Tandem: its channel's port does, or one of its NICs, when it appears.
    pub fn wanted_by_its_port_alone(self) -> Self {
        self.not_enabled().wanted_by("tandem.service", PORT_UNIT)
    }

    /// Builds the guest and boots it on a host: comes back when the lab's agent answers, which is before
    /// systemd has started everything (see [`systemd::wait_started`]).
    pub fn boot(self, host: &Host) -> Result<Vm> {
        let kernel = Kernel::from_environment()?.files()?;
        let rootfs = Rootfs::with_flavor(&kernel, self.flavor)?;

        let guest = self.with_agent()?;
        let path = match guest.dracut {
            Some(network) => dracut::write(&guest, network, &kernel, &rootfs)?,
            None => guest.write_initramfs(&kernel)?,
        };
        let drives = guest.drives(&rootfs);
        let image = GuestImage {
            kernel: kernel.image,
            initramfs: path,
            kernel_parameters: guest.kernel_parameters,
            drives,
            texts: Vec::new(),
            // Each is set up in another way, and udev and systemd are to see their own boot.
            reusable: false,
            boot_limit: BOOT_LIMIT,
            silence_limit: SILENCE_LIMIT,
        };
        Vm::boot(guest.lab, host, &image, &guest.hardware)
    }

    fn write_initramfs(&self, kernel: &KernelFiles) -> Result<PathBuf> {
        let mut initramfs = Initramfs::new();
        initramfs.program(&artifacts::busybox()?, "/bin/busybox")?;
        initramfs.executable("/init", INIT);
        let network = self.initramfs_asks.then_some(&NETWORK_MODULE);
        let modules = EARLY_MODULES.iter().chain(network);
        let modules: Vec<_> = modules.map(|name| (*name).to_owned()).collect();
        initramfs.modules(kernel, &modules)?;
        for folder in ["/proc", "/sys", "/dev", "/run"] {
            initramfs.folder(folder);
        }
        if self.initramfs_asks {
            add_ipconfig(&mut initramfs)?;
        }
        add_payload(self, &mut initramfs);
        let path = self.lab.inner().new_folder("image")?.join("initramfs");
        initramfs.write(&path)?;
        Ok(path)
    }

    fn drives(&self, rootfs: &Rootfs) -> Vec<Drive> {
        let root = Drive {
            image: rootfs.image(),
            writable: false,
        };
        let layer = self.disk.iter().map(|disk| Drive {
            image: disk.image.clone(),
            writable: true,
        });
        std::iter::once(root).chain(layer).collect()
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

/// What is put there at the first boot.
fn add_payload(guest: &FullGuest<'_>, initramfs: &mut Initramfs) {
    for (path, file) in &guest.files {
        let path = format!("{PAYLOAD}{path}");
        if file.executable {
            initramfs.executable(&path, file.data.clone());
        } else {
            initramfs.file(&path, file.data.clone());
        }
    }
    for (path, target) in &guest.links {
        initramfs.link(&format!("{PAYLOAD}{path}"), target);
    }
}

/// klibc's ipconfig and its library.
fn add_ipconfig(initramfs: &mut Initramfs) -> Result<()> {
    let folder = artifacts::unpacked("klibc-ipconfig", Suite::Trixie, |_| {
        Ok(vec!["klibc-utils".to_owned(), "libklibc".to_owned()])
    })?;
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let program = folder.join("usr/lib/klibc/bin/ipconfig");
    initramfs.executable("/bin/ipconfig", read(&program)?);
    for entry in std::fs::read_dir(folder.join("usr/lib"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "so") {
            let name = path.strip_prefix(&folder)?;
            initramfs.executable(&format!("/{}", name.display()), read(&path)?);
        }
    }
    Ok(())
}
