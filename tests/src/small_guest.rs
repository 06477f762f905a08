//! The small guest: one initramfs with busybox, `ip`, kernel modules and whatever a test adds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifacts::cargo::{self, Profile};
use crate::artifacts::{self, Kernel};
use crate::command;
use crate::initramfs::Initramfs;
use crate::lab::Lab;
use crate::net::Host;
use crate::qemu::{HotPlug, Mac, NicModel};
use crate::vm::{GuestImage, Hardware, Vm};

const INIT: &str = include_str!("../guest/init.sh");

/// Modules loaded at boot: what the lab's own devices need.
const LOADED: [&str; 6] = [
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "e1000e",
    "igb",
    "igbvf",
];
/// Modules that are there for the kernel or a test to load.
const PRESENT: [&str; 9] = [
    "bonding",
    "net_failover",
    "8021q",
    "macvlan",
    "ipvlan",
    "vxlan",
    "dummy",
    "bridge",
    "veth",
];
/// Commands that busybox provides. `ip` is the real one: busybox's knows no bonds.
const APPLETS: &[&str] = &[
    "awk", "basename", "cat", "chmod", "cp", "cut", "date", "dd", "dirname", "dmesg", "echo",
    "env", "find", "free", "grep", "head", "hostname", "id", "insmod", "kill", "killall", "ln",
    "ls", "lsmod", "lspci", "mkdir", "mkfifo", "modprobe", "mount", "mv", "nc", "od", "ping",
    "pidof", "poweroff", "ps", "pwd", "readlink", "rm", "rmmod", "sed", "seq", "setsid", "sh",
    "sleep", "sort", "stat", "stty", "sync", "sysctl", "tail", "tee", "test", "timeout", "top",
    "touch", "tr", "true", "false", "umount", "uname", "uniq", "uptime", "usleep", "wc", "which",
    "xargs",
];
/// Emulated and on a busy machine; usually it takes about 10 s.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
const SILENCE_LIMIT: Duration = Duration::from_secs(90);

#[derive(Debug, Clone)]
enum Content {
    Program(PathBuf),
    File(PathBuf),
}

/// Describes a small guest; `boot` makes it.
#[derive(Debug, Clone)]
pub struct SmallGuest<'lab> {
    lab: &'lab Lab,
    kernel: Option<Kernel>,
    hardware: Hardware,
    contents: Vec<(String, Content)>,
    texts: Vec<(String, String)>,
    reusable: bool,
    loaded: Vec<String>,
    present: Vec<String>,
    kernel_parameters: Vec<String>,
}

impl<'lab> SmallGuest<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        Self {
            lab,
            kernel: None,
            hardware: Hardware::default(),
            contents: Vec::new(),
            texts: Vec::new(),
            reusable: true,
            loaded: LOADED.map(str::to_owned).to_vec(),
            present: PRESENT.map(str::to_owned).to_vec(),
            kernel_parameters: Vec::new(),
        }
    }

    /// Which Linux; unless called, what `LAB_KERNEL_VERSION` says, else 6.12.
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = Some(kernel);
        self
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

    /// Adds a program of this machine and the shared libraries it needs.
    pub fn program(mut self, host_path: &Path, path: &str) -> Self {
        self.contents
            .push((path.to_owned(), Content::Program(host_path.to_path_buf())));
        self
    }

    /// Adds a file of this machine.
    pub fn file(mut self, host_path: &Path, path: &str) -> Self {
        self.contents
            .push((path.to_owned(), Content::File(host_path.to_path_buf())));
        self
    }

    /// Adds a file with this text, which the lab's agent writes once the guest has booted.
    pub fn text(mut self, path: &str, text: &str) -> Self {
        self.texts.push((path.to_owned(), text.to_owned()));
        self
    }

    /// Boots in any case, and keeps no state: for a guest that no other is like.
    pub fn booted_anew(mut self) -> Self {
        self.reusable = false;
        self
    }

    /// Adds a kernel module (with those it needs) for the guest to load when it wants.
    pub fn module(mut self, name: &str) -> Self {
        self.present.push(name.to_owned());
        self
    }

    /// Leaves a kernel module out that is there otherwise.
    pub fn without_module(mut self, name: &str) -> Self {
        self.loaded.retain(|module| module != name);
        self.present.retain(|module| module != name);
        self
    }

    /// Adds a kernel parameter.
    pub fn kernel_parameter(mut self, parameter: &str) -> Self {
        self.kernel_parameters.push(parameter.to_owned());
        self
    }

    /// Virtual CPUs; unless called, two.
    pub fn cpus(mut self, cpus: u8) -> Self {
        self.hardware.cpus = cpus;
        self
    }

    /// Memory in MiB; unless called, 384.
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.hardware.memory_mib = memory_mib;
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

    /// Changes the hardware in ways that have no method of their own.
    pub fn hardware(mut self, change: impl FnOnce(&mut Hardware)) -> Self {
        change(&mut self.hardware);
        self
    }

    /// Builds the guest and boots it on a host.
    pub fn boot(self, host: &Host) -> Result<Vm> {
        let image = self.image()?;
        Vm::boot(self.lab, host, &image, &self.hardware)
    }

    /// Builds what the guest boots from.
    pub(crate) fn image(&self) -> Result<GuestImage> {
        let kernel = self
            .kernel
            .map_or_else(Kernel::from_environment, Ok)?
            .files()?;
        let mut initramfs = Initramfs::new();
        initramfs.program(&artifacts::busybox()?, "/bin/busybox")?;
        for applet in APPLETS {
            initramfs.link(&format!("/bin/{applet}"), "busybox");
        }
        // Not busybox's shell: it runs its own applets before anything in `PATH`, its `ip` for one.
        let shell = command::find_program("sh").context("this machine has no `sh`")?;
        initramfs.program(&shell, "/bin/sh")?;
        // The kernel calls this path when it wants a module (kernel.modprobe).
        initramfs.link("/sbin/modprobe", "/bin/busybox");
        let ip = command::find_program("ip").context("`ip` is not installed (iproute2)")?;
        initramfs.program(&ip, "/sbin/ip")?;
        let agent = cargo::program("tandem-lab", "lab-agent", Profile::Dev)?;
        initramfs.program(&agent, "/sbin/lab-agent")?;
        initramfs.executable("/init", INIT);
        for folder in ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/var/lib"] {
            initramfs.folder(folder);
        }
        initramfs.file(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        );
        initramfs.file("/etc/group", "root:x:0:\nnogroup:x:65534:\n");
        // As Debian's systemd does: the first bond is not made by loading the module.
        initramfs.file(
            "/etc/modprobe.d/bonding.conf",
            "options bonding max_bonds=0\n",
        );

        let wanted: Vec<String> = self.loaded.iter().chain(&self.present).cloned().collect();
        initramfs.modules(&kernel, &wanted)?;
        initramfs.file("/etc/lab-modules", self.loaded.join("\n"));
        for (path, content) in &self.contents {
            match content {
                Content::Program(host_path) => initramfs.program(host_path, path)?,
                Content::File(host_path) => {
                    let data = std::fs::read(host_path)
                        .with_context(|| format!("cannot read {}", host_path.display()))?;
                    initramfs.file(path, data);
                }
            }
        }
        let path = self.lab.inner().new_folder("image")?.join("initramfs");
        initramfs.write(&path)?;
        Ok(GuestImage {
            kernel: kernel.image,
            initramfs: path,
            kernel_parameters: self.kernel_parameters.clone(),
            drives: Vec::new(),
            texts: self.texts.clone(),
            reusable: self.reusable,
            boot_limit: BOOT_LIMIT,
            silence_limit: SILENCE_LIMIT,
        })
    }
}
